//! A real agent process on one end of a socket pair, a real session on the other.

#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use protocol::host::{Finished, Session, Stream};
use protocol::{Channel, Event, Exec, Exit, Request};

/// Long enough for a loaded machine; no test waits for it to pass.
pub const LONG: Duration = Duration::from_secs(60);

/// An agent that serves as an ordinary process. It ends when its pipe is closed.
pub struct Agent {
    pub child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its pipe is closed by now; give it the time to take its programs along.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an agent; the other end of its pipe comes with it.
pub fn start() -> (Agent, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let child = Command::new(env!("CARGO_BIN_EXE_guest-agent"))
        .args(["--serve-fd", "0"])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .expect("the agent");
    (Agent { child }, ours)
}

/// An agent and a session with it.
pub fn connect() -> (Agent, Session) {
    let (agent, pipe) = start();
    let session = Session::start(pipe, 0x1234).expect("a session");
    session.wait_hello(LONG).expect("a greeting");
    (agent, session)
}

pub fn shell(script: &str) -> Exec {
    Exec::new(["sh", "-c", script])
}

pub fn run(session: &Session, script: &str) -> Finished {
    session.run(shell(script), LONG).unwrap_or_else(|error| panic!("{script}: {error}"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes events to the exit; the output is collected.
pub fn finish(stream: &Stream) -> (Vec<u8>, Exit) {
    let mut output = Vec::new();
    loop {
        match stream.recv(LONG).expect("an event").expect("an event in time") {
            Event::Output { channel: Channel::Stdout, bytes } => output.extend(bytes),
            Event::Exited(exit) => return (output, exit),
            Event::Started { .. } | Event::Output { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// Takes events until the output contains the text.
pub fn expect(stream: &Stream, wanted: &str) -> String {
    let mut output = Vec::new();
    while !text(&output).contains(wanted) {
        match stream.recv(LONG).expect("an event") {
            Some(Event::Output { bytes, .. }) => output.extend(bytes),
            Some(Event::Started { .. }) => {}
            other => panic!("{other:?} before {wanted:?}; so far {:?}", text(&output)),
        }
    }
    text(&output)
}

pub fn started(stream: &Stream) -> u32 {
    match stream.recv(LONG).expect("an event") {
        Some(Event::Started { pid }) => pid,
        other => panic!("not started but {other:?}"),
    }
}

pub fn open(session: &Session, exec: Exec) -> Stream {
    session.open(Request::Exec(exec)).expect("a stream")
}

/// Whether the process exists, be it as a zombie.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until it is true.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !check() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Stands between a session and an agent's pipe as QEMU does: a session's socket may come and go while the pipe stays.
pub struct Relay {
    socket: UnixStream,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Relay {
    /// Carries bytes between the agent's pipe and a new socket, which is returned. `limit` is how many bytes go to the
    /// agent before the connection is cut; `pace` is bytes a second, 0 for no limit.
    pub fn new(pipe: &UnixStream, limit: u64, pace: u64) -> (Relay, UnixStream) {
        let (outer, inner) = UnixStream::pair().expect("a socket pair");
        let stop = Arc::new(AtomicBool::new(false));
        for socket in [pipe, &inner] {
            // So that a thread that waits for bytes sees that it shall stop.
            socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a read timeout");
        }
        let share = |socket: &UnixStream| socket.try_clone().expect("a shared socket");
        let up = (share(&inner), share(pipe), stop.clone());
        let down = (share(pipe), share(&inner), stop.clone());
        let threads = vec![
            thread::spawn(move || carry(up.0, up.1, &up.2, limit, pace)),
            thread::spawn(move || carry(down.0, down.1, &down.2, u64::MAX, pace)),
        ];
        (Relay { socket: inner, stop, threads }, outer)
    }

    /// Cuts the connection, in the middle of a frame if there is one.
    pub fn cut(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.socket.shutdown(Shutdown::Both);
        for thread in self.threads {
            thread.join().expect("the relay");
        }
    }

    /// Waits until the limit was reached.
    pub fn wait_stopped(&self) {
        eventually("the relay reaches its limit", || self.stop.load(Ordering::Relaxed));
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, stop: &AtomicBool, mut left: u64, pace: u64) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let length = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length.min(usize::try_from(left).unwrap_or(usize::MAX)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
        left -= length as u64;
        if left == 0 {
            stop.store(true, Ordering::Relaxed);
        }
        if let Some(micros) = (length as u64 * 1_000_000).checked_div(pace) {
            thread::sleep(Duration::from_micros(micros));
        }
    }
}
