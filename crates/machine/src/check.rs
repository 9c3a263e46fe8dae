//! What a plan may not ask for, found before anything runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::accel::Accelerator;
use crate::disk;
use crate::plan::{LaunchPlan, NicBackend, SOCKET_PATH_MAX};

/// A plan that cannot work, found before anything runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name would not survive a command line or a host name.
    #[error(
        "guest name `{0}`: use letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 64 in all"
    )]
    Name(String),
    /// Nothing to run.
    #[error("guest `{0}`: no QEMU program given")]
    NoProgram(String),
    /// Too few or too many CPUs.
    #[error("guest `{guest}`: {cpus} CPUs; give 1 to 255")]
    Cpus {
        /// The guest.
        guest: String,
        /// What was asked.
        cpus: u32,
    },
    /// Too little memory.
    #[error("guest `{guest}`: {mib} MiB of memory; a kernel and its initramfs need at least 64")]
    Memory {
        /// The guest.
        guest: String,
        /// What was asked.
        mib: u64,
    },
    /// The channel takes 0 for "none".
    #[error("guest `{0}`: the nonce of the agent's channel must not be 0")]
    Nonce(String),
    /// `icount` with something it cannot be combined with.
    #[error("guest `{guest}`: deterministic time (icount) needs {needs}")]
    Icount {
        /// The guest.
        guest: String,
        /// What it needs.
        needs: &'static str,
    },
    /// A socket path the kernel would refuse.
    #[error(
        "guest `{guest}`: socket path `{path}` has {length} bytes and a unix socket takes at most {SOCKET_PATH_MAX}; \
         set XDG_RUNTIME_DIR to a shorter directory"
    )]
    SocketPath {
        /// The guest.
        guest: String,
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// An image whose path QEMU's disk descriptor cannot hold.
    #[error(
        "guest `{guest}`: image `{path}` cannot be put on its disk: the path must be absolute, of at most {max} bytes, \
         without double quotes and line breaks; move the cache (XDG_CACHE_HOME)", max = disk::PATH_MAX
    )]
    Layer {
        /// The guest.
        guest: String,
        /// The image.
        path: PathBuf,
    },
    /// Two NICs of one identity.
    #[error("guest `{guest}`: MAC address `{mac}` is used twice")]
    MacTwice {
        /// The guest.
        guest: String,
        /// The address.
        mac: String,
    },
    /// A multicast or zero MAC address.
    #[error(
        "guest `{guest}`: MAC address {mac} cannot be a NIC's: the lowest bit of its first byte marks groups, and it may not be zero"
    )]
    Mac {
        /// The guest.
        guest: String,
        /// The address, with colons.
        mac: String,
    },
    /// An MTU no Ethernet has.
    #[error("guest `{guest}`: MTU {mtu} of NIC {index}; IPv4 needs at least 68 (RFC 791)")]
    Mtu {
        /// The guest.
        guest: String,
        /// Which NIC, from 0.
        index: usize,
        /// The MTU.
        mtu: u16,
    },
    /// A gdb stub open to the network.
    #[error(
        "guest `{guest}`: the gdb stub would listen on {address}, and whoever reaches it owns the guest; use 127.0.0.1 or [::1]"
    )]
    GdbAddress {
        /// The guest.
        guest: String,
        /// The address.
        address: SocketAddr,
    },
    /// A kernel parameter that would split in two.
    #[error(
        "guest `{guest}`: kernel parameter `{parameter}` holds a space or control character outside double quotes; give parameters one by one"
    )]
    Parameter {
        /// The guest.
        guest: String,
        /// The parameter.
        parameter: String,
    },
}

impl LaunchPlan {
    /// Finds what cannot work.
    pub fn check(&self) -> Result<(), PlanError> {
        let guest = || self.name.clone();
        let name_ok = self.name.len() <= 64
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if !name_ok {
            return Err(PlanError::Name(guest()));
        }
        if self.qemu.argv_prefix.is_empty() {
            return Err(PlanError::NoProgram(guest()));
        }
        if !(1..=255).contains(&self.cpus) {
            return Err(PlanError::Cpus { guest: guest(), cpus: self.cpus });
        }
        if self.memory_mib < 64 {
            return Err(PlanError::Memory { guest: guest(), mib: self.memory_mib });
        }
        if self.nonce == 0 {
            return Err(PlanError::Nonce(guest()));
        }
        if self.icount && self.cpus != 1 {
            return Err(PlanError::Icount { guest: guest(), needs: "exactly one CPU" });
        }
        if self.icount && self.accelerator == Accelerator::Kvm {
            return Err(PlanError::Icount { guest: guest(), needs: "TCG: KVM cannot count instructions" });
        }
        self.check_sockets()?;
        if let Some(path) = self.layers.iter().find(|path| !disk::can_be_named(path)) {
            return Err(PlanError::Layer { guest: guest(), path: path.clone() });
        }
        self.check_nics()?;
        if let Some(address) = self.gdb.as_ref().and_then(|g| g.listen).filter(|a| !a.ip().is_loopback()) {
            return Err(PlanError::GdbAddress { guest: guest(), address });
        }
        for parameter in &self.cmdline {
            let mut quoted = false;
            for c in parameter.chars() {
                quoted ^= c == '"';
                if c.is_control() || (c == ' ' && !quoted) {
                    return Err(PlanError::Parameter { guest: guest(), parameter: parameter.clone() });
                }
            }
        }
        Ok(())
    }

    fn check_sockets(&self) -> Result<(), PlanError> {
        let nics = self.nics.iter().filter_map(|n| match &n.backend {
            NicBackend::Stream { socket } => Some(socket.clone()),
            NicBackend::Process { .. } | NicBackend::None => None,
        });
        let devices = (0..self.nics.len()).filter(|n| matches!(self.nics[*n].backend, NicBackend::Process { .. }));
        let devices = devices.flat_map(|n| [self.device_socket(n), self.device_control(n)]);
        for path in self.sockets().into_iter().chain(nics).chain(devices) {
            let length = path.as_os_str().len();
            if length > SOCKET_PATH_MAX {
                return Err(PlanError::SocketPath { guest: self.name.clone(), path, length });
            }
        }
        Ok(())
    }

    fn check_nics(&self) -> Result<(), PlanError> {
        let mut seen = BTreeSet::new();
        for (index, nic) in self.nics.iter().enumerate() {
            let mac = nic.mac_text();
            if nic.mac[0] & 1 != 0 || nic.mac == [0; 6] {
                return Err(PlanError::Mac { guest: self.name.clone(), mac });
            }
            if !seen.insert(nic.mac) {
                return Err(PlanError::MacTwice { guest: self.name.clone(), mac });
            }
            if nic.mtu < 68 {
                return Err(PlanError::Mtu { guest: self.name.clone(), index, mtu: nic.mtu });
            }
        }
        Ok(())
    }
}
