//! Runs a sandboxed program whose output goes to a log file and, line by line, to a step.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::time::Duration;

use progress::Step;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Sandbox, SandboxError};

/// How many last lines an error shows.
const TAIL: usize = 20;
/// How often a silent program's step is looked at for cancellation.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long the program may live on after it closed its output.
const LAST: Duration = Duration::from_millis(100);

pub(super) fn run(sandbox: Sandbox, step: &Step, log: &Path) -> Result<(), SandboxError> {
    let program = sandbox.program.to_string_lossy().into_owned();
    let log_error = |error| SandboxError::Log { program: program.clone(), log: log.to_owned(), error };
    let start_error = |error| SandboxError::Start { program: program.clone(), error };
    let mut file = BufWriter::new(File::create(log).map_err(log_error)?);
    // One pipe for both, so that errors stand among the lines they belong to.
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| start_error(e.into()))?;
    let also = write.try_clone().map_err(start_error)?;
    let mut running = sandbox.stdout(write).stderr(also).spawn()?;

    let mut lines = Lines::default();
    let mut chunk = vec![0; 64 * 1024];
    let mut pipe = File::from(read);
    let status = loop {
        if let Err(cancelled) = step.progress().check_cancelled() {
            running.terminate()?;
            return Err(cancelled.into());
        }
        if !readable(&pipe).map_err(|e| running.lost(e))? {
            continue;
        }
        match pipe.read(&mut chunk).map_err(|e| running.lost(e))? {
            0 => match running.wait_for(LAST)? {
                Some(status) => break status,
                // It closed its output and works on.
                None => continue,
            },
            n => {
                file.write_all(&chunk[..n]).map_err(log_error)?;
                lines.feed(&chunk[..n], |line| step.line(line));
            }
        }
    };
    lines.end(|line| step.line(line));
    file.flush().map_err(log_error)?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().unwrap_or(255);
    Err(SandboxError::Failed {
        program: running.program().to_owned(),
        code,
        tail: lines.tail.into(),
        log: log.to_owned(),
    })
}

/// Waits a moment for something to read, the end included.
fn readable(pipe: &File) -> io::Result<bool> {
    match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&LOOK)) {
        Ok(n) => Ok(n > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Cuts a stream of bytes into lines and remembers the last ones.
#[derive(Debug, Default)]
struct Lines {
    partial: Vec<u8>,
    tail: VecDeque<String>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|b| *b == b'\n' || *b == b'\r') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") {
                self.end(&mut emit);
            }
        }
    }

    fn end(&mut self, mut emit: impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if text.is_empty() {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text.clone());
        emit(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_pipe_was() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in ["a", "b\nc\r", "\n\nlong ", "line", "\nlast"] {
            lines.feed(piece.as_bytes(), |line| seen.push(line));
        }
        lines.end(|line| seen.push(line));
        assert_eq!(seen, ["ab", "c", "long line", "last"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut lines = Lines::default();
        for n in 0..100 {
            lines.feed(format!("{n}\n").as_bytes(), |_| {});
        }
        assert_eq!(lines.tail.len(), TAIL);
        assert_eq!(lines.tail.back().unwrap(), "99");
    }
}
