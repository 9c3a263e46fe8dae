//! The XDP program that leads the packets of a queue to a socket, and the map it finds sockets in (bpf(2),
//! include/uapi/linux/bpf.h). Both go when they are dropped.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const LINK_CREATE: i32 = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// include/uapi/linux/if_link.h: in the driver, or not at all. Only there is zero copy.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// More queues than a NIC of the lab has.
const QUEUES: u32 = 64;

const fn words(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// # Safety
/// Every word that the command takes for an address is that of memory valid for what the command does with it.
unsafe fn bpf(command: i32, attributes: &[u64]) -> io::Result<i64> {
    // SAFETY: the kernel reads as many bytes as the words have; what these point to is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) } {
        result @ 0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn descriptor(number: i64) -> OwnedFd {
    // SAFETY: the command that returned it made it for us alone.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

/// Sockets by the NIC's queue.
#[derive(Debug)]
pub struct Sockets(OwnedFd);

impl Sockets {
    /// A map without any.
    pub fn new() -> io::Result<Sockets> {
        // map_type, key_size, value_size, max_entries
        let attributes = [words(MAP_TYPE_XSKMAP, 4), words(4, QUEUES)];
        // SAFETY: no word of it is an address.
        let made = unsafe { bpf(MAP_CREATE, &attributes) }?;
        Ok(Sockets(descriptor(made)))
    }

    /// Packets of a queue go to this socket, which is bound to it.
    pub fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd() as u32;
        let attributes = [
            self.0.as_raw_fd() as u64,
            (&raw const queue).expose_provenance() as u64,
            (&raw const value).expose_provenance() as u64,
            0,
        ];
        // SAFETY: key and value are 4 bytes, as the map was made, and outlive the call.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }

    /// On the netdev of that number a program leads packets of queues that have a socket to it; others pass.
    pub fn redirect(&self, netdev: u32) -> io::Result<OwnedFd> {
        let code = program(self.0.as_raw_fd());
        let licence = c"GPL";
        let attributes = [
            words(PROG_TYPE_XDP, code.len() as u32),
            code.as_ptr().expose_provenance() as u64,
            licence.as_ptr().expose_provenance() as u64,
        ];
        // SAFETY: code and licence are ours, as long as is said, and outlive the call.
        let program = descriptor(unsafe { bpf(PROG_LOAD, &attributes) }?);
        // prog_fd, target_ifindex, attach_type, flags
        let attributes = [words(program.as_raw_fd() as u32, netdev), words(ATTACH_XDP, XDP_FLAGS_DRV_MODE)];
        // SAFETY: no word of it is an address.
        let link = unsafe { bpf(LINK_CREATE, &attributes) }?;
        Ok(descriptor(link))
    }
}

/// `return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS)`, in the opcodes of
/// Documentation/bpf/standardization/instruction-set.rst.
fn program(map: i32) -> [u64; 6] {
    const QUEUE_IN_CONTEXT: u64 = 16;
    const XDP_PASS: u64 = 2;
    const REDIRECT_MAP: u64 = 51;
    let code = |opcode: u64, registers: u64, offset: u64, immediate: u64| {
        opcode | registers << 8 | offset << 16 | (immediate & 0xffff_ffff) << 32
    };
    [
        // r2 = rx_queue_index of the context in r1
        code(0x61, 0x12, QUEUE_IN_CONTEXT, 0),
        // r1 = the map, two slots
        code(0x18, 0x11, 0, map as u64),
        0,
        // r3 = XDP_PASS
        code(0xb7, 0x03, 0, XDP_PASS),
        code(0x85, 0, 0, REDIRECT_MAP),
        code(0x95, 0, 0, 0),
    ]
}
