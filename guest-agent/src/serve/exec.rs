//! Runs one program for one stream: its output goes out, input and signals come in, its end is told exactly.
//!
//! One thread polls everything the program is tied to: its pipes or terminal, and an eventfd that is written when
//! something arrived on the stream, when the stream has room again, and when the program has ended.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::mux::{Item, MuxStream};
use protocol::{Event, Exec, Exit, Failure, Input};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::answer::send;
use super::launch::{self, Launched};
use crate::children::{Ended, children};

/// How long a program may go on after SIGTERM when its time is up.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long to wait for the end of the output once the program is gone: what it left behind may hold the pipe open.
const OUTPUT_GRACE: Duration = Duration::from_millis(250);
/// Bytes read at a time; one frame.
const CHUNK: usize = protocol::frame::MAX_PAYLOAD;

/// Serves an [`Exec`] to its end.
pub fn serve(stream: &Arc<MuxStream>, exec: &Exec) -> Result<(), Failure> {
    let wake = Arc::new(launch::eventfd()?);
    let started = Instant::now();
    let launched = launch::launch(exec, &wake)?;
    let pid = launched.pid;
    let waker = wake.clone();
    stream.set_waker(move || {
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = rustix::io::write(&*waker, &1_u64.to_ne_bytes());
    });
    let _ = send(stream, &Event::Started { pid });
    let mut run = Run::new(stream, launched, wake, exec.timeout_ms.map(|limit| started + Duration::from_millis(limit)));
    if let Some(ended) = run.pump() {
        let exit = exit(&ended, started, run.timed_out);
        run.leave_behind();
        let _ = send(stream, &Event::Exited(exit));
    } else {
        children().kill_session(pid);
        // Its status is nobody's business any more, but the table must not keep it.
        children().wait(pid);
    }
    Ok(())
}

fn exit(ended: &Ended, started: Instant, timed_out: bool) -> Exit {
    let status = ended.status;
    Exit {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        core: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        timed_out,
        wall_us: ended.at.saturating_duration_since(started).as_micros() as u64,
        user_us: ended.usage.user_us,
        sys_us: ended.usage.sys_us,
        max_rss_kib: ended.usage.max_rss_kib,
    }
}

/// One of the program's output pipes, or its terminal.
struct Source {
    fd: OwnedFd,
    stderr: bool,
}

