//! KTAP, the kernel's dialect of the Test Anything Protocol (Documentation/dev-tools/ktap.rst), as kselftests and
//! KUnit really print it.
//!
//! [`parse`] turns output into nested [`Results`]; [`Verdict::of`] weighs them against the exit status, which for
//! kselftests has a meaning of its own (tools/testing/selftests/kselftest.h): 0 pass, 1 fail, 2 xfail, 3 xpass,
//! 4 skip.

mod parse;

use crate::results::{Status, Subtest};

pub use parse::parse;

/// A block of results with one plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Results {
    /// Whether a `TAP version` or `KTAP version` line stood at its head.
    pub versioned: bool,
    /// `1..N`, and the reason when the plan says that everything is skipped.
    pub plan: Option<Plan>,
    /// Results in the order printed.
    pub cases: Vec<Case>,
    /// `Bail out!` and what follows it.
    pub bail_out: Option<String>,
    /// Nested results that never got a result line of their own: whoever printed them died.
    pub orphan: Option<Box<Results>>,
}

/// The plan of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many results were announced.
    pub count: usize,
    /// `1..0 # SKIP reason`.
    pub skip: Option<String>,
}

/// One result line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The number printed, if any.
    pub number: Option<usize>,
    /// The description.
    pub name: String,
    /// `ok` rather than `not ok`.
    pub ok: bool,
    /// What follows `#` on the line.
    pub directive: Option<Directive>,
    /// `# …` lines since the result before.
    pub diagnostics: Vec<String>,
    /// The results it sums up.
    pub nested: Option<Results>,
}

/// A directive of a result line, with its explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// `SKIP`.
    Skip(String),
    /// `TODO` and `XFAIL`: a failure is known.
    Xfail(String),
    /// `XPASS`: it passed though it was known to fail.
    Xpass(String),
    /// `TIMEOUT`.
    Timeout(String),
    /// `ERROR`.
    Error(String),
}

impl Case {
    /// How the line ended, nested results aside.
    pub fn status(&self) -> Status {
        match (&self.directive, self.ok) {
            (Some(Directive::Skip(_)), _) => Status::Skip,
            (Some(Directive::Xfail(_)), _) => Status::Xfail,
            (Some(Directive::Xpass(_)), _) => Status::Xpass,
            (Some(Directive::Timeout(_)), _) => Status::Timeout,
            (Some(Directive::Error(_)), _) => Status::Fail,
            (None, true) => Status::Pass,
            (None, false) => Status::Fail,
        }
    }

    fn explanation(&self) -> String {
        match &self.directive {
            Some(
                Directive::Skip(text)
                | Directive::Xfail(text)
                | Directive::Xpass(text)
                | Directive::Timeout(text)
                | Directive::Error(text),
            ) => text.clone(),
            None if self.ok => String::new(),
            // The Python tests print exceptions behind `Exception|`, and an empty line of those last.
            None => {
                let told = self.diagnostics.iter().rev().find(|line| !line.is_empty() && !line.ends_with('|'));
                told.cloned().unwrap_or_default()
            }
        }
    }
}

impl Results {
    /// Whether there is any KTAP in it.
    pub fn is_empty(&self) -> bool {
        *self == Results::default()
    }

    /// Every result, innermost ones under the names of those around them.
    pub fn subtests(&self) -> Vec<Subtest> {
        let mut list = Vec::new();
        self.collect("", &mut list);
        list
    }

    fn collect(&self, above: &str, list: &mut Vec<Subtest>) {
        for case in &self.cases {
            let name = if above.is_empty() { case.name.clone() } else { format!("{above} / {}", case.name) };
            match &case.nested {
                Some(nested) if !nested.cases.is_empty() => nested.collect(&name, list),
                _ => list.push(Subtest { name, status: case.status(), message: case.explanation() }),
            }
        }
        if let Some(orphan) = &self.orphan {
            orphan.collect(above, list);
        }
    }

    /// What is wrong with the output itself: plans not kept, numbers out of order, a result that contradicts its
    /// parts, a bail-out.
    pub fn problems(&self) -> Vec<String> {
        let mut list = Vec::new();
        self.check("", &mut list);
        list
    }

