//! A suite file as TOML has it: every key a file may hold, and nothing decided yet.
//!
//! A step is one flat table so that it fits on a line; which keys go together is checked in [`super::step`].

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct File {
    pub suite: Option<Suite>,
    #[serde(default)]
    pub setup: BTreeMap<String, Spanned<Setup>>,
    #[serde(default)]
    pub test: Vec<Spanned<Test>>,
    #[serde(default)]
    pub compare: Vec<Spanned<Compare>>,
}

/// The variables of a case.
pub(super) type Case = BTreeMap<String, Scalar>;

/// What all tests of the file share.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Suite {
    /// For people; shown by `lab test --list`.
    #[serde(default, rename = "summary")]
    _summary: String,
    #[serde(default)]
    pub requires: Vec<String>,
    /// The profile a lab is brought up with for these tests.
    pub profile: Option<String>,
    pub timeout: Option<String>,
    #[serde(default)]
    pub leaves: Vec<String>,
}

/// A block of steps that tests name in `setup`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Setup {
    /// For people who read the file.
    #[serde(default, rename = "summary")]
    _summary: String,
    #[serde(default)]
    pub setup: Vec<String>,
    #[serde(default)]
    pub requires: Vec<String>,
    #[serde(default)]
    pub vars: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub steps: Vec<Spanned<Step>>,
    #[serde(default)]
    pub cleanup: Vec<Spanned<Step>>,
}

/// One test, or one test for each of its `cases` or for each field of its `matrix`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Test {
    pub name: String,
    pub summary: String,
    #[serde(default)]
    pub guests: Vec<String>,
    #[serde(default)]
    pub requires: Vec<String>,
    pub timeout: Option<String>,
    #[serde(default)]
    pub leaves: Vec<String>,
    #[serde(default)]
    pub setup: Vec<String>,
    #[serde(default)]
    pub vars: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub cases: Vec<Spanned<Case>>,
    /// Lists of cases; every combination of one from each is a case.
    #[serde(default)]
    pub matrix: Vec<Spanned<Vec<Spanned<Case>>>>,
    #[serde(default)]
    pub expect: BTreeMap<String, String>,
    pub expect_at: Option<String>,
    #[serde(default)]
    pub because: String,
    #[serde(default)]
    pub strict: bool,
    pub steps: Vec<Spanned<Step>>,
    #[serde(default)]
    pub cleanup: Vec<Spanned<Step>>,
}

/// Numbers of several tests side by side.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Compare {
    pub title: String,
    pub metric: String,
    #[serde(default, rename = "where")]
    pub only: BTreeMap<String, Scalar>,
    pub rows: String,
    pub columns: String,
    pub baseline: Option<Scalar>,
    pub better: Option<String>,
    #[serde(default)]
    pub bounds: Vec<Spanned<Bound>>,
}

/// What cells of a comparison must keep to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Bound {
    pub row: Option<Scalar>,
    pub column: Option<Scalar>,
    pub gain_at_least: Option<f64>,
    pub differs_at_most: Option<f64>,
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    pub spread_at_most: Option<f64>,
}

/// One step: exactly one of the keys of the first group, and those of the others that go with it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Step {
    pub exec: Option<Words>,
    pub spawn: Option<Words>,
    pub kselftest: Option<Words>,
    pub wait: Option<String>,
    pub join: Option<String>,
    pub stop: Option<String>,
    pub parse: Option<String>,
    pub check: Option<String>,
    pub metric: Option<String>,
    pub call: Option<String>,
    pub push: Option<String>,
    pub pull: Option<String>,

    #[serde(rename = "as")]
    pub label: Option<String>,
    pub guest: Option<String>,
    pub timeout: Option<String>,

    pub netns: Option<String>,
    pub env: Option<BTreeMap<String, Scalar>>,
    pub cwd: Option<String>,
    pub stdin: Option<String>,
    pub exit: Option<Scalar>,
    pub signal: Option<String>,

    pub port: Option<Scalar>,
    pub name: Option<String>,
    pub path: Option<String>,
    pub text: Option<String>,
    pub program: Option<Words>,

    pub with: Option<String>,
    pub stream: Option<String>,
    pub has: Option<Texts>,
    pub lacks: Option<Texts>,
    pub at_least: Option<Limit>,
    pub at_most: Option<Limit>,

    pub args: Option<BTreeMap<String, Scalar>>,
    pub refused: Option<String>,

    pub content: Option<String>,
    pub mode: Option<u32>,
}

impl Step {
    /// Every key that is set, by its name in the file.
    pub fn keys(&self) -> Vec<&'static str> {
        macro_rules! set {
            ($($field:ident $name:literal),* $(,)?) => {{
                let mut keys = Vec::new();
                $(if self.$field.is_some() { keys.push($name); })*
                keys
            }};
        }
        set!(
            exec "exec", spawn "spawn", kselftest "kselftest", wait "wait", join "join", stop "stop", parse "parse",
            check "check", metric "metric", call "call", push "push", pull "pull", label "as", guest "guest",
            timeout "timeout", netns "netns", env "env", cwd "cwd", stdin "stdin", exit "exit", signal "signal",
            port "port", name "name", path "path", text "text", program "program", with "with", stream "stream",
            has "has", lacks "lacks", at_least "at-least", at_most "at-most", args "args", refused "refused",
            content "content", mode "mode",
        )
    }
}

/// A program and its arguments: one string, split at blanks outside quotes, or a list taken as it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    Line(String),
    List(Vec<String>),
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    pub fn list(&self) -> &[String] {
        match self {
            Texts::One(text) => std::slice::from_ref(text),
            Texts::Many(texts) => texts,
        }
    }
}

/// A text or a number; numbers become text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Number(i64),
}

impl Scalar {
    pub fn text(&self) -> String {
        match self {
            Scalar::Text(text) => text.clone(),
            Scalar::Number(number) => number.to_string(),
        }
    }
}

/// A number, or a text that becomes one when its variables are filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Limit {
    Number(f64),
    Text(String),
}
