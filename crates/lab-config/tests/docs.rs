//! What is generated from the types and committed under `docs/` is current, and the project's own lab is sound.
//!
//! `UPDATE_EXPECTED=1` writes both anew (`cargo xtask schema --write` does the schema alone).

use std::fs;
use std::path::{Path, PathBuf};

use lab_config::{Catalog, KernelOrigin, Lab, json_schema, reference_markdown};

const BEGIN: &str = "<!-- generated from the schema: begin -->\n";
const END: &str = "<!-- generated from the schema: end -->\n";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn current(path: &Path, wanted: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, wanted).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(found == wanted, "{} is out of date; UPDATE_EXPECTED=1 cargo test -p lab-config writes it", path.display());
}

#[test]
fn the_schema_is_current() {
    current(&project().join("docs/lab.schema.json"), &json_schema());
}

#[test]
fn the_reference_is_current() {
    let path = project().join("docs/config.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("docs/config.md has lost the mark of the reference");
    let (_, after) = rest.split_once(END).expect("docs/config.md has lost the mark of the reference's end");
    current(&path, &format!("{before}{BEGIN}\n{}\n{END}{after}", reference_markdown()));
}

#[test]
fn the_projects_own_lab_is_sound_with_every_profile() {
    let path = project().join("lab.toml");
    let lab = Lab::load(&path, None).unwrap_or_else(|e| panic!("{e}"));
    for profile in &lab.profiles {
        assert!(!profile.description.is_empty(), "profile {} says nothing of itself", profile.name);
        let other = Lab::load(&path, Some(&profile.name)).unwrap_or_else(|e| panic!("{e}"));
        assert_ne!(other.config_hash(), lab.config_hash(), "profile {} changes nothing", profile.name);
    }
    let suites = Catalog::scan(&project()).unwrap().suites;
    assert!(suites.is_empty() || !lab.suites.is_empty(), "there are suites ({suites:?}), but `lab up` runs none");
    assert_eq!(lab.default_kernel, "patched");
    let names: Vec<&str> = lab.kernels.keys().map(String::as_str).collect();
    assert_eq!(names, ["baseline", "debug", "patched", "quick", "stock"]);
    let fragments = |kernel: &str| match &lab.kernels[kernel].origin {
        KernelOrigin::Source { fragments, .. } => fragments.clone(),
        other => panic!("{kernel}: {other:?}"),
    };
    assert_eq!(fragments("baseline"), fragments("patched"), "the pair differs in more than the series");
    assert!(lab.kernels["baseline"].series.is_empty());
    let patched = &lab.kernels["patched"].series;
    assert_eq!(&lab.kernels["debug"].series, patched, "debug is not what `patched` is");
    // `net` is about the kernel's core, and of `quick` only modules are rebuilt.
    let modules: Vec<&String> = patched.iter().filter(|series| *series != "net").collect();
    assert_eq!(lab.kernels["quick"].series.iter().collect::<Vec<_>>(), modules, "quick is not what `patched` is");
}

/// The examples in `docs/config.md` are read by people who copy them.
#[test]
fn every_complete_example_of_the_documentation_is_a_lab() {
    let text = fs::read_to_string(project().join("docs/config.md")).unwrap();
    let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|e| e.split("```").next().unwrap()).collect();
    let complete: Vec<&&str> = examples.iter().filter(|e| e.contains("[lab]")).collect();
    assert!(!complete.is_empty(), "no example found");
    for example in complete {
        Lab::parse(example, "docs/config.md", None).unwrap_or_else(|e| panic!("{e}\nin\n{example}"));
    }
}
