//! What a machine is made of, as data.
//!
//! A [`LaunchPlan`] names every file, socket and device of one guest. It is built by whoever knows the lab, checked by
//! [`LaunchPlan::check`], rendered by [`LaunchPlan::args`] and started by [`crate::Machine::launch`]. It holds no open file and
//! touches nothing, so it can be printed, compared and tested.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;

/// Bytes a unix socket path may have, without its NUL (`struct sockaddr_un`, unix(7): 108 with it).
pub const SOCKET_PATH_MAX: usize = 107;

/// Bytes a virtio-blk serial may have (`VIRTIO_BLK_ID_BYTES`, include/uapi/linux/virtio_blk.h).
pub const SERIAL_MAX: usize = 20;

/// How to start QEMU: a program, or a loader with the program among its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QemuProgram {
    /// Program and leading arguments: `["/…/ld-linux-x86-64.so.2", "--library-path", "/…", "/…/qemu-system-x86_64"]`,
    /// or just `["qemu-system-x86_64"]`.
    pub argv_prefix: Vec<OsString>,
    /// Directories with firmware and option ROMs, each passed as `-L`.
    pub share_dirs: Vec<PathBuf>,
}

impl QemuProgram {
    /// Takes program and arguments from a prepared [`Command`] (a toolroot's loader gives one).
    pub fn from_command(command: &Command, share_dirs: Vec<PathBuf>) -> Self {
        let argv_prefix =
            std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
        QemuProgram { argv_prefix, share_dirs }
    }
}

/// A disk image, always attached read-only: guests keep their changes in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image file (raw: an erofs file system).
    pub path: PathBuf,
    /// The virtio-blk serial by which the guest finds it (`base`, `kit`); at most [`SERIAL_MAX`] bytes.
    pub serial: String,
}

/// What the guest sees of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// `virtio-net-pci`: the quick one.
    Virtio,
    /// `e1000e`: a NIC with real rings and interrupts (Intel 82574L).
    E1000e,
    /// `igb`: a multi-queue NIC with SR-IOV (Intel 82576).
    Igb,
}

/// What a NIC's cable goes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicBackend {
    /// A unix stream socket that carries frames, each behind its length as a big-endian u32. QEMU connects to it, and
    /// tries again every 100 ms when it goes away.
    Stream {
        /// The listening socket.
        socket: PathBuf,
    },
    /// Nothing: the link is down.
    None,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The device.
    pub model: NicModel,
    /// MAC address.
    pub mac: [u8; 6],
    /// The other end of its cable.
    pub backend: NicBackend,
    /// The MTU the host offers (virtio's `host_mtu`; other models ignore it). 68 to 65535.
    pub mtu: u16,
}

/// Where QEMU serves the gdb remote protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GdbStub {
    /// `None`: the unix socket [`LaunchPlan::gdb_socket`]; else a TCP address, which must be loopback.
    pub listen: Option<SocketAddr>,
    /// Hold the guest before its first instruction until gdb says `continue`.
    pub hold: bool,
}

