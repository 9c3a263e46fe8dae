//! `suites/*.toml` → [`Test`]s.
//!
//! Every mistake in every file is found before anything runs, each with its file and line. Set-ups are known across
//! files; a test's `cases`, or the fields of its `matrix`, become tests of their own. The result is sorted by file name and keeps a file's order.

mod cases;
mod compare;
mod needs;
mod raw;
mod step;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::compare::Comparison;
use crate::model::{Action, Block, Expected, Place, Step, Test};
use crate::nearest::hint;
use crate::vars::Vars;
use step::{Context, is_name};

/// How long a test may take when nothing says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// The mistakes in the suite files; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// Each mistake, in the order of files and lines.
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {}", problem.place, problem.message)?;
        }
        Ok(())
    }
}

/// What the suite files declare.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Suites {
    /// The tests.
    pub tests: Vec<Test>,
    /// How numbers of theirs are put side by side.
    pub comparisons: Vec<Comparison>,
}

/// Reads every `*.toml` of a directory.
pub fn load(dir: &Path) -> Result<Suites, LoadError> {
    let at = |message: String| LoadError { problems: vec![Problem { place: place(dir, 0), message }] };
    let entries = fs::read_dir(dir).map_err(|e| at(format!("the directory of suites cannot be read: {e}")))?;
    let mut paths = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|e| at(format!("the directory of suites cannot be read: {e}")))?.path();
        if path.extension().is_some_and(|ext| ext == "toml") {
            paths.insert(path);
        }
    }
    let mut files = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|e| at(format!("{}: {e}", path.display())))?;
        files.push((path, text));
    }
    load_texts(&files)
}

/// As [`load`], from texts already read: file name and content.
pub fn load_texts(files: &[(PathBuf, String)]) -> Result<Suites, LoadError> {
    let mut loader = Loader::default();
    let mut parsed = Vec::new();
    for (path, text) in files {
        match toml::from_str::<raw::File>(text) {
            Ok(file) => parsed.push((Source::new(path, text), file)),
            Err(e) => {
                let line = e.span().map_or(0, |span| line_of(text, span.start));
                loader.problems.push(Problem { place: place(path, line), message: unknown_key(e.message()) });
            }
        }
    }
    let mut setups = BTreeMap::new();
    for (source, file) in &parsed {
        for (name, setup) in &file.setup {
            let place = source.place(setup);
            if let Some((_, _, first)) = setups.insert(name.as_str(), (source, setup.get_ref(), place.clone())) {
                loader.problem(&place, format!("set-up `{name}` is already declared at {first}"));
            }
        }
    }
    for (source, file) in &parsed {
        for test in &file.test {
            loader.test(source, file, test, &setups);
        }
        for compare in &file.compare {
            loader.comparison(source, compare);
        }
    }
    loader.finish()
}

fn place(file: &Path, line: usize) -> Place {
    Place { file: file.to_path_buf(), line }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&b| b == b'\n').count()
}

/// serde's "unknown field `x`, expected one of `a`, `b`" with the nearest name picked out; other messages as they are.
fn unknown_key(message: &str) -> String {
    let Some((wrong, known)) = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once("`, expected "))
        .map(|(wrong, rest)| (wrong, rest.split('`').skip(1).step_by(2).collect::<Vec<_>>()))
    else {
        return message.to_string();
    };
    let near = hint(wrong, &known);
    let near = if near.is_empty() { format!(" (known: {})", known.join(", ")) } else { near };
    format!("unknown key `{wrong}`{near}")
}

