//! `lab-devmem receive`: takes one connection's bytes out of device memory.
//!
//! The order is what makes the first byte arrive there already: memory, set-up, binding, and only then listening. Each call of
//! recvmsg tells where the next bytes of the stream are; they are looked at there, and their fragments returned before the next
//! call, since the NIC has no others.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::PollFlags;

use crate::connection;
use crate::control::{self, Fragment};
use crate::dmabuf::{Buffer, Memory};
use crate::flow::{Name, Sink};
use crate::netdev::Netdev;
use crate::options::Queues;
use crate::report::Reception;
use crate::stage::Stage;
use crate::sys;
use crate::tokens::{Batch, Token};

/// Bytes of a call: as many as the socket mostly has, and few enough that the NIC gets its fragments back soon.
const CALL: usize = 512 << 10;
/// Room for control messages of 40 bytes: more of them than fragments fit into a call, but for frames of a few bytes. What does
/// not fit comes with the next call.
const CONTROL: usize = 40 * 4096;

/// What to receive with.
#[derive(Debug)]
pub struct Plan {
    /// The address to listen on.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Queues with a dma-buf; none to receive as anybody does.
    pub device: Option<Device>,
    /// Where the bytes go.
    pub sink: Name,
    /// How long nothing may come.
    pub patience: Duration,
}

/// Device memory to receive into.
#[derive(Debug)]
pub struct Device {
    /// The netdev.
    pub netdev: String,
    /// Its queues.
    pub queues: Queues,
    /// The dma-buf's memory.
    pub memory: Memory,
    /// Its bytes.
    pub size: usize,
    /// Whether to set the NIC up.
    pub set_up: bool,
}

/// Receives.
///
/// # Errors
/// When it could not be found out what would be received: nothing bound, nobody there, a connection that broke.
pub fn receive(plan: &Plan) -> Result<Reception> {
    let stage = Stage::open()?;
    let mut sink = Sink::open(&plan.sink)?;
    let address = SocketAddr::new(plan.address, plan.port);
    let mut bound = None;
    if let Some(device) = &plan.device {
        let netdev = Netdev::find(&device.netdev)?;
        let buffer = Buffer::new(device.memory, device.size)?;
        if device.set_up {
            stage.set_up(&netdev, &device.queues.0, plan.address, plan.port)?;
        }
        let id = stage.bind_rx(&netdev, &device.queues.0, &buffer)?;
        bound = Some((buffer, id));
    }
    let socket = connection::accept(address)?;
    let start = Instant::now();
    let mut reception = Reception { memory: bound.as_ref().map(|(b, _)| b.memory.to_string()), ..Reception::default() };
    let (mut data, mut messages) = (vec![0; CALL], vec![0; CONTROL]);
    loop {
        connection::wait(&socket, PollFlags::IN, plan.patience, "nothing was received")?;
        let received = match sys::receive_device(&socket, &mut data, &mut messages) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("the connection broke after {} bytes", reception.total()));
            }
        };
        if received.bytes == 0 {
            break;
        }
        if received.truncated {
            bail!("recvmsg lost control messages after {} bytes", reception.total());
        }
        let fragments = control::fragments(&messages[..received.control])?;
        if fragments.is_empty() {
            sink.take(&data[..received.bytes])?;
            reception.ordinary += received.bytes as u64;
            continue;
        }
        let Some((buffer, id)) = &bound else { bail!("device memory arrived where none is bound") };
        let used = Stream { buffer, id: *id, data: &data }.take(&fragments, &mut sink, &mut reception)?;
        if used.bytes != received.bytes as u64 {
            bail!("recvmsg brought {} bytes, and its control messages tell of {}", received.bytes, used.bytes);
        }
        give_back(&socket, used.done)?;
    }
    reception.time = start.elapsed();
    reception.wrong = sink.finish()?;
    Ok(reception)
}

/// Where the bytes of one call are.
struct Stream<'a> {
    buffer: &'a Buffer,
    id: u32,
    data: &'a [u8],
}

/// What of it was used.
struct Used {
    bytes: u64,
    done: Vec<(Vec<Token>, u32)>,
}

impl Stream<'_> {
    /// Gives the bytes to the sink in the order of the stream.
    fn take(&self, fragments: &[Fragment], sink: &mut Sink, reception: &mut Reception) -> Result<Used> {
        self.buffer.read(|memory| {
            let (mut batch, mut used, mut linear) = (Batch::default(), Used { bytes: 0, done: Vec::new() }, 0);
            for fragment in fragments {
                match *fragment {
                    Fragment::Device { offset, size, token, binding } => {
                        if binding != self.id {
                            bail!(
                                "bytes are in the dma-buf of binding {binding}, and ours is {}: is the rule right?",
                                self.id
                            );
                        }
                        let piece = usize::try_from(offset).ok().and_then(|at| memory.get(at..)?.get(..size as usize));
                        let Some(piece) = piece else {
                            bail!(
                                "a fragment of {size} bytes at {offset} is not within the dma-buf of {} bytes",
                                memory.len()
                            );
                        };
                        sink.take(piece)?;
                        used.done.extend(batch.push(token));
                        reception.devmem += u64::from(size);
                        reception.fragments += 1;
                    }
                    Fragment::Linear { size } => {
                        let Some(piece) = self.data.get(linear..linear + size as usize) else {
                            bail!("{size} linear bytes do not fit behind {linear} others");
                        };
                        sink.take(piece)?;
                        linear += size as usize;
                        reception.linear += u64::from(size);
                    }
                }
                used.bytes += u64::from(match fragment {
                    Fragment::Device { size, .. } | Fragment::Linear { size } => *size,
                });
            }
            used.done.extend(batch.take());
            Ok(used)
        })
    }
}

/// Returns fragments to the NIC, all of them.
fn give_back(socket: impl AsFd, done: Vec<(Vec<Token>, u32)>) -> Result<()> {
    for (tokens, fragments) in done {
        let freed = sys::give_back(socket.as_fd(), &tokens).context("cannot return fragments (SO_DEVMEM_DONTNEED)")?;
        if freed != fragments as usize {
            bail!("the kernel took back {freed} of {fragments} fragments");
        }
    }
    Ok(())
}
