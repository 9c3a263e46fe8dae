//! KTAP over outputs of the kernel's own tools: the kselftest runner, its C harness and shell helpers (Linux 7.3.4),
//! an RDMA selftest from a guest's console, and KUnit's shape with kernel timestamps.

use suite::Status;
use suite::ktap::{self, Verdict};

fn data(file: &str) -> String {
    let path = format!("{}/tests/data/ktap/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn told(file: &str) -> Vec<String> {
    let subtests = ktap::parse(&data(file)).subtests();
    subtests.iter().map(|s| format!("{} {} {}", s.status.word(), s.name, s.message).trim_end().to_string()).collect()
}

fn verdict(file: &str, exit: i32) -> (Status, String) {
    let text = data(file);
    let verdict = Verdict::of(&ktap::parse(&text), exit, &text);
    (verdict.status, verdict.message)
}

#[test]
fn shell_helpers_between_kernel_messages() {
    assert_eq!(
        told("rxe_netns_names.txt"),
        [
            "pass same RDMA device name can exist in two net namespaces",
            "pass move without rename fails on destination name conflict",
            "pass move then rename succeeds",
            "skip move with requested destination name succeeds",
            "pass same-netns rename rejects duplicate name",
            "pass netns delete returns device to init_net and renames on conflict",
        ]
    );
    assert_eq!(verdict("rxe_netns_names.txt", 0), (Status::Pass, String::new()));
    assert_eq!(ktap::parse(&data("rxe_netns_names.txt")).problems(), Vec::<String>::new());
}

#[test]
fn c_harness() {
    assert_eq!(
        told("harness.txt"),
        [
            "pass global.passes",
            "fail global.fails FAIL  global.fails",
            "skip global.skips no hardware",
            "fail global.dies FAIL  global.dies",
            "pass pair.l2.works",
            "fail pair.l3.works FAIL  pair.l3.works",
        ]
    );
    let (status, message) = verdict("harness.txt", 1);
    assert_eq!(status, Status::Fail);
    assert_eq!(message, "3 of 6 failed: global.fails and 2 more: FAIL  global.fails");
}

#[test]
fn runner_with_prefixed_nesting() {
    assert_eq!(
        told("runner.txt"),
        [
            "pass selftests: demo: harness / global.passes",
            "fail selftests: demo: harness / global.fails FAIL  global.fails",
            "skip selftests: demo: harness / global.skips no hardware",
            "fail selftests: demo: harness / global.dies FAIL  global.dies",
            "pass selftests: demo: harness / pair.l2.works",
            "fail selftests: demo: harness / pair.l3.works FAIL  pair.l3.works",
            "pass selftests: demo: ok.sh",
            "skip selftests: demo: skip.sh",
            "fail selftests: demo: bad.sh exit=1",
            "timeout selftests: demo: hang.sh 5 seconds",
            "pass selftests: demo: py.sh / first",
            "skip selftests: demo: py.sh / second needs tun",
            "pass selftests: demo: py.sh / third",
            "pass selftests: demo: short.sh / first",
            "skip selftests: demo: skipall.sh",
        ]
    );
    let problems = ktap::parse(&data("runner.txt")).problems();
    assert_eq!(problems, ["in `selftests: demo: short.sh`: planned 3 results, got 1"]);
}

#[test]
fn kunit_three_levels_deep() {
    assert_eq!(
        told("kunit.txt"),
        [
            "pass netkit / netkit_alloc",
            "pass netkit / netkit_mode / l2",
            "skip netkit / netkit_mode / l3 no address",
            "fail netkit / netkit_queue netkit_queue: EXPECTATION FAILED at drivers/net/netkit_test.c:77",
            "pass bitmap",
        ]
    );
    assert_eq!(ktap::parse(&data("kunit.txt")).problems(), Vec::<String>::new());
}

#[test]
fn exit_statuses_of_kselftests() {
    for (file, exit, status, message) in [
        ("py.txt", 0, Status::Pass, ""),
        // The upstream runner calls this one ok.
        ("short.txt", 0, Status::Fail, "planned 3 results, got 1"),
        ("skipall.txt", 4, Status::Skip, "no RDMA device"),
        ("skipall.txt", 0, Status::Skip, "no RDMA device"),
        ("py.txt", 2, Status::Xfail, "the test itself says so"),
        ("py.txt", 3, Status::Xpass, "the test itself says so"),
        ("py.txt", 139, Status::Fail, "killed by signal 11: # Totals: pass:2 fail:0 xfail:0 xpass:0 skip:1 error:0"),
        ("harness.txt", 0, Status::Fail, "3 of 6 failed: global.fails and 2 more: FAIL  global.fails"),
        ("drv-net.txt", 1, Status::Fail, "1 of 2 failed: nk_qlease.test_attrs: Exception| KeyError: 'combined-count'"),
        ("bail-out.txt", 0, Status::Fail, "bailed out: cannot mount /sys/fs/bpf"),
        ("cut-short.txt", 0, Status::Fail, "planned 2 results, got 0"),
    ] {
        assert_eq!(verdict(file, exit), (status, message.to_string()), "{file} {exit}");
    }
}

#[test]
fn scripts_that_print_no_ktap() {
    for (output, exit, status, message) in [
        ("", 0, Status::Pass, ""),
        ("SKIP: Kernel module 'rdma_rxe' not found.\n", 4, Status::Skip, "Kernel module 'rdma_rxe' not found."),
        ("", 4, Status::Skip, "it gave no reason (exit status 4)"),
        ("Error: link failed\n", 1, Status::Fail, "exit status 1: Error: link failed"),
        ("", 1, Status::Fail, "exit status 1 and no output"),
    ] {
        let verdict = Verdict::of(&ktap::parse(output), exit, output);
        assert_eq!((verdict.status, verdict.message.as_str()), (status, message), "{output:?} {exit}");
    }
}

#[test]
fn lines_that_only_look_like_results() {
    let results = ktap::parse(&data("bail-out.txt"));
    assert_eq!(results.cases.len(), 1);
    assert_eq!(results.cases[0].name, "mounts");
    let cut = ktap::parse(&data("cut-short.txt"));
    assert_eq!(cut.orphan.as_ref().map(|orphan| orphan.cases.len()), Some(2));
    assert!(cut.problems().contains(&"nested results without a result line after them: cut short".to_string()));
}

#[test]
fn contradictions_and_disorder() {
    let text = "KTAP version 1\n1..2\n    1..1\n    not ok 1 inner\nok 1 outer\nok 3 other\n";
    assert_eq!(
        ktap::parse(text).problems(),
        ["result 2 `other` has the number 3", "`outer` is ok although 1 of its parts are not"]
    );
    assert_eq!(ktap::parse("TAP version 13\nok 1 a\n").problems(), ["no plan (a line `1..N`)"]);
    let hashes = ktap::parse("1..1\nok 1 - issue #12 # skip: later\n");
    assert_eq!(hashes.cases[0].name, "issue #12");
    assert_eq!(hashes.subtests()[0].message, "later");
}
