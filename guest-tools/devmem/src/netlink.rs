//! Generic netlink, as much of it as this program needs: one request at a time, its answers, and refusals in the kernel's words.
//!
//! Messages are built and read as bytes by functions of their own; the socket only carries them. Layouts are those of
//! linux/netlink.h and linux/genetlink.h, in the machine's byte order.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::refusal::Refusal;
use crate::sys;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// In the header of an error: the request is not repeated behind it; there are attributes.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;
/// The family of families: its id, its command that asks for one, and attributes.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Marks attributes that hold attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// Length of nlmsghdr, and of nlmsghdr with genlmsghdr.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 20;
/// What an answer fits into; the kernel's dumps come in parts of at most 32 KiB.
const ROOM: usize = 64 << 10;

/// Attributes being written.
#[derive(Debug, Default, Clone)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds a number.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a byte.
    #[must_use]
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.bytes(kind, &[value])
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds attributes within one.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((value.len() as u16 + 4).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// Attributes as they were received: kind and value.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a>(&'a [u8]);

impl<'a> Received<'a> {
    /// All of them; what is cut off ends the list.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            let value = rest.get(4..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((kind & !NLA_F_NESTED, value))
        })
    }

    /// The value of the first of a kind.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// A number.
    pub fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    /// A byte.
    pub fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }
}

/// A message with a generic netlink header.
fn message(family: u16, flags: u16, command: u8, attributes: &Attributes) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(GENERIC_HEADER + attributes.0.len());
    bytes.extend((GENERIC_HEADER as u32 + attributes.0.len() as u32).to_ne_bytes());
    bytes.extend(family.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // Sequence number and port: one request is under way at a time, and the kernel knows the port.
    bytes.extend([0; 8]);
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(&attributes.0);
    bytes
}

/// What one datagram of the kernel's holds.
#[derive(Debug, Default)]
struct Datagram {
    /// Attributes of answers.
    answers: Vec<Vec<u8>>,
    /// Whether that was all.
    end: bool,
    /// The refusal in it.
    refusal: Option<Refusal>,
}

