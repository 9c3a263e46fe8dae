//! The command line, declared in one place.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Builds and runs a lab for netkit, device-memory TCP and Soft-RoCE.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, max_term_width = 100)]
pub struct Cli {
    /// Print progress as one JSON object a line on standard error.
    #[arg(long, global = true)]
    pub json_progress: bool,
    /// Print nothing but warnings, failures and the result.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a lab up, test it, look into it, take it down.
    #[command(subcommand)]
    Lab(Box<Lab>),
    /// The kernel developer's loop: tree, build, save, check.
    #[command(subcommand)]
    Kernel(Kernel),
    /// Build the guest image or list what is in it.
    #[command(subcommand)]
    Image(Image),
    /// Look at or renew `lab.lock`.
    Lock(LockArgs),
    /// Look after the cache of built and downloaded things.
    #[command(subcommand)]
    Cache(Cache),
    /// Measure against peers in the same run and print the ratios.
    Bench(BenchArgs),
    /// Everything a change must pass: format, lints, tests, real boots.
    Ci(CiArgs),
    /// Print the JSON schema of lab.toml (`--write` renews docs/lab.schema.json).
    Schema {
        /// Write it to docs/lab.schema.json.
        #[arg(long)]
        write: bool,
    },
    #[command(name = "__supervisor", hide = true)]
    Supervisor { launch: PathBuf },
}

/// Which lab, and what it is made of.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// The lab's name; labs of different names run side by side [default: the one in lab.toml].
    #[arg(long)]
    pub name: Option<String>,
    /// Apply a profile of lab.toml.
    #[arg(long, short)]
    pub profile: Option<String>,
    /// Boot this kernel of lab.toml in every guest that names none itself.
    #[arg(long, short)]
    pub kernel: Option<String>,
    /// Build the kernel from this tree of yours as it stands.
    #[arg(long, value_name = "DIR")]
    pub kernel_tree: Option<PathBuf>,
    /// Use only what is in the cache.
    #[arg(long)]
    pub offline: bool,
    /// Fail rather than use anything that lab.lock does not pin.
    #[arg(long)]
    pub locked: bool,
}

