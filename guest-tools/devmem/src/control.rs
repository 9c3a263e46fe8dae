//! Control messages of a socket: where received bytes are, and what became of sent ones.
//!
//! In: the bytes that recvmsg left. Out: fragments in the order of the stream, or completions. The layout is that of `struct
//! cmsghdr` on 64-bit machines: 8 bytes of length, level, type, then data padded to 8.

use anyhow::{Result, bail};

/// asm-generic/socket.h.
const SCM_DEVMEM_LINEAR: i32 = 78;
const SCM_DEVMEM_DMABUF: i32 = 79;
/// linux/errqueue.h.
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;

/// Where a piece of the stream is (`struct dmabuf_cmsg` of linux/uio.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// In a bound dma-buf.
    Device {
        /// Where in the dma-buf.
        offset: u64,
        /// Bytes.
        size: u32,
        /// What it is returned by.
        token: u32,
        /// The binding.
        binding: u32,
    },
    /// In the buffer given to recvmsg, behind the ones before.
    Linear {
        /// Bytes.
        size: u32,
    },
}

/// Messages that the kernel is done with sending: those numbered `first` to `last`, as sendmsg was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// Whether their bytes were copied after all.
    pub copied: bool,
}

/// One control message.
struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

fn messages(mut control: &[u8]) -> Result<Vec<Message<'_>>> {
    let mut all = Vec::new();
    while !control.is_empty() {
        let length = word(control, 0)? as usize;
        let Some(data) = control.get(16..length) else {
            bail!("a control message claims {length} bytes where there are {}", control.len());
        };
        all.push(Message { level: int(control, 8)? as i32, kind: int(control, 12)? as i32, data });
        control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(all)
}

fn word(bytes: &[u8], at: usize) -> Result<u64> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(found) => Ok(u64::from_ne_bytes(*found)),
        None => bail!("a control message ends after {} bytes", bytes.len()),
    }
}

fn int(bytes: &[u8], at: usize) -> Result<u32> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(found) => Ok(u32::from_ne_bytes(*found)),
        None => bail!("a control message ends after {} bytes", bytes.len()),
    }
}

/// The fragments that a recvmsg with device memory tells of. None means that all bytes came the ordinary way.
///
/// # Errors
/// When the messages contradict themselves.
pub fn fragments(control: &[u8]) -> Result<Vec<Fragment>> {
    let mut fragments = Vec::new();
    for message in messages(control)? {
        if message.level != libc::SOL_SOCKET {
            continue;
        }
        let size = || int(message.data, 8);
        match message.kind {
            SCM_DEVMEM_DMABUF => fragments.push(Fragment::Device {
                offset: word(message.data, 0)?,
                size: size()?,
                token: int(message.data, 12)?,
                binding: int(message.data, 16)?,
            }),
            SCM_DEVMEM_LINEAR => fragments.push(Fragment::Linear { size: size()? }),
            _ => {}
        }
    }
    Ok(fragments)
}

/// The completions in a message of the error queue (`struct sock_extended_err`).
///
/// # Errors
/// When it is about something else, which then went wrong.
pub fn completions(control: &[u8]) -> Result<Vec<Completion>> {
    let mut completions = Vec::new();
    for message in messages(control)? {
        if !matches!(
            (message.level, message.kind),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
        ) {
            continue;
        }
        let [origin, _, code, _] = int(message.data, 4)?.to_ne_bytes();
        let errno = int(message.data, 0)?;
        if origin != SO_EE_ORIGIN_ZEROCOPY || errno != 0 {
            bail!("the socket's error queue holds errno {errno} of origin {origin}, and no completion");
        }
        completions.push(Completion {
            first: int(message.data, 8)?,
            last: int(message.data, 12)?,
            copied: code & SO_EE_CODE_ZEROCOPY_COPIED != 0,
        });
    }
    Ok(completions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + data.len() as u64).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    fn place(offset: u64, numbers: [u32; 4]) -> Vec<u8> {
        offset.to_ne_bytes().into_iter().chain(numbers.into_iter().flat_map(u32::to_ne_bytes)).collect()
    }

    #[test]
    fn fragments_keep_their_order() {
        let mut control = message(1, 78, &place(0, [20, 0, 0, 0]));
        control.extend(message(6, 36, &[7; 4]));
        control.extend(message(1, 79, &place(0x12_3456_7000, [1448, 5, 3, 0])));
        control.extend(message(1, 2, &[0; 12]));
        control.extend(message(1, 79, &place(8192, [1, 6, 3, 0])));
        assert_eq!(
            fragments(&control).unwrap(),
            [
                Fragment::Linear { size: 20 },
                Fragment::Device { offset: 0x12_3456_7000, size: 1448, token: 5, binding: 3 },
                Fragment::Device { offset: 8192, size: 1, token: 6, binding: 3 },
            ]
        );
        assert_eq!(fragments(&[]).unwrap(), []);
    }

    #[test]
    fn no_prefix_of_a_message_is_taken_for_one() {
        let control = message(1, 79, &place(1, [2, 3, 4, 0]));
        for length in 1..control.len() {
            assert!(fragments(&control[..length]).is_err(), "{length} bytes");
        }
        let short = message(1, 79, &[0; 12]);
        assert!(fragments(&short).unwrap_err().to_string().contains("ends after 12 bytes"));
        let mut endless = control.clone();
        endless[..8].fill(0);
        assert!(fragments(&endless).is_err(), "a length that leads nowhere");
    }

    #[test]
    fn completions_of_both_families_and_nothing_else() {
        let error = |errno: u32, origin: u8, code: u8, first: u32, last: u32| {
            let kind = u32::from_ne_bytes([origin, 0, code, 0]);
            let mut bytes: Vec<u8> = [errno, kind, first, last].into_iter().flat_map(u32::to_ne_bytes).collect();
            // The address of who reported it follows.
            bytes.resize(32, 0);
            bytes
        };
        let mut control = message(0, 11, &error(0, 5, 0, 0, 7));
        control.extend(message(41, 25, &error(0, 5, 1, 8, 8)));
        assert_eq!(
            completions(&control).unwrap(),
            [Completion { first: 0, last: 7, copied: false }, Completion { first: 8, last: 8, copied: true }]
        );
        for wrong in [error(111, 2, 0, 0, 0), error(5, 5, 0, 0, 0)] {
            assert!(completions(&message(0, 11, &wrong)).is_err());
        }
    }
}
