//! The one process that owns a lab while it runs.
//!
//! It holds QEMU, the switches, the consoles and the agents' channels; `lab up` returns and this stays. The command line
//! is its client over a control socket. It notices a crash, a hang or a death when nobody is attached, and when it is
//! killed itself, everything it started dies with it and the next command finds its [`journal`](crate::journal).
//!
//! Threads: one a guest ([`guest`]), one a connection ([`server`]), those of the switches, and this one, which waits for
//! the word to stop.

mod device;
mod fabric;
pub(crate) mod guest;
mod network;
mod server;

use std::collections::VecDeque;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use machine::ProcessId;
use progress::{Cancel, Event, Progress};

use crate::control;
use crate::journal::{Found, Journal, find};
use crate::launch::Launch;
use crate::paths::LabPaths;
use fabric::Fabric;
use guest::Slot;

/// How many past events a client that attaches late still gets.
const HISTORY: usize = 256;

/// What every thread of the supervisor shares.
pub(crate) struct Shared {
    pub launch: Launch,
    pub launch_id: String,
    pub started: Instant,
    pub guests: Vec<Slot>,
    pub fabric: Fabric,
    pub events: Events,
    pub stop: Arc<AtomicBool>,
}

/// What happened so far, and who listens.
#[derive(Default)]
pub(crate) struct Events {
    inner: Mutex<(VecDeque<Event>, Vec<Sender<Event>>)>,
}

impl Events {
    fn publish(&self, event: &Event) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.0.len() == HISTORY {
            inner.0.pop_front();
        }
        inner.0.push_back(event.clone());
        inner.1.retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// Everything from the start on, as far as it is kept.
    pub fn subscribe(&self) -> std::sync::mpsc::Receiver<Event> {
        let (sender, receiver) = channel();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &inner.0 {
            let _ = sender.send(event.clone());
        }
        inner.1.push(sender);
        receiver
    }
}

/// Starts a supervisor of its own session for the launch written at `paths.launch()`, and waits until it answers.
///
/// # Errors
/// With the end of its log when it does not come up.
pub fn start(paths: &LabPaths) -> Result<()> {
    let log_path = paths.supervisor_log();
    let log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    // Not by its path: the file may have been built anew since this process started.
    let mut command = Command::new("/proc/self/exe");
    command.arg("__supervisor").arg(paths.launch()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    detach(&mut command);
    let mut child = command.spawn().context("cannot start the lab's supervisor")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if std::os::unix::net::UnixStream::connect(paths.control_socket()).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!(
                "the lab's supervisor ended at once ({status}):\n{}",
                fs::read_to_string(&log_path).unwrap_or_default().trim_end()
            );
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the lab's supervisor did not answer within 10 s; its log is {}", log_path.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A session of its own, so that the terminal's Ctrl-C and hang-up reach only the command.
fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec and makes one async-signal-safe system call.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
}

/// The supervisor's main function: runs the lab of `launch.json` until it is told to stop.
///
/// # Errors
/// When the lab cannot be started at all. A guest that does not boot is no such error: it is reported to whoever asks.
pub fn run(launch_path: &Path) -> Result<()> {
    let launch = Launch::load(launch_path)?;
    let paths = launch.paths()?;
    if let Found::Running(other) = find(&paths)? {
        bail!("lab `{}` is supervised already, by process {}", launch.name, other.process.pid);
    }
    paths.create()?;
    let cancel = Cancel::default();
    let stop = cancel.flag();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot watch for signals")?;
    }
    let launch_id = launch.id()?;
    let fabric = Fabric::start(&launch.networks)?;
    let (slots, receivers): (Vec<_>, Vec<_>) =
        launch.guests.iter().map(|g| Slot::new(g.clone(), launch.boot_timeout)).unzip();
    let shared = Arc::new(Shared {
        launch,
        launch_id: launch_id.clone(),
        started: Instant::now(),
        guests: slots,
        fabric,
        events: Events::default(),
        stop,
    });
    let progress = progress_of(&shared, cancel);
    let process = ProcessId::of(std::process::id()).context("cannot tell this process's start time")?;
    let listener = UnixListener::bind(paths.control_socket())
        .with_context(|| format!("cannot listen on {}", paths.control_socket().display()))?;
    Journal { process, launch_id, control: control::VERSION }.save(&paths)?;
    std::thread::scope(|scope| {
        for (n, receiver) in receivers.into_iter().enumerate() {
            let (shared, progress) = (Arc::clone(&shared), progress.clone());
            std::thread::Builder::new()
                .name(format!("guest-{}", shared.guests[n].launch.plan.name))
                .spawn_scoped(scope, move || guest::watch(&shared.guests[n], &receiver, &progress))
                .context("cannot start a thread")?;
        }
        let served = server::serve(&shared, &listener);
        for slot in &shared.guests {
            progress.info(format!("guest `{}` is powered off", slot.launch.plan.name));
        }
        std::thread::scope(|stopping| {
            for slot in &shared.guests {
                stopping.spawn(|| slot.stop());
            }
        });
        served
    })?;
    shared.fabric.stop();
    crate::journal::clean(&paths)
}

/// Events go to the log and to whoever follows.
fn progress_of(shared: &Arc<Shared>, cancel: Cancel) -> Progress {
    let shared = Arc::downgrade(shared);
    Progress::new(cancel, move |event| {
        if let Ok(line) = serde_json::to_string(&event) {
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        }
        if let Some(shared) = shared.upgrade() {
            shared.events.publish(&event);
        }
    })
}

impl Shared {
    /// Whether somebody asked the lab to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Looks a guest up.
    pub fn guest(&self, name: &str) -> Result<&Slot> {
        self.guests.iter().find(|s| s.launch.plan.name == name).with_context(|| {
            let names: Vec<&str> = self.guests.iter().map(|s| s.launch.plan.name.as_str()).collect();
            format!("lab `{}` has no guest `{name}`; it has {}", self.launch.name, names.join(", "))
        })
    }
}
