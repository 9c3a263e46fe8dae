//! The QEMU command line of a [`LaunchPlan`], as a pure function.
//!
//! Sockets are paths in a private directory rather than inherited descriptors, so that the printed line is the line that
//! runs and a person can repeat it by hand. Devices are few, because each one costs the guest's boot a probe: no VGA, no
//! PS/2, no SATA, no option ROMs.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::accel::{Accelerator, Engine};
use crate::disk;
use crate::plan::{LaunchPlan, Nic, NicBackend, NicModel};
use crate::shell;

/// Everything that can be emulated but five-level paging. While `identify_cpu()` (arch/x86/kernel/cpu/common.c) finds out
/// anew what the CPU can, KASAN takes every address of a five-level kernel for a wild one, and a slow guest gets an interrupt just then.
/// A guest of some GiB has no use for the fifth level, which only makes each miss of the emulated TLB dearer.
const EMULATED_CPU: &str = "max,la57=off";

impl LaunchPlan {
    /// Program and arguments. `Auto` is shown as its first attempt, KVM.
    pub fn args(&self) -> Vec<OsString> {
        self.args_on(match self.accelerator {
            Accelerator::Tcg => Engine::Tcg,
            Accelerator::Auto if self.icount => Engine::Tcg,
            Accelerator::Auto | Accelerator::Kvm => Engine::Kvm,
        })
    }

    /// The command line quoted for a POSIX shell, on one line.
    pub fn shell_line(&self) -> String {
        shell::line(&self.args())
    }

    /// The kernel's command line: base parameters, who the guest is, then the plan's own.
    pub fn kernel_cmdline(&self) -> String {
        let mut all: Vec<String> = BASE_CMDLINE.iter().map(|s| (*s).to_owned()).collect();
        if self.gdb.is_some() {
            // Symbols must be where vmlinux says.
            all.push("nokaslr".to_owned());
        }
        if self.iommu {
            // Strict, so that a device loses what is unmapped at once and a late access shows.
            all.extend(["intel_iommu=on", "iommu.passthrough=0", "iommu.strict=1"].map(str::to_owned));
        }
        all.push(format!("lab.guest={}", self.name));
        all.push(format!("lab.nonce={:08x}", self.nonce));
        if !self.cmdline.iter().any(|p| p.starts_with("lab.root=")) {
            all.push(format!("lab.root={}", if self.layers.is_empty() { "none" } else { "overlay" }));
        }
        all.extend(self.cmdline.iter().cloned());
        all.join(" ")
    }

    pub(crate) fn args_on(&self, engine: Engine) -> Vec<OsString> {
        let mut args = Args(self.qemu.argv_prefix.clone());
        for dir in &self.qemu.share_dirs {
            args.pair("-L", dir);
        }
        args.pair("-name", format!("guest={},debug-threads=on", self.name));
        args.flag("-nodefaults").flag("-no-user-config").pair("-display", "none");
        args.flag("-no-reboot");
        if self.shares_memory() {
            // A file without a name, whose descriptor QEMU hands to the devices outside.
            let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory_mib);
            args.pair("-object", memory).pair("-machine", format!("{MACHINE},memory-backend=memory"));
        } else {
            args.pair("-machine", MACHINE);
        }
        self.engine_args(engine, &mut args);
        if self.iommu {
            // Before the devices it is for. A device process learns of each mapping, which takes caching mode; interrupts are none of
            // its business, and remapping them would take a split interrupt controller.
            args.pair("-device", "intel-iommu,caching-mode=on,intremap=off");
        }
        args.pair("-m", format!("size={}M", self.memory_mib));
        args.pair("-kernel", &self.kernel);
        if let Some(initrd) = &self.initrd {
            args.pair("-initrd", initrd);
        }
        args.pair("-append", self.kernel_cmdline());
        self.channel_args(&mut args);
        if !self.layers.is_empty() {
            let before = "driver=vmdk,node-name=disk,read-only=on,file.driver=file,file.filename=";
            args.pair("-blockdev", prefixed(before, &self.disk_descriptor(), ""));
            args.pair("-device", format!("virtio-blk-pci,drive=disk,serial={}{DISK_QUEUE}", disk::SERIAL));
        }
        for (index, nic) in self.nics.iter().enumerate() {
            if let NicBackend::Process { .. } = nic.backend {
                args.pair("-device", vfio_user(index, &self.device_socket(index)));
            } else {
                nic_args(index, nic, &mut args);
            }
        }
        if let Some(gdb) = &self.gdb {
            match gdb.listen {
                Some(address) => args.pair("-gdb", format!("tcp:{address}")),
                None => args.pair("-gdb", prefixed("unix:", &self.gdb_socket(), ",server=on,wait=off")),
            };
            if gdb.hold {
                args.flag("-S");
            }
        }
        args.0.extend(self.extra.iter().cloned());
        args.0
    }

    fn engine_args(&self, engine: Engine, args: &mut Args) {
        match (engine, self.icount) {
            (Engine::Kvm, _) => args.pair("-accel", "kvm").pair("-cpu", "host"),
            (Engine::Tcg, false) => args.pair("-accel", "tcg,thread=multi").pair("-cpu", EMULATED_CPU),
            // icount cannot run CPUs in parallel, and refuses thread=multi.
            (Engine::Tcg, true) => {
                args.pair("-accel", "tcg,thread=single").pair("-cpu", EMULATED_CPU).pair("-icount", "shift=0,sleep=off")
            }
        };
        args.pair("-smp", self.cpus.to_string());
    }

    /// QMP, the console and the agent's channel.
    fn channel_args(&self, args: &mut Args) {
        args.pair("-qmp", prefixed("unix:", &self.qmp_socket(), ",server=on,wait=off"));

        // The log is written whether or not somebody is connected; the socket is for input (a break for sysrq).
        let mut console =
            prefixed("socket,id=console,path=", &self.console_socket(), ",server=on,wait=off,logappend=on");
        console.push(prefixed(",logfile=", &self.console_log(), ""));
        args.pair("-chardev", console);
        args.pair("-serial", "chardev:console");

        args.pair("-chardev", prefixed("socket,id=agent,path=", &self.agent_socket(), ",server=on,wait=off"));
        // One interrupt for all its queues: setting up one for each of six takes longer than the agent's channel ever gains.
        args.pair("-device", "virtio-serial-pci,max_ports=2,vectors=2");
        args.pair("-device", format!("virtserialport,nr=1,chardev=agent,name={}", protocol::PORT_NAME));
    }
}

