//! Building kernels, on a tree small enough to compile in a second: its makefile has the targets of the kernel's, the
//! tools are those of the real build root.
//!
//! Ignored unless asked for, since the root may have to be fetched: `cargo test -p kernel -- --ignored`.

mod common;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{Lab, build_root, patch};
use kernel::{BuiltKernel, KernelRequest, Origin, UserTree, build, plan};
use progress::{Cancel, Event, Progress};

const MAKEFILE: &str = r#"VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 4
EXTRAVERSION =
OBJECTS = $(addprefix $(O)/,drivers/x/x.o net/y.o)
.PHONY: allnoconfig bzImage modules headers_install
allnoconfig:
	@grep -v REFUSED $(KCONFIG_ALLCONFIG) > $(O)/.config
$(O)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $*.o"
	@gcc -c -o $@ $<
bzImage: $(OBJECTS)
	@mkdir -p $(O)/arch/x86/boot $(O)/include/config
	@cat $(OBJECTS) > $(O)/vmlinux; cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage
	@nm $(OBJECTS) > $(O)/System.map
	@echo 7.3.4-small > $(O)/include/config/kernel.release
modules: $(OBJECTS)
	@cmp -s $(O)/drivers/x/x.o $(O)/drivers/x/x.ko || cp $(O)/drivers/x/x.o $(O)/drivers/x/x.ko
	@echo drivers/x/x.o > $(O)/modules.order; touch $(O)/modules.builtin $(O)/modules.builtin.modinfo
headers_install:
	@mkdir -p $(O)/usr/include
"#;
const SELFTESTS: &str = "install:\n\t@mkdir -p $(KSFT_INSTALL_PATH)/x; cp x/test.sh $(KSFT_INSTALL_PATH)/x/\n";
const X: &str =
    "static const char info[] __attribute__((section(\".modinfo\"), used)) = \"license=GPL\";\nint x = 1;\n";
const DIFF: &str = "diff --git a/drivers/x/x.c b/drivers/x/x.c\n--- a/drivers/x/x.c\n+++ b/drivers/x/x.c\n@@ -1,2 +1,2 @@\n \
                    static const char info[] __attribute__((section(\".modinfo\"), used)) = \"license=GPL\";\n-int x = \
                    1;\n+int x = 2;\n";

fn lab() -> Lab {
    let lab = Lab::new(&[
        ("Makefile", MAKEFILE),
        ("drivers/x/x.c", X),
        ("drivers/x/Kconfig", "config REFUSED\n\tbool\n\tdepends on NOTHING\n"),
        ("net/y.c", "int y = 1;\n"),
        ("tools/testing/selftests/Makefile", SELFTESTS),
        ("tools/testing/selftests/x/Makefile", "all:\n"),
        ("tools/testing/selftests/x/config", "CONFIG_WISH\n"),
        ("tools/testing/selftests/x/test.sh", "#!/bin/sh\n"),
        ("tools/testing/selftests/y/lone.py", "#!/usr/bin/python3\n"),
    ]);
    lab.series("x", "0001-x-Two.patch", &patch("x: Two", DIFF), "{ file = \"drivers/x/x.c\", contains = \"x = 2\" }");
    fs::write(lab.project().join("templates/kernel/base.config"), "CONFIG_A=y\n").unwrap();
    fs::write(lab.project().join("templates/kernel/greedy.config"), "\nCONFIG_REFUSED=y\n").unwrap();
    lab
}

fn request(name: &str, series: &[&str]) -> KernelRequest {
    KernelRequest {
        name: name.into(),
        origin: Origin::Source("linux-7.3.4".into()),
        series: series.iter().map(ToString::to_string).collect(),
        fragments: vec!["base".into()],
        debug_info: false,
        btf: false,
        selftests: vec!["x".into(), "y/lone.py".into()],
    }
}

