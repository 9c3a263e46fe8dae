//! A test as the runner sees it: fully resolved, nothing optional that the loader could decide.
//!
//! Comes out of [`crate::load`]. Strings may still hold `{nic.ROLE.FIELD}`, which only a running lab can fill in;
//! every other variable is gone by now.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use protocol::Condition;

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct Test {
    /// The suite it belongs to: the stem of its file.
    pub suite: String,
    /// Its name within the suite.
    pub name: String,
    /// One sentence: what it shows.
    pub summary: String,
    /// Where it is declared.
    pub place: Place,
    /// The variables of its case, by which its numbers are put beside those of others.
    pub case: BTreeMap<String, String>,
    /// The profile of `lab.toml` that a lab brought up for it gets.
    pub profile: Option<String>,
    /// The guests it needs, by the names its steps use. At least one; the first is the default of every step.
    pub roles: Vec<String>,
    /// Whether it talks from guest to guest, so that all its guests must share a network.
    pub needs_network: bool,
    /// Capabilities that must be there, else it is skipped.
    pub requires: Vec<Requirement>,
    /// How long it may take, before the time scale.
    pub timeout: Duration,
    /// Kernels (by their name in `lab.toml`) on which it is known to fail.
    pub expect: BTreeMap<String, Expected>,
    /// With [`Test::expect`]: the label of the step that is known to fail. A failure elsewhere is a plain failure.
    pub expect_at: Option<String>,
    /// With [`Test::expect`]: why.
    pub because: String,
    /// Whether an unexpected pass counts as a failure.
    pub strict: bool,
    /// What it may leave behind: `KIND:NAME` with `*` at the end of either, for instance `module:*`.
    pub leaves: Vec<String>,
    /// Set-up blocks, in order.
    pub setups: Vec<Block>,
    /// Its own steps.
    pub body: Block,
}

impl Test {
    /// `SUITE/NAME`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.suite, self.name)
    }
}

/// Steps and what undoes them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// Name of the set-up; empty for a test's own steps.
    pub name: String,
    /// Run in order until one fails.
    pub steps: Vec<Step>,
    /// Run in order whatever happened; a failure is noted and does not stop the rest.
    pub cleanup: Vec<Step>,
}

/// Where something is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The capability of a guest whose time is the count of its instructions, so that what it measures repeats. The lab
/// answers for it: a guest cannot tell.
pub const DETERMINISTIC: &str = "deterministic";

/// A capability a test needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The capability's name, as the agent's `Probe` knows it.
    pub capability: String,
    /// The role that must have it; `None` means each.
    pub role: Option<String>,
}

/// A known outcome that is not a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A step fails.
    Fail,
    /// The time runs out.
    Timeout,
    /// The kernel crashes.
    Crash,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What reports call it: its `as` name, or a number and the kind.
    pub label: String,
    /// Where it is declared.
    pub place: Place,
    /// The role it runs in.
    pub role: String,
    /// Its own limit within the test's, before the time scale.
    pub timeout: Option<Duration>,
    /// What to do.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Run a program to its end.
    Exec(Program, ExitRule),
    /// Start a program and go on. It is stopped with the test, or by [`Action::Stop`].
    Spawn(Program),
    /// Wait until something is true in the guest. Fails at once when a spawned program dies meanwhile.
    Wait(Condition),
    /// Wait for a spawned program's end.
    Join {
        /// Its label.
        of: String,
        /// How it must end.
        exit: ExitRule,
    },
    /// Signal a spawned program and wait for its end, whatever its exit status.
    Stop {
        /// Its label.
        of: String,
        /// Signal number.
        signal: i32,
    },
    /// Read metrics and evidence out of an output.
    Parse {
        /// Label of the step that produced it.
        of: String,
        /// Name of the parser, one of [`crate::parsers::NAMES`].
        parser: String,
    },
    /// Require something of an output.
    Check(Check),
    /// Require something of a metric.
    CheckMetric(MetricCheck),
    /// Run a program that speaks KTAP, or follows the kselftest exit codes, or both.
    Kselftest(Program),
    /// Call a Rust function.
    Call {
        /// Its name, one of [`crate::functions::NAMES`].
        function: String,
        /// Named arguments.
        args: BTreeMap<String, String>,
        /// When set, the function must refuse with a message that contains this.
        refused: Option<String>,
    },
    /// Write a file in the guest.
    Push {
        /// Absolute path.
        path: String,
        /// What to write.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// Keep a file of the guest as an artefact.
    Pull {
        /// Absolute path.
        path: String,
    },
}

/// A program to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Named network namespace to run it in.
    pub netns: Option<String>,
    /// Added to the environment.
    pub env: Vec<(String, String)>,
    /// Working folder.
    pub cwd: Option<String>,
    /// Standard input.
    pub stdin: Option<String>,
}

impl Program {
    /// The argument vector with the namespace applied.
    pub fn command(&self) -> Vec<String> {
        let mut argv = Vec::new();
        if let Some(netns) = &self.netns {
            argv.extend(["ip", "netns", "exec", netns].map(String::from));
        }
        argv.extend(self.argv.iter().cloned());
        argv
    }
}

/// How a program must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitRule {
    /// With this status.
    Code(i32),
    /// With any status but 0, or by a signal.
    Failure,
    /// However it likes.
    Any,
}

/// Which of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A requirement on an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Label of the step that produced it.
    pub of: String,
    /// Which output.
    pub stream: Stream,
    /// Texts that must occur.
    pub has: Vec<String>,
    /// Texts that must not.
    pub lacks: Vec<String>,
}

/// A requirement on a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricCheck {
    /// The metric's name.
    pub metric: String,
    /// Smallest value allowed.
    pub at_least: Option<f64>,
    /// Largest value allowed.
    pub at_most: Option<f64>,
}
