//! QEMU's control socket.
//!
//! One thread reads, so that events are known the moment they happen; commands are serialised by a lock and matched by
//! id, so that a late answer to a command we gave up on is not taken for the next one's. Commands and types are those of
//! [`qapi`]; an event that crate does not know yet (QEMU is newer) is kept by name.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use qapi::qmp::{CpuInfoFast, RunState, StatusInfo};
use qapi::{Any, Command, Execute};
use serde::Serialize;

/// Longest wait for QEMU to answer a command. Its main loop answers within milliseconds unless the host is starved.
const ANSWER: Duration = Duration::from_secs(10);

/// What went wrong on the control socket.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket was closed: QEMU ended.
    #[error("QEMU closed its control socket while `{0}` was asked")]
    Closed(&'static str),
    /// QEMU did not answer.
    #[error("QEMU did not answer `{command}` within {waited:?}")]
    Silent {
        /// The command.
        command: &'static str,
        /// How long.
        waited: Duration,
    },
    /// QEMU refused.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's words.
        reason: String,
    },
    /// The answer is not what the command returns.
    #[error("QEMU answered `{command}` with something else: {source}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What did not fit.
        source: serde_json::Error,
    },
    /// Reading or writing failed.
    #[error("QEMU's control socket: {0}")]
    Io(#[from] std::io::Error),
}

/// An event of the machine, as QEMU named it (`SHUTDOWN`, `STOP`, `GUEST_PANICKED`…).
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// Its name.
    pub name: String,
    /// Its data, an object, or null.
    pub data: Any,
}

/// Counters of KVM (Linux, `struct kvm_vcpu_stat` in arch/x86/include/asm/kvm_host.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvmCounts {
    /// Instructions the hypervisor emulated.
    pub emulated: u64,
    /// How often the guest gave control back to it.
    pub exits: u64,
}

/// `query-stats`; its answer is a union that says by name what each number is, so it is read as plain JSON.
#[derive(Debug, Serialize)]
struct QueryStats {
    target: &'static str,
}

impl Command for QueryStats {
    type Ok = Any;
    const NAME: &'static str = "query-stats";
    const ALLOW_OOB: bool = false;
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<QmpEvent>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    /// One command at a time: the answers, and the next id.
    commands: Mutex<(mpsc::Receiver<Any>, u64)>,
    socket: UnixStream,
}

/// A handle to the control socket; clones share it.
#[derive(Debug, Clone)]
pub struct Qmp(Arc<Shared>);

