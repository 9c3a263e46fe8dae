//! One guest on one QEMU: from a [`LaunchPlan`] to a running machine that says how it is, and its crash reports.
//!
//! In comes a plan, which is data: kernel, initramfs, disks, NICs, and the QEMU program to use. [`LaunchPlan::args`] is a
//! pure function of it, so that the very command line can be printed before anything runs. Out comes a [`Machine`]: a
//! process of ours with a control socket (QMP), a console that goes to a file, and a channel to the guest agent.
//!
//! Everything that happens to the machine is a race between what we hope for and what may come instead: the agent's
//! hello against QEMU's exit, a panic on the console and the clock ([`Machine::wait_ready`]); an answer against a
//! crash, a hang and the machine's death ([`Machine::health`]). Each outcome has its own error, with the last lines of the
//! console and a hint, because "timed out" is the one message nobody can act on.
//!
//! [`crash`] turns a console log into crash reports and needs no machine at all.

pub mod accel;
mod args;
pub mod boot;
mod check;
pub mod console;
pub mod crash;
mod device;
mod disk;
pub mod health;
mod hints;
mod interrogate;
mod machine;
pub mod plan;
pub mod process;
pub mod qmp;
mod ready;
mod shell;
mod start;
mod trial;

pub use accel::{Accelerator, Engine, Verdicts};
pub use boot::{BootError, Hint, LaunchError, Ready};
pub use check::PlanError;
pub use console::{Console, ConsoleTail};
pub use crash::{Crash, CrashKind, Severity};
pub use health::{Activity, HangRule, Health};
pub use machine::{Machine, PowerDown};
pub use plan::{GdbStub, LaunchPlan, Nic, NicBackend, NicModel, QemuProgram};
pub use process::{Exit, ProcessId};
