//! Text → a tree of values that know where they stand.
//!
//! The parser recovers, so several slips are reported at once; it knows nothing of labs, so a name given twice is
//! told here in the file's terms, with the place of the first.

use toml::Spanned;
use toml::de::{DeTable, Error};

use crate::errors::Diag;
use crate::source::Span;

/// A table whose keys and values carry their spans.
pub(crate) type Tree<'t> = Spanned<DeTable<'t>>;

/// Parses all of `text`.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, Vec<Diag>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(tree);
    }
    Err(errors.iter().map(|error| told(text, error)).collect())
}

fn told(text: &str, error: &Error) -> Diag {
    let span = error.span().unwrap_or(0..0);
    if error.message() == "duplicate key" {
        return duplicate(text, span);
    }
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
    let diag = Diag::new(span, format!("not TOML: {what}"));
    if expected.is_empty() { diag } else { diag.allowed(expected) }
}

fn duplicate(text: &str, span: Span) -> Diag {
    let line_start = text[..span.start].rfind('\n').map_or(0, |n| n + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    if let Some(header) = header(line) {
        let diag = Diag::new(span, format!("[{header}] is given twice"))
            .note("join the two, or rename one; further entries of an array of tables are written [[…]]");
        let first = places(&text[..line_start]).find(|(_, line)| self::header(line).is_some_and(|h| h == header));
        return match first {
            Some((at, line)) => diag.place("first given at", at..at + line.len()),
            None => diag,
        };
    }
    let name = &text[span.clone()];
    let diag = Diag::new(span, format!("`{name}` is given twice")).note("a key has one value; remove one of the two");
    // Only lines below the last header belong to the same table.
    let section = places(&text[..line_start]).filter(|(_, l)| header(l).is_some()).last().map_or(0, |(at, _)| at);
    let first = places(&text[section..line_start])
        .find(|(_, line)| line.split(['=', '.']).next().is_some_and(|key| key.trim() == name));
    match first {
        Some((at, line)) => diag.place("first given at", section + at..section + at + line.len()),
        None => diag,
    }
}

/// Lines with the offset of their first character that is no blank.
fn places(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_inclusive('\n').scan(0, |offset, line| {
        let start = *offset + (line.len() - line.trim_start().len());
        *offset += line.len();
        Some((start, line.trim()))
    })
}

/// `guest.a` of `[ guest . a ]`; arrays of tables are none.
fn header(line: &str) -> Option<String> {
    let inner = line.trim().strip_prefix('[')?.split(']').next()?;
    (!inner.starts_with('[')).then(|| inner.split('.').map(str::trim).collect::<Vec<_>>().join("."))
}
