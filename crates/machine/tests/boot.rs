//! Real boots: every way a boot can end, and every way a guest can stop answering.
//!
//! They need a QEMU, a kernel and an initramfs with the guest agent, which the directory named by `DEVMEM_LAB_E2E_DIR`
//! describes in its `machine.json`:
//!
//! ```json
//! { "qemu": ["program", "leading argument", "…"], "share_dirs": ["…"], "kernel": "bzImage", "initrd": "initramfs.cpio" }
//! ```
//!
//! Without that variable the tests say that they were not tried. They take turns: a guest under TCG wants the whole host.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use machine::{
    Accelerator, Activity, BootError, CrashKind, Engine, GdbStub, HangRule, Health, LaunchError, LaunchPlan, Machine,
    PowerDown, QemuProgram, Verdicts,
};
use progress::{Cancel, Event, Progress};

/// Long enough for a boot under TCG on a busy host.
const BOOT: Duration = Duration::from_secs(240);

struct Bench {
    dir: tempfile::TempDir,
    plan: LaunchPlan,
    _turn: MutexGuard<'static, ()>,
}

/// A plan over the files the harness provides; `None` (with a word) where there are none.
fn bench(test: &str) -> Option<Bench> {
    static TURN: Mutex<()> = Mutex::new(());
    let Some(e2e) = std::env::var_os("DEVMEM_LAB_E2E_DIR").map(PathBuf::from) else {
        eprintln!("{test}: NOT TRIED, since DEVMEM_LAB_E2E_DIR is not set: no QEMU and no kernel to boot");
        return None;
    };
    let path = e2e.join("machine.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parts: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let words = |key: &str| -> Vec<String> {
        serde_json::from_value(parts[key].clone()).unwrap_or_else(|e| panic!("{}: `{key}`: {e}", path.display()))
    };
    let file = |key: &str| -> PathBuf {
        serde_json::from_value(parts[key].clone()).unwrap_or_else(|e| panic!("{}: `{key}`: {e}", path.display()))
    };
    let dir = tempfile::Builder::new().prefix("dm-").tempdir().expect("temporary directory");
    let qemu = QemuProgram {
        argv_prefix: words("qemu").into_iter().map(Into::into).collect(),
        share_dirs: words("share_dirs").into_iter().map(Into::into).collect(),
    };
    let mut plan = LaunchPlan::new("g", qemu, file("kernel"), dir.path().join("run"), dir.path().join("log"));
    plan.initrd = Some(file("initrd"));
    plan.nonce = 0x1234;
    plan.accelerator = Accelerator::Tcg;
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Bench { dir, plan, _turn: turn })
}

fn ready(machine: &Machine) -> machine::Ready {
    match machine.wait_ready(BOOT, &Progress::silent()) {
        Ok(ready) => ready,
        Err(error) => panic!("{error}"),
    }
}

