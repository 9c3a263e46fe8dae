//! Whether RXE registers dma-bufs here: asks the kernel and the provider for one, on a device that nobody else sees for long.
//!
//! Says in a sentence what is missing, which a test that is skipped passes on.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::buffer::{Buffer, Kind};
use crate::device::{ALL_ACCESS, Device};

/// A link and its RXE device, gone when this is.
struct Scratch {
    name: String,
}

impl Scratch {
    fn new() -> Result<Scratch> {
        let scratch = Scratch { name: format!("vp{}", std::process::id()) };
        run(&["modprobe", "-a", "ib_uverbs", "rdma_rxe"])?;
        run(&["ip", "link", "add", &scratch.name, "up", "type", "dummy"])?;
        run(&["rdma", "link", "add", &scratch.name, "type", "rxe", "netdev", &scratch.name])?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What was not made cannot be deleted, and that is all there is to say of it.
        let _ = run(&["rdma", "link", "del", &self.name]);
        let _ = run(&["ip", "link", "del", &self.name]);
    }
}

fn run(command: &[&str]) -> Result<()> {
    let output = Command::new(command[0]).args(&command[1..]).output().with_context(|| command[0].to_owned())?;
    if !output.status.success() {
        bail!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Registers a buffer of the system heap with RXE.
pub fn probe() -> Result<()> {
    let buffer = Buffer::new(Kind::Heap, 4096)?;
    let scratch = Scratch::new()?;
    let device = Device::open(&scratch.name)?;
    match device.register(buffer, 0, ALL_ACCESS) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            bail!("RXE registers no dma-bufs: this kernel or the provider in the image lacks it")
        }
        Err(error) => Err(error).context("registering a buffer of the system heap"),
    }
}
