//! The wire between the command line and a lab's supervisor.
//!
//! One connection asks one thing. It opens with a line that names the version, so that a client of another build gets
//! a sentence instead of garbage; frames follow: a kind, a big-endian u32 length, the payload. Questions and
//! answers are JSON; what streams to and from a guest (bytes, mostly) is the agent protocol's own encoding.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::order::DeviceOrder;

/// Version of everything in this module. Raised with each change of a message.
pub const VERSION: u32 = 3;

/// The first line of both sides.
pub fn greeting() -> String {
    format!("devmem-lab control {VERSION}.{}\n", protocol::VERSION)
}

/// Largest payload of a frame, in bytes. Bulk data travels in pieces of at most 64 KiB.
const FRAME_MAX: usize = 16 << 20;

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// How is everything? [`Answer::Status`].
    Status,
    /// [`Answer::Progress`] of the boots, until every guest is ready: [`Answer::Done`] or [`Answer::Failed`].
    WaitReady,
    /// [`Answer::Done`], then the connection carries the stream: protocol inputs one way, protocol events the other.
    Open {
        /// The guest.
        guest: String,
        /// What to do there.
        request: protocol::Request,
    },
    /// Resets the guest; [`Answer::Done`] when its agent is ready again.
    Reboot {
        /// The guest.
        guest: String,
        /// For the log.
        reason: String,
    },
    /// How is this guest? [`Answer::Health`].
    Health {
        /// The guest.
        guest: String,
    },
    /// Changes what a port does to frames sent to it: [`Answer::Done`].
    Fault {
        /// The port.
        port: String,
        /// The fault, in the words of `lab.toml`.
        fault: FaultSpec,
    },
    /// Tells a gvnic what to do: [`Answer::Done`].
    Device {
        /// Its port.
        port: String,
        /// What.
        order: DeviceOrder,
    },
    /// Writes what crosses a port to a file until the connection ends: [`Answer::Done`] once it runs.
    Capture {
        /// The port.
        port: String,
        /// The pcapng file.
        file: PathBuf,
    },
    /// Powers everything off: [`Answer::Done`], then the supervisor ends.
    Down,
}

/// What the supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// As asked.
    Done,
    /// Not as asked, and why.
    Failed(String),
    /// Something happened meanwhile.
    Progress(progress::Event),
    /// The lab's state.
    Status(Box<LabStatus>),
    /// A guest's health.
    Health(HealthReport),
}

/// Faults of a link, in plain numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSpec {
    /// Probability that a frame is lost, 0 to 1.
    pub loss: f64,
    /// Microseconds every frame is held.
    pub delay_us: u64,
    /// Microseconds by which the delay varies either way.
    pub jitter_us: u64,
    /// Probability that a frame overtakes others, 0 to 1.
    pub reorder: f64,
    /// Probability that a frame arrives twice, 0 to 1.
    pub duplicate: f64,
    /// Probability that one bit is flipped, 0 to 1.
    pub corrupt: f64,
    /// Nothing gets through.
    pub partition: bool,
}

impl FaultSpec {
    /// From the model of `lab.toml`.
    pub fn from_config(fault: &lab_config::Fault) -> Self {
        let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        FaultSpec {
            loss: fault.loss,
            delay_us: micros(fault.delay),
            jitter_us: micros(fault.jitter),
            reorder: fault.reorder,
            duplicate: fault.duplicate,
            corrupt: fault.corrupt,
            partition: fault.partition,
        }
    }
}

/// How a guest is, on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum HealthReport {
    /// Its agent answers; last heard this many microseconds ago.
    Alive {
        /// Microseconds.
        idle_us: u64,
    },
    /// Its console shows a crash.
    Crashed(suite::CrashInfo),
    /// Nothing heard for too long.
    Hung {
        /// Microseconds.
        idle_us: u64,
    },
    /// No machine, and why.
    Down {
        /// Why.
        reason: String,
    },
}

/// What runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabStatus {
    /// The lab's name.
    pub name: String,
    /// Process id of the supervisor.
    pub supervisor_pid: i32,
    /// Seconds since it started.
    pub up_s: u64,
    /// Identity of what was launched; another `up` with the same identity has nothing to boot.
    pub launch_id: String,
    /// One a guest.
    pub guests: Vec<GuestStatus>,
    /// One a fabric port.
    pub ports: Vec<PortStatus>,
    /// One a NIC that is a process of its own.
    pub devices: Vec<DeviceStatus>,
}

/// A guest as `lab status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Its name.
    pub name: String,
    /// Its kernel's name in `lab.toml`.
    pub kernel: String,
    /// What `uname -r` says there, once it is up.
    pub kernel_release: String,
    /// Identity of the kernel's tree.
    pub kernel_tree: String,
    /// `booting`, `ready`, `crashed`, `hung`, `down`.
    pub state: String,
    /// More about the state, for people.
    pub detail: String,
    /// `kvm` or `tcg`, once known.
    pub accelerator: String,
    /// Whether its time is the count of its instructions.
    pub deterministic: bool,
    /// QEMU's process id, while there is one.
    pub pid: Option<i32>,
    /// Milliseconds from launch to the agent's hello.
    pub boot_ms: Option<u64>,
    /// Boots since the lab came up, the first included.
    pub boots: u32,
    /// The console's log.
    pub console: PathBuf,
    /// Where gdb attaches, when asked for.
    pub gdb: Option<String>,
    /// Its NICs.
    pub nics: Vec<suite::NicInfo>,
}

