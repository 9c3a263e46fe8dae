//! The long ones, which `cargo xtask ci --full` adds: every kernel of the lab, every suite of the RXE series, the profiles.

use e2e::Project;
use serde_json::Value;

/// Records of the last run, checked to be what a run without a fault has.
fn records(project: &Project) -> Vec<Value> {
    let results = project.results().unwrap();
    results["records"].as_array().unwrap().clone()
}

fn status<'a>(records: &'a [Value], test: &str) -> &'a str {
    let record = records.iter().find(|record| record["test"] == test);
    record.and_then(|record| record["status"].as_str()).unwrap_or("absent")
}

#[test]
fn stock_passes_but_for_what_only_the_series_mends() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "up", "--kernel", "stock"]).expect(0);
    let records = records(&project);
    assert_eq!(status(&records, "rdma/tcx-egress-drop"), "xfail");
    assert_eq!(status(&records, "rdma/rping-netkit-v4"), "pass");
    // A selftest that is not there is a skip that names it.
    let skipped = records.iter().find(|record| record["test"] == "rdma/rxe_tx_drop").unwrap();
    assert_eq!(skipped["status"], "skip", "{skipped}");
    assert!(skipped.to_string().contains("rxe_tx_drop.sh"), "{skipped}");
}

#[test]
fn quick_passes_with_only_the_touched_modules_rebuilt() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "up", "--kernel", "quick"]).expect(0);
    assert_eq!(status(&records(&project), "rdma/tcx-egress-drop"), "pass");
}

#[test]
fn two_versions_of_rxe_understand_each_other() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "up", "--profile", "interop"]).expect(0);
}

#[test]
fn a_bad_cable_costs_time_and_nothing_else() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "rping-guests", "--profile", "lossy"]).expect(0);
}

#[test]
fn the_rxe_series_passes_its_suites() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "rxe-layer", "rxe-dmabuf"]).expect(0);
    let records = records(&project);
    assert!(records.len() >= 60, "only {} tests ran", records.len());
}

#[test]
fn bypassing_ip_gains_what_the_series_claims() {
    let project = Project::of_checkout().unwrap();
    let ran = project.run(["lab", "test", "rxe-latency", "--profile", "latency"]);
    eprintln!("{}", ran.stdout);
    ran.expect(0).says("holds   rules filter, layer 2: gain over layer 3 at least 10 %");
}

#[test]
fn a_gigabyte_goes_through_device_memory_to_the_last_byte() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "devmem-bulk"]).expect(0);
    let records = records(&project);
    let passed = records.iter().filter(|record| record["status"] == "pass").count();
    assert!(passed == records.len() && passed == 4, "{passed} of {} passed", records.len());
}

#[test]
fn device_memory_survives_nics_that_go_wrong() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "devmem-faults", "rxe-gvnic", "--profile", "gvnic"]).expect(0);
    let records = records(&project);
    let passed = records.iter().filter(|record| record["status"] == "pass").count();
    assert!(passed == records.len() && passed >= 35, "{passed} of {} passed", records.len());
}

#[test]
fn af_xdp_goes_through_a_leased_queue_by_zero_copy() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "af-xdp"]).expect(0);
    let records = records(&project);
    for test in ["nic", "leased", "refused-pair"] {
        assert_eq!(status(&records, &format!("af-xdp/{test}")), "pass");
    }
}

#[test]
fn an_iommu_has_nothing_to_complain_of() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "devmem-iommu"]).expect(0);
    let records = records(&project);
    for test in ["no-fault", "refused-peer-to-peer"] {
        assert_eq!(status(&records, &format!("devmem-iommu/{test}")), "pass");
    }
}

#[test]
fn the_gvnic_is_no_slower_than_what_qemu_emulates() {
    let project = Project::of_checkout().unwrap();
    let ran = project.run(["lab", "test", "nic-compare"]);
    eprintln!("{}", ran.stdout);
    ran.expect(0);
}

#[test]
fn the_kernels_nic_tests_say_of_the_gvnic_what_is_known() {
    let project = Project::of_checkout().unwrap();
    project.run(["lab", "test", "drv-net"]).expect(0);
    let records = records(&project);
    for test in ["devmem", "nk_devmem", "nk_qlease", "userns_devmem", "iou-zcrx", "nk_netns", "net-nk_qlease"] {
        assert_eq!(status(&records, &format!("drv-net/{test}")), "pass");
    }
}
