//! What a machine is made of, as data.
//!
//! A [`LaunchPlan`] names every file, socket and device of one guest. It is built by whoever knows the lab, checked by
//! [`LaunchPlan::check`], rendered by [`LaunchPlan::args`] and started by [`crate::Machine::launch`]. It holds no open file and
//! touches nothing, so it can be printed, compared and tested.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;

/// Bytes a unix socket path may have, without its NUL (`struct sockaddr_un`, unix(7): 108 with it).
pub const SOCKET_PATH_MAX: usize = 107;

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
    /// Whatever the process behind it says it is ([`NicBackend::Process`]).
    VfioUser,
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
    /// The NIC as a whole is another process, which QEMU talks vfio-user with and which sees to its cable itself.
    Process {
        /// Program and arguments. It listens on [`LaunchPlan::device_socket`] for QEMU and, once it does, on
        /// [`LaunchPlan::device_control`].
        program: Vec<OsString>,
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
    /// File system images (erofs), the lowest first: the guest gets them end to end on one read-only disk and lays them
    /// over each other; its changes stay in its memory.
    pub layers: Vec<PathBuf>,
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
    /// An emulated Intel IOMMU between the guest and its PCI devices.
    pub iommu: bool,
    /// The nonce of the agent's channel, handed over as `lab.nonce=`; not 0. A reboot takes the next one.
    pub nonce: u32,
    /// Further QEMU arguments, placed last.
    pub extra: Vec<OsString>,
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
            layers: Vec::new(),
            nics: Vec::new(),
            runtime_dir,
            log_dir,
            verdict_dir: None,
            accelerator: Accelerator::Auto,
            gdb: None,
            icount: false,
            iommu: false,
            nonce: 1,
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

    /// Describes to QEMU the disk made of [`LaunchPlan::layers`]; written at launch.
    pub fn disk_descriptor(&self) -> PathBuf {
        self.runtime_dir.join(format!("{}.vmdk", self.name))
    }

    /// The console's log. It grows over reboots, so that an offset stays valid as long as the machine lives.
    pub fn console_log(&self) -> PathBuf {
        self.log_dir.join("console.log")
    }

    /// What QEMU itself printed.
    pub fn qemu_log(&self) -> PathBuf {
        self.log_dir.join("qemu.log")
    }

    /// Where the process behind NIC `index` waits for QEMU.
    pub fn device_socket(&self, index: usize) -> PathBuf {
        self.runtime_dir.join(format!("{}.{index}.dev", self.name))
    }

    /// Where the process behind NIC `index` is asked things.
    pub fn device_control(&self, index: usize) -> PathBuf {
        self.runtime_dir.join(format!("{}.{index}.ctl", self.name))
    }

    /// What the process behind NIC `index` printed.
    pub fn device_log(&self, index: usize) -> PathBuf {
        self.log_dir.join(format!("nic{index}.log"))
    }

    /// Whether a device outside QEMU reaches into the guest's memory.
    pub(crate) fn shares_memory(&self) -> bool {
        self.nics.iter().any(|nic| matches!(nic.backend, NicBackend::Process { .. }))
    }

    /// Every socket QEMU will create.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let mut all = vec![self.qmp_socket(), self.agent_socket(), self.console_socket()];
        if self.gdb.as_ref().is_some_and(|g| g.listen.is_none()) {
            all.push(self.gdb_socket());
        }
        all
    }
}

impl Nic {
    /// The MAC address as people write it: lower case with colons.
    pub fn mac_text(&self) -> String {
        self.mac.map(|b| format!("{b:02x}")).join(":")
    }
}
