//! QEMU itself as the client. Needs one, so it runs when asked to:
//!
//! `VFIO_USER_QEMU='qemu-system-x86_64' cargo test -p vfio-user --test qemu -- --ignored`, with whatever goes before and between
//! in that variable (a loader, `-L` folders), and for the second test `VFIO_USER_KERNEL=…/bzImage`.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use common::{Registers, Seen, function};
use tempfile::TempDir;
use vfio_user::{Event, GuestMemory, Interrupts, Server, Stopper};

/// The tests' registers, and two that act: writing 0x20 copies the 8 bytes at 0 to the address at 8.
struct Acting {
    registers: Registers,
    memory: Arc<GuestMemory>,
}

impl vfio_user::Device for Acting {
    fn read(&mut self, bar: u8, offset: u64, into: &mut [u8]) {
        self.registers.read(bar, offset, into);
    }

    fn write(&mut self, bar: u8, offset: u64, from: &[u8]) {
        self.registers.write(bar, offset, from);
        if (bar, offset) == (0, 0x20) {
            let (value, address) = self.registers.bars[0][..16].split_at(8);
            self.memory.write(u64::from_le_bytes(address.try_into().unwrap()), value).unwrap();
        }
    }

    fn reset(&mut self) {
        self.registers.reset();
    }

    fn event(&mut self, event: Event<'_>) {
        self.registers.event(event);
    }
}

struct Machine {
    folder: TempDir,
    qemu: Child,
    memory: Arc<GuestMemory>,
    interrupts: Interrupts,
    stopper: Stopper,
    seen: Arc<Mutex<Seen>>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Machine {
    fn start(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("device");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut server = Server::new(function()).unwrap();
        let (memory, interrupts, stopper) = (server.memory(), server.interrupts(), server.stopper());
        let mut device = Acting { registers: Registers::new(interrupts.clone()), memory: memory.clone() };
        let seen = device.registers.seen.clone();
        let serving = Some(thread::spawn(move || server.serve(&listener, &mut device)));
        let prefix = std::env::var("VFIO_USER_QEMU").expect("VFIO_USER_QEMU says how to start QEMU");
        let mut words = prefix.split_whitespace();
        let device = format!(
            r#"{{"driver":"vfio-user-pci","addr":"4","socket":{{"type":"unix","path":"{}"}}}}"#,
            socket.display()
        );
        let qemu = Command::new(words.next().unwrap())
            .args(words)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "512"])
            .args(["-machine", "q35,memory-backend=mem0"])
            .args(["-object", "memory-backend-memfd,id=mem0,size=512M,share=on"])
            .args(["-device", &device])
            .args(arguments(folder.path()))
            .stderr(Stdio::from(fs::File::create(folder.path().join("stderr")).unwrap()))
            .spawn()
            .unwrap();
        Machine { folder, qemu, memory, interrupts, stopper, seen, serving }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        self.stopper.stop();
        let served = self.serving.take().map(JoinHandle::join);
        if !thread::panicking() {
            served.unwrap().unwrap().unwrap();
        }
    }
}

/// QEMU's qtest protocol (`system/qtest.c`): the guest's accesses, without a guest.
struct Qtest(BufReader<UnixStream>);

impl Qtest {
    fn ask(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        loop {
            let mut answer = String::new();
            assert!(self.0.read_line(&mut answer).unwrap() > 0, "QEMU hung up after {line}");
            if let Some(value) = answer.trim().strip_prefix("OK") {
                return value.trim().into();
            }
            assert!(answer.starts_with("IRQ"), "{line}: {answer}");
        }
    }

    fn value(&mut self, line: &str) -> u64 {
        u64::from_str_radix(self.ask(line).trim_start_matches("0x"), 16).unwrap()
    }