    fn check(&self, above: &str, list: &mut Vec<String>) {
        let place = if above.is_empty() { String::new() } else { format!("in `{above}`: ") };
        if let Some(reason) = &self.bail_out {
            list.push(format!("{place}bailed out: {reason}"));
        }
        match &self.plan {
            Some(plan) if plan.count != self.cases.len() => {
                list.push(format!("{place}planned {} results, got {}", plan.count, self.cases.len()));
            }
            None if self.versioned => list.push(format!("{place}no plan (a line `1..N`)")),
            _ => {}
        }
        for (at, case) in self.cases.iter().enumerate() {
            if let Some(number) = case.number
                && number != at + 1
            {
                list.push(format!("{place}result {} `{}` has the number {number}", at + 1, case.name));
                break;
            }
        }
        for case in &self.cases {
            let Some(nested) = &case.nested else { continue };
            nested.check(&case.name, list);
            let failed = nested.cases.iter().filter(|c| matches!(c.status(), Status::Fail | Status::Timeout)).count();
            if case.status() == Status::Pass && failed > 0 {
                list.push(format!("{place}`{}` is ok although {failed} of its parts are not", case.name));
            }
        }
        if let Some(orphan) = &self.orphan {
            list.push(format!("{place}nested results without a result line after them: cut short"));
            orphan.check(above, list);
        }
    }
}

/// What output and exit status say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Pass, fail, skip, xfail or xpass.
    pub status: Status,
    /// Why it is not a plain pass.
    pub message: String,
}

/// kselftest exit statuses (tools/testing/selftests/kselftest.h).
const KSFT_XFAIL: i32 = 2;
const KSFT_XPASS: i32 = 3;
const KSFT_SKIP: i32 = 4;

impl Verdict {
    /// Weighs a kselftest's KTAP and its exit status (128 + N for signal N). The worse of the two counts, and a
    /// broken output is a failure: results that never came must not read as a pass.
    pub fn of(results: &Results, exit: i32, output: &str) -> Verdict {
        let new = |status, message: String| Verdict { status, message };
        let subtests = results.subtests();
        let of = |status| subtests.iter().filter(|s| s.status == status).collect::<Vec<_>>();
        let failed: Vec<_> = of(Status::Fail).into_iter().chain(of(Status::Timeout)).collect();
        let skipped = of(Status::Skip);
        let skip_all = results.plan.as_ref().and_then(|plan| plan.skip.clone());
        if let Some(first) = failed.first() {
            let more = if failed.len() > 1 { format!(" and {} more", failed.len() - 1) } else { String::new() };
            let why = if first.message.is_empty() { String::new() } else { format!(": {}", first.message) };
            return new(
                Status::Fail,
                format!("{} of {} failed: {}{more}{why}", failed.len(), subtests.len(), first.name),
            );
        }
        if exit == KSFT_SKIP {
            let reason = skip_all.or_else(|| skipped.first().map(|s| s.message.clone())).or_else(|| skip_line(output));
            return new(Status::Skip, reason.unwrap_or_else(|| "it gave no reason (exit status 4)".into()));
        }
        if exit > 128 {
            return new(Status::Fail, format!("killed by signal {}{}", exit - 128, last_line(output)));
        }
        if ![0, KSFT_XFAIL, KSFT_XPASS].contains(&exit) {
            return new(Status::Fail, format!("exit status {exit}{}", last_line(output)));
        }
        if let Some(reason) = skip_all {
            return new(Status::Skip, reason);
        }
        if let Some(problem) = results.problems().first() {
            return new(Status::Fail, problem.clone());
        }
        if !subtests.is_empty() && skipped.len() == subtests.len() {
            return new(Status::Skip, format!("all {} parts skipped: {}", skipped.len(), skipped[0].message));
        }
        if exit == KSFT_XFAIL || !of(Status::Xfail).is_empty() && of(Status::Pass).is_empty() {
            return new(Status::Xfail, "the test itself says so".into());
        }
        if exit == KSFT_XPASS || !of(Status::Xpass).is_empty() {
            return new(Status::Xpass, "the test itself says so".into());
        }
        new(Status::Pass, String::new())
    }
}

/// `SKIP: reason`, as shell selftests print it.
fn skip_line(output: &str) -> Option<String> {
    let line = output.lines().rev().find(|line| line.to_ascii_uppercase().contains("SKIP"))?;
    let reason = line.trim_start_matches("# ").trim();
    Some(reason.strip_prefix("SKIP:").unwrap_or(reason).trim().to_string())
}

fn last_line(output: &str) -> String {
    match output.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim()),
        None => " and no output".into(),
    }
}
