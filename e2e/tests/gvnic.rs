//! A guest with emulated gVNICs, which the distribution's own driver runs.

use std::time::{Duration, Instant};

use e2e::Project;
use e2e::labs::{PASSES, one_guest_with_gvnics};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn status(project: &Project) -> Value {
    serde_json::from_str(&project.run(["lab", "status", "--json"]).expect(0).stdout).unwrap()
}

/// Frames and their bytes that went to the guest, over all queues of a device.
fn received(device: &Value) -> (u64, u64) {
    let queues = device["queues"].as_array().unwrap();
    let sum = |key: &str| queues.iter().map(|queue| queue[key].as_u64().unwrap()).sum();
    (sum("rx_frames"), sum("rx_bytes"))
}

#[test]
fn the_distribution_s_driver_runs_it_and_its_end_is_the_guest_s() {
    let project = Project::new(&one_guest_with_gvnics(), &[("ends.toml", PASSES)]).unwrap();
    project.run(["lab", "up", "--no-test"]).expect(0);
    project.run(["lab", "exec", "a", "--", "ethtool", "-i", "eth0"]).expect(0).says("driver: gve");
    let before = status(&project);
    assert_eq!(before["devices"][0]["driver"], "GVE-1.0.0", "{before}");
    assert_eq!(before["devices"].as_array().unwrap().len(), 2);

    // From one NIC to the other: one of them in a network namespace of its own.
    let away = "ip netns add away && ip link set eth1 netns away && ip -n away addr add 192.0.2.2/24 dev eth1 && \
                ip -n away link set eth1 up && ping -c 5 -i 0.2 -s 8000 192.0.2.2";
    project.run(["lab", "exec", "a", "--", "sh", "-c", away]).expect(0).says("5 received");
    let after = status(&project);
    let (frames, bytes) = received(&after["devices"][1]);
    assert!(frames >= 5 && bytes >= 5 * 8000, "{after}");

    // It goes wrong as it is told to, with all frames here, and not any more.
    project.run(["lab", "fault", "a.1", "--device", "drop rx"]).expect(0);
    project.run(["lab", "exec", "a", "--", "ping", "-c", "2", "-i", "0.2", "-W", "1", "192.0.2.2"]).expect(1);
    project.run(["lab", "fault", "a.1", "--device", "none"]).expect(0);
    project.run(["lab", "exec", "a", "--", "ping", "-c", "2", "192.0.2.2"]).expect(0);
    let faulty = status(&project);
    assert!(faulty["devices"][1]["books"]["events"]["strikes"].as_u64().unwrap() >= 2, "{faulty}");
    project.run(["lab", "fault", "a.1", "--device", "dorp 1%"]).expect(125).says("there is drop, reorder");
    project.run(["lab", "fault", "b.0", "--device", "none"]).expect(125).says("there is a.0, a.1");

    // QEMU cannot go on without it, and whoever asks is told why.
    let pid = i32::try_from(after["devices"][0]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = project.run(["lab", "status"]).stdout;
        if said.contains("down: the device process of NIC 0 ended with signal 9") {
            break;
        }
        assert!(Instant::now() < deadline, "nobody noticed that the device is gone: {said}");
    }
    // A new boot has a new device.
    project.run(["lab", "test"]).expect(0);
    project.run(["lab", "exec", "a", "--", "ethtool", "-i", "eth0"]).expect(0).says("driver: gve");
    project.run(["lab", "down"]).expect(0);
    project.no_process_left(Duration::from_secs(5));
}

#[test]
fn device_memory_tcp_works_between_two_guests_and_in_pods() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "devmem", "netkit-devmem", "--profile", "gvnic"]).expect(0);
    let results = project.results().unwrap();
    let records = results["records"].as_array().unwrap();
    for (suite, least) in [("devmem/", 20), ("netkit-devmem/", 20)] {
        let of_suite: Vec<_> =
            records.iter().filter(|record| record["test"].as_str().unwrap().starts_with(suite)).collect();
        let count = |status: &str| of_suite.iter().filter(|record| record["status"] == status).count();
        let (passed, known) = (count("pass"), count("xfail"));
        let all = of_suite.len();
        assert!(passed >= least && passed + known == all, "{suite}: {passed} passed, {known} as known, of {all}");
    }
}