/// Builds, and says what was compiled.
fn make(lab: &Lab, request: &KernelRequest) -> (anyhow::Result<BuiltKernel>, Vec<String>) {
    let compiled = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&compiled);
    let progress = Progress::new(Cancel::default(), move |event| {
        if let Event::Line { line, .. } = event
            && let Some(object) = line.strip_prefix("  CC      ")
        {
            sink.lock().unwrap().push(object.to_string());
        }
    });
    let plan = plan(request, &lab.project(), &lab.lock).unwrap();
    let built = lab.with_progress(&progress, |ctx| build(&plan, ctx));
    let mut compiled = std::mem::take(&mut *compiled.lock().unwrap());
    compiled.sort();
    (built, compiled)
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn baseline_and_patched_share_what_they_have_in_common() {
    let lab = lab();
    let (baseline, compiled) = make(&lab, &request("baseline", &[]));
    assert_eq!(compiled, ["drivers/x/x.o", "net/y.o"]);
    let (patched, compiled) = make(&lab, &request("patched", &["x"]));
    assert_eq!(compiled, ["drivers/x/x.o"], "only what the series touches");
    let (baseline, patched) = (baseline.unwrap().artifacts, patched.unwrap().artifacts);
    assert_eq!((baseline.series.len(), &patched.series[..]), (0, &["x".to_string()][..]));
    assert_ne!(baseline.tree_id, patched.tree_id);
    assert_ne!(fs::read(&baseline.image).unwrap(), fs::read(&patched.image).unwrap());
    assert!(patched.source_used.starts_with("linux-7.3.4 orig sha256:"), "{}", patched.source_used);
    for file in ["kernel/drivers/x/x.ko", "modules.dep", "modules.dep.bin", "modules.builtin.modinfo", "modules.order"]
    {
        assert!(patched.modules_dir().join(file).exists(), "{file}");
    }
    let selftests = patched.selftests.as_ref().unwrap();
    assert!(selftests.join("x/test.sh").exists() && selftests.join("y/lone.py").exists());
    let config = fs::read_to_string(&patched.config).unwrap();
    assert!(config.contains("CONFIG_A=y") && config.contains("CONFIG_WISH=y"), "selftests have a say: {config}");

    let (again, compiled) = make(&lab, &request("patched", &["x"]));
    assert!(again.unwrap().cached && compiled.is_empty());
    let (renamed, compiled) = make(&lab, &request("other", &[]));
    assert_eq!(compiled, ["drivers/x/x.o"], "back to the base");
    assert_eq!(renamed.unwrap().artifacts.tree_id, baseline.tree_id);
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn what_goes_wrong_is_said_and_nothing_is_published() {
    let lab = lab();
    let greedy = KernelRequest { fragments: vec!["base".into(), "greedy".into()], ..request("greedy", &[]) };
    let error = format!("{:#}", make(&lab, &greedy).0.unwrap_err());
    let said = "CONFIG_REFUSED=y (greedy.config:2) is not set; drivers/x/Kconfig:1 depends on NOTHING";
    assert!(error.contains(said), "{error}");

    let broken = DIFF.replace("+int x = 2;", "+int x = nonsense;");
    let sign = "{ file = \"drivers/x/x.c\", contains = \"nonsense\" }";
    lab.series("broken", "0001-x.patch", &patch("x: Break", &broken), sign);
    let error = format!("{:#}", make(&lab, &request("broken", &["broken"])).0.unwrap_err());
    assert!(
        error.contains("x.c:2:9: error:") && error.contains("nonsense") && error.contains("the whole log is in"),
        "{error}"
    );

    let missing = KernelRequest { selftests: vec!["nothing".into()], ..request("missing", &[]) };
    let error = format!("{:#}", make(&lab, &missing).0.unwrap_err());
    assert!(error.contains("has no selftests `nothing`"), "{error}");

    let published = fs::read_dir(lab.cache.root().join("kernel")).unwrap().flatten().count();
    assert_eq!(published, 0, "no entry, no leftover");
    make(&lab, &request("patched", &["x"])).0.unwrap();
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_configuration_that_was_refused_is_not_built_with_later() {
    let lab = lab();
    make(&lab, &request("baseline", &[])).0.unwrap();
    let fragment = lab.project().join("templates/kernel/base.config");
    let usual = fs::read_to_string(&fragment).unwrap();
    fs::write(&fragment, format!("{usual}CONFIG_EXTRA=y\nCONFIG_REFUSED=y\n")).unwrap();
    make(&lab, &request("baseline", &[])).0.unwrap_err();
    fs::write(&fragment, usual).unwrap();
    let patched = make(&lab, &request("patched", &["x"])).0.unwrap();
    assert!(!fs::read_to_string(&patched.artifacts.config).unwrap().contains("EXTRA"));
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_series_the_tree_has_is_left_out_and_said() {
    let lab = lab();
    let done = DIFF.replace("-int x = 1;\n+int x = 2;", "-int x = 0;\n+int x = 1;");
    lab.series("done", "0001-x.patch", &patch("x: One", &done), "{ file = \"drivers/x/x.c\", contains = \"x = 1\" }");
    let built = make(&lab, &request("k", &["done", "x"])).0.unwrap().artifacts;
    assert_eq!((built.series, built.present), (vec!["x".to_string()], vec!["done".to_string()]));
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_users_tree_is_built_as_it_stands_and_never_touched() {
    let lab = lab();
    let dir = lab.top.path().join("mine");
    for (path, text) in [("Makefile", MAKEFILE), ("drivers/x/x.c", X), ("net/y.c", "int y = 7;\n")] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
    let tree = |series: &[&str]| KernelRequest {
        origin: Origin::Tree(Box::new(UserTree::scan(&dir, &build_root().unwrap()).unwrap())),
        selftests: Vec::new(),
        ..request("tree", series)
    };
    let (plain, compiled) = make(&lab, &tree(&[]));
    assert_eq!(compiled, ["drivers/x/x.o", "net/y.o"]);
    let (patched, compiled) = make(&lab, &tree(&["x"]));
    assert_eq!(compiled, ["drivers/x/x.o"], "a missing series goes onto a snapshot");
    let (plain, patched) = (plain.unwrap().artifacts, patched.unwrap().artifacts);
    assert_ne!(plain.tree_id, patched.tree_id);
    assert!(plain.selftests.is_none());
    assert_eq!(fs::read_to_string(dir.join("drivers/x/x.c")).unwrap(), X);

    fs::write(dir.join("net/y.c"), "int y = 8;\n").unwrap();
    let (edited, compiled) = make(&lab, &tree(&["x"]));
    assert_eq!(compiled, ["net/y.o"], "one edited file is one compiled file");
    assert!(!edited.unwrap().cached);
    assert!(make(&lab, &tree(&["x"])).0.unwrap().cached);
    let names: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 3, "nothing was left in the user's tree: {names:?}");
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_cancelled_build_leaves_a_tree_that_builds() {
    let lab = lab();
    let cancel = Cancel::default();
    let flag = cancel.clone();
    let progress = Progress::new(cancel, move |event| {
        if matches!(event, Event::Line { line, .. } if line.contains("  CC ")) {
            flag.cancel();
        }
    });
    let slow = MAKEFILE.replace("@gcc -c", "@sleep 2; gcc -c");
    let dir = lab.top.path().join("mine");
    for (path, text) in [("Makefile", slow.as_str()), ("drivers/x/x.c", X), ("net/y.c", "int y = 7;\n")] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), text).unwrap();
    }
    let scanned = || Origin::Tree(Box::new(UserTree::scan(&dir, &build_root().unwrap()).unwrap()));
    let mut wanted = KernelRequest { origin: scanned(), selftests: Vec::new(), ..request("tree", &[]) };
    let planned = plan(&wanted, &lab.project(), &lab.lock).unwrap();
    let error = lab.with_progress(&progress, |ctx| build(&planned, ctx)).unwrap_err();
    assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
    assert_eq!(fs::read_dir(lab.cache.root().join("kernel")).unwrap().count(), 0);
    fs::write(dir.join("Makefile"), MAKEFILE).unwrap();
    wanted.origin = scanned();
    assert!(Path::new(&make(&lab, &wanted).0.unwrap().artifacts.image).exists());
}
