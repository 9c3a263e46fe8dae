//! What is wrong with a `lab.toml`, told so that it can be put right.
//!
//! Every step collects [`Diag`]s (a span and sentences); [`ConfigErrors`] turns them into positions and excerpts once
//! the text is at hand. All mistakes of a step are reported, not only the first.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::source::{Source, Span};

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file or a folder beside it cannot be read.
    #[error("cannot read {}: {source}{}", .path.display(), hint(.source))]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file does not declare the profile that was asked for.
    #[error("no profile `{name}` in {file}; {}{}", there_is(.allowed), did_you_mean(.nearest.as_deref()))]
    UnknownProfile {
        /// The file.
        file: String,
        /// The name that was asked for.
        name: String,
        /// The profiles there are.
        allowed: Vec<String>,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// The file is wrong; at least one error, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<ConfigError>),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => " (run from the project's folder, or name the file)",
        _ => "",
    }
}

/// `there is a, b` or `there is none`.
pub(crate) fn there_is(names: &[String]) -> String {
    if names.is_empty() { "there is none".into() } else { format!("there is {}", names.join(", ")) }
}

/// ` (did you mean …?)` or nothing.
pub(crate) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}

/// One mistake, with its place. `Display` shows place and message, the line itself with a caret, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub meant: Option<String>,
    /// What would be right.
    pub allowed: Option<String>,
    /// Anything else that helps, for instance where the other of two conflicting values stands.
    pub notes: Vec<String>,
    /// The line in question.
    pub excerpt: String,
    /// Blanks and carets that go below it.
    pub underline: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{}", format!("{number} | {}", self.excerpt).trim_end())?;
        writeln!(f, "{gutter} | {}", self.underline)?;
        if let Some(meant) = &self.meant {
            writeln!(f, "{gutter} = did you mean `{meant}`?")?;
        }
        if let Some(allowed) = &self.allowed {
            writeln!(f, "{gutter} = allowed: {allowed}")?;
        }
        for note in &self.notes {
            writeln!(f, "{gutter} = {note}")?;
        }
        Ok(())
    }
}

/// One mistake at a span of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diag {
    span: Span,
    message: String,
    meant: Option<String>,
    allowed: Option<String>,
    notes: Vec<Note>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Note {
    Text(String),
    /// A phrase about another place, which completes it.
    Place(String, Span),
}

impl Diag {
    /// `message` is wrong at `span`.
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Diag { span, message: message.into(), meant: None, allowed: None, notes: Vec::new() }
    }

    /// What was probably meant, if anything.
    pub(crate) fn meant(mut self, meant: Option<impl Into<String>>) -> Self {
        self.meant = meant.map(Into::into);
        self
    }

    /// What would be right.
    pub(crate) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Another sentence.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(Note::Text(note.into()));
        self
    }

    /// A phrase that ends in the position of `span`: "first given at", "the CPUs are set at".
    pub(crate) fn place(mut self, phrase: impl Into<String>, span: Span) -> Self {
        self.notes.push(Note::Place(phrase.into(), span));
        self
    }

    fn placed(self, source: &Source<'_>) -> ConfigError {
        let position = source.position(self.span.start);
        let note = |note| match note {
            Note::Text(text) => text,
            Note::Place(phrase, span) => {
                let at = source.position(span.start);
                format!("{phrase} {}:{}:{}", source.name, at.line, at.column)
            }
        };
        ConfigError {
            file: source.name.to_owned(),
            line: position.line,
            column: position.column,
            message: self.message,
            meant: self.meant,
            allowed: self.allowed,
            notes: self.notes.into_iter().map(note).collect(),
            excerpt: source.line(self.span.start).to_owned(),
            underline: source.underline(&self.span),
        }
    }
}

impl ConfigErrors {
    /// Gives every mistake its place, in the order of the text; of several at one span the first stays.
    pub(crate) fn placed(mut diags: Vec<Diag>, source: &Source<'_>) -> Self {
        diags.sort_by_key(|d| d.span.start);
        diags.dedup_by(|later, first| later.span == first.span);
        ConfigErrors::Invalid(diags.into_iter().map(|d| d.placed(source)).collect())
    }
}
