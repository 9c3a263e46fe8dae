//! Rust functions that a test calls by name, for what a list of steps cannot say.
//!
//! Each declares the arguments it takes, so that a suite file is checked before anything runs, and the tools it needs
//! in the guest, which become requirements of the test.

mod facts;
mod lease;
mod nic;
mod rules;
mod rxe;
mod sanitizers;
mod tcx;

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::Exit;

use crate::model::Program;
use crate::run::{Context, Stop};

/// A function's face to suite files.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// Arguments it must be given.
    pub needs: &'static [&'static str],
    /// Arguments it may be given.
    pub may: &'static [&'static str],
    /// Tools it runs in the guest.
    pub tools: &'static [&'static str],
    run: fn(&mut Call) -> Result<(), Stop>,
}

/// Every function and what it does.
pub const NAMES: [(&str, Function); 14] = [
    // Compares what the agent says of its guest with what the lab believes, and records how the boot went.
    ("agent-facts", Function { needs: &[], may: &[], tools: &[], run: facts::agent_facts }),
    // Makes an RXE device over a netdev and waits until it is active; refuses a netdev RXE cannot work on.
    (
        "rxe-link",
        Function {
            needs: &["name", "device"],
            may: &["netns"],
            tools: &["ip", "rdma", "modprobe", "sh"],
            run: rxe::link,
        },
    ),
    // Has RXE build and take packets at layer 3, 2 or 1 in a namespace (net.rxe.rxe_network_layer).
    ("rxe-layer", Function { needs: &["layer"], may: &["netns"], tools: &["ip", "modprobe"], run: rxe::layer }),
    // Makes a pod with leased queues of a NIC.
    (
        "lease",
        Function {
            needs: &["pod", "netdev", "queues"],
            may: &["address", "address6", "via"],
            tools: &[],
            run: lease::add,
        },
    ),
    // Reads what came by a pod's queues as metrics (`POD_leased_bytes` and the like, after `when_` if that is given), and
    // requires that it is whole, or broken as is said.
    ("lease-traffic", Function { needs: &["pod"], may: &["broken", "when"], tools: &[], run: lease::traffic }),
    // Takes a pod away.
    ("lease-end", Function { needs: &["pod"], may: &[], tools: &[], run: lease::remove }),
    // Tells an emulated NIC what to do, in the words of `lab fault --device`: faults, `none`, `reset`, `link-down`, `link-up`.
    ("nic-order", Function { needs: &["order"], may: &["nic"], tools: &[], run: nic::order }),
    // Reads what an emulated NIC's process has counted as metrics (`tx_outstanding`, `driver_resets` and the like, after `AS_` if
    // `as` is given), from the beginning or since an earlier reading, which `keep` puts aside under a name instead.
    ("nic-books", Function { needs: &[], may: &["nic", "as", "keep", "since"], tools: &[], run: nic::books }),
    // Loads packet rules that nothing of the test matches: the walk past them is what they cost.
    (
        "rules",
        Function {
            needs: &["kind", "count"],
            may: &["netns"],
            tools: &["ip", "iptables-legacy-restore", "nft"],
            run: rules::load,
        },
    ),
    // Reads how many packets went past all of those rules, as a metric.
    (
        "rules-seen",
        Function { needs: &["kind"], may: &["netns"], tools: &["ip", "iptables-legacy", "nft"], run: rules::seen },
    ),
    // Drops every Nth RoCE packet in a tcx program on a netdev's egress or ingress.
    (
        "tcx-drop",
        Function {
            needs: &["device", "every"],
            may: &["netns", "hook"],
            tools: &["bpftool", "nsenter"],
            run: tcx::attach,
        },
    ),
    // Reads the counters of `tcx-drop` as metrics and takes the program away.
    (
        "tcx-drop-end",
        Function { needs: &["device"], may: &["netns", "hook"], tools: &["bpftool", "nsenter"], run: tcx::detach },
    ),
    // Has kmemleak scan the kernel's memory, and fails with what it finds.
    ("kmemleak", Function { needs: &[], may: &[], tools: &["sh", "mount", "cat"], run: sanitizers::kmemleak }),
    // Fails if lockdep has turned itself off.
    ("lockdep", Function { needs: &[], may: &[], tools: &["cat"], run: sanitizers::lockdep }),
];

/// The function of that name.
pub fn find(name: &str) -> Option<Function> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
}

/// One call under way.
pub(crate) struct Call<'a, 'b> {
    pub context: &'a mut Context<'b>,
    pub role: &'a str,
    pub label: &'a str,
    pub limit: Option<Duration>,
    pub args: BTreeMap<String, String>,
}

pub(crate) fn run(name: &str, call: &mut Call) -> Result<(), Stop> {
    match find(name) {
        Some(function) => (function.run)(call),
        None => Err(Stop::Infrastructure(format!("there is no function `{name}`"))),
    }
}

impl Call<'_, '_> {
    /// An argument; empty when it was not given.
    fn arg(&self, name: &str) -> &str {
        self.args.get(name).map_or("", String::as_str)
    }

    /// An argument that is a number.
    fn number(&self, name: &str) -> Result<u64, Stop> {
        let text = self.arg(name);
        text.parse().map_err(|_| Stop::Infrastructure(format!("`{name} = \"{text}\"` is not a number")))
    }

    /// Runs a program in the guest and returns its standard output and how it ended. `part` tells its output from
    /// that of the function's other programs.
    fn try_program(&mut self, part: &str, program: &Program) -> Result<(String, Exit), Stop> {
        let label = format!("{}-{part}", self.label);
        let exit = self.context.exec(&label, self.role, program, self.limit)?;
        let stdout = self.context.output(&label).map(|output| output.stdout.clone()).unwrap_or_default();
        Ok((String::from_utf8_lossy(&stdout).into_owned(), exit))
    }

    /// As [`Call::try_program`], of arguments alone; anything but exit status 0 is a failure.
    fn must_run(&mut self, part: &str, argv: &[&str]) -> Result<String, Stop> {
        let program = Program { argv: argv.iter().map(ToString::to_string).collect(), ..Program::default() };
        self.must_run_program(part, &program)
    }

    /// As [`Call::must_run`], for a program that needs more than its arguments.
    fn must_run_program(&mut self, part: &str, program: &Program) -> Result<String, Stop> {
        let (stdout, exit) = self.try_program(part, program)?;
        if exit.success() {
            return Ok(stdout);
        }
        let ending = self.context.ending(&format!("{}-{part}", self.label), &exit);
        Err(Stop::Failed(format!("{}: {ending}", program.command().join(" "))))
    }
}