/// A port of the fabric.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PortStatus {
    /// `GUEST.N`.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Whether a NIC is plugged in.
    pub connected: bool,
    /// Frames and bytes from the guest, then to the guest.
    pub rx_frames: u64,
    /// Bytes from the guest.
    pub rx_bytes: u64,
    /// Frames to the guest.
    pub tx_frames: u64,
    /// Bytes to the guest.
    pub tx_bytes: u64,
    /// Frames that were not delivered, whatever the cause.
    pub dropped: u64,
}

/// A gvnic, as its own process counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// `GUEST.N`.
    pub port: String,
    /// Its process id.
    pub pid: i32,
    /// The driver's version; empty before there is one.
    pub driver: String,
    /// Whether the guest sees a link.
    pub link: bool,
    /// Its queues, by number.
    pub queues: Vec<QueueStatus>,
    /// What became of its descriptors, and what else happened to it.
    pub books: suite::NicBooks,
}

/// A pair of queues. Frames and bytes count since the device was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Its number.
    pub id: u16,
    /// Frames the guest sent.
    pub tx_frames: u64,
    /// Bytes the guest sent.
    pub tx_bytes: u64,
    /// Frames given to the guest.
    pub rx_frames: u64,
    /// Bytes given to the guest.
    pub rx_bytes: u64,
    /// Of these, frames whose headers were split off.
    pub split_frames: u64,
    /// Bytes in header buffers.
    pub header_bytes: u64,
    /// Bytes in data buffers, which may be device memory.
    pub payload_bytes: u64,
    /// Frames of either direction that were not delivered, whatever the cause.
    pub dropped: u64,
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON: [`Ask`] or [`Answer`].
    Control,
    /// A protocol event or input.
    Stream,
}

/// Writes one frame.
pub fn write_frame(out: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|&l| l as usize <= FRAME_MAX)
        .ok_or_else(|| io::Error::other("frame too large"))?;
    let mut frame = Vec::with_capacity(payload.len() + 5);
    frame.push(match kind {
        Kind::Control => b'C',
        Kind::Stream => b'S',
    });
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(payload);
    out.write_all(&frame)
}

/// Reads one frame; `None` at a clean end.
pub fn read_frame(input: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0u8; 5];
    if input.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut head[1..])?;
    let kind = match head[0] {
        b'C' => Kind::Control,
        b'S' => Kind::Stream,
        other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("unknown frame kind {other:#04x}"))),
    };
    let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len > FRAME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {len} bytes; at most {FRAME_MAX}")));
    }
    let mut payload = vec![0; len];
    input.read_exact(&mut payload)?;
    Ok(Some((kind, payload)))
}

/// Sends a JSON message.
pub fn send<T: Serialize>(out: &mut UnixStream, message: &T) -> io::Result<()> {
    write_frame(out, Kind::Control, &serde_json::to_vec(message)?)
}

/// Receives a JSON message; `None` at a clean end.
pub fn receive<T: DeserializeOwned>(input: &mut UnixStream) -> io::Result<Option<T>> {
    match read_frame(input)? {
        None => Ok(None),
        Some((Kind::Control, payload)) => Ok(Some(serde_json::from_slice(&payload)?)),
        Some((Kind::Stream, _)) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "stream data where an answer was due"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Kind::Control, b"{}").unwrap();
        write_frame(&mut wire, Kind::Stream, &[7; 300]).unwrap();
        let mut input = wire.as_slice();
        assert_eq!(read_frame(&mut input).unwrap(), Some((Kind::Control, b"{}".to_vec())));
        assert_eq!(read_frame(&mut input).unwrap(), Some((Kind::Stream, vec![7; 300])));
        assert_eq!(read_frame(&mut input).unwrap(), None);
    }

    #[test]
    fn a_cut_or_hostile_frame_is_an_error() {
        assert!(read_frame(&mut &b"C\0\0\0\x05ab"[..]).is_err());
        assert!(read_frame(&mut &b"C\xff\xff\xff\xff"[..]).unwrap_err().to_string().contains("at most"));
        assert!(read_frame(&mut &b"Zxxxx"[..]).unwrap_err().to_string().contains("unknown frame kind"));
    }

    #[test]
    fn messages_are_json() {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        send(&mut a, &Ask::Open { guest: "a".into(), request: protocol::Request::Info }).unwrap();
        let Some(Ask::Open { guest, .. }) = receive(&mut b).unwrap() else { panic!("not what was sent") };
        assert_eq!(guest, "a");
    }
}
