//! Starting one QEMU: files checked, sockets connected, nothing left behind when it fails.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use progress::Progress;
use protocol::host::Session;

use crate::accel::Engine;
use crate::boot::{Hint, LaunchError};
use crate::console::{Console, ConsoleTail};
use crate::device::{self, Device, Lost};
use crate::disk;
use crate::hints;
use crate::plan::LaunchPlan;
use crate::process::{Exit, Offspring};
use crate::qmp::{Qmp, QmpError};

/// How long QEMU may take to create its sockets. It needs tens of milliseconds; a host that swaps needs longer.
const SOCKETS: Duration = Duration::from_secs(30);

/// A QEMU that runs, and our ends of its sockets.
#[derive(Debug)]
pub(crate) struct Qemu {
    pub(crate) process: Offspring,
    pub(crate) qmp: Qmp,
    pub(crate) session: SessionHandle,
    pub(crate) engine: Engine,
    pub(crate) started: Instant,
    /// Offset in `qemu.log` at which this run's output begins.
    log_start: u64,
    log: Console,
    sockets: Vec<PathBuf>,
    devices: Vec<(usize, Device)>,
}

/// A session, printable.
pub(crate) struct SessionHandle(pub(crate) Session);

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({:08x})", self.0.nonce())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
    }
}

impl Qemu {
    /// Checks the plan's files and makes its directories; done once a machine.
    pub(crate) fn prepare(plan: &LaunchPlan) -> Result<(), LaunchError> {
        plan.check()?;
        let file =
            |what, path: &Path, source| LaunchError::File { guest: plan.name.clone(), what, path: path.into(), source };
        let images = plan.layers.iter().map(|path| ("image", path.as_path()));
        let boot = [("kernel image", Some(plan.kernel.as_path())), ("initramfs", plan.initrd.as_deref())];
        for (what, path) in boot.into_iter().filter_map(|(what, path)| Some((what, path?))).chain(images) {
            File::open(path).map_err(|e| file(what, path, e))?;
        }
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        private(&plan.runtime_dir).map_err(|e| file("socket directory", &plan.runtime_dir, e))?;
        write_disk(plan)?;
        fs::create_dir_all(&plan.log_dir).map_err(|e| file("log directory", &plan.log_dir, e))?;
        for log in [plan.console_log(), plan.qemu_log()] {
            File::create(&log).map_err(|e| file("log", &log, e))?;
        }
        Ok(())
    }

