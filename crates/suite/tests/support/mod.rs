//! Guests without machines: a real agent process in namespaces of its own for each, over a real channel.
//!
//! What a machine adds is played by what is at hand: the console is a file that test programs may write to, a crash is
//! a panic text in it, the end of a machine is the end of the namespace's first process. Everything between is the
//! real thing: protocol, agent, control groups, signals, files.

#![allow(dead_code)]

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use protocol::host::{Session, Stream};
use protocol::{ChannelError, Event, Exec, Input, Request};
use suite::{CrashInfo, GuestError, GuestInfo, GuestStream, Guests, Health};

pub use lab::{ended, options, record, run, tests};

/// Silence that counts as a hang.
const SILENCE: Duration = Duration::from_secs(4);

/// One agent process.
struct Instance {
    child: Child,
    session: Session,
    /// Where the console stood when it was started.
    console_from: u64,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // unshare --kill-child takes everything in the namespace along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A lab of local guests.
pub struct Local {
    dir: tempfile::TempDir,
    guests: BTreeMap<String, Mutex<Instance>>,
    kernel: String,
    /// What was rebooted and why.
    pub reboots: Mutex<Vec<String>>,
    /// Reboots fail with this.
    pub no_reboot: Option<String>,
}

/// Path of the agent, built on first use.
fn agent() -> &'static Path {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "guest-agent", "--message-format", "json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo");
        assert!(output.status.success(), "guest-agent does not build");
        let text = String::from_utf8(output.stdout).expect("cargo's messages");
        let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut paths = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        paths.next_back().expect("cargo names the program it built")
    })
}

fn start(console: &Path) -> Result<Instance, String> {
    let console_from = fs::metadata(console).map_or(0, |info| info.len());
    let (ours, theirs) = UnixStream::pair().map_err(|e| e.to_string())?;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    // The shell stays process 1 of the namespace: the agent would take itself for init.
    let script = "mount -t tmpfs tmpfs /run && \"$0\" --serve-fd 0; exit 1";
    command.args(["--pid", "--fork", "--mount", "--mount-proc", "--net", "--kill-child", "sh", "-c", script]);
    command.arg(agent()).stdin(OwnedFd::from(theirs));
    let child = command.spawn().map_err(|e| format!("unshare: {e}"))?;
    let session = Session::start(ours, 1).map_err(|e| e.to_string())?;
    let instance = Instance { child, session, console_from };
    instance.session.wait_hello(Duration::from_secs(30)).map_err(|e| e.to_string())?;
    Ok(instance)
}

impl Local {
    /// Guests of these names, with kernel `kernel`; `None`, said aloud, where this host cannot have them.
    pub fn start(names: &[&str], kernel: &str) -> Option<Local> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut guests = BTreeMap::new();
        for name in names {
            let console = dir.path().join(format!("{name}.console"));
            fs::write(&console, "").expect("a console");
            match start(&console) {
                Ok(instance) => guests.insert(name.to_string(), Mutex::new(instance)),
                Err(why) => {
                    eprintln!("skipped: namespaces cannot be made here ({why})");
                    return None;
                }
            };
        }
        let local = Local { dir, guests, kernel: kernel.into(), reboots: Mutex::default(), no_reboot: None };
        let scoped = Exec { scope: Some("suite-support".into()), ..Exec::new(["true"]) };
        let stream = local.open(names[0], Request::Exec(scoped)).expect("a stream");
        let mut stream = stream;
        loop {
            match stream.recv(Duration::from_secs(30)).expect("an answer") {
                Some(Event::Exited(_)) => return Some(local),
                Some(Event::Failed(failure)) => {
                    eprintln!("skipped: control groups cannot be made here ({})", failure.message);
                    return None;
                }
                Some(_) => {}
                None => panic!("the agent does not answer"),
            }
        }
    }

    /// The file that is a guest's console.
    pub fn console_path(&self, guest: &str) -> PathBuf {
        self.dir.path().join(format!("{guest}.console"))
    }

    /// A directory that host and guests share, since they share a file system.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn instance(&self, guest: &str) -> Result<&Mutex<Instance>, GuestError> {
        self.guests.get(guest).ok_or_else(|| GuestError::Unknown(guest.into()))
    }
}

/// A stream of one of these guests.
struct LocalStream {
    guest: String,
    stream: Stream,
}

fn channel(guest: &str, error: &ChannelError) -> GuestError {
    GuestError::Channel { guest: guest.into(), message: error.to_string() }
}

impl GuestStream for LocalStream {
    fn recv(&mut self, timeout: Duration) -> Result<Option<Event>, GuestError> {
        self.stream.recv(timeout).map_err(|error| channel(&self.guest, &error))
    }

    fn send(&mut self, input: Input) -> Result<(), GuestError> {
        self.stream.send(input).map_err(|error| channel(&self.guest, &error))
    }
}

impl Guests for Local {
    fn guests(&self) -> Vec<GuestInfo> {
        let info = |name: &String| GuestInfo {
            name: name.clone(),
            kernel: self.kernel.clone(),
            accelerator: "none".into(),
            ..GuestInfo::default()
        };
        self.guests.keys().map(info).collect()
    }

    fn open(&self, guest: &str, request: Request) -> Result<Box<dyn GuestStream>, GuestError> {
        let instance = self.instance(guest)?.lock().expect("no test panics while it holds this");
        let stream = instance.session.open(request).map_err(|error| channel(guest, &error))?;
        Ok(Box::new(LocalStream { guest: guest.into(), stream }))
    }

    fn reboot(&self, guest: &str, reason: &str) -> Result<(), GuestError> {
        self.reboots.lock().expect("no panics here").push(format!("{guest}: {reason}"));
        let fails = |message: String| GuestError::Reboot { guest: guest.into(), message };
        if let Some(why) = &self.no_reboot {
            return Err(fails(why.clone()));
        }
        let fresh = start(&self.console_path(guest)).map_err(fails)?;
        *self.instance(guest)?.lock().expect("no panics here") = fresh;
        Ok(())
    }

    fn console(&self, guest: &str, from: u64) -> Result<(Vec<u8>, u64), GuestError> {
        let read = || -> std::io::Result<(Vec<u8>, u64)> {
            let mut file = fs::File::open(self.console_path(guest))?;
            let from = from.min(file.metadata()?.len());
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let end = from + bytes.len() as u64;
            Ok((bytes, end))
        };
        read().map_err(|error| GuestError::Console { guest: guest.into(), message: error.to_string() })
    }

    fn health(&self, guest: &str) -> Health {
        let Ok(instance) = self.instance(guest) else { return Health::Down { reason: "unknown guest".into() } };
        let mut instance = instance.lock().expect("no panics here");
        let said = self.console(guest, instance.console_from).map(|(bytes, _)| bytes).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        if let Some(at) = said.find("Kernel panic") {
            let title = said[at..].lines().next().unwrap_or_default().to_string();
            let info = CrashInfo { kind: "panic".into(), fingerprint: title.clone(), title, trace: said[at..].into() };
            return Health::Crashed(info);
        }
        match instance.child.try_wait() {
            Ok(Some(status)) => return Health::Down { reason: status.to_string() },
            Ok(None) => {}
            Err(error) => return Health::Down { reason: error.to_string() },
        }
        let idle = instance.session.last_heard().elapsed();
        if idle > SILENCE { Health::Hung { idle } } else { Health::Alive { idle } }
    }
}
