//! The project's own kernel series.

use e2e::Project;

#[test]
fn every_series_applies_has_a_test_and_pleases_checkpatch() {
    let project = Project::of_checkout().unwrap();
    let ran = project.run(["kernel", "check", "--quiet"]).expect(0);
    for series in ["## net", "## rxe", "## selftests"] {
        assert!(ran.stdout.contains(series), "{}", ran.all());
    }
}
