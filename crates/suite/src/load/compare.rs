//! `[[compare]]`: held against the tests of its file, so that a slip is found before anything runs.

use std::collections::BTreeSet;

use toml::Spanned;

use super::{Loader, Source, raw};
use crate::compare::{Better, Bound, Comparison, KERNEL, Limit};
use crate::nearest::hint;

impl Loader {
    /// Reads one comparison. Its file's tests have been read.
    pub(super) fn comparison(&mut self, source: &Source, compare: &Spanned<raw::Compare>) {
        let (place, raw, suite) = (source.place(compare), compare.get_ref(), source.suite());
        let tests = self.loaded.tests.iter().filter(|test| test.suite == suite);
        let cases: Vec<_> = tests.map(|test| test.case.clone()).collect();
        let variables: BTreeSet<&str> = cases.iter().flat_map(|case| case.keys().map(String::as_str)).collect();
        let values = |name: &str| -> BTreeSet<&str> {
            cases.iter().filter_map(|case| case.get(name).map(String::as_str)).collect()
        };
        let mut wrong: Vec<String> = Vec::new();
        for (key, name) in [("rows", &raw.rows), ("columns", &raw.columns)] {
            if name != KERNEL && !variables.contains(name.as_str()) {
                let known: Vec<&str> = variables.iter().copied().chain([KERNEL]).collect();
                wrong.push(format!(
                    "`{key} = \"{name}\"`: no case of this suite has such a variable{}",
                    hint(name, &known)
                ));
            }
        }
        let only: Vec<(&String, String)> = raw.only.iter().map(|(name, value)| (name, value.text())).collect();
        let baseline = raw.baseline.as_ref().map(raw::Scalar::text).unwrap_or_default();
        match (raw.columns == KERNEL, raw.baseline.is_some()) {
            (true, true) => wrong.push("kernels take no `baseline`: it is the first that --compare names".into()),
            (false, false) => wrong.push("`baseline` is missing: the column that others are held against".into()),
            _ => {}
        }
        let named = only.iter().map(|(name, value)| (name.as_str(), value, format!("where.{name}")));
        for (name, value, key) in
            named.chain(raw.baseline.iter().map(|_| (raw.columns.as_str(), &baseline, "baseline".to_string())))
        {
            wrong.extend(no_value(name, value, &key, &values(name)));
        }
        let better = match raw.better.as_deref() {
            None => Better::Neither,
            Some("lower") => Better::Lower,
            Some("higher") => Better::Higher,
            Some(other) => {
                wrong.push(format!("`better = \"{other}\"`: allowed are lower and higher"));
                Better::Neither
            }
        };
        let mut bounds = Vec::new();
        let mut wrong_bounds = Vec::new();
        for spanned in &raw.bounds {
            let (at, bound) = (source.place(spanned), spanned.get_ref());
            let (row, column) =
                (bound.row.as_ref().map(raw::Scalar::text), bound.column.as_ref().map(raw::Scalar::text));
            for (key, name, value) in [("row", &raw.rows, &row), ("column", &raw.columns, &column)] {
                let wrong = value.as_ref().and_then(|value| no_value(name, value, key, &values(name)));
                wrong_bounds.extend(wrong.map(|message| (at.clone(), message)));
            }
            match limits(bound, better) {
                Ok(limits) => bounds.extend(limits.into_iter().map(|limit| Bound {
                    place: at.clone(),
                    row: row.clone(),
                    column: column.clone(),
                    limit,
                })),
                Err(message) => wrong_bounds.push((at, message)),
            }
        }
        for message in wrong {
            self.problem(&place, message);
        }
        for (at, message) in wrong_bounds {
            self.problem(&at, message);
        }
        self.loaded.comparisons.push(Comparison {
            suite,
            place,
            title: raw.title.clone(),
            metric: raw.metric.clone(),
            only: only.into_iter().map(|(name, value)| (name.clone(), value)).collect(),
            rows: raw.rows.clone(),
            columns: raw.columns.clone(),
            baseline,
            better,
            bounds,
        });
    }
}

/// A value that no case has. Kernels are `lab.toml`'s to know, and an unknown variable was told of already.
fn no_value(name: &str, value: &str, key: &str, known: &BTreeSet<&str>) -> Option<String> {
    if name == KERNEL || known.contains(value) || (known.is_empty() && !key.starts_with("where.")) {
        return None;
    }
    // Nobody means 3 who writes 4.
    let near = match value.parse::<f64>() {
        Ok(_) => format!(" (known: {})", known.iter().copied().collect::<Vec<_>>().join(", ")),
        Err(_) => hint(value, &known.iter().copied().collect::<Vec<_>>()),
    };
    Some(format!("`{key} = {value}`: no case of this suite has `{name}` with that value{near}"))
}

fn limits(bound: &raw::Bound, better: Better) -> Result<Vec<Limit>, String> {
    let limits = [
        bound.gain_at_least.map(Limit::Gain),
        bound.differs_at_most.map(Limit::Difference),
        bound.at_least.map(Limit::AtLeast),
        bound.at_most.map(Limit::AtMost),
        bound.spread_at_most.map(Limit::Spread),
    ];
    let limits: Vec<Limit> = limits.into_iter().flatten().collect();
    if limits.is_empty() {
        let keys = "gain-at-least, differs-at-most, at-least, at-most or spread-at-most";
        return Err(format!("a bound needs {keys}, or it bounds nothing"));
    }
    if bound.gain_at_least.is_some() && better == Better::Neither {
        return Err("`gain-at-least` needs the comparison to say which way is `better`".into());
    }
    Ok(limits)
}
