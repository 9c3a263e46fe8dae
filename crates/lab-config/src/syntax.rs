//! Text → a tree of values that know where they stand.
//!
//! The parser recovers, so several slips are reported at once; it knows nothing of labs, so a name given twice is
//! told here in the file's terms, with the place of the first.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, Error};

use crate::errors::Diag;
use crate::source::Span;

/// A table whose keys and values carry their spans.
pub(crate) type Tree<'t> = Spanned<DeTable<'t>>;

/// Parses all of `text`. Of several slips on one line the first is told; the others mostly follow from it.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, Vec<Diag>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(tree);
    }
    let mut lines = BTreeSet::new();
    let start = |error: &&Error| error.span().map_or(0, |span| line_start(text, span.start));
    Err(errors.iter().filter(|error| lines.insert(start(error))).map(|error| told(text, error)).collect())
}

const VALUES: &str = "a string in quotes, a number, true or false, an array [...] or a table {...}";

fn told(text: &str, error: &Error) -> Diag {
    let span = error.span().unwrap_or(0..0);
    let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), "nothing"));
    match what {
        "duplicate key" => duplicate(text, span),
        "string values must be quoted" if text[span.clone()].trim().is_empty() => {
            Diag::new(span, "not TOML: there is no value").allowed(VALUES)
        }
        "string values must be quoted" => {
            let quoted = format!("\"{}\"", &text[span.clone()]);
            Diag::new(span, "not TOML: a string without quotes").meant(Some(quoted)).allowed(VALUES)
        }
        "invalid basic string" | "invalid literal string" if text[span.end..].starts_with(['\r', '\n']) => {
            Diag::new(span, "not TOML: the string is not closed").allowed(expected)
        }
        _ => {
            let diag = Diag::new(span, format!("not TOML: {what}"));
            if expected == "nothing" { diag } else { diag.allowed(expected) }
        }
    }
}

fn duplicate(text: &str, span: Span) -> Diag {
    let start = line_start(text, span.start);
    let above = &text[..start];
    let line = text[start..].lines().next().unwrap_or("");
    if let Some(table) = header(line) {
        let indent = line.len() - line.trim_start().len();
        let diag = Diag::new(start + indent..start + line.len(), format!("[{table}] is given twice"))
            .note("join the two, or rename one");
        let first = places(above).find(|(_, line)| header(line).is_some_and(|h| h == table));
        return match first {
            Some((at, line)) => diag.place("first given at", at..at + line.len()),
            None => diag,
        };
    }
    let name = &text[span.clone()];
    let diag = Diag::new(span.clone(), format!("`{name}` is given twice")).note("remove one of the two");
    // Only lines below the last header belong to the same table, and in an inline table only what is before on the line.
    let section = places(above).filter(|(_, l)| l.starts_with('[')).last().map_or(0, |(at, _)| at);
    let is_key = |line: &str| line.split(['=', '.']).next().is_some_and(|key| key.trim() == name);
    let within = text[start..span.start].rfind(['{', ',']).and_then(|_| {
        let open = start + text[start..span.start].rfind('{')?;
        text[open..span.start].match_indices(name).map(|(at, _)| open + at).find(|at| is_key(&text[*at..]))
    });
    let first =
        within.or_else(|| places(&text[section..start]).find(|(_, line)| is_key(line)).map(|(at, _)| section + at));
    match first {
        Some(at) => diag.place("first given at", at..at + name.len()),
        None => diag,
    }
}

fn line_start(text: &str, offset: usize) -> usize {
    text[..offset].rfind('\n').map_or(0, |n| n + 1)
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