    /// Starts QEMU on `engine` and connects to it.
    pub(crate) fn start(plan: &LaunchPlan, engine: Engine, progress: &Progress) -> Result<Qemu, LaunchError> {
        let guest = || plan.name.clone();
        let log = Console::new(plan.qemu_log());
        let log_failed = |source| LaunchError::File { guest: guest(), what: "log", path: plan.qemu_log(), source };
        let log_start = log.len().map_err(log_failed)?;
        let output = File::options().append(true).create(true).open(log.path()).map_err(log_failed)?;
        let sockets = plan.sockets();
        remove(&sockets);

        let devices = Device::start_all(plan, progress)?;
        let args = plan.args_on(engine);
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]).stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(log_failed)?).stderr(output);
        let started = Instant::now();
        let mut process = Offspring::spawn(command).map_err(|source| LaunchError::Spawn {
            guest: guest(),
            program: PathBuf::from(&args[0]),
            source,
        })?;

        let ended = |exit| {
            let said = log.last_lines(log_start, 20).unwrap_or_default();
            let hint = hints::qemu(&said.0.join("\n"));
            LaunchError::Exited { guest: guest(), exit, said, hint }
        };
        let connected = (|| {
            let connect = |path: &Path, process: &mut Offspring| {
                connect(path, process, progress).map_err(|e| match e {
                    Unconnected::Exited(exit) => ended(exit),
                    Unconnected::Late => {
                        let said = log.last_lines(log_start, 20).unwrap_or_default();
                        LaunchError::NoSocket { guest: guest(), socket: path.into(), waited: SOCKETS, said }
                    }
                    Unconnected::Cancelled(c) => c.into(),
                    Unconnected::Io(source) => {
                        LaunchError::File { guest: guest(), what: "socket", path: path.into(), source }
                    }
                })
            };
            let socket = connect(&plan.qmp_socket(), &mut process)?;
            let qmp = match Qmp::start(socket) {
                Ok(qmp) => qmp,
                Err(source @ QmpError::Closed(_)) => {
                    // QEMU opens its sockets before it loads the kernel, and ends when it cannot.
                    return Err(match process.wait(Duration::from_secs(5)) {
                        Ok(Some(exit)) => ended(exit),
                        _ => LaunchError::Qmp { guest: guest(), source },
                    });
                }
                Err(source) => return Err(LaunchError::Qmp { guest: guest(), source }),
            };
            let socket = connect(&plan.agent_socket(), &mut process)?;
            let session =
                Session::start(socket, plan.nonce).map_err(|source| LaunchError::Channel { guest: guest(), source })?;
            Ok((qmp, session))
        })();
        match connected {
            Ok((qmp, session)) => {
                let session = SessionHandle(session);
                Ok(Qemu { process, qmp, session, engine, started, log_start, log, sockets, devices })
            }
            Err(error) => {
                drop(process);
                remove(&sockets);
                Err(error)
            }
        }
    }

    /// Ends it and what belongs to it, once. QEMU removes its sockets when it ends in an orderly way; a killed one leaves
    /// them.
    pub(crate) fn end(&mut self) {
        let _ = self.process.kill();
        remove(&std::mem::take(&mut self.sockets));
        self.devices.clear();
    }

    /// A device outside QEMU that is gone.
    pub(crate) fn lost_device(&mut self) -> Option<Lost> {
        device::lost(&mut self.devices)
    }

    /// The last lines QEMU printed in this run.
    pub(crate) fn said(&self, lines: usize) -> ConsoleTail {
        self.log.last_lines(self.log_start, lines).unwrap_or_default()
    }

    /// The first line QEMU printed in this run that holds `phrase`.
    pub(crate) fn said_about(&self, phrase: &str) -> Option<String> {
        let (bytes, _) = self.log.read_from(self.log_start).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(crate::console::clean).find(|line| line.contains(phrase))
    }
}

/// Writes what QEMU makes the guest's disk of.
fn write_disk(plan: &LaunchPlan) -> Result<(), LaunchError> {
    if plan.layers.is_empty() {
        return Ok(());
    }
    let file =
        |what, path: &Path, source| LaunchError::File { guest: plan.name.clone(), what, path: path.into(), source };
    let sizes = plan
        .layers
        .iter()
        .map(|path| Ok((path.as_path(), fs::metadata(path).map_err(|e| file("image", path, e))?.len())));
    let images = sizes.collect::<Result<Vec<_>, LaunchError>>()?;
    let text = disk::descriptor(images.iter().copied()).map_err(|index| {
        let odd = io::Error::new(
            io::ErrorKind::InvalidData,
            format!("its {} bytes are no whole sectors: it is broken off", images[index].1),
        );
        file("image", images[index].0, odd)
    })?;
    let path = plan.disk_descriptor();
    fs::write(&path, text).map_err(|e| file("disk descriptor", &path, e))
}

enum Unconnected {
    Exited(Exit),
    Late,
    Cancelled(progress::Cancelled),
    Io(io::Error),
}

/// Connects as soon as the socket is there.
fn connect(path: &Path, process: &mut Offspring, progress: &Progress) -> Result<UnixStream, Unconnected> {
    let deadline = Instant::now() + SOCKETS;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(e) => return Err(Unconnected::Io(e)),
        }
        if let Some(exit) = process.try_wait().map_err(Unconnected::Io)? {
            return Err(Unconnected::Exited(exit));
        }
        progress.check_cancelled().map_err(Unconnected::Cancelled)?;
        if Instant::now() > deadline {
            return Err(Unconnected::Late);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Removes sockets; those that are not there are fine, and those that cannot go would make QEMU's own bind fail by name.
fn remove(sockets: &[PathBuf]) {
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
}

impl LaunchError {
    /// A hint is worth keeping even where the error is wrapped.
    pub fn hint(&self) -> Option<&Hint> {
        match self {
            LaunchError::Exited { hint, .. } => Some(hint),
            _ => None,
        }
    }
}
