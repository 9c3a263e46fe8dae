//! Lines → nested [`Results`].
//!
//! Nesting is told in two ways: by indentation (KUnit, by four blanks; kselftest harnesses by two) and by `# ` before
//! every line (the kselftest runner). Nested lines come *before* the result line that sums them up, so they are
//! collected, with their margin cut off, until that line appears, and then parsed as a block of their own. Everything
//! that is no KTAP is passed over: kernel messages and the tool's own chatter may stand anywhere between.

use super::{Case, Directive, Plan, Results};

/// Reads output that may hold KTAP.
pub fn parse(output: &str) -> Results {
    let lines: Vec<&str> = output.lines().map(strip_timestamp).collect();
    block(&lines)
}

/// Kernel messages carry `[   12.345678] ` before the text.
fn strip_timestamp(line: &str) -> &str {
    let inner = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    match inner {
        Some((stamp, rest)) if stamp.trim().parse::<f64>().is_ok() => rest,
        _ => line,
    }
}

fn block(lines: &[&str]) -> Results {
    let mut results = Results::default();
    let mut nested: Vec<&str> = Vec::new();
    let mut diagnostics: Vec<String> = Vec::new();
    // The margin of the nested block that is being collected.
    let mut margin: Option<&str> = None;
    for &line in lines {
        if let Some(inner) = margin.and_then(|margin| line.strip_prefix(margin)) {
            nested.push(inner);
            continue;
        }
        if let Some(begun) = nested_start(line) {
            margin = Some(&line[..begun]);
            nested.push(&line[begun..]);
            continue;
        }
        if is_version(line) {
            results.versioned = true;
        } else if let Some(plan) = plan(line) {
            // A second plan on the same level is noise, for instance of a script that runs other scripts.
            results.plan.get_or_insert(plan);
        } else if let Some(mut case) = case(line) {
            case.diagnostics.splice(0..0, std::mem::take(&mut diagnostics));
            margin = None;
            case.nested = nested_block(&std::mem::take(&mut nested));
            results.cases.push(case);
        } else if let Some(reason) = line.strip_prefix("Bail out!") {
            results.bail_out = Some(reason.trim().to_string());
        } else if let Some(text) = line.strip_prefix('#') {
            diagnostics.push(text.trim().to_string());
        }
    }
    results.orphan = nested_block(&nested).map(Box::new);
    results
}

fn nested_block(lines: &[&str]) -> Option<Results> {
    if lines.is_empty() { None } else { Some(block(lines)).filter(|nested| !nested.is_empty()) }
}

/// Where a nested block's text begins on its first line, if this is one: a margin and then a version, a plan or, with
/// a margin of blanks, a result. (A lone `# ok …` is a remark.)
fn nested_start(line: &str) -> Option<usize> {
    let (begun, blanks) = match line.strip_prefix("# ") {
        Some(rest) => (2 + rest.len() - rest.trim_start_matches(' ').len(), false),
        None => (line.len() - line.trim_start_matches(' ').len(), true),
    };
    let rest = &line[begun..];
    let starts = is_version(rest) || plan(rest).is_some() || (blanks && case(rest).is_some());
    (begun >= 2 && starts).then_some(begun)
}

fn is_version(line: &str) -> bool {
    line.starts_with("TAP version ") || line.starts_with("KTAP version ")
}

/// `1..3`, `1..0 # SKIP reason`.
fn plan(line: &str) -> Option<Plan> {
    let rest = line.strip_prefix("1..")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let count = rest[..digits].parse().ok()?;
    let tail = rest[digits..].trim();
    if tail.is_empty() {
        return Some(Plan { count, skip: None });
    }
    let remark = tail.strip_prefix('#')?.trim();
    let skip = strip_word(remark, "SKIP").filter(|_| count == 0).map(clean);
    Some(Plan { count, skip })
}

/// `ok 1 name`, `not ok 2 - name # SKIP reason`.
fn case(line: &str) -> Option<Case> {
    let (ok, rest) = match (line.strip_prefix("ok"), line.strip_prefix("not ok")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let ends = rest[digits..].is_empty() || rest[digits..].starts_with([' ', '\t']);
    let number = if ends { rest[..digits].parse().ok() } else { None };
    // `ok` alone, or followed by something that is no number, is a word of somebody's prose.
    number?;
    let rest = rest[digits..].trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = split_directive(rest);
    // The kselftest runner's remark on a failure: `# exit=1`.
    let (name, remark) = match name.rsplit_once(" # exit=") {
        Some((name, status)) if !ok => (name, vec![format!("exit={status}")]),
        _ => (name, Vec::new()),
    };
    Some(Case { number, name: name.trim().to_string(), ok, directive, diagnostics: remark, nested: None })
}

/// The directive is what follows the last ` # ` (or a leading `# `) when it begins with a known word; any other `#`
/// belongs to the name.
fn split_directive(text: &str) -> (&str, Option<Directive>) {
    for (at, _) in text.rmatch_indices('#') {
        let before = &text[..at];
        if !before.is_empty() && !before.ends_with(' ') {
            continue;
        }
        if let Some(directive) = directive(text[at + 1..].trim()) {
            return (before, Some(directive));
        }
    }
    (text, None)
}

fn directive(text: &str) -> Option<Directive> {
    let (word, make): (&str, fn(String) -> Directive) = [
        ("SKIP", Directive::Skip as fn(String) -> Directive),
        ("TODO", Directive::Xfail),
        ("XFAIL", Directive::Xfail),
        ("XPASS", Directive::Xpass),
        ("TIMEOUT", Directive::Timeout),
        ("ERROR", Directive::Error),
    ]
    .into_iter()
    .find(|(word, _)| strip_word(text, word).is_some())?;
    strip_word(text, word).map(|rest| make(clean(rest)))
}

/// The text after `word`, whatever its case, when it stands as a word of its own.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    (head.eq_ignore_ascii_case(word) && !rest.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(rest)
}

fn clean(text: &str) -> String {
    text.trim_start_matches([':', ' ', '-']).trim_end().to_string()
}