/// Chipset, with what no lab guest uses switched off.
const MACHINE: &str = "q35,usb=off,vmport=off,smbus=off,sata=off,i8042=off,hpet=off";

/// One short queue: the guest's driver makes and clears every request of every queue before the first read.
const DISK_QUEUE: &str = ",num-queues=1,queue-size=64";

/// Kernel parameters every guest gets.
const BASE_CMDLINE: &[&str] = &[
    "console=ttyS0",
    // A panic ends the machine at once (with -no-reboot); who looks at the console finds out why.
    "panic=-1",
    // Under TCG the timer check at boot can fail on a busy host, and then the kernel panics.
    "no_timer_check",
    // Nothing hostile runs in a lab guest, and emulated mitigations cost a lot.
    "mitigations=off",
    // A hung guest is asked over its serial line what it does; distributions forbid that by default.
    "sysrq_always_enabled",
    // …and a guest that takes no interrupts any more shows where it is when an NMI makes it panic.
    "unknown_nmi_panic",
];

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.push(option.into());
        self.0.push(value.into());
        self
    }
}

/// `before` + `path` + `after`; commas in the path are doubled, as QEMU's option syntax wants.
fn prefixed(before: &str, path: &Path, after: &str) -> OsString {
    let mut out = OsString::from(before);
    out.push(escape_commas(path.as_os_str()));
    out.push(after);
    out
}

fn escape_commas(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        out.push(byte);
        if byte == b',' {
            out.push(b',');
        }
    }
    OsString::from_vec(out)
}

/// A device whose process listens on `socket`. In JSON, as the option's plain syntax has no nested values.
fn vfio_user(index: usize, socket: &Path) -> OsString {
    let socket = serde_json::json!({ "type": "unix", "path": socket.to_string_lossy() });
    serde_json::json!({ "driver": "vfio-user-pci", "id": format!("nic{index}"), "socket": socket }).to_string().into()
}

fn nic_args(index: usize, nic: &Nic, args: &mut Args) {
    let mut device = match nic.model {
        NicModel::Virtio => format!("virtio-net-pci,romfile=,host_mtu={}", nic.mtu),
        NicModel::E1000e => "e1000e,romfile=".to_owned(),
        NicModel::Igb => "igb,romfile=".to_owned(),
        NicModel::VfioUser => "vfio-user-pci".to_owned(),
    };
    device.push_str(&format!(",id=nic{index},mac={}", nic.mac_text()));
    match &nic.backend {
        NicBackend::Stream { socket } => {
            let netdev = format!("stream,id=net{index},server=off,reconnect-ms=100,addr.type=unix,addr.path=");
            args.pair("-netdev", prefixed(&netdev, socket, ""));
            device.push_str(&format!(",netdev=net{index}"));
        }
        NicBackend::Process { .. } | NicBackend::None => {
            // A hub with one port: a NIC with a peer that never answers, and no warning about a missing one.
            args.pair("-netdev", format!("hubport,id=net{index},hubid={index}"));
            device.push_str(&format!(",netdev=net{index}"));
        }
    }
    args.pair("-device", device);
}