/// One guest, ready to be launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The guest's name: letters, digits, `-`, `_`, `.`; it becomes `lab.guest=` and the host name.
    pub name: String,
    /// How QEMU is started.
    pub qemu: QemuProgram,
    /// Virtual CPUs, 1 to 255.
    pub cpus: u32,
    /// Memory in MiB, at least 64.
    pub memory_mib: u64,
    /// The kernel image (bzImage).
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: Option<PathBuf>,
    /// Kernel parameters after the base ones; a later one wins.
    pub cmdline: Vec<String>,
    /// Disks, in order.
    pub disks: Vec<Disk>,
    /// NICs, in order.
    pub nics: Vec<Nic>,
    /// A directory for sockets (created with mode 0700): short enough for [`SOCKET_PATH_MAX`].
    pub runtime_dir: PathBuf,
    /// A directory for `console.log` and `qemu.log` (created).
    pub log_dir: PathBuf,
    /// Where accelerator verdicts are remembered ([`crate::Verdicts`]); `None` forgets them.
    pub verdict_dir: Option<PathBuf>,
    /// What executes the guest's instructions.
    pub accelerator: Accelerator,
    /// A gdb stub, when wanted.
    pub gdb: Option<GdbStub>,
    /// Deterministic time: one instruction is one nanosecond. One CPU, TCG, and no meaning between guests.
    pub icount: bool,
    /// The nonce of the agent's channel, handed over as `lab.nonce=`. A reboot takes the next one.
    pub nonce: u32,
    /// Further QEMU arguments, placed last.
    pub extra: Vec<OsString>,
}

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
    /// A serial QEMU would cut.
    #[error("guest `{guest}`: disk serial `{serial}` must have 1 to {SERIAL_MAX} letters, digits, `-` or `_`")]
    Serial {
        /// The guest.
        guest: String,
        /// The serial.
        serial: String,
    },
    /// Two disks or NICs of one identity.
    #[error("guest `{guest}`: {what} `{value}` is used twice")]
    Twice {
        /// The guest.
        guest: String,
        /// `disk serial` or `MAC address`.
        what: &'static str,
        /// The value.
        value: String,
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
    /// A plan with one CPU, 512 MiB and nothing attached; the caller fills in the rest.
    pub fn new(
        name: impl Into<String>,
        qemu: QemuProgram,
        kernel: PathBuf,
        runtime_dir: PathBuf,
        log_dir: PathBuf,
    ) -> Self {
        LaunchPlan {
            name: name.into(),
            qemu,
            cpus: 1,
            memory_mib: 512,
            kernel,
            initrd: None,
            cmdline: Vec::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            runtime_dir,
            log_dir,
            verdict_dir: None,
            accelerator: Accelerator::Auto,
            gdb: None,
            icount: false,
            nonce: 0,
            extra: Vec::new(),
        }
    }

    /// The control socket.
    pub fn qmp_socket(&self) -> PathBuf {
        self.runtime_dir.join(format!("{}.qmp", self.name))
    }

    /// The socket of the guest agent's channel.
    pub fn agent_socket(&self) -> PathBuf {
        self.runtime_dir.join(format!("{}.agent", self.name))
    }

    /// The socket that takes console input; output goes to [`LaunchPlan::console_log`] whether or not somebody listens.
    pub fn console_socket(&self) -> PathBuf {
        self.runtime_dir.join(format!("{}.console", self.name))
    }

    /// The gdb stub's socket, when it is not a TCP one.
    pub fn gdb_socket(&self) -> PathBuf {
        self.runtime_dir.join(format!("{}.gdb", self.name))
    }

    /// The console's log. It grows over reboots, so that an offset stays valid as long as the machine lives.
    pub fn console_log(&self) -> PathBuf {
        self.log_dir.join("console.log")
    }

    /// What QEMU itself printed.
    pub fn qemu_log(&self) -> PathBuf {
        self.log_dir.join("qemu.log")
    }

    /// Every socket QEMU will create.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let mut all = vec![self.qmp_socket(), self.agent_socket(), self.console_socket()];
        if self.gdb.as_ref().is_some_and(|g| g.listen.is_none()) {
            all.push(self.gdb_socket());
        }
        all
    }

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
        if self.icount && self.cpus != 1 {
            return Err(PlanError::Icount { guest: guest(), needs: "exactly one CPU" });
        }
        if self.icount && self.accelerator == Accelerator::Kvm {
            return Err(PlanError::Icount { guest: guest(), needs: "TCG: KVM cannot count instructions" });
        }
        self.check_sockets()?;
        self.check_disks()?;
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
            NicBackend::None => None,
        });
        for path in self.sockets().into_iter().chain(nics) {
            let length = path_length(&path);
            if length > SOCKET_PATH_MAX {
                return Err(PlanError::SocketPath { guest: self.name.clone(), path, length });
            }
        }
        Ok(())
    }

    fn check_disks(&self) -> Result<(), PlanError> {
        let mut seen = BTreeSet::new();
        for disk in &self.disks {
            let serial = &disk.serial;
            let ok = (1..=SERIAL_MAX).contains(&serial.len())
                && serial.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            if !ok {
                return Err(PlanError::Serial { guest: self.name.clone(), serial: serial.clone() });
            }
            if !seen.insert(serial) {
                return Err(PlanError::Twice { guest: self.name.clone(), what: "disk serial", value: serial.clone() });
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
                return Err(PlanError::Twice { guest: self.name.clone(), what: "MAC address", value: mac });
            }
            if nic.mtu < 68 {
                return Err(PlanError::Mtu { guest: self.name.clone(), index, mtu: nic.mtu });
            }
        }
        Ok(())
    }
}

impl Nic {
    /// The MAC address as people write it: lower case with colons.
    pub fn mac_text(&self) -> String {
        self.mac.map(|b| format!("{b:02x}")).join(":")
    }
}

fn path_length(path: &Path) -> usize {
    path.as_os_str().len()
}
