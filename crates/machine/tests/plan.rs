//! The QEMU command line of a plan, and what a plan may not ask for.

use std::ffi::OsString;
use std::path::PathBuf;

use machine::{Accelerator, GdbStub, LaunchPlan, Nic, NicBackend, NicModel, QemuProgram};

fn plan() -> LaunchPlan {
    let qemu = QemuProgram {
        argv_prefix: ["/t/ld.so", "--library-path", "/t/lib", "/t/qemu"].map(OsString::from).into(),
        share_dirs: vec!["/t/share".into()],
    };
    let mut plan = LaunchPlan::new("a", qemu, "/k/bzImage".into(), "/run/lab".into(), "/log/a".into());
    plan.initrd = Some("/k/initramfs".into());
    plan.nonce = 0xbeef;
    plan.accelerator = Accelerator::Tcg;
    plan
}

fn nic(last: u8) -> Nic {
    let backend = NicBackend::Stream { socket: "/run/lab/sw.0".into() };
    Nic { model: NicModel::Virtio, mac: [0x52, 0x54, 0, 0, 0, last], backend, mtu: 9000 }
}

fn args(plan: &LaunchPlan) -> Vec<String> {
    plan.args().into_iter().map(|a| a.into_string().expect("UTF-8")).collect()
}

/// The value after an option, once.
fn value(plan: &LaunchPlan, option: &str) -> String {
    let all = args(plan);
    let at: Vec<usize> = all.iter().enumerate().filter(|(_, a)| *a == option).map(|(i, _)| i).collect();
    assert_eq!(at.len(), 1, "{option} is given {} times", at.len());
    all[at[0] + 1].clone()
}

fn has(plan: &LaunchPlan, value: &str) -> bool {
    args(plan).iter().any(|a| a == value)
}

#[test]
fn the_whole_line_of_a_guest_with_everything() {
    let mut plan = plan();
    plan.cpus = 2;
    plan.memory_mib = 1024;
    plan.layers = vec!["/c/base.erofs".into(), "/c/kit.erofs".into()];
    plan.nics = vec![nic(1)];
    plan.cmdline = vec!["lab.mode=test".into()];
    plan.extra = vec!["-trace".into(), "enable=x".into()];
    let expected = include_str!("data/plan/everything.args");
    let seen: String = args(&plan).iter().map(|a| format!("{a}\n")).collect();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/plan/everything.args");
        std::fs::write(path, &seen).expect("write expectation");
    } else {
        assert_eq!(seen, expected);
    }
    plan.check().expect("a good plan");
}

#[test]
fn accelerators() {
    let mut plan = plan();
    assert_eq!((value(&plan, "-accel"), value(&plan, "-cpu")), ("tcg,thread=multi".into(), "max,la57=off".into()));
    plan.accelerator = Accelerator::Kvm;
    assert_eq!((value(&plan, "-accel"), value(&plan, "-cpu")), ("kvm".into(), "host".into()));
    plan.accelerator = Accelerator::Auto;
    assert_eq!(value(&plan, "-accel"), "kvm", "auto prints its first attempt");
}

#[test]
fn an_iommu_comes_before_the_devices_it_is_for() {
    let mut plan = plan();
    plan.iommu = true;
    let words: Vec<String> = args(&plan);
    let first = words.iter().position(|w| w == "-device").expect("devices");
    assert_eq!(words[first + 1], "intel-iommu,caching-mode=on,intremap=off");
    assert!(value(&plan, "-append").contains(" intel_iommu=on iommu.passthrough=0 iommu.strict=1 "));
}

#[test]
fn deterministic_time_is_single_threaded_tcg() {
    let mut plan = plan();
    plan.icount = true;
    for accelerator in [Accelerator::Auto, Accelerator::Tcg] {
        plan.accelerator = accelerator;
        assert_eq!(value(&plan, "-accel"), "tcg,thread=single");
        assert_eq!(value(&plan, "-icount"), "shift=0,sleep=off");
        assert_eq!(value(&plan, "-smp"), "1");
    }
}

#[test]
fn gdb_listens_where_told_and_keeps_addresses_as_linked() {
    let mut plan = plan();
    plan.gdb = Some(GdbStub { listen: None, hold: false });
    assert_eq!(value(&plan, "-gdb"), "unix:/run/lab/a.gdb,server=on,wait=off");
    assert!(!has(&plan, "-S") && plan.kernel_cmdline().contains(" nokaslr "));
    plan.gdb = Some(GdbStub { listen: Some("127.0.0.1:1234".parse().expect("address")), hold: true });
    assert_eq!(value(&plan, "-gdb"), "tcp:127.0.0.1:1234");
    assert!(has(&plan, "-S"));
    plan.gdb = Some(GdbStub { listen: Some("[::1]:1234".parse().expect("address")), hold: false });
    assert_eq!(value(&plan, "-gdb"), "tcp:[::1]:1234");
}

