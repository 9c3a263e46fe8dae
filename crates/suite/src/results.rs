//! What a run leaves: one [`Record`] a test and iteration, gathered in a [`Report`] that says what was tested.
//!
//! These types are the schema of `results.json`; [`SCHEMA`] grows when a reader of the old shape would misread the
//! new one. Everything needed to repeat a result is in [`Provenance`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::{KernelPair, Table};
use crate::guests::{CrashInfo, GuestInfo};

/// Version of the shape of `results.json`.
pub const SCHEMA: u32 = 1;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Every step did what it should.
    Pass,
    /// A step did not, or something was left behind.
    Fail,
    /// A capability is missing; the record names it.
    Skip,
    /// It failed where this kernel is expected to fail.
    Xfail,
    /// It passed though this kernel was expected to fail.
    Xpass,
    /// The kernel crashed or complained while it ran.
    Crash,
    /// Its time ran out.
    Timeout,
    /// The lab failed, not the kernel: lost channel, guest that would not boot, wrong test file.
    Error,
    /// The record was written before the test and never replaced: the run died or was cancelled within it.
    DidNotFinish,
    /// The run ended before its turn came.
    NotRun,
}

impl Status {
    /// The word used in tables and files.
    pub fn word(self) -> &'static str {
        match self {
            Status::Pass => "pass",
            Status::Fail => "fail",
            Status::Skip => "skip",
            Status::Xfail => "xfail",
            Status::Xpass => "xpass",
            Status::Crash => "crash",
            Status::Timeout => "timeout",
            Status::Error => "error",
            Status::DidNotFinish => "did-not-finish",
            Status::NotRun => "not-run",
        }
    }

    /// Every status, in the order totals are told.
    pub const ALL: [Status; 10] = [
        Status::Pass,
        Status::Fail,
        Status::Crash,
        Status::Timeout,
        Status::Error,
        Status::Xpass,
        Status::Xfail,
        Status::Skip,
        Status::DidNotFinish,
        Status::NotRun,
    ];
}

/// One measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What was measured, for instance `t_avg`; `STEP.NAME` when a test parses more than one output.
    pub name: String,
    /// Its unit, as printed by the tool: `usec`, `MiB/sec`, `Mpps`, `count`…
    pub unit: String,
    /// The number.
    pub value: f64,
}

/// Lines of a tool's output kept as proof of what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What the lines are, for instance `client: ping data`.
    pub name: String,
    /// The lines, unchanged.
    pub lines: Vec<String>,
}

/// A file kept from a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is.
    pub name: String,
    /// Where, relative to the report directory.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// A result within a test, from KTAP output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtest {
    /// Its name; parts of nested results are joined by ` / `.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why, where the tool said so.
    pub message: String,
}

/// A guest a test ran in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestUse {
    /// The name the test uses.
    pub role: String,
    /// The guest's name in the lab.
    pub guest: String,
    /// Its kernel's name in the lab.
    pub kernel: String,
}

/// Something a test left behind in a guest, or took away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// The guest.
    pub guest: String,
    /// `netns`, `link`, `module`, `sysctl`, `rdma-link`, `mount`, `process`…
    pub kind: String,
    /// Which one, and what happened to it: `+nk0`, `-rdma_rxe`, `net.ipv4.ip_forward: 0 -> 1`.
    pub what: String,
}

/// Why a test's time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HangKind {
    /// The guest no longer answers at all.
    Guest,
    /// The guest answers and the test's processes burn CPU time.
    Busy,
    /// The guest answers and the test's processes only wait.
    Quiet,
}

/// What was seen when time ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hang {
    /// Which kind of hang it is.
    pub kind: HangKind,
    /// The guest looked at.
    pub guest: String,
    /// The step that was under way.
    pub step: String,
    /// How long no output had come, in milliseconds.
    pub quiet_ms: u64,
    /// The last lines of output of the step.
    pub last_output: Vec<String>,
    /// The test's processes: state, where in the kernel they wait, CPU time.
    pub processes: Vec<String>,
}

