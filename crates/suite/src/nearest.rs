//! "Did you mean": the known name that is nearest to one that is not.

/// ` (did you mean …?)`, or all known names when they are few, or nothing.
pub(crate) fn hint(wrong: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|&(distance, name)| distance <= 1 + wrong.len().max(name.len()) / 4)
        .min();
    match best {
        Some((_, name)) => format!(" (did you mean `{name}`?)"),
        None if known.is_empty() => String::new(),
        None if known.len() <= 16 => format!(" (known: {})", known.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn near_and_far() {
        assert_eq!(hint("perftset", &["rping", "perftest"]), " (did you mean `perftest`?)");
        assert_eq!(hint("x", &["rping", "perftest"]), " (known: rping, perftest)");
        assert_eq!(hint("x", &[]), "");
    }
}