/// A file and where its lines end, to turn spans into lines: asked for every step of every case.
struct Source<'a> {
    path: &'a Path,
    ends: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(path: &'a Path, text: &str) -> Self {
        Source { path, ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn place<T>(&self, item: &Spanned<T>) -> Place {
        place(self.path, 1 + self.ends.partition_point(|end| *end < item.span().start))
    }

    fn suite(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

type Setups<'a> = BTreeMap<&'a str, (&'a Source<'a>, &'a raw::Setup, Place)>;

#[derive(Default)]
struct Loader {
    loaded: Suites,
    problems: Vec<Problem>,
}

impl Loader {
    fn problem(&mut self, place: &Place, message: impl Into<String>) {
        let problem = Problem { place: place.clone(), message: message.into() };
        // Cases share their steps: say each thing once.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn finish(mut self) -> Result<Suites, LoadError> {
        self.problems.sort_by(|a, b| (&a.place.file, a.place.line).cmp(&(&b.place.file, b.place.line)));
        if self.problems.is_empty() { Ok(self.loaded) } else { Err(LoadError { problems: self.problems }) }
    }

    fn check<T>(&mut self, place: &Place, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(place, message)).ok()
    }

    fn test(&mut self, source: &Source, file: &raw::File, test: &Spanned<raw::Test>, setups: &Setups) {
        for (at, case) in self.cases(source, test) {
            self.case(source, file, test, (&at, &case), setups);
        }
    }

    fn case(
        &mut self,
        source: &Source,
        file: &raw::File,
        test: &Spanned<raw::Test>,
        (at, case): (&Place, &raw::Case),
        setups: &Setups,
    ) {
        let place = source.place(test);
        let raw = test.get_ref();
        let no_suite = raw::Suite::default();
        let suite = file.suite.as_ref().unwrap_or(&no_suite);
        let roles = if raw.guests.is_empty() { vec!["a".to_string()] } else { raw.guests.clone() };
        let mut vars = Vars::new(roles.clone());
        for (name, value) in raw.vars.iter().chain(case) {
            vars.set(name, value.text());
        }
        let order = self.setup_order(&place, &raw.setup, setups);
        for (_, setup, _) in order.iter().map(|name| &setups[name.as_str()]) {
            for (name, value) in &setup.vars {
                vars.set_default(name, value.text());
            }
        }

        let filled = vars.fill(&raw.name);
        let Some(name) = self.check(&place, filled) else { return };
        if !is_name(&name) {
            self.problem(&place, format!("`name = \"{name}\"`: only letters, digits, `-` and `_` are allowed"));
        }
        let suite_name = source.suite();
        if let Some(other) = self.loaded.tests.iter().find(|t| t.suite == suite_name && t.name == name) {
            let first = other.place.clone();
            self.problem(at, format!("test `{name}` is already declared at {first}"));
        }

        let mut requires = BTreeSet::new();
        let of_setups = order.iter().flat_map(|name| &setups[name.as_str()].1.requires);
        for text in suite.requires.iter().chain(of_setups).chain(&raw.requires) {
            // What is empty once its variables are filled in is a case that needs nothing.
            let filled = vars.fill(text).and_then(|filled| match filled.is_empty() {
                true if text.contains('{') => Ok(None),
                _ => needs::declared(&filled, &roles).map(Some),
            });
            requires.extend(self.check(at, filled).flatten());
        }

        let mut context = Context { vars: &mut vars, roles: &roles };
        let mut blocks = Vec::new();
        for name in &order {
            let (source, setup, _) = &setups[name.as_str()];
            blocks.push(self.block(source, name, &setup.steps, &setup.cleanup, &mut context));
        }
        if raw.steps.is_empty() {
            self.problem(&place, format!("test `{name}` has no steps"));
        }
        let body = self.block(source, "", &raw.steps, &raw.cleanup, &mut context);
        self.labels(&blocks, &body);
        let steps = blocks.iter().chain([&body]).flat_map(|block| block.steps.iter().chain(&block.cleanup));
        requires.extend(steps.flat_map(needs::implied));

        let timeout = raw.timeout.as_ref().or(suite.timeout.as_ref()).map(|text| words::duration(text));
        let timeout = timeout.and_then(|t| self.check(&place, t)).unwrap_or(DEFAULT_TIMEOUT);
        let mut expect = BTreeMap::new();
        for (kernel, outcome) in &raw.expect {
            let outcome = match outcome.as_str() {
                "fail" => Ok(Expected::Fail),
                "timeout" => Ok(Expected::Timeout),
                "crash" => Ok(Expected::Crash),
                other => Err(format!("`expect.{kernel} = \"{other}\"`: allowed are fail, timeout and crash")),
            };
            expect.extend(self.check(&place, outcome).map(|outcome| (kernel.clone(), outcome)));
        }
        if let Some(at) = &raw.expect_at
            && !body.steps.iter().any(|step| step.label == *at)
        {
            let labels: Vec<&str> = body.steps.iter().map(|step| step.label.as_str()).collect();
            self.problem(&place, format!("`expect-at = \"{at}\"`: the test has no such step{}", hint(at, &labels)));
        }
        if !raw.expect.is_empty() && raw.because.is_empty() {
            self.problem(&place, "`expect` needs `because`: one sentence why it is known to fail");
        }
        let (summary, because) = (vars.fill(&raw.summary), vars.fill(&raw.because));
        let summary = self.check(&place, summary).unwrap_or_default();
        let because = self.check(&place, because).unwrap_or_default();
        for name in raw.vars.keys().chain(case.keys()).filter(|name| !vars.was_used(name)) {
            self.problem(&place, format!("variable `{name}` is never used"));
        }
        let leaves = suite.leaves.iter().chain(&raw.leaves).cloned().collect::<Vec<_>>();
        if let Some(wrong) = leaves.iter().find(|pattern| !pattern.contains(':')) {
            self.problem(&place, format!("`leaves = [\"{wrong}\"]`: write KIND:NAME, for instance `module:*`"));
        }
        self.loaded.tests.push(Test {
            suite: suite_name,
            name,
            summary,
            place,
            case: case.iter().map(|(name, value)| (name.clone(), value.text())).collect(),
            profile: suite.profile.clone(),
            needs_network: vars.uses_nic(),
            roles,
            requires: requires.into_iter().collect(),
            timeout,
            expect,
            expect_at: raw.expect_at.clone(),
            because,
            strict: raw.strict,
            leaves,
            setups: blocks,
            body,
        });
    }

    /// Names of the set-ups a test needs, those that others build on first.
    fn setup_order(&mut self, at: &Place, names: &[String], setups: &Setups) -> Vec<String> {
        fn visit(name: &str, setups: &Setups, path: &mut Vec<String>, order: &mut Vec<String>) -> Result<(), String> {
            if path.iter().any(|above| above == name) {
                return Err(format!("set-ups go round in a circle: {} -> {name}", path.join(" -> ")));
            }
            let Some((_, setup, _)) = setups.get(name) else {
                let known: Vec<&str> = setups.keys().copied().collect();
                return Err(format!("unknown set-up `{name}`{}", hint(name, &known)));
            };
            path.push(name.to_string());
            for below in &setup.setup {
                visit(below, setups, path, order)?;
            }
            path.pop();
            if !order.iter().any(|known| known == name) {
                order.push(name.to_string());
            }
            Ok(())
        }
        let mut order = Vec::new();
        for name in names {
            let visited = visit(name, setups, &mut Vec::new(), &mut order);
            self.check(at, visited);
        }
        order
    }

    fn block(
        &mut self,
        source: &Source,
        name: &str,
        steps: &[Spanned<raw::Step>],
        cleanup: &[Spanned<raw::Step>],
        context: &mut Context,
    ) -> Block {
        let mut list = |steps: &[Spanned<raw::Step>], kind: &str| -> Vec<Step> {
            let mut out = Vec::new();
            for (n, step) in steps.iter().enumerate() {
                let place = source.place(step);
                let read = context.step(step.get_ref(), place.clone(), n + 1);
                let Some(mut read) = self.check(&place, read) else { continue };
                if step.get_ref().label.is_none() {
                    let prefix =
                        [name, kind].iter().filter(|p| !p.is_empty()).map(|p| format!("{p}-")).collect::<String>();
                    read.label = format!("{prefix}{}", read.label);
                }
                out.push(read);
            }
            out
        };
        Block { name: name.into(), steps: list(steps, ""), cleanup: list(cleanup, "cleanup") }
    }

    /// Labels are unique in a test, and what a step refers to came before it and is of the right kind.
    fn labels(&mut self, setups: &[Block], body: &Block) {
        let mut seen: BTreeMap<&str, &Action> = BTreeMap::new();
        let steps = setups.iter().chain([body]).flat_map(|block| &block.steps);
        let cleanups = [body].into_iter().chain(setups.iter().rev()).flat_map(|block| &block.cleanup);
        for step in steps.chain(cleanups) {
            let (of, spawned_only) = match &step.action {
                Action::Join { of, .. } | Action::Stop { of, .. } => (Some(of.as_str()), true),
                Action::Parse { of, .. } => (Some(of.as_str()), false),
                Action::Check(check) => (Some(check.of.as_str()), false),
                _ => (None, false),
            };
            if let Some(of) = of {
                let known: Vec<&str> = seen.keys().copied().collect();
                match seen.get(of) {
                    None => {
                        self.problem(&step.place, format!("no earlier step has `as = \"{of}\"`{}", hint(of, &known)))
                    }
                    Some(Action::Spawn(_)) => {}
                    Some(Action::Exec(..) | Action::Kselftest(_)) if !spawned_only => {}
                    Some(_) if spawned_only => self.problem(&step.place, format!("step `{of}` is no `spawn`")),
                    Some(_) => self.problem(&step.place, format!("step `{of}` has no output")),
                }
            }
            if seen.insert(&step.label, &step.action).is_some() {
                self.problem(&step.place, format!("`as = \"{}\"` is used twice in this test", step.label));
            }
        }
    }
}
