//! Writing down what crosses a port.
//!
//! The switch's thread encodes a frame into a buffer ([`Tap`]) and goes on; a thread of the capture's own writes the
//! buffer out at once, whole blocks at a time, so that a live file is readable and a slow disk slows no frame. When the
//! disk cannot keep up, frames are missed and counted, here and in the file's statistics block.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::control::Control;
use crate::error::FabricError;
use crate::pcapng::{self, Direction};

/// Bytes that may wait for the disk.
const BUFFER: usize = 16 << 20;

/// What a capture holds at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureSummary {
    /// Frames in the file.
    pub frames: u64,
    /// Frames that crossed the port and are not in the file, because the disk was too slow.
    pub missed: u64,
}

/// A capture that runs until it is dropped or finished.
#[derive(Debug)]
pub struct Capture {
    tap: Arc<Tap>,
    control: Control,
    port: usize,
    port_name: String,
    file: PathBuf,
    writer: Option<JoinHandle<io::Result<()>>>,
}

/// The end of a capture that the switch holds.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    blocks: Vec<u8>,
    seen: u64,
    missed: u64,
    ending: bool,
}

impl Tap {
    /// Notes a frame. Never waits for the disk.
    pub fn frame(&self, direction: Direction, frame: &[u8]) {
        let mut state = self.state();
        state.seen += 1;
        if state.ending || state.blocks.len() + pcapng::packet_size(frame.len()) > BUFFER {
            state.missed += 1;
            return;
        }
        let first = state.blocks.is_empty();
        pcapng::packet(&mut state.blocks, now(), direction, frame);
        drop(state);
        if first {
            self.changed.notify_one();
        }
    }

    fn end(&self) {
        self.state().ending = true;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the writing thread. `length` is what the file holds already.
    fn write_to(&self, mut file: File, mut length: u64) -> io::Result<()> {
        let mut blocks = Vec::new();
        loop {
            let mut state = self.state();
            while state.blocks.is_empty() && !state.ending {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut blocks, &mut state.blocks);
            let last = state.ending;
            if last {
                pcapng::statistics(&mut blocks, now(), state.seen, state.missed);
            }
            drop(state);
            if let Err(e) = file.write_all(&blocks) {
                self.state().ending = true;
                // What was written before stays readable. A pipe cannot be cut, and its reader is gone.
                let _ = file.set_len(length);
                return Err(e);
            }
            length += blocks.len() as u64;
            blocks.clear();
            if last {
                return Ok(());
            }
        }
    }
}

impl Capture {
    /// Creates the file and the thread that fills it. The caller hands `tap` to the switch.
    pub(crate) fn start(
        control: Control,
        port: usize,
        port_name: &str,
        path: &Path,
    ) -> Result<(Self, Arc<Tap>), FabricError> {
        let failed = |source| FabricError::Capture { port: port_name.to_owned(), file: path.to_owned(), source };
        let mut file = File::create(path).map_err(failed)?;
        let tap = Arc::new(Tap::default());
        let mut head = Vec::new();
        pcapng::header(&mut head, port_name, &format!("port {port_name} of network {}", control.network()));
        file.write_all(&head).map_err(failed)?;
        let length = head.len() as u64;
        let filled = Arc::clone(&tap);
        let writer = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || filled.write_to(file, length))
            .map_err(failed)?;
        let capture = Capture {
            tap: Arc::clone(&tap),
            control,
            port,
            port_name: port_name.to_owned(),
            file: path.to_owned(),
            writer: Some(writer),
        };
        Ok((capture, tap))
    }

    /// Ends the capture and says what it holds.
    ///
    /// # Errors
    /// When the file could not be written; what it holds up to then is readable.
    pub fn finish(mut self) -> Result<CaptureSummary, FabricError> {
        self.end()
    }

    fn end(&mut self) -> Result<CaptureSummary, FabricError> {
        let Some(writer) = self.writer.take() else { return Ok(self.summary()) };
        let (port, tap) = (self.port, Arc::clone(&self.tap));
        // A switch that stopped before has let go of the tap.
        let _ = self.control.call(move |core| core.untap(port, &tap));
        self.tap.end();
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")));
        written.map_err(|source| FabricError::Capture {
            port: self.port_name.clone(),
            file: self.file.clone(),
            source,
        })?;
        Ok(self.summary())
    }

    fn summary(&self) -> CaptureSummary {
        let state = self.tap.state();
        CaptureSummary { frames: state.seen - state.missed, missed: state.missed }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
