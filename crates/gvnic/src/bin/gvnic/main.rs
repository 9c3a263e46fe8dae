//! An emulated gVNIC as a process: QEMU on one side (vfio-user), the lab's switch on the other, and a socket to ask it things.
//!
//! It serves one QEMU and ends with it, so that no guest ever meets what another one left behind. Three threads: this one is
//! QEMU's, one moves frames, one answers questions and keeps time.

mod panel;
mod pci;
mod wake;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use gvnic::config::{Mac, PortConfig};
use gvnic::control::Control;
use gvnic::engine::Engine;
use gvnic::fault::FaultPlan;
use gvnic::plug::{self, Plug};
use vfio_user::{Ended, Server};

use wake::Bell;

/// An emulated Google gVNIC over vfio-user.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where QEMU connects (`-device vfio-user-pci`).
    #[arg(long)]
    socket: PathBuf,
    /// Where questions and faults come in, a line of JSON each. It is there once `--socket` is.
    #[arg(long)]
    control: PathBuf,
    /// The switch's socket: each frame behind its length as a big-endian u32.
    #[arg(long)]
    switch: PathBuf,
    /// The station's address.
    #[arg(long)]
    mac: Mac,
    /// Largest IP packet, in bytes.
    #[arg(long, default_value_t = gvnic::config::MTU_MAX)]
    mtu: u16,
    /// Pairs of queues.
    #[arg(long, default_value_t = 4)]
    queues: u16,
    /// What goes wrong from the start, as JSON: the plan that `faults` takes on the control socket.
    #[arg(long, value_name = "JSON", value_parser = faults)]
    faults: Option<FaultPlan>,
}

fn faults(text: &str) -> Result<FaultPlan, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(ended) => {
            // A guest that powers off, or a QEMU that is killed, is how it ends as a rule.
            println!("gvnic: {ended}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gvnic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Wrong rings that are told of. A guest can make any number of them.
const TOLD_MAX: usize = 16;

/// Starts the thread that moves frames between the guest and the switch.
fn move_frames(switch: &Path, control: Arc<Control>, bell: Arc<Bell>) -> io::Result<()> {
    let mut engine = Engine::new(control.shared().clone(), Plug::new(switch));
    thread::Builder::new().name("frames".into()).spawn(move || {
        let forever = AtomicBool::new(false);
        let mut told = 0;
        let mut wrong = |direction, queue, wrong| {
            if told < TOLD_MAX {
                eprintln!("gvnic: {direction} queue {queue}, which stands still until the driver resets: {wrong}");
                told += 1;
            }
            control.request_reset();
        };
        if let Err(error) = plug::serve(&mut engine, bell.eventfd(), &forever, &mut wrong) {
            // Without it the guest would have a NIC that is silent for good: better to have none, and to say why.
            eprintln!("gvnic: frames can no longer be moved: {error}");
            std::process::exit(1);
        }
    })?;
    Ok(())
}

fn run(cli: &Cli) -> Result<Ended> {
    let faults = cli.faults.clone().unwrap_or_default();
    let config = PortConfig { mtu: cli.mtu, queue_pairs: cli.queues, faults, ..PortConfig::new(cli.mac) };
    config.check()?;
    let mut server = Server::new(pci::function(&config)).context("cannot make the PCI function")?;
    let bell = Arc::new(Bell::new().context("cannot make an eventfd")?);
    let memory = Arc::new(pci::GuestMemory(server.memory()));
    let interrupts = Arc::new(pci::Vectors(server.interrupts()));
    let control = Arc::new(Control::new(config, memory, interrupts, bell.clone())?);

    let listen =
        |path: &PathBuf| UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()));
    let (qemu, panel) = (listen(&cli.socket)?, listen(&cli.control)?);
    panel::start(panel, control.clone()).context("cannot start a thread")?;
    move_frames(&cli.switch, control.clone(), bell).context("cannot start a thread")?;

    let (socket, _) = qemu.accept().context("cannot accept QEMU's connection")?;
    Ok(server.serve_one(&socket, &mut pci::Function(control)))
}
