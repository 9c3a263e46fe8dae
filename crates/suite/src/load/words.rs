//! Small texts of a suite file: command lines and durations.

use std::time::Duration;

/// Splits a command line at blanks. `'…'` and `"…"` keep blanks and may be empty; nothing else is special: no
/// variables, no escapes, no wildcards, since no shell is involved.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some(inner) => word.push(inner),
                        None => return Err(format!("quote {c} is never closed in: {line}")),
                    }
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() { Err("the command line is empty".into()) } else { Ok(words) }
}

/// `500ms`, `20s`, `3m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong =
        || format!("`{text}` is not a duration: write a whole number and `ms`, `s` or `m`, as in `500ms` or `20s`");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let millis = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    match millis.ok_or_else(wrong)? {
        0 => Err(format!("`{text}` is no time at all")),
        millis if millis > 24 * 3_600_000 => Err(format!("`{text}` is more than a day")),
        millis => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        for (line, words) in [
            ("ip netns add left", vec!["ip", "netns", "add", "left"]),
            ("  a\tb  ", vec!["a", "b"]),
            ("sh -c 'echo \"a b\"'", vec!["sh", "-c", "echo \"a b\""]),
            ("a\"b c\"d ''", vec!["ab cd", ""]),
            (r"grep \.ko$", vec!["grep", r"\.ko$"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        assert!(split("echo 'a").unwrap_err().contains("never closed"));
        assert!(split("  ").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("20s").unwrap(), Duration::from_secs(20));
        assert_eq!(duration("3m").unwrap(), Duration::from_secs(180));
        for bad in ["", "s", "20", "1h", "-1s", "1.5s", "0s", "99999999999999999999s", "400000m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