/// A running program and what is tied to it.
struct Run<'a> {
    stream: &'a MuxStream,
    pid: u32,
    wake: Arc<OwnedFd>,
    sources: Vec<Source>,
    stdin: Option<OwnedFd>,
    terminal: bool,
    /// Input that the program has not taken yet, and how much of its first piece it has.
    pending: VecDeque<Vec<u8>>,
    taken: usize,
    /// No more input will come.
    input_ended: bool,
    deadline: Option<Instant>,
    kill_at: Option<Instant>,
    timed_out: bool,
    buffer: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(stream: &'a MuxStream, launched: Launched, wake: Arc<OwnedFd>, deadline: Option<Instant>) -> Self {
        let source = |stderr| move |fd| Source { fd, stderr };
        Run {
            stream,
            pid: launched.pid,
            wake,
            sources: launched.output.map(source(false)).into_iter().chain(launched.errors.map(source(true))).collect(),
            stdin: launched.input,
            terminal: launched.terminal,
            pending: VecDeque::new(),
            taken: 0,
            input_ended: false,
            deadline,
            kill_at: None,
            timed_out: false,
            buffer: vec![0; CHUNK],
        }
    }

    /// Runs until the program has ended and its output is out; `None` when the host closed the stream before.
    fn pump(&mut self) -> Option<Ended> {
        let mut ended = None;
        let (mut quiet_since, mut quiet) = (Instant::now(), false);
        loop {
            let room = self.take_input()?;
            if ended.is_none() {
                ended = children().take_ended(self.pid);
                (quiet_since, quiet) = (Instant::now(), false);
            }
            self.watch_the_clock(ended.is_some());
            let mut limit = self.deadline.or(self.kill_at);
            if let Some(ended) = ended {
                // Only a look that found nothing to read counts: the time may have passed while nobody looked.
                if self.sources.is_empty() || (quiet && quiet_since.elapsed() >= OUTPUT_GRACE) {
                    return Some(ended);
                }
                limit = room.then(|| quiet_since + OUTPUT_GRACE);
            }
            let read = self.poll(room, limit);
            quiet = room && !read;
            if !quiet {
                quiet_since = Instant::now();
            }
        }
    }

    /// Takes what arrived on the stream. Whether there is room to send; `None` when the stream is closed.
    fn take_input(&mut self) -> Option<bool> {
        while let Some(item) = self.stream.take(Duration::ZERO).ok()? {
            match item {
                Item::Data { bytes, .. } if self.stdin.is_some() && !self.input_ended => self.pending.push_back(bytes),
                Item::Data { bytes, .. } => self.stream.release(bytes.len()),
                Item::Eof => self.end_input(),
                Item::Message(message) => match postcard::from_bytes(&message) {
                    Ok(Input::Signal(signal)) => {
                        let _ = children().signal_group(self.pid, signal);
                    }
                    Ok(Input::Resize(size)) if self.terminal => {
                        if let Some(source) = self.sources.first() {
                            let _ = rustix::termios::tcsetwinsize(&source.fd, launch::winsize(&size));
                        }
                    }
                    // Bytes travel as data; a message that means nothing here costs nobody anything.
                    _ => {}
                },
            }
        }
        self.stream.has_room().ok()
    }

    fn end_input(&mut self) {
        if self.terminal && !self.input_ended {
            // What a person would press at the beginning of a line (VEOF, termios(3)).
            self.pending.push_back(vec![4]);
        }
        self.input_ended = true;
    }

    fn watch_the_clock(&mut self, ended: bool) {
        let now = Instant::now();
        if !ended && self.deadline.is_some_and(|deadline| now >= deadline) {
            (self.deadline, self.kill_at, self.timed_out) = (None, Some(now + TERM_GRACE), true);
            let _ = children().signal_group(self.pid, libc::SIGTERM);
            let _ = children().signal_group(self.pid, libc::SIGCONT);
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            children().kill_session(self.pid);
        }
    }

    /// Waits for the next thing to do and does it. Whether output was read.
    fn poll(&mut self, room: bool, limit: Option<Instant>) -> bool {
        if self.pending.is_empty() && self.input_ended && !self.terminal {
            self.stdin = None;
        }
        let wanted_sources = if room { self.sources.len() } else { 0 };
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        fds.extend(self.sources[..wanted_sources].iter().map(|source| PollFd::new(&source.fd, PollFlags::IN)));
        let writable = self.stdin.as_ref().filter(|_| !self.pending.is_empty());
        if let Some(stdin) = writable {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        let timeout = limit.map(|limit| {
            let left = limit.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return false;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let (can_write, wanted_end) = (writable.is_some() && ready[ready.len() - 1], 1 + wanted_sources);
        drop(fds);
        if ready[0] {
            let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        }
        if can_write {
            self.write_input();
        }
        let mut read = false;
        for at in (0..wanted_sources).rev().filter(|at| ready[1..wanted_end][*at]) {
            match rustix::io::read(&self.sources[at].fd, &mut self.buffer) {
                Ok(0) => drop(self.sources.remove(at)),
                Ok(length) => {
                    read = true;
                    // An error means that the stream has closed, which the next look at it tells.
                    let _ = self.stream.send_data(self.sources[at].stderr, &self.buffer[..length]);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // A terminal whose last user has gone says EIO.
                Err(_) => drop(self.sources.remove(at)),
            }
        }
        read
    }

    fn write_input(&mut self) {
        let (Some(stdin), Some(piece)) = (&self.stdin, self.pending.front()) else { return };
        match rustix::io::write(stdin, &piece[self.taken..]) {
            Ok(written) => {
                self.taken += written;
                if self.taken == piece.len() {
                    self.stream.release(piece.len());
                    self.pending.pop_front();
                    self.taken = 0;
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                // The program reads no more: take the rest off the host's hands.
                for piece in self.pending.drain(..) {
                    self.stream.release(piece.len());
                }
                (self.stdin, self.taken) = (None, 0);
            }
        }
    }

    /// Something the program left running may still write: read it into nothing, so that it is not killed by its pipe.
    /// A terminal is hung up instead, as always when its session ends.
    fn leave_behind(&mut self) {
        if self.terminal {
            return;
        }
        for source in self.sources.drain(..) {
            let drain = move || {
                let mut buffer = [0; 4096];
                loop {
                    match rustix::io::read(&source.fd, &mut buffer) {
                        Ok(0) => return,
                        Err(Errno::AGAIN) => {
                            let _ = poll(&mut [PollFd::new(&source.fd, PollFlags::IN)], None);
                        }
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(_) => return,
                    }
                }
            };
            // Without a thread the pipe closes now, which is no worse than what a shell would do.
            let _ = std::thread::Builder::new().name("drain".into()).stack_size(64 * 1024).spawn(drain);
        }
    }
}

/// Sets a descriptor to fail rather than wait.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