fn datagram(mut bytes: &[u8]) -> Result<Datagram> {
    let mut found = Datagram::default();
    while !bytes.is_empty() {
        let length = bytes.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length)) as usize;
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEADER) else {
            bail!("netlink: a message claims {length} bytes where there are {}", bytes.len());
        };
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        match u16::from_ne_bytes([message[4], message[5]]) {
            kind @ (NLMSG_ERROR | NLMSG_DONE) => {
                found.end = true;
                let errno =
                    message.get(HEADER..).and_then(|rest| rest.first_chunk()).map_or(0, |e| i32::from_ne_bytes(*e));
                if errno != 0 {
                    let told = if kind == NLMSG_ERROR { HEADER + 4 + told_behind(message, flags) } else { HEADER + 4 };
                    let told = Received(message.get(told..).unwrap_or_default()).get(NLMSGERR_ATTR_MSG);
                    let words = told.filter(|_| flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
                    let words = String::from_utf8_lossy(words).trim_end_matches('\0').to_owned();
                    found.refusal = Some(Refusal { errno: -errno, words });
                }
            }
            _ => found.answers.push(message.get(GENERIC_HEADER..).unwrap_or_default().to_vec()),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(found)
}

/// How much of the request is repeated in an error: its header, or all of it.
fn told_behind(message: &[u8], flags: u16) -> usize {
    if flags & NLM_F_CAPPED != 0 {
        return HEADER;
    }
    let repeated = message.get(HEADER + 4..).and_then(|rest| rest.first_chunk()).map(|l| u32::from_ne_bytes(*l));
    repeated.map_or(HEADER, |length| (length as usize).next_multiple_of(4))
}

/// A family's socket. What was bound through it stays bound until it is dropped.
#[derive(Debug)]
pub struct Family {
    socket: OwnedFd,
    id: u16,
}

impl Family {
    /// Opens a socket and looks the family up.
    ///
    /// # Errors
    /// When the kernel has no such family.
    pub fn open(name: &str) -> Result<Family> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::GENERIC))
            .context("cannot open a netlink socket")?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).context("cannot bind a netlink socket")?;
        // Reasons in words, and no copy of the request before them. Kernels without say only the number.
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            let _ = sys::set_option(&socket, SOL_NETLINK, option, 1);
        }
        let mut family = Family { socket, id: GENL_ID_CTRL };
        let ask = Attributes::default().text(CTRL_ATTR_FAMILY_NAME, name);
        let answers = family
            .exchange(NLM_F_ACK, CTRL_CMD_GETFAMILY, &ask)?
            .map_err(|refusal| anyhow::anyhow!("this kernel has no netlink family `{name}`: {refusal}"))?;
        let id = answers.first().and_then(|answer| Received(answer).get(CTRL_ATTR_FAMILY_ID));
        let id =
            id.and_then(|id| id.first_chunk()).with_context(|| format!("netlink: no id for the family `{name}`"))?;
        family.id = u16::from_ne_bytes(*id);
        Ok(family)
    }

    /// Asks for one thing; the answer's attributes go to `read`.
    ///
    /// # Errors
    /// The outer one when netlink itself fails, the inner one is the kernel's refusal.
    pub fn ask<T>(
        &self,
        command: u8,
        attributes: &Attributes,
        read: impl FnOnce(Received<'_>) -> T,
    ) -> Result<Result<T, Refusal>> {
        let answers = self.exchange(NLM_F_ACK, command, attributes)?;
        Ok(answers.map(|answers| read(Received(answers.first().map_or(&[], Vec::as_slice)))))
    }

    /// Asks for all there are; each answer's attributes go to `read`.
    ///
    /// # Errors
    /// As with [`Family::ask`].
    pub fn dump<T>(
        &self,
        command: u8,
        attributes: &Attributes,
        mut read: impl FnMut(Received<'_>) -> T,
    ) -> Result<Result<Vec<T>, Refusal>> {
        let answers = self.exchange(NLM_F_DUMP, command, attributes)?;
        Ok(answers.map(|answers| answers.iter().map(|answer| read(Received(answer))).collect()))
    }

    fn exchange(&self, flags: u16, command: u8, attributes: &Attributes) -> Result<Result<Vec<Vec<u8>>, Refusal>> {
        let bytes = message(self.id, flags, command, attributes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).context("netlink: cannot send")?;
        let (mut room, mut answers) = (vec![0; ROOM], Vec::new());
        loop {
            let (length, _) =
                rustix::net::recv(&self.socket, &mut room, RecvFlags::empty()).context("netlink: no answer")?;
            let found = datagram(&room[..length])?;
            answers.extend(found.answers);
            if let Some(refusal) = found.refusal {
                return Ok(Err(refusal));
            }
            if found.end {
                return Ok(Ok(answers));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_headers_say() {
        let queue = Attributes::default().u32(1, 5).u32(3, 0);
        let attributes = Attributes::default().u32(1, 2).u32(3, 9).nest(2, &queue);
        // nlmsghdr: length 56, family 0x1f, REQUEST|ACK, sequence, port; genlmsghdr: command 13, version 1, reserved.
        let due: [u8; 56] = [
            56, 0, 0, 0, 0x1f, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13, 1, 0, 0, // headers
            8, 0, 1, 0, 2, 0, 0, 0, // ifindex 2
            8, 0, 3, 0, 9, 0, 0, 0, // fd 9
            20, 0, 2, 0x80, 8, 0, 1, 0, 5, 0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, // queues { id 5, type 0 }
        ];
        assert_eq!(message(0x1f, NLM_F_ACK, 13, &attributes), due);
        // Values that are no multiple of 4 are padded, and their length does not count that.
        assert_eq!(
            Attributes::default().text(2, "abcd").u8(7, 1).0,
            *b"\x09\0\x02\0abcd\0\0\0\0\x05\0\x07\0\x01\0\0\0"
        );
    }

    fn nested(read: Received<'_>) -> Option<u32> {
        read.get(5).and_then(|inner| Received(inner).u32(1))
    }

    #[test]
    fn attributes_are_found_and_what_is_cut_off_is_not() {
        let inner = Attributes::default().u32(1, 77);
        let written = Attributes::default().u8(4, 3).text(9, "eth0").nest(5, &inner).0;
        let read = Received(&written);
        assert_eq!((read.u8(4), read.get(9), read.u32(1)), (Some(3), Some(&b"eth0\0"[..]), None));
        assert_eq!(nested(read), Some(77));
        for length in 0..written.len() {
            assert!(nested(Received(&written[..length])).is_none(), "{length}");
        }
        // A length below the attribute's own header must not be walked for ever.
        assert_eq!(Received(&[0, 0, 1, 0, 9, 9, 9, 9]).iter().count(), 0);
    }

    fn error(errno: i32, flags: u16, repeated: usize, words: Option<&str>) -> Vec<u8> {
        let mut body = errno.to_ne_bytes().to_vec();
        body.extend((repeated as u32).to_ne_bytes());
        body.resize(4 + repeated, 0);
        if let Some(words) = words {
            body.extend(Attributes::default().text(NLMSGERR_ATTR_MSG, words).u32(2, 20).0);
        }
        let mut bytes = (HEADER as u32 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn refusals_come_with_the_kernels_words() {
        let of = |bytes: Vec<u8>| datagram(&bytes).unwrap().refusal.unwrap();
        let words = "tcp-data-split is disabled";
        let refusal = of(error(-22, NLM_F_CAPPED | NLM_F_ACK_TLVS, 16, Some(words)));
        assert_eq!((refusal.errno, refusal.words.as_str()), (22, words));
        assert_eq!(of(error(-22, NLM_F_ACK_TLVS, 56, Some(words))).words, words);
        assert_eq!(of(error(-34, NLM_F_CAPPED, 16, None)), Refusal { errno: 34, words: String::new() });
        let good = datagram(&error(0, NLM_F_CAPPED, 16, None)).unwrap();
        assert!(good.refusal.is_none() && good.end);
    }

    #[test]
    fn answers_come_before_the_acknowledgement_in_one_datagram_or_two() {
        let answer = message(0x1f, 0, 13, &Attributes::default().u32(4, 3));
        let both = [answer.clone(), error(0, NLM_F_CAPPED, 16, None)].concat();
        let found = datagram(&both).unwrap();
        assert_eq!(Received(&found.answers[0]).u32(4), Some(3));
        assert!(found.end);
        assert!(!datagram(&answer).unwrap().end);
        assert!(datagram(&answer[..answer.len() - 1]).is_err());
        assert!(datagram(&[0; 4]).is_err());
    }
}