impl Drop for Shared {
    fn drop(&mut self) {
        // Wakes the reader; fails only when QEMU closed first.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Qmp {
    /// Greets QEMU on a connected socket and leaves negotiation mode.
    pub fn start(socket: UnixStream) -> Result<Qmp, QmpError> {
        let (answers, receiver) = mpsc::channel();
        let reader = socket.try_clone()?;
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            changed: Condvar::new(),
            commands: Mutex::new((receiver, 1)),
            socket,
        });
        let weak = Arc::downgrade(&shared);
        thread::Builder::new().name("qmp".into()).spawn(move || {
            for line in BufReader::new(reader).lines() {
                let Ok(line) = line else { break };
                let Ok(message) = serde_json::from_str::<Any>(&line) else { continue };
                let Some(shared) = weak.upgrade() else { return };
                if let Some(name) = message.get("event").and_then(Any::as_str) {
                    let data = message.get("data").cloned().unwrap_or(Any::Null);
                    lock(&shared.seen).events.push(QmpEvent { name: name.to_owned(), data });
                    shared.changed.notify_all();
                } else if answers.send(message).is_err() {
                    return;
                }
            }
            if let Some(shared) = weak.upgrade() {
                lock(&shared.seen).closed = true;
                shared.changed.notify_all();
            }
        })?;
        let qmp = Qmp(shared);
        qmp.greeting()?;
        qmp.execute(qapi::qmp::qmp_capabilities { enable: None })?;
        Ok(qmp)
    }

    fn greeting(&self) -> Result<(), QmpError> {
        let commands = lock(&self.0.commands);
        let message = receive(&commands.0, "greeting", ANSWER)?;
        serde_json::from_value::<qapi::qmp::QapiCapabilities>(message)
            .map_err(|source| QmpError::Answer { command: "greeting", source })?;
        Ok(())
    }

    /// Executes a command and returns what it returns.
    pub fn execute<C: Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        let mut commands = lock(&self.0.commands);
        let id = commands.1;
        commands.1 += 1;
        let mut line = serde_json::to_vec(&Execute::with_id(command, id))
            .map_err(|source| QmpError::Answer { command: C::NAME, source })?;
        line.push(b'\n');
        (&self.0.socket).write_all(&line).map_err(|_| QmpError::Closed(C::NAME))?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut message = receive(&commands.0, C::NAME, left)?;
            if message.get("id").and_then(Any::as_u64) != Some(id) {
                continue;
            }
            if message.get("error").is_some() {
                let reason = serde_json::from_value::<qapi::Error>(message)
                    .map_or_else(|e| format!("with an error that does not decode ({e})"), |e| e.to_string());
                return Err(QmpError::Refused { command: C::NAME, reason });
            }
            return serde_json::from_value(message["return"].take())
                .map_err(|source| QmpError::Answer { command: C::NAME, source });
        }
    }

    /// The run state: `running`, `paused`, `internal-error`…
    pub fn status(&self) -> Result<RunState, QmpError> {
        let StatusInfo { status, .. } = self.execute(qapi::qmp::query_status {})?;
        Ok(status)
    }

    /// The host threads of the virtual CPUs, in order.
    pub fn cpu_threads(&self) -> Result<Vec<i64>, QmpError> {
        let cpus = self.execute(qapi::qmp::query_cpus_fast {})?;
        let thread = |cpu| match cpu {
            CpuInfoFast::x86_64(base) | CpuInfoFast::i386(base) => Some(base.thread_id),
            _ => None,
        };
        Ok(cpus.into_iter().filter_map(thread).collect())
    }

    /// What KVM counted for the virtual CPUs, all together; `None` where the host or QEMU does not tell.
    pub fn kvm_counts(&self) -> Option<KvmCounts> {
        let cpus = self.execute(QueryStats { target: "vcpu" }).ok()?;
        let all = cpus.as_array()?.iter().filter_map(|cpu| cpu["stats"].as_array()).flatten();
        let sum = |name: &str| {
            all.clone().filter(|s| s["name"] == name).filter_map(|s| s["value"].as_u64()).reduce(|a, b| a + b)
        };
        Some(KvmCounts { emulated: sum("insn_emulation")?, exits: sum("exits")? })
    }

    /// Ends QEMU at once, as if its window had been closed.
    pub fn quit(&self) -> Result<(), QmpError> {
        match self.execute(qapi::qmp::quit {}) {
            // It may be gone before it has answered.
            Ok(_) | Err(QmpError::Closed(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Every event so far, from number `from` on.
    pub fn events(&self, from: usize) -> Vec<QmpEvent> {
        lock(&self.0.seen).events.get(from..).unwrap_or_default().to_vec()
    }

    /// Whether QEMU has closed the socket.
    pub fn closed(&self) -> bool {
        lock(&self.0.seen).closed
    }

    /// Sleeps until there are more than `known` events, the socket closes, or time is up.
    pub fn wait_event(&self, known: usize, patience: Duration) {
        let seen = lock(&self.0.seen);
        let unchanged = |seen: &mut Seen| seen.events.len() <= known && !seen.closed;
        drop(self.0.changed.wait_timeout_while(seen, patience, unchanged));
    }
}

fn receive(from: &mpsc::Receiver<Any>, command: &'static str, patience: Duration) -> Result<Any, QmpError> {
    from.recv_timeout(patience).map_err(|e| match e {
        mpsc::RecvTimeoutError::Timeout => QmpError::Silent { command, waited: ANSWER },
        mpsc::RecvTimeoutError::Disconnected => QmpError::Closed(command),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays QEMU: greets, then answers each line with what `answer` makes of it.
    fn pretend(answer: impl Fn(Any) -> Vec<String> + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        thread::spawn(move || {
            let mut out = theirs.try_clone().expect("clone");
            let version = r#"{"qemu":{"micro":3,"minor":1,"major":11},"package":""}"#;
            writeln!(out, r#"{{"QMP":{{"version":{version},"capabilities":["oob"]}}}}"#).expect("greeting");
            for line in BufReader::new(theirs).lines() {
                let Ok(line) = line else { return };
                for reply in answer(serde_json::from_str(&line).expect("a command is JSON")) {
                    if writeln!(out, "{reply}").is_err() {
                        return;
                    }
                }
            }
        });
        ours
    }

    fn ok(request: &Any, value: &str) -> String {
        format!(r#"{{"return":{value},"id":{}}}"#, request["id"])
    }

    #[test]
    fn answers_are_matched_by_id_and_events_are_kept() {
        let socket = pretend(|request| match request["execute"].as_str() {
            Some("query-status") => vec![
                r#"{"return":{"nonsense":1},"id":99}"#.into(),
                r#"{"event":"NOT_YET_INVENTED","data":{"x":1},"timestamp":{"seconds":1,"microseconds":2}}"#.into(),
                ok(&request, r#"{"status":"internal-error","running":false}"#),
            ],
            _ => vec![ok(&request, "{}")],
        });
        let qmp = Qmp::start(socket).expect("handshake");
        assert_eq!(qmp.status().expect("status"), RunState::internal_error);
        assert_eq!(qmp.events(0).iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["NOT_YET_INVENTED"]);
    }

    #[test]
    fn a_refusal_carries_the_words_of_qemu() {
        let socket = pretend(|request| match request["execute"].as_str() {
            Some("quit") => {
                vec![format!(r#"{{"error":{{"class":"GenericError","desc":"not now"}},"id":{}}}"#, request["id"])]
            }
            _ => vec![ok(&request, "{}")],
        });
        let error = Qmp::start(socket).expect("handshake").quit().expect_err("must be refused");
        assert_eq!(error.to_string(), "QEMU refused `quit`: not now");
    }

    #[test]
    fn a_qemu_that_ends_at_once_is_an_error() {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        drop(theirs);
        assert!(matches!(Qmp::start(ours), Err(QmpError::Closed("greeting"))));
    }
}
