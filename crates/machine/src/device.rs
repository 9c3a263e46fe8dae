//! A device of the guest that is emulated outside QEMU: a process of its own, plugged in over vfio-user.
//!
//! It is started before QEMU, since QEMU connects to it once and at once, and it goes when QEMU goes. QEMU cannot go on
//! without it (reads of the device's registers time out one after the other), so that its end is the machine's end, with
//! its own last words as the reason.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use progress::Progress;

use crate::boot::LaunchError;
use crate::console::{Console, ConsoleTail};
use crate::plan::{LaunchPlan, NicBackend};
use crate::process::{Exit, Offspring};

/// How long a device's process may take to listen. It needs milliseconds; a host that swaps needs longer.
const LISTENS: Duration = Duration::from_secs(30);

/// A device's process.
#[derive(Debug)]
pub(crate) struct Device {
    process: Offspring,
    log: Console,
    log_start: u64,
    sockets: [PathBuf; 2],
}

/// A device that is gone while the machine needs it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lost {
    pub(crate) nic: usize,
    pub(crate) exit: Exit,
    pub(crate) said: ConsoleTail,
}

impl Device {
    /// Starts the processes of the plan's NICs that have one.
    pub(crate) fn start_all(plan: &LaunchPlan, progress: &Progress) -> Result<Vec<(usize, Device)>, LaunchError> {
        let programs = plan.nics.iter().enumerate().filter_map(|(index, nic)| match &nic.backend {
            NicBackend::Process { program } => Some((index, program)),
            _ => None,
        });
        programs.map(|(index, program)| Ok((index, Device::start(plan, index, program, progress)?))).collect()
    }

    fn start(
        plan: &LaunchPlan,
        index: usize,
        program: &[OsString],
        progress: &Progress,
    ) -> Result<Device, LaunchError> {
        let log = Console::new(plan.device_log(index));
        let failed =
            |source| LaunchError::File { guest: plan.name.clone(), what: "log", path: plan.device_log(index), source };
        let log_start = log.len().unwrap_or(0);
        let output = File::options().append(true).create(true).open(log.path()).map_err(failed)?;
        let sockets = [plan.device_socket(index), plan.device_control(index)];
        remove(&sockets);
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(failed)?).stderr(output);
        let spawned = Offspring::spawn(command);
        let process = spawned.map_err(|source| LaunchError::Spawn {
            guest: plan.name.clone(),
            program: PathBuf::from(&program[0]),
            source,
        })?;
        let mut device = Device { process, log, log_start, sockets };
        device.wait_listening(plan, index, progress)?;
        Ok(device)
    }

    /// Waits for the control socket, which is the last of the two to be there: the other takes one connection, QEMU's.
    fn wait_listening(&mut self, plan: &LaunchPlan, index: usize, progress: &Progress) -> Result<(), LaunchError> {
        let deadline = Instant::now() + LISTENS;
        let socket = plan.device_control(index);
        let guest = || plan.name.clone();
        loop {
            match UnixStream::connect(&socket) {
                Ok(_) => return Ok(()),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(source) => {
                    return Err(LaunchError::File { guest: guest(), what: "socket", path: socket, source });
                }
            }
            if let Some(exit) = self.ended() {
                return Err(LaunchError::Device { guest: guest(), nic: index, exit, said: self.said() });
            }
            progress.check_cancelled()?;
            if Instant::now() > deadline {
                return Err(LaunchError::NoSocket { guest: guest(), socket, waited: LISTENS, said: self.said() });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<Exit> {
        self.process.try_wait().ok().flatten()
    }

    /// Its last lines.
    pub(crate) fn said(&self) -> ConsoleTail {
        self.log.last_lines(self.log_start, 20).unwrap_or_default()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        remove(&self.sockets);
    }
}

/// The first of them that is gone.
pub(crate) fn lost(devices: &mut [(usize, Device)]) -> Option<Lost> {
    devices.iter_mut().find_map(|(nic, device)| {
        let exit = device.ended()?;
        Some(Lost { nic: *nic, exit, said: device.said() })
    })
}

fn remove(sockets: &[PathBuf]) {
    for socket in sockets {
        let _ = std::fs::remove_file(socket as &Path);
    }
}