/// One test, one iteration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Full name: `SUITE/NAME`.
    pub test: String,
    /// 1 for the first round, counting up with `--repeat`.
    pub iteration: u32,
    /// The variables of its case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub case: BTreeMap<String, String>,
    /// How it ended.
    pub status: Status,
    /// One line: why it is not a plain pass; empty for one.
    pub message: String,
    /// For a skip: the capabilities that are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, in milliseconds, set-up and leak check included.
    pub duration_ms: u64,
    /// The guests it used.
    pub guests: Vec<GuestUse>,
    /// Numbers measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Output lines kept as proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// KTAP results within the test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subtests: Vec<Subtest>,
    /// Files kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// The crash, if the kernel had one, and the guest that had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash: Option<Crash>,
    /// What was seen when time ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang: Option<Hang>,
    /// What was left behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaks: Vec<Leak>,
    /// Guests that were rebooted after it, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebooted: Vec<String>,
    /// Anything else a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A crash and where it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// The guest.
    pub guest: String,
    /// What the console said.
    #[serde(flatten)]
    pub info: CrashInfo,
}

/// What was tested, and where: enough to do it again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The lab's name.
    pub lab: String,
    /// SHA-256 of `lab.lock`.
    pub lock_sha256: String,
    /// SHA-256 of the effective configuration (`lab.toml` with its profile).
    pub config_sha256: String,
    /// The kernel asked for, by its name in `lab.toml`.
    pub kernel: String,
    /// What `uname -r` says of it.
    pub kernel_release: String,
    /// Identity of the source tree it was built from.
    pub kernel_tree: String,
    /// Which of the pinned sources was used.
    pub kernel_source: String,
    /// Patch series applied, in order.
    pub series: Vec<String>,
    /// SHA-256 of the base image.
    pub image_sha256: String,
    /// The accelerator in use: `kvm` or `tcg`.
    pub accelerator: String,
    /// Version and revision of this program.
    pub tool: String,
    /// The machine it ran on.
    pub host: Host,
}

/// The machine a run was made on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release of the host.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// False while the run lasts, and for ever if it died.
    pub complete: bool,
    /// Whether somebody stopped it.
    pub cancelled: bool,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// By how much timeouts were stretched (TCG is slow).
    pub time_scale: f64,
    /// Rounds asked for.
    pub repeat: u32,
    /// What was tested.
    pub provenance: Provenance,
    /// The guests of the lab.
    pub guests: Vec<GuestInfo>,
    /// One record a test and iteration, in the order they were to run.
    pub records: Vec<Record>,
    /// Numbers of several tests side by side, with bounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comparisons: Vec<Table>,
    /// With `--compare`: the kernels; the records are those of all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<KernelPair>,
}

impl Report {
    /// How many records have each status; only those that occur, in the order of [`Status::ALL`].
    pub fn totals(&self) -> Vec<(Status, usize)> {
        Status::ALL
            .into_iter()
            .map(|status| (status, self.records.iter().filter(|r| r.status == status).count()))
            .filter(|&(_, count)| count > 0)
            .collect()
    }

    /// The exit code for `lab test` and `git bisect run`: 0 when nothing failed, crashed, timed out or
    /// missed a bound of a comparison; 1 when something did; 125 (which bisect reads as "cannot tell") when only the lab failed, and when nothing ran;
    /// 130 when it was cancelled.
    pub fn exit_code(&self) -> u8 {
        let any = |wanted: &[Status]| self.records.iter().any(|r| wanted.contains(&r.status));
        if any(&[Status::Fail, Status::Crash, Status::Timeout]) || !self.comparisons.iter().all(Table::holds) {
            1
        } else if self.cancelled {
            130
        } else if !self.complete
            || self.records.is_empty()
            || any(&[Status::Error, Status::DidNotFinish, Status::NotRun])
        {
            125
        } else {
            0
        }
    }
}
