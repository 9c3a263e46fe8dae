//! BPF programs for packets: loaded, attached, and counted with (bpf(2); include/uapi/linux/bpf.h).
//!
//! Everything here is a descriptor: dropping an [`Attached`] takes its program off the interface, and an interface that goes
//! takes the program with it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::links::Interface;
use crate::sys;

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// Room for what the verifier says about a program it refuses.
const LOG: usize = 64 * 1024;

/// Where a program sees packets (`enum bpf_attach_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What an interface receives, before anything above it.
    Ingress = 46,
    /// What the peer of a netkit sends, in the peer's own sending.
    NetkitPeer = 55,
}

/// An array of pairs of counters: how many, and of how many bytes.
#[derive(Debug)]
pub struct Counters(OwnedFd);

/// A program on an interface.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

const fn words(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

fn descriptor(number: libc::c_long) -> OwnedFd {
    // SAFETY: the command that returned it made it for us alone.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

impl Counters {
    /// So many pairs, all zero.
    pub fn new(count: u32) -> io::Result<Counters> {
        // map_type, key_size, value_size, max_entries
        let attributes = [words(BPF_MAP_TYPE_ARRAY, 4), words(16, count)];
        // SAFETY: no word of it is an address.
        let made = unsafe { sys::bpf(BPF_MAP_CREATE, &attributes) }?;
        Ok(Counters(descriptor(made)))
    }

    /// The pair of that number.
    pub fn get(&self, index: u32) -> io::Result<(u64, u64)> {
        let mut value = [0_u64; 2];
        // map_fd, key, value
        let attributes = [
            self.descriptor() as u64,
            (&raw const index).expose_provenance() as u64,
            (&raw mut value).expose_provenance() as u64,
        ];
        // SAFETY: the key is 4 bytes and the value 16, as the map was made, and both outlive the call.
        unsafe { sys::bpf(BPF_MAP_LOOKUP_ELEM, &attributes) }?;
        Ok((value[0], value[1]))
    }

    /// The number by which a program's code names it.
    pub fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Loads a program of these instructions and attaches it behind those that are there. A refusal by the verifier carries its
/// last words.
pub fn attach(code: &[u64], hook: Hook, interface: &Interface) -> io::Result<Attached> {
    let program = load(code)?;
    // prog_fd, target_ifindex, attach_type, flags, and no place among other programs
    let attributes = [words(program.as_raw_fd() as u32, interface.index), words(hook as u32, 0), 0, 0];
    // SAFETY: no word of it is an address.
    let made = unsafe { sys::bpf(BPF_LINK_CREATE, &attributes) }?;
    Ok(Attached { _link: descriptor(made) })
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"Dual MIT/GPL";
    let mut log = vec![0_u8; LOG];
    let mut name = [0_u64; 2];
    name[0] = u64::from_ne_bytes(*b"lab_pod\0");
    let attributes = |log: Option<&mut Vec<u8>>| {
        let (level, size, buffer) = log.map_or((0, 0, 0), |log| (1, LOG as u32, log.as_mut_ptr().expose_provenance()));
        [
            words(BPF_PROG_TYPE_SCHED_CLS, code.len() as u32),
            code.as_ptr().expose_provenance() as u64,
            licence.as_ptr().expose_provenance() as u64,
            words(level, size),
            buffer as u64,
            // kern_version, prog_flags
            0,
            name[0],
            name[1],
        ]
    };
    // SAFETY: code, licence and log are ours, as long as is said, and outlive the calls.
    let loaded = unsafe { sys::bpf(BPF_PROG_LOAD, &attributes(None)) }.or_else(|error| {
        // Again, to hear why.
        // SAFETY: as above.
        unsafe { sys::bpf(BPF_PROG_LOAD, &attributes(Some(&mut log))) }.map_err(|_| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let said = String::from_utf8_lossy(&log[..end]);
            let last: Vec<&str> = said.lines().rev().take(4).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            io::Error::new(error.kind(), format!("{error}: {}", last.join(" / ")))
        })
    })?;
    Ok(descriptor(loaded))
}