#[test]
fn nics_of_every_model() {
    let mut plan = plan();
    let unplugged = Nic { model: NicModel::Igb, backend: NicBackend::None, ..nic(3) };
    plan.nics = vec![nic(1), Nic { model: NicModel::E1000e, ..nic(2) }, unplugged];
    assert!(has(&plan, "stream,id=net0,server=off,reconnect-ms=100,addr.type=unix,addr.path=/run/lab/sw.0"));
    assert!(has(&plan, "virtio-net-pci,romfile=,host_mtu=9000,id=nic0,mac=52:54:00:00:00:01,netdev=net0"));
    assert!(has(&plan, "e1000e,romfile=,id=nic1,mac=52:54:00:00:00:02,netdev=net1"));
    assert!(has(&plan, "hubport,id=net2,hubid=2"));
    assert!(has(&plan, "igb,romfile=,id=nic2,mac=52:54:00:00:00:03,netdev=net2"));
}

#[test]
fn commas_in_paths_are_doubled_and_the_line_is_quoted() {
    let mut plan = plan();
    plan.runtime_dir = "/run/a,b c".into();
    plan.layers = vec!["/b".into()];
    plan.kernel = "/x,y/it's".into();
    assert_eq!(value(&plan, "-qmp"), "unix:/run/a,,b c/a.qmp,server=on,wait=off");
    assert!(value(&plan, "-blockdev").ends_with("file.filename=/run/a,,b c/a.vmdk"));
    let line = plan.shell_line();
    assert!(line.starts_with("/t/ld.so --library-path /t/lib /t/qemu -L /t/share "), "{line}");
    assert!(line.contains(r"'unix:/run/a,,b c/a.qmp,server=on,wait=off'"), "{line}");
    assert!(line.contains(r"it'\''s"), "{line}");
    assert!(!line.contains('\n'));
}

#[test]
fn the_kernel_is_told_who_it_is() {
    let mut plan = plan();
    let line = plan.kernel_cmdline();
    for part in ["console=ttyS0", "panic=-1", "lab.guest=a", "lab.nonce=0000beef", "lab.root=none"] {
        assert!(line.split(' ').any(|p| p == part), "{part} is not in {line}");
    }
    plan.layers = vec!["/b".into()];
    assert!(plan.kernel_cmdline().ends_with("lab.root=overlay"));
    plan.cmdline = vec!["lab.root=none".into(), "panic=10".into()];
    assert!(plan.kernel_cmdline().ends_with("lab.nonce=0000beef lab.root=none panic=10"));
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    type Break = fn(&mut LaunchPlan);
    let table: &[(Break, &str)] = &[
        (
            |p| p.name = "a b".into(),
            "guest name `a b`: use letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 64 in all",
        ),
        (
            |p| p.name = String::new(),
            "guest name ``: use letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 64 in all",
        ),
        (|p| p.qemu.argv_prefix.clear(), "guest `a`: no QEMU program given"),
        (|p| p.cpus = 0, "guest `a`: 0 CPUs; give 1 to 255"),
        (|p| p.memory_mib = 32, "guest `a`: 32 MiB of memory; a kernel and its initramfs need at least 64"),
        (|p| p.nonce = 0, "guest `a`: the nonce of the agent's channel must not be 0"),
        (|p| (p.icount, p.cpus) = (true, 2), "guest `a`: deterministic time (icount) needs exactly one CPU"),
        (
            |p| (p.icount, p.accelerator) = (true, Accelerator::Kvm),
            "guest `a`: deterministic time (icount) needs TCG: KVM cannot count instructions",
        ),
        (
            |p| p.runtime_dir = format!("/{}", "r".repeat(100)).into(),
            "guest `a`: socket path `/rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr/a.agent` \
             has 109 bytes and a unix socket takes at most 107; set XDG_RUNTIME_DIR to a shorter directory",
        ),
        (
            |p| p.layers = vec!["/b".into(), "/a \"b\"/c".into()],
            "guest `a`: image `/a \"b\"/c` cannot be put on its disk: the path must be absolute, of at most 511 bytes, \
             without double quotes and line breaks; move the cache (XDG_CACHE_HOME)",
        ),
        (|p| p.nics = vec![nic(1), nic(1)], "guest `a`: MAC address `52:54:00:00:00:01` is used twice"),
        (
            |p| p.nics = vec![Nic { mac: [1, 0, 0x5e, 0, 0, 1], ..nic(1) }],
            "guest `a`: MAC address 01:00:5e:00:00:01 cannot be a NIC's: the lowest bit of its first byte marks groups, and it may not be zero",
        ),
        (|p| p.nics = vec![Nic { mtu: 60, ..nic(1) }], "guest `a`: MTU 60 of NIC 0; IPv4 needs at least 68 (RFC 791)"),
        (
            |p| p.gdb = Some(GdbStub { listen: Some("0.0.0.0:1234".parse().expect("address")), hold: false }),
            "guest `a`: the gdb stub would listen on 0.0.0.0:1234, and whoever reaches it owns the guest; use 127.0.0.1 or [::1]",
        ),
        (
            |p| p.cmdline = vec!["quiet debug".into()],
            "guest `a`: kernel parameter `quiet debug` holds a space or control character outside double quotes; give parameters one by one",
        ),
    ];
    for (break_it, message) in table {
        let mut plan = plan();
        plan.check().expect("good before it is broken");
        break_it(&mut plan);
        assert_eq!(plan.check().expect_err(message).to_string(), *message);
    }
    let mut plan = plan();
    plan.cmdline = vec![r#"dyndbg="file drivers/net/* +p""#.into()];
    plan.check().expect("spaces in quotes are fine");
}
