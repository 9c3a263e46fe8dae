//! A netlink socket (RFC 3549; include/uapi/linux/netlink.h): one request at a time, answers handed out one by one. What the
//! kernel says about a refusal beyond its number (extended acknowledgements) is part of the error.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys;

const NLMSG_HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
/// The error does not repeat the request, and attributes follow it.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Ask for all there are (NLM_F_ROOT | NLM_F_MATCH).
pub const DUMP: u16 = 0x300;
/// Make something new; fail if it exists (NLM_F_CREATE | NLM_F_EXCL).
pub const CREATE: u16 = 0x600;

/// Set on the types of attributes that hold attributes (NLA_F_NESTED).
pub const NESTED: u16 = 0x8000;

/// A socket of one family, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    /// The RDMA family answers some requests for all there are with a single message and no end. Other families end every
    /// dump, and not all mark its messages as parts of one.
    endless: bool,
}

impl Netlink {
    /// Opens a socket; `None` is rtnetlink.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Netlink> {
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sys::explain_refusals(&socket)?;
        Ok(Netlink { socket, sequence: 0, endless: protocol == Some(rustix::net::netlink::RDMA) })
    }

    /// Sends a request and hands every answer (its type and what follows the header) to the function, until the kernel
    /// says that there are no more.
    pub fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut answer: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let mut message = Vec::with_capacity(NLMSG_HEADER + body.len());
        message.extend_from_slice(&((NLMSG_HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        // A dump ends with a message of its own; anything else is acknowledged.
        let ack = if flags & DUMP == DUMP { 0 } else { NLM_F_ACK };
        message.extend_from_slice(&(NLM_F_REQUEST | flags | ack).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((header, after)) = rest.split_first_chunk::<NLMSG_HEADER>() {
                let size = (u32_at(header, 0) as usize).max(NLMSG_HEADER);
                let payload = after.get(..size - NLMSG_HEADER).ok_or(io::ErrorKind::UnexpectedEof)?;
                rest = rest.get(align(size)..).unwrap_or_default();
                if u32_at(header, 8) != self.sequence {
                    continue;
                }
                match u16_at(header, 4) {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code)) {
                            0.. => Ok(()),
                            code => Err(refusal(-code, u16_at(header, 6), payload)),
                        };
                    }
                    kind => answer(kind, payload),
                }
                if self.endless && ack == 0 && u16_at(header, 6) & NLM_F_MULTI == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The error of a refusal, with the kernel's own words where it has some.
fn refusal(code: i32, flags: u16, payload: &[u8]) -> io::Error {
    let error = io::Error::from_raw_os_error(code);
    if flags & NLM_F_ACK_TLVS == 0 {
        return error;
    }
    // The error's number, the header of the request, and the rest of the request where it is not left out.
    let request = if flags & NLM_F_CAPPED == 0 { u32_at(payload, 4) as usize } else { NLMSG_HEADER };
    let said = attributes(payload.get(4 + align(request)..).unwrap_or_default())
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
        .map(|(_, said)| text(said));
    match said {
        Some(said) => io::Error::new(error.kind(), format!("{error}: {said}")),
        None => error,
    }
}

fn align(size: usize) -> usize {
    (size + 3) & !3
}

/// The u32 at an offset, in the machine's order; 0 beyond the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The u16 at an offset, likewise.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// The attributes in a message: type (without the nesting and byte order flags) and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let size = u16_at(bytes, 0) as usize;
        let value = bytes.get(4..size)?;
        let kind = u16_at(bytes, 2) & 0x3fff;
        bytes = bytes.get(align(size)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends an attribute.
pub fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(out.len()), 0);
}

/// The text of a string attribute, up to its zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut payload = (-16_i32).to_ne_bytes().to_vec();
        payload.extend([20, 0, 0, 0].into_iter().chain([0; 12]).chain(*b"body"));
        put(&mut payload, NLMSGERR_ATTR_MSG, b"Device queue in use due to queue leasing\0");
        let error = refusal(16, NLM_F_ACK_TLVS, &payload);
        assert!(error.to_string().ends_with("(os error 16): Device queue in use due to queue leasing"), "{error}");
        payload.drain(20..24);
        assert!(refusal(16, NLM_F_ACK_TLVS | NLM_F_CAPPED, &payload).to_string().contains("leasing"));
        assert_eq!(refusal(16, 0, &payload).raw_os_error(), Some(16));
    }

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let mut bytes = Vec::new();
        put(&mut bytes, 3, b"eth0\0");
        put(&mut bytes, 4 | 0x8000, &1500_u32.to_ne_bytes());
        let all: Vec<_> = attributes(&bytes).collect();
        assert_eq!(all, [(3, &b"eth0\0"[..]), (4, &1500_u32.to_ne_bytes()[..])]);
        assert_eq!(text(all[0].1), "eth0");
        // A length that lies ends the list.
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
    }
}