#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Fetch, build, boot and test: everything from nothing.
    Up {
        #[command(flatten)]
        lab: LabArgs,
        /// Leave the suites out: boot and return.
        #[arg(long)]
        no_test: bool,
        /// Print the plan (every step, its key, the exact QEMU command lines) and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Open a gdb stub for each guest and print where.
        #[arg(long)]
        gdb: bool,
        /// With --dry-run: print the plan as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run tests on the running lab; brings it up first if need be.
    Test {
        /// A suite, a test, SUITE.TEST, or a part of a name; none means the suites of lab.toml.
        filter: Vec<String>,
        #[command(flatten)]
        lab: LabArgs,
        /// List the tests instead of running them.
        #[arg(long)]
        list: bool,
        /// Run each test this many times.
        #[arg(long, default_value_t = 1)]
        repeat: u32,
        /// Run them on each of these kernels, the first of which the others are held against; fair pairs are
        /// `baseline,patched` and `stock,quick`.
        #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with_all = ["kernel", "kernel_tree"])]
        compare: Vec<String>,
        /// Write results.json, junit.xml and results.ktap here too.
        #[arg(long, value_name = "DIR")]
        report: Option<PathBuf>,
        /// Print results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What runs, since when, on which accelerator.
    Status {
        #[command(flatten)]
        lab: Which,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Power the guests off and leave nothing behind.
    Down {
        #[command(flatten)]
        lab: Which,
        /// Take every lab of this project down.
        #[arg(long)]
        all: bool,
    },
    /// A shell in a guest, on a terminal of its own.
    Shell {
        /// The guest [default: the first].
        guest: Option<String>,
        #[command(flatten)]
        lab: Which,
    },
    /// Run one command in a guest; its exit code becomes ours.
    Exec {
        guest: String,
        #[command(flatten)]
        lab: Which,
        /// Give the command a terminal.
        #[arg(long, short)]
        tty: bool,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show a guest's console and follow it.
    Console {
        guest: Option<String>,
        #[command(flatten)]
        lab: Which,
        /// Print what is there and stop.
        #[arg(long)]
        no_follow: bool,
    },
    /// Show the logs of the lab: supervisor, QEMU, consoles.
    Logs {
        guest: Option<String>,
        #[command(flatten)]
        lab: Which,
        /// Keep printing what is added.
        #[arg(long, short)]
        follow: bool,
    },
    /// Copy a file to or from a guest: one side is GUEST:PATH.
    Cp {
        from: String,
        to: String,
        #[command(flatten)]
        lab: Which,
    },
    /// Change a link of the fabric while it runs (loss, delay, reorder, partition), or what goes wrong with a gvnic.
    Fault {
        /// The port, as `lab status` names it: GUEST.N.
        port: String,
        /// The fault: `loss=0.01,delay=2ms`; with `--device`: `drop 1%, link-flap 500ms once`, `reset`, `link-down`,
        /// `link-up` (docs/gvnic.md has the words). `none` heals it. What it hits is drawn from the network's seed.
        fault: String,
        /// Of the gvnic at that port, instead of the link to it.
        #[arg(long)]
        device: bool,
        #[command(flatten)]
        lab: Which,
    },
    /// Write what crosses a port of the fabric to a pcapng file until Ctrl-C.
    Capture {
        /// The port, as `lab status` names it: GUEST.N.
        port: String,
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        lab: Which,
    },
    /// Receive queues of a NIC for pods of a guest: who has them, give some, take them back.
    #[command(subcommand)]
    Lease(Lease),
    /// What this host can do, and the remedy for each thing missing.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Why a step would be done again (all steps when none is named).
    Why {
        step: Option<String>,
        #[command(flatten)]
        lab: LabArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Lease {
    /// The pods, their queues and what came by them.
    List {
        #[command(flatten)]
        at: InGuest,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a pod: a network namespace, a netkit pair with leased queues, steering, and the way in and out.
    Add {
        #[command(flatten)]
        at: InGuest,
        /// The NIC whose queues are leased.
        #[arg(long)]
        netdev: String,
        /// Name of the pod and of its network namespace.
        #[arg(long)]
        pod: String,
        /// The queues: `12-15`, `3,5-7`, or `any:4` for four of those that are free.
        #[arg(long)]
        queues: lab::lease::QueueChoice,
        /// Its IPv4 address, with the prefix of its network.
        #[arg(long, value_name = "ADDRESS/PREFIX")]
        address: Vec<lab::lease::PodAddress>,
        /// Its IPv6 address, likewise.
        #[arg(long, value_name = "ADDRESS/PREFIX")]
        address6: Vec<lab::lease::PodAddress>,
        /// How frames get from the NIC to the pod and back: `bpf` redirects them past the guest's IP layer, with `forward`
        /// that forwards them.
        #[arg(long, default_value = "bpf")]
        via: lab::lease::Via,
    },
    /// Take a pod away, whatever is left of it.
    Remove {
        #[command(flatten)]
        at: InGuest,
        /// Its name.
        #[arg(long)]
        pod: String,
    },
}

/// A guest of a running lab.
#[derive(Debug, Clone, Args)]
pub struct InGuest {
    /// The guest [default: the first].
    #[arg(long)]
    pub guest: Option<String>,
    #[command(flatten)]
    pub lab: Which,
}

/// Which running lab.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// The lab's name [default: the one in lab.toml].
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Kernel {
    /// Make a git tree with our series as commits, ready to work in.
    Tree {
        /// The kernel of lab.toml.
        #[arg(default_value = "patched")]
        kernel: String,
        /// Where [default: target/kernel/<kernel>].
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Build a kernel: incremental, as far as it can be.
    Build {
        #[arg(default_value = "patched")]
        kernel: String,
        /// This tree, as it stands.
        #[arg(long, value_name = "DIR")]
        kernel_tree: Option<PathBuf>,
    },
    /// Write the commits of the tree back as the patches of a series.
    Save {
        series: String,
        /// The tree made by `kernel tree` [default: target/kernel/patched].
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// checkpatch every patch and apply every series to every kernel it names.
    Check {
        /// One series only.
        series: Option<String>,
        /// Build after each patch.
        #[arg(long)]
        build: bool,
        /// Print what a cover letter and a Tested-by need: base, patches, diffstat, checks, results on this very tree.
        #[arg(long)]
        report: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Build base.erofs and the kernel's kit.erofs and print their hashes.
    Build {
        #[command(flatten)]
        lab: LabArgs,
    },
    /// What is in the image, from which package, how large.
    Inspect {
        #[command(flatten)]
        lab: LabArgs,
        /// List files whose path contains this.
        #[arg(long, value_name = "TEXT")]
        files: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct LockArgs {
    /// Resolve images/roots.toml anew against the distribution and write lab.lock.
    #[arg(long)]
    pub update: bool,
}

#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Remove what was not used for a while.
    Prune {
        /// Days since the last use.
        #[arg(long, default_value_t = 30)]
        days: u64,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Where the cache is and how large.
    Info,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which: boot, vng, kernel, image, fabric, plan (all but `kernel` and `vng` when none is named).
    pub which: Vec<String>,
    #[command(flatten)]
    pub lab: LabArgs,
    /// Repetitions instead of each benchmark's own number.
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Print the results as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CiArgs {
    /// Add what takes long: stock and quick, the suites of the RXE series, the profiles interop and lossy.
    #[arg(long)]
    pub full: bool,
}

impl Command {
    /// Whether signals belong to a command in a guest.
    pub fn hands_signals_on(&self) -> bool {
        matches!(self, Command::Lab(lab) if matches!(**lab, Lab::Exec { .. } | Lab::Shell { .. }))
    }
}