/// Asks for the guest's health until it is as wanted.
fn wait_health(machine: &Machine, patience: Duration, wanted: impl Fn(&Health) -> bool) -> Health {
    let begun = Instant::now();
    loop {
        let health = machine.health();
        if wanted(&health) {
            return health;
        }
        assert!(begun.elapsed() < patience, "still {health:?}; console:\n{}", console(machine));
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn console(machine: &Machine) -> String {
    machine.console().last_lines(0, 60).expect("console").0.join("\n")
}

fn wait_console(machine: &Machine, wanted: &str) {
    let begun = Instant::now();
    while !console(machine).contains(wanted) {
        assert!(begun.elapsed() < Duration::from_secs(60), "no `{wanted}` on the console:\n{}", console(machine));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Stops the guest where it sleeps: right after a `hlt` in its kernel, with interrupts on. Gives its EFLAGS.
fn asleep(socket: &Path) -> (Debugger, u64) {
    for _ in 0..200 {
        let mut debugger = Debugger::attach(socket);
        let (flags, here) = (debugger.register(EFLAGS), debugger.register(RIP));
        if here > u64::MAX / 2 && flags & INTERRUPTS != 0 && debugger.ask(&format!("m{:x},1", here - 1)) == "f4" {
            return (debugger, flags);
        }
        debugger.detach();
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the guest is never seen asleep")
}

/// Nothing of the machine may be left: no process, no socket.
fn assert_gone(plan: &LaunchPlan, process: machine::ProcessId) {
    assert!(!process.alive(), "QEMU still runs");
    let left: Vec<_> = fs::read_dir(&plan.runtime_dir).expect("runtime directory").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_guest_boots_crashes_comes_back_and_powers_off() {
    let Some(bench) = bench("a_guest_boots_crashes_comes_back_and_powers_off") else { return };
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    let first = ready(&machine);
    assert_eq!(first.engine, Engine::Tcg);
    assert_eq!(first.hello.boot.as_ref().map(|b| b.guest.as_str()), Some("g"));
    assert!(matches!(machine.health(), Health::Alive { .. }), "{:?}", machine.health());

    // A panic, as a stuck operator would cause it: over the serial line.
    let before = machine.process();
    machine.sysrq('c').expect("sysrq");
    let health = wait_health(&machine, Duration::from_secs(60), |h| matches!(h, Health::Crashed(_)));
    let Health::Crashed(crash) = health else { unreachable!() };
    assert_eq!(crash.kind, CrashKind::Panic, "{crash:?}");
    assert!(crash.fatal && crash.title.contains("sysrq triggered crash"), "{crash:?}");
    assert!(crash.fingerprint.starts_with("panic:sysrq_handle_crash"), "{}", crash.fingerprint);
    assert!(machine.wait_exit(Duration::from_secs(30)).is_some(), "panic=-1 and -no-reboot must end QEMU");

    // It comes back; the old crash is history, and the console's offsets went on.
    machine.reset(&Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    assert!(machine.boot_offset() > crash.offset);
    ready(&machine);
    assert!(matches!(machine.health(), Health::Alive { .. }), "{:?}", machine.health());
    assert_ne!(machine.process(), before);
    assert!(machine.crashes().is_empty());

    let process = machine.process();
    assert_eq!(machine.power_down(Duration::from_secs(60)).expect("power down"), PowerDown::Agent);
    assert_eq!(machine.power_down(Duration::ZERO).expect("again"), PowerDown::Already);
    drop(machine);
    assert_gone(&bench.plan, process);
}

/// A debugger of three commands on QEMU's gdb stub (remote serial protocol, as gdb's manual gives it).
struct Debugger(UnixStream);

/// Numbers of x86-64 registers in that protocol.
const RIP: u32 = 16;
const EFLAGS: u32 = 17;
/// EFLAGS bit 9: interrupts are taken.
const INTERRUPTS: u64 = 1 << 9;

impl Debugger {
    /// Attaching stops the guest.
    fn attach(socket: &Path) -> Debugger {
        let mut debugger = Debugger(UnixStream::connect(socket).expect("gdb stub"));
        debugger.0.set_read_timeout(Some(Duration::from_secs(60))).expect("timeout");
        assert!(debugger.ask("?").starts_with('T'), "the guest is stopped");
        debugger
    }

    fn ask(&mut self, command: &str) -> String {
        let sum = command.bytes().fold(0u8, u8::wrapping_add);
        self.0.write_all(format!("${command}#{sum:02x}").as_bytes()).expect("send");
        let mut answer = Vec::new();
        while !(answer.len() >= 4 && answer[answer.len() - 3] == b'#') {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("answer");
            answer.push(byte[0]);
        }
        self.0.write_all(b"+").expect("acknowledge");
        let text = String::from_utf8(answer).expect("text");
        text.trim_start_matches('+').trim_start_matches('$').split('#').next().unwrap_or_default().to_owned()
    }

    /// A register's value; the protocol sends it in the guest's byte order.
    fn register(&mut self, number: u32) -> u64 {
        let hex = self.ask(&format!("p{number:x}"));
        let bytes = (0..hex.len() / 2).map(|i| u64::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex"));
        bytes.enumerate().fold(0, |value, (i, byte)| value | byte << (8 * i))
    }

    fn set_eflags(&mut self, value: u64) {
        let hex: String =
            u32::try_from(value).expect("32 bits").to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(self.ask(&format!("P{EFLAGS:x}={hex}")), "OK");
    }

    /// Lets the guest go on.
    fn detach(mut self) {
        assert_eq!(self.ask("D"), "OK");
    }
}

#[test]
fn quiet_stopped_asleep_and_spinning_guests_are_told_apart() {
    let Some(mut bench) = bench("quiet_stopped_asleep_and_spinning_guests_are_told_apart") else { return };
    bench.plan.cpus = 1;
    // The kernel's own watchdog would speak first; here it is our judgement that is tested.
    bench.plan.cmdline = vec!["nowatchdog".into()];
    bench.plan.gdb = Some(GdbStub { listen: None, hold: false });
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    ready(&machine);
    machine.set_hang_rule(HangRule {
        halted: Duration::from_secs(6),
        busy: Duration::from_secs(8),
        starved: Duration::from_secs(8),
    });

    // Quiet is not hung: a guest that does nothing for longer than any limit still sends its heartbeat.
    std::thread::sleep(Duration::from_secs(9));
    assert!(matches!(machine.health(), Health::Alive { .. }), "{:?}", machine.health());

    let qmp = machine.qmp();
    qmp.execute(qapi::qmp::stop {}).expect("stop");
    wait_health(&machine, Duration::from_secs(60), |h| matches!(h, Health::Paused { status } if status == "paused"));
    qmp.execute(qapi::qmp::cont {}).expect("continue");
    wait_health(&machine, Duration::from_secs(60), |h| matches!(h, Health::Alive { .. }));

    // A backtrace on request is no crash.
    machine.sysrq('l').expect("sysrq");
    wait_console(&machine, "sysrq: Show backtrace of all active CPUs");
    assert!(machine.crashes().is_empty(), "{:?}", machine.crashes());
    machine.sysrq('p').expect("sysrq");
    wait_console(&machine, "sysrq: Show Regs");
    machine.sysrq('w').expect("sysrq");
    wait_console(&machine, "sysrq: Show Blocked State");

    // An idle guest that takes no interrupts any more sleeps for ever.
    let (mut debugger, flags) = asleep(&bench.plan.gdb_socket());
    debugger.set_eflags(flags & !INTERRUPTS);
    debugger.detach();
    let health = wait_health(&machine, Duration::from_secs(60), |h| matches!(h, Health::Hung { .. }));
    assert!(matches!(health, Health::Hung { activity: Activity::Halted, .. }), "{health:?}");
    let mut debugger = Debugger::attach(&bench.plan.gdb_socket());
    debugger.set_eflags(flags | INTERRUPTS);
    debugger.detach();
    wait_health(
        &machine,
        Duration::from_secs(60),
        |h| matches!(h, Health::Alive { idle } if *idle < Duration::from_secs(2)),
    );

    // One whose idle loop jumps in a circle never schedules again, but it takes interrupts and can still be asked.
    let (mut debugger, _) = asleep(&bench.plan.gdb_socket());
    let here = debugger.register(RIP);
    assert_eq!(debugger.ask(&format!("M{here:x},2:ebfe")), "OK");
    debugger.detach();
    let health = wait_health(&machine, Duration::from_secs(60), |h| matches!(h, Health::Hung { .. }));
    assert!(matches!(health, Health::Hung { activity: Activity::Busy(_) | Activity::Starved, .. }), "{health:?}");
    // Caught by an NMI, it shows where it was; before that, what it was asked for over the serial line.
    let said = machine.interrogate(Duration::from_secs(60)).expect("interrogation");
    for part in
        ["sysrq: Show backtrace of all active CPUs", "sysrq: Show Blocked State", "Kernel panic - not syncing: NMI"]
    {
        assert!(said.contains(part), "`{part}` is missing from:\n{said}");
    }
    let health = machine.health();
    let Health::Crashed(crash) = &health else { panic!("{health:?}") };
    assert!(crash.fingerprint.starts_with("panic:pv_native_safe_halt/default_idle"), "{crash:?}");
    let process = machine.process();
    assert_eq!(machine.power_down(Duration::from_secs(3)).expect("power down"), PowerDown::Already);
    drop(machine);
    assert_gone(&bench.plan, process);
}

#[test]
fn auto_tries_kvm_falls_back_with_a_reason_and_remembers() {
    let Some(mut bench) = bench("auto_tries_kvm_falls_back_with_a_reason_and_remembers") else { return };
    let verdicts = Verdicts::new(bench.dir.path().join("verdicts"));
    bench.plan.accelerator = Accelerator::Auto;
    bench.plan.verdict_dir = Some(bench.dir.path().join("verdicts"));
    let notes = std::sync::Arc::new(Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&notes);
    let progress = Progress::new(Cancel::default(), move |event| {
        if let Event::Note { text, .. } = event {
            sink.lock().expect("notes").push(text);
        }
    });
    let begun = Instant::now();
    let machine = Machine::launch(bench.plan.clone(), &progress).unwrap_or_else(|e| panic!("{e}"));
    let decided = begun.elapsed();
    let first = ready(&machine);
    drop(machine);
    eprintln!(
        "auto: {} decided after {decided:.1?}, ready after {:.1?} ({:?})",
        first.engine, first.took, first.fallback
    );
    match (first.engine, machine::accel::kvm_opens()) {
        (Engine::Kvm, _) => {
            assert_eq!(first.fallback, None);
            assert_eq!(verdicts.known(&bench.plan.kernel), machine::accel::Known::Works);
        }
        (Engine::Tcg, Err(reason)) => assert_eq!(first.fallback, Some(reason)),
        (Engine::Tcg, Ok(())) => {
            let reason = first.fallback.expect("a reason");
            assert!(decided < Duration::from_secs(20), "falling back took {decided:?}");
            assert!(notes.lock().expect("notes").iter().any(|n| n.contains(&reason)), "nobody was told: {reason}");
            assert_eq!(verdicts.known(&bench.plan.kernel), machine::accel::Known::Broken(reason.clone()));
            // The second guest does not try again.
            let begun = Instant::now();
            let machine = Machine::launch(bench.plan.clone(), &progress).unwrap_or_else(|e| panic!("{e}"));
            eprintln!("auto, remembered: started after {:.1?}", begun.elapsed());
            assert_eq!(machine.engine(), (Engine::Tcg, Some(reason)));
            assert!(notes.lock().expect("notes").iter().any(|n| n.contains("as seen before")), "not from memory");
            drop(machine);
            // KVM on demand is an error then, not TCG in disguise.
            bench.plan.accelerator = Accelerator::Kvm;
            let machine = Machine::launch(bench.plan.clone(), &progress).unwrap_or_else(|e| panic!("{e}"));
            let error = machine.wait_ready(Duration::from_secs(20), &progress).expect_err("KVM cannot run this kernel");
            assert!(matches!(error, BootError::Stopped { .. } | BootError::Timeout { .. }), "{error}");
        }
    }
}

#[test]
fn a_kernel_without_initramfs_is_a_crash_with_a_hint() {
    let Some(mut bench) = bench("a_kernel_without_initramfs_is_a_crash_with_a_hint") else { return };
    bench.plan.initrd = None;
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    let process = machine.process();
    let error = machine.wait_ready(BOOT, &Progress::silent()).expect_err("nothing to run");
    let text = error.to_string();
    assert!(matches!(&error, BootError::Crashed { crash, .. } if crash.kind == CrashKind::Panic), "{text}");
    for part in [
        "guest `g` crashed while booting on tcg",
        "VFS: Unable to mount root fs",
        "hint: ",
        "CONFIG_BLK_DEV_INITRD",
        "\n  | ",
    ] {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    assert!(matches!(machine.health(), Health::Crashed(_)));
    drop(machine);
    assert_gone(&bench.plan, process);
}

#[test]
fn a_silent_guest_runs_into_the_timeout_with_what_is_known() {
    let Some(mut bench) = bench("a_silent_guest_runs_into_the_timeout_with_what_is_known") else { return };
    bench.plan.gdb = Some(GdbStub { listen: None, hold: true });
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    assert!(bench.plan.gdb_socket().exists(), "the gdb stub listens");
    let begun = Instant::now();
    let error = machine.wait_ready(Duration::from_secs(3), &Progress::silent()).expect_err("it is held");
    let text = error.to_string();
    assert!(matches!(error, BootError::Timeout { .. }), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(30), "the timeout came late: {:?}", begun.elapsed());
    for part in ["no greeting from the agent within 3s", "virtual CPUs: halted", "(the console is empty)", "hint: "] {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
}

#[test]
fn what_is_no_kernel_is_refused_by_qemu_in_its_own_words() {
    let Some(mut bench) = bench("what_is_no_kernel_is_refused_by_qemu_in_its_own_words") else { return };
    bench.plan.kernel = bench.dir.path().join("kernel");
    let error = Machine::launch(bench.plan.clone(), &Progress::silent()).expect_err("no file");
    assert!(matches!(error, LaunchError::File { what: "kernel image", .. }), "{error}");
    fs::write(&bench.plan.kernel, b"not a kernel").expect("write");
    let error = Machine::launch(bench.plan.clone(), &Progress::silent()).expect_err("no kernel");
    let text = error.to_string();
    assert!(matches!(error, LaunchError::Exited { .. }), "{text}");
    assert!(text.contains("QEMU ended with status 1") && text.contains("hint: the kernel image"), "{text}");
    assert_eq!(fs::read_dir(&bench.plan.runtime_dir).expect("runtime directory").count(), 0);
}

#[test]
fn ctrl_c_ends_a_boot_and_leaves_nothing() {
    let Some(bench) = bench("ctrl_c_ends_a_boot_and_leaves_nothing") else { return };
    let cancel = Cancel::default();
    let progress = Progress::new(cancel.clone(), |_| {});
    let machine = Machine::launch(bench.plan.clone(), &progress).unwrap_or_else(|e| panic!("{e}"));
    let process = machine.process();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
    });
    let begun = Instant::now();
    let error = machine.wait_ready(BOOT, &progress).expect_err("cancelled");
    assert!(matches!(error, BootError::Cancelled(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(machine);
    assert_gone(&bench.plan, process);
}

#[test]
fn deterministic_time_takes_the_same_number_of_instructions() {
    let Some(mut bench) = bench("deterministic_time_takes_the_same_number_of_instructions") else { return };
    bench.plan.cpus = 1;
    bench.plan.icount = true;
    bench.plan.cmdline = vec!["nokaslr".into()];
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    let ready = ready(&machine);
    assert_eq!(machine.power_down(Duration::from_secs(60)).expect("power down"), PowerDown::Agent);
    let boot = ready.hello.boot.expect("a report");
    eprintln!("icount: init began at {} us of guest time", boot.started_us);
}

#[test]
fn the_printed_line_is_the_line_that_runs() {
    let Some(bench) = bench("the_printed_line_is_the_line_that_runs") else { return };
    let machine = Machine::launch(bench.plan.clone(), &Progress::silent()).unwrap_or_else(|e| panic!("{e}"));
    let raw = fs::read(Path::new("/proc").join(machine.process().pid.to_string()).join("cmdline")).expect("cmdline");
    let running: Vec<String> =
        raw.split(|&b| b == 0).map(|b| String::from_utf8_lossy(b).into_owned()).filter(|s| !s.is_empty()).collect();
    let planned: Vec<String> =
        bench.plan.args().iter().map(|a| a.to_string_lossy().into_owned()).filter(|s| !s.is_empty()).collect();
    assert_eq!(running, planned);
}
