//! The project's own suites load, and say what is expected of them.

use std::path::Path;

fn tests() -> Vec<suite::Test> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites");
    suite::load(&dir).unwrap_or_else(|e| panic!("{e}")).tests
}

#[test]
fn every_suite_loads() {
    let tests = tests();
    let names: Vec<String> = tests.iter().map(suite::Test::full_name).collect();
    for name in [
        "smoke/facts",
        "rdma/rxe_rping_between_netns",
        "rdma/rxe_ipv6",
        "rdma/rxe_socket_with_netns",
        "rdma/rxe_test_NETDEV_UNREGISTER",
        "rdma/rxe_sent_rcvd_bytes",
        "rdma/rxe_netns_names",
        "rdma/rping-netkit-v4",
        "rdma/rping-netkit-v6",
        "rdma/ib_send_lat-netkit",
        "rdma/ib_atomic_lat-netkit",
        "rdma/netkit-l3-refused",
        "rdma/rping-guests-v4",
        "rdma/ib_send_bw-guests",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    let drop = tests.iter().find(|test| test.name == "tcx-egress-drop").unwrap();
    assert_eq!(drop.expect.keys().collect::<Vec<_>>(), ["baseline", "stock"]);
}

/// What a step runs is required, so that a tool that is missing is a skip by name.
#[test]
fn requirements_follow_from_steps() {
    let tests = tests();
    let requires = |name: &str| -> Vec<String> {
        let test = tests.iter().find(|test| test.name == name).unwrap();
        test.requires.iter().map(|requirement| requirement.capability.clone()).collect()
    };
    let send = requires("ib_send_lat-netkit");
    for due in ["rxe", "netkit", "tool:ib_send_lat", "tool:ip", "tool:rdma"] {
        assert!(send.iter().any(|known| known == due), "{due} is not in {send:?}");
    }
    assert!(requires("rxe_ipv6").contains(&"file:/usr/lib/kselftests/rdma/rxe_ipv6.sh".to_string()));
    assert!(requires("tcx-egress-drop").contains(&"tool:bpftool".to_string()));
    let guests = tests.iter().find(|test| test.name == "rping-guests-v4").unwrap();
    assert!(guests.needs_network && guests.roles == ["a", "b"]);
}
