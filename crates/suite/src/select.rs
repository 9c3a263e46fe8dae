//! Which tests to run.

use std::collections::BTreeSet;

use crate::model::Test;
use crate::nearest;

/// A filter matches no test, or a suite does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No test has a name that matches.
    #[error("no test matches `{filter}`{hint}")]
    NoMatch {
        /// The filter.
        filter: String,
        /// The nearest name, if any is near.
        hint: String,
    },
    /// `lab.toml` names a suite that has no file.
    #[error("there is no suite `{suite}`{hint}")]
    NoSuite {
        /// The suite.
        suite: String,
        /// The nearest name, if any is near.
        hint: String,
    },
}

/// The tests of some suites, in the order of `suites`.
pub fn suites(tests: &[Test], suites: &[String]) -> Result<Vec<Test>, SelectError> {
    let mut chosen = Vec::new();
    for suite in suites {
        let before = chosen.len();
        chosen.extend(tests.iter().filter(|test| test.suite == *suite).cloned());
        if chosen.len() == before {
            let known: BTreeSet<&str> = tests.iter().map(|test| test.suite.as_str()).collect();
            let hint = nearest::hint(suite, &known.into_iter().collect::<Vec<_>>());
            return Err(SelectError::NoSuite { suite: suite.clone(), hint });
        }
    }
    Ok(chosen)
}

/// The tests that match any of `filters`; all when there are none. A filter is a suite, else a test's name or `SUITE/NAME`,
/// where `*` stands for any text; what is none of these is a part of a name. No name holds a dot, so one may stand for
/// the `-` in a suite's name or for the `/` after it: `rxe.latency`, `rdma.rping-netkit-v4`. Each filter must match
/// something.
pub fn select(tests: &[Test], filters: &[String]) -> Result<Vec<Test>, SelectError> {
    let mut patterns = Vec::new();
    for filter in filters {
        // A test of another suite may bear a suite's name.
        if tests.iter().any(|test| test.suite == *filter) {
            patterns.push(format!("{filter}/*"));
            continue;
        }
        let candidates =
            [filter.clone(), filter.replace('.', "-"), filter.replacen('.', "/", 1), format!("*{filter}*")];
        if let Some(pattern) = candidates.into_iter().find(|p| tests.iter().any(|test| matches(test, p))) {
            patterns.push(pattern);
        } else {
            let names: Vec<String> =
                tests.iter().flat_map(|t| [t.full_name(), t.name.clone(), t.suite.clone()]).collect();
            let known: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            let known: Vec<&str> = known.into_iter().collect();
            return Err(SelectError::NoMatch { filter: filter.clone(), hint: nearest::hint(filter, &known) });
        }
    }
    let wanted = |test: &&Test| patterns.is_empty() || patterns.iter().any(|pattern| matches(test, pattern));
    Ok(tests.iter().filter(wanted).cloned().collect())
}

fn matches(test: &Test, filter: &str) -> bool {
    glob(filter, &test.suite) || glob(filter, &test.name) || glob(filter, &test.full_name())
}

/// Whether a pattern with `*` covers the whole text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => match text.strip_prefix(head) {
            None => false,
            Some(tail) => (0..=tail.len()).filter(|at| tail.is_char_boundary(*at)).any(|at| glob(rest, &tail[at..])),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests() -> Vec<Test> {
        let text = |names: &[&str]| {
            let one =
                |n: &&str| format!("[[test]]\nname = \"{n}\"\nsummary = \"s\"\nsteps = [{{ exec = \"true\" }}]\n");
            names.iter().map(one).collect::<String>()
        };
        let files = [
            ("rdma.toml".into(), text(&["rping-v4", "rping-v6"])),
            ("rxe-latency.toml".into(), text(&["lat"])),
            ("smoke.toml".into(), text(&["boots", "rdma"])),
        ];
        crate::load_texts(&files).unwrap().tests
    }

    #[test]
    fn filters() {
        for (filter, expected) in [
            ("rdma", vec!["rdma/rping-v4", "rdma/rping-v6"]),
            ("rping-v6", vec!["rdma/rping-v6"]),
            ("smoke/rdma", vec!["smoke/rdma"]),
            ("rdma/*v4", vec!["rdma/rping-v4"]),
            ("*oo*", vec!["smoke/boots"]),
            ("ping", vec!["rdma/rping-v4", "rdma/rping-v6"]),
            ("rdma/rping-v", vec!["rdma/rping-v4", "rdma/rping-v6"]),
            ("rdma.rping-v6", vec!["rdma/rping-v6"]),
            ("rxe.latency", vec!["rxe-latency/lat"]),
            ("rxe.*", vec!["rxe-latency/lat"]),
        ] {
            let chosen = select(&tests(), &[filter.into()]).unwrap();
            assert_eq!(chosen.iter().map(Test::full_name).collect::<Vec<_>>(), expected, "{filter}");
        }
        assert_eq!(select(&tests(), &[]).unwrap().len(), 5);
        let wrong = select(&tests(), &["rping-v5".into()]).unwrap_err().to_string();
        assert!(wrong.starts_with("no test matches `rping-v5` (did you mean `rping-v"), "{wrong}");
    }

    #[test]
    fn suites_keep_the_order_asked_for() {
        let chosen = suites(&tests(), &["smoke".into(), "rdma".into()]).unwrap();
        assert_eq!(chosen[0].full_name(), "smoke/boots");
        let wrong = suites(&tests(), &["rmda".into()]).unwrap_err().to_string();
        assert_eq!(wrong, "there is no suite `rmda` (did you mean `rdma`?)");
    }
}
