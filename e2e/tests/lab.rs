//! The main job: from `lab.toml` to the suite's table on the lab's own kernel, which is built once.

use e2e::Project;

#[test]
fn up_builds_boots_and_passes_the_suites_on_the_patched_kernel() {
    let project = Project::of_checkout().unwrap();
    let ran = project.run(["lab", "up"]).expect(0);
    eprintln!("{}\n{}", ran.stderr, ran.stdout);
    let results = project.results().unwrap();
    let records = results["records"].as_array().unwrap();
    let passed = records.iter().filter(|r| r["status"] == "pass").count();
    assert!(passed >= 20, "only {passed} tests passed");
    for must in ["rdma/rping-netkit-v4", "rdma/rping-netkit-v6", "rdma/rxe_tx_drop", "rdma/tcx-egress-drop"] {
        let record = records.iter().find(|r| r["test"] == must);
        assert!(record.is_some_and(|r| r["status"] == "pass"), "{must}: {record:?}");
    }
    // Once more: nothing is built, nothing is booted.
    project.run(["lab", "up", "--no-test"]).expect(0).says("nothing to build");
    project.run(["lab", "down"]).expect(0);
}