    fn config(&mut self, offset: u32) -> u32 {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000u32 | 4 << 11 | offset));
        self.value("inl 0xcfc") as u32
    }

    fn set_config(&mut self, offset: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000u32 | 4 << 11 | offset));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// Waits until a word of the guest's memory has a value.
    fn wait(&mut self, address: u64, value: u64) {
        for _ in 0..2000 {
            if self.value(&format!("readl {address:#x}")) == value {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{address:#x} never became {value:#x}");
    }
}

#[test]
#[ignore = "needs QEMU, see the top: run by hand; `cargo xtask ci` meets QEMU in the gvnic test of e2e"]
fn qemu_finds_bars_memory_and_interrupts() {
    const BAR0: u64 = 0xe000_0000;
    const BAR2: u64 = 0xe001_0000;
    const RAM: u64 = 0x20_0000;
    let machine = Machine::start(|folder| {
        let socket = folder.join("qtest");
        ["-accel", "tcg", "-S", "-qtest"]
            .map(String::from)
            .into_iter()
            .chain([format!("unix:{},server=on,wait=off", socket.display())])
            .collect()
    });
    let mut socket = None;
    for _ in 0..2000 {
        socket = UnixStream::connect(machine.folder.path().join("qtest")).ok();
        if socket.is_some() {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    }
    let socket =
        socket.unwrap_or_else(|| panic!("{}", fs::read_to_string(machine.folder.path().join("stderr")).unwrap()));
    let mut qtest = Qtest(BufReader::new(socket));

    assert_eq!((qtest.config(0), qtest.config(8)), (0x5678_1234, 0xff00_0001));
    let sizes: Vec<u32> = (0..6)
        .map(|bar| {
            qtest.set_config(0x10 + bar * 4, u32::MAX);
            qtest.config(0x10 + bar * 4)
        })
        .collect();
    assert_eq!(sizes, [0xffff_f000, 0, 0xffff_e004, 0xffff_ffff, 0, 0xfffc_0000]);
    qtest.set_config(0x10, BAR0 as u32);
    qtest.set_config(0x18, BAR2 as u32);
    qtest.set_config(0x1c, 0);
    qtest.set_config(0x24, 0xe010_0000);
    qtest.set_config(4, 6);

    // Registers, in every width.
    qtest.ask(&format!("writeq {BAR0:#x} 0x1122334455667788"));
    qtest.ask(&format!("writew {:#x} 0xabcd", BAR0 + 2));
    qtest.ask(&format!("writeb {:#x} 0xef", BAR0 + 5));
    assert_eq!(qtest.value(&format!("readq {BAR0:#x}")), 0x1122_ef44_abcd_7788);

    // Memory, both ways.
    qtest.ask(&format!("writeq {:#x} {RAM:#x}", BAR0 + 8));
    qtest.ask(&format!("writel {:#x} 1", BAR0 + 0x20));
    assert_eq!(qtest.value(&format!("readq {RAM:#x}")), 0x1122_ef44_abcd_7788);
    qtest.ask(&format!("writeq {RAM:#x} 0x42"));
    let mut word = [0; 8];
    machine.memory.read(RAM, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 0x42);

    // Interrupts: a message goes wherever the table says, so into memory. The capability is at 0x40.
    let entry = |vector: u64| BAR2 + common::TABLE + vector * 16;
    let message = |vector: u64| RAM + 0x1000 + vector * 4;
    for vector in 0..4 {
        qtest.ask(&format!("writel {:#x} {:#x}", entry(vector), message(vector)));
        qtest.ask(&format!("writel {:#x} {:#x}", entry(vector) + 8, 0x100 + vector));
    }
    let control = qtest.config(0x40);
    qtest.set_config(0x40, control | 0x8000_0000);
    // Raised while the guest has it masked: QEMU has connected nothing yet, so it is pending here, and QEMU asks here for it.
    machine.interrupts.raise(3);
    qtest.ask(&format!("writel {:#x} 3", BAR0 + common::BAR0 - 4));
    assert_eq!(qtest.value(&format!("readl {:#x}", BAR2 + common::PBA)), 8);
    qtest.ask(&format!("writel {:#x} 0", entry(3) + 12));
    qtest.wait(message(3), 0x103);
    assert_eq!(qtest.value(&format!("readl {:#x}", BAR2 + common::PBA)), 0);
    // Unmasked.
    qtest.ask(&format!("writel {:#x} 0", entry(2) + 12));
    qtest.ask(&format!("writel {:#x} 2", BAR0 + common::BAR0 - 4));
    qtest.wait(message(2), 0x102);
    // Masked again: QEMU keeps it, and lets it go with the mask.
    qtest.ask(&format!("writel {:#x} 0", message(2)));
    qtest.ask(&format!("writel {:#x} 1", entry(2) + 12));
    machine.interrupts.raise(2);
    qtest.ask(&format!("writel {:#x} 0", entry(2) + 12));
    qtest.wait(message(2), 0x102);
    // All of them masked at once.
    qtest.ask(&format!("writel {:#x} 0", message(2)));
    qtest.set_config(0x40, control | 0xc000_0000);
    machine.interrupts.raise(2);
    assert!(machine.interrupts.is_pending(2));
    qtest.set_config(0x40, control | 0x8000_0000);
    qtest.wait(message(2), 0x102);

    assert_eq!(machine.seen.lock().unwrap().refused, Vec::<String>::new());
}

#[test]
#[ignore = "needs QEMU and a kernel, see the top: run by hand; `cargo xtask ci` boots guests in the gvnic test of e2e"]
fn a_guest_finds_the_device() {
    let kernel = std::env::var("VFIO_USER_KERNEL").expect("VFIO_USER_KERNEL is a bzImage");
    let mut machine = Machine::start(|folder| {
        let serial = format!("file:{}", folder.join("console").display());
        let append = "console=ttyS0 panic=-1 no_timer_check mitigations=off";
        ["-accel", "tcg", "-cpu", "max", "-kernel", &kernel, "-append", append, "-serial", &serial]
            .map(String::from)
            .into()
    });
    // It finds no root file system and ends there.
    machine.qemu.wait().unwrap();
    let console = fs::read_to_string(machine.folder.path().join("console")).unwrap();
    let about: Vec<&str> = console.lines().filter(|line| line.contains("pci 0000:00:04.0")).collect();
    for expected in ["[1234:5678] type 00 class 0xff0000", "BAR 0 [mem", "BAR 2 [mem", "BAR 5 [mem"] {
        assert!(about.iter().any(|line| line.contains(expected)), "no {expected:?} in {about:#?}");
    }
    assert_eq!(machine.seen.lock().unwrap().refused, Vec::<String>::new());
    let said = fs::read_to_string(machine.folder.path().join("stderr")).unwrap();
    assert_eq!(said, "");
    println!("{}", about.join("\n"));
}
