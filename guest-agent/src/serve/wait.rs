//! Waits for a condition. Each look says whether it holds, or else what was seen, which is what a failure in the end
//! tells: "port 7174 does not listen (listening: 22, 80)" helps, "timed out" does not.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protocol::mux::MuxStream;
use protocol::{Condition, Event, Exec, Failure, FailureKind, Wait};

use super::answer::{failed, failure, send};
use super::launch;
use crate::children::children;
use crate::kernel::{links, netns, rdma, tcp};
use crate::sys;

/// Pause between looks when the host leaves it to us: short at first, since most conditions come true at once.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// The same for a condition that starts a program.
const PROGRAM_PAUSE: Duration = Duration::from_millis(200);

/// Serves a [`Wait`].
pub fn serve(stream: &MuxStream, wait: &Wait) -> Result<(), Failure> {
    let started = Instant::now();
    let limit = Duration::from_millis(wait.timeout_ms);
    let mut pause = match (wait.interval_ms, &wait.condition) {
        (0, Condition::Succeeds { .. }) => PROGRAM_PAUSE,
        (0, _) => FIRST_PAUSE,
        (chosen, _) => Duration::from_millis(chosen),
    };
    loop {
        let Err(seen) = look(&wait.condition, limit.saturating_sub(started.elapsed()))? else {
            let _ = send(stream, &Event::Done);
            return Ok(());
        };
        let left = limit.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(failure(FailureKind::TimedOut, format!("after {} ms: {seen}", wait.timeout_ms)));
        }
        // The stream is the clock: should the host close it, the wait is over at once.
        let until = Instant::now() + pause.min(left);
        loop {
            match stream.recv(until.saturating_duration_since(Instant::now())) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return Ok(()),
            }
        }
        if wait.interval_ms == 0 {
            pause = (pause * 2).min(LAST_PAUSE.max(pause));
        }
    }
}

/// `Ok(Ok(()))` when it holds, `Ok(Err(…))` with what was seen when it does not, an error when it never could.
type Seen = Result<Result<(), String>, Failure>;

fn look(condition: &Condition, left: Duration) -> Seen {
    match condition {
        Condition::TcpListen { port, netns } => listens("TCP port", Some(*port), netns.as_deref(), || {
            tcp::listening().map_err(|error| failed("reading /proc/net/tcp", &error))
        }),
        Condition::RdmaListen { port, netns } => listens("RDMA CM port", *port, netns.as_deref(), || {
            rdma::listening().map_err(|error| failed("asking for RDMA connection manager ids", &error))
        }),
        Condition::RdmaLinkActive { name, netns } => netns::within(netns.as_deref(), || rdma_active(name)),
        Condition::Link { name, netns, up } => {
            // The namespace may be about to be made by whoever is waited for.
            match netns::within(netns.as_deref(), || link(name, *up)) {
                Err(missing) if missing.kind == FailureKind::NotFound => Ok(Err(missing.message)),
                other => other,
            }
        }
        Condition::FileExists { path } => {
            Ok(if Path::new(path).exists() { Ok(()) } else { Err(format!("{path} does not exist")) })
        }
        Condition::FileContains { path, pattern } => Ok(contains(path, pattern)),
        Condition::Succeeds { argv } => succeeds(argv, left),
    }
}

fn listens(
    what: &str,
    port: Option<u16>,
    netns: Option<&str>,
    ports: impl FnOnce() -> Result<Vec<u16>, Failure> + Send,
) -> Seen {
    let ports = match netns::within(netns, ports) {
        Err(missing) if missing.kind == FailureKind::NotFound => return Ok(Err(missing.message)),
        other => other?,
    };
    if port.map_or(!ports.is_empty(), |port| ports.contains(&port)) {
        return Ok(Ok(()));
    }
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let place = netns.map(|name| format!(" in netns {name}")).unwrap_or_default();
    let wanted = port
        .map_or_else(|| format!("no {what} listens{place}"), |port| format!("{what} {port} does not listen{place}"));
    Ok(Err(if list.is_empty() { format!("{wanted} (nothing does)") } else { format!("{wanted} (listening: {list})") }))
}

fn rdma_active(name: &str) -> Seen {
    let asked = |error| failed("asking for RDMA devices", &error);
    let devices = rdma::devices().map_err(asked)?;
    let Some(device) = devices.iter().find(|device| device.name == name) else {
        let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        return Ok(Err(format!("there is no RDMA device {name} (devices: {})", names.join(", "))));
    };
    let ports = rdma::ports(device).map_err(asked)?;
    Ok(match ports.iter().find(|port| port.number == 1) {
        Some(port) if port.is_active() => Ok(()),
        Some(port) => Err(format!(
            "{name} port 1 is in state {} ({}), physical state {}",
            port.state, "4 is active", port.physical
        )),
        None => Err(format!("{name} has no port 1")),
    })
}

fn link(name: &str, up: bool) -> Seen {
    let links = links::all().map_err(|error| failed("listing network links", &error))?;
    Ok(match links.iter().find(|link| link.name == name) {
        None => Err(format!("there is no link {name}")),
        Some(link) if !up || (link.up && link.running) => Ok(()),
        Some(link) if link.up => Err(format!("{name} is up but has no carrier")),
        Some(_) => Err(format!("{name} is down")),
    })
}

fn contains(path: &str, pattern: &str) -> Result<(), String> {
    let content = fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    if pattern.is_empty() || content.windows(pattern.len()).any(|window| window == pattern.as_bytes()) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&content);
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let last: String = last.chars().take(200).collect();
    Err(format!("{path} does not contain {pattern:?} (last line: {last:?})"))
}

fn succeeds(argv: &[String], left: Duration) -> Seen {
    let exec = Exec::new(argv.iter().cloned());
    let mut command = launch::command(&exec)?;
    sys::isolate(&mut command, false, None);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = run(&mut command, left).map_err(|error| launch::not_started(&exec, &error))?;
    Ok(match status {
        Some(status) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
        Some(status) if libc::WIFEXITED(status) => {
            Err(format!("{} exits with {}", argv.join(" "), libc::WEXITSTATUS(status)))
        }
        Some(status) => Err(format!("{} is killed by signal {}", argv.join(" "), libc::WTERMSIG(status))),
        None => Err(format!("{} did not end", argv.join(" "))),
    })
}

/// Runs a program to its end; `None` when it had to be killed because the time was up. The raw wait status otherwise.
fn run(command: &mut Command, limit: Duration) -> std::io::Result<Option<i32>> {
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    let child = children().spawn(command, wake.try_clone()?)?;
    let limit = limit.max(Duration::from_secs(1));
    let timeout = rustix::event::Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    let fd = rustix::event::PollFd::new(&wake, rustix::event::PollFlags::IN);
    let ended = rustix::event::poll(&mut [fd], Some(&timeout)).is_ok_and(|ready| ready > 0);
    if !ended {
        children().kill_session(child.id());
    }
    let status = children().wait(child.id()).status;
    Ok(ended.then_some(status))
}
