//! The developer's loop on a small tree: a checkout with a series as commits, work in it, the commits saved as patches,
//! and what a build of that tree would be made of. The person at the keyboard uses the host's git, we the toolroot's.
//!
//! Needs the lock's root `build`, which is fetched if the user's cache lacks it, so these are ignored unless asked for:
//! `cargo test -p kernel -- --ignored`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Lab, build_root, patch};
use kernel::dev::{CheckOptions, CheckoutRequest, check, checkout, save};
use kernel::{Content, UserTree};

const MAKEFILE: &str = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n";
const DRIVER: &str = "int send(void)\n{\n\tint err = 0;\n\n\treturn err;\n}\n";

const DIFF: &str = "diff --git a/drivers/x/x.c b/drivers/x/x.c\nindex 111111111111..222222222222 100644\n--- \
                    a/drivers/x/x.c\n+++ b/drivers/x/x.c\n@@ -2,5 +2,5 @@ int send(void)\n {\n \tint err = 0;\n \n\
                    -\treturn err;\n+\treturn -EIO;\n }\n";
const SIGN: &str = "{ file = \"drivers/x/x.c\", contains = \"return -EIO\" }";
const PATCH: &str = "0001-x-Say-which-error.patch";

/// A source with one driver, and a series `x` for it.
fn lab() -> Lab {
    let lab = Lab::new(&[
        ("Makefile", MAKEFILE),
        ("drivers/x/x.c", DRIVER),
        (".gitignore", "*.o\n"),
        ("tools/testing/selftests/x/kept.o", "ignored by git, yet part of the source\n"),
    ]);
    lab.series("x", PATCH, &patch("x: Say which error", DIFF), SIGN);
    lab
}

fn series(lab: &Lab) -> PathBuf {
    lab.project().join("kernel-patches/x")
}

fn request(lab: &Lab, series: &str, dir: &str) -> CheckoutRequest {
    CheckoutRequest {
        source: "linux-7.3.4".into(),
        onto: Vec::new(),
        series: series.into(),
        dir: lab.top.path().join(dir),
    }
}

fn make_tree(lab: &Lab, dir: &str) -> PathBuf {
    lab.with(|ctx| checkout(&request(lab, "x", dir), &lab.project(), ctx)).unwrap().dir
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=B", "-c", "user.email=b@example.org"]).args(args).current_dir(dir);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_AUTHOR_DATE", "2026-11-23T08:00:00Z");
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_series_comes_back_from_its_commits_as_it_was() {
    let lab = lab();
    let dir = make_tree(&lab, "tree");
    assert_eq!(git(&dir, &["log", "--format=%an %s"]), "A Developer x: Say which error\ndevmem-lab linux-7.3.4\n");
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    assert!(dir.join("tools/testing/selftests/x/kept.o").exists());
    // The patch above was not written by git: its first saving settles the form, the next changes nothing.
    let first = save(&dir, &lab.project(), &build_root().unwrap()).unwrap();
    assert_eq!(first.written, ["0001-x-Say-which-error.patch"]);
    let second = save(&dir, &lab.project(), &build_root().unwrap()).unwrap();
    assert!(second.written.is_empty() && second.removed.is_empty() && second.uncommitted.is_empty(), "{second:?}");
    let again = make_tree(&lab, "another");
    assert_eq!(git(&dir, &["rev-parse", "HEAD~1"]), git(&again, &["rev-parse", "HEAD~1"]), "the same base for all");
    assert!(save(&again, &lab.project(), &build_root().unwrap()).unwrap().written.is_empty());
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn new_commits_become_patches_with_a_sign_and_dropped_ones_go() {
    let lab = lab();
    let dir = make_tree(&lab, "tree");
    fs::write(dir.join("drivers/x/y.c"), "int receive_every_packet(void);\n").unwrap();
    git(&dir, &["add", "drivers/x/y.c"]);
    git(&dir, &["commit", "-q", "-s", "-m", "x: Receive\n\nSomebody has to."]);
    fs::write(dir.join("drivers/x/z.c"), "not committed\n").unwrap();
    let saved = save(&dir, &lab.project(), &build_root().unwrap()).unwrap();
    assert!(saved.written.contains(&"0002-x-Receive.patch".to_string()), "{saved:?}");
    assert_eq!(saved.uncommitted, ["drivers/x/z.c"]);
    let text = fs::read_to_string(series(&lab).join("series.toml")).unwrap();
    assert!(text.starts_with("# A comment that stays.\npurpose = \"p\"\n"), "{text}");
    assert!(text.contains("contains = \"return -EIO\""), "a sign that a person wrote stays: {text}");
    assert!(text.contains("contains = \"int receive_every_packet(void);\""), "{text}");

    git(&dir, &["rebase", "-q", "--onto", "HEAD~2", "HEAD~1"]);
    let saved = save(&dir, &lab.project(), &build_root().unwrap()).unwrap();
    assert_eq!(saved.removed, ["0001-x-Say-which-error.patch", "0002-x-Receive.patch"]);
    assert!(series(&lab).join("0001-x-Receive.patch").exists());

    git(&dir, &["commit", "-q", "--amend", "-m", "x: Receive\n\nUnsigned."]);
    let error = format!("{:#}", save(&dir, &lab.project(), &build_root().unwrap()).unwrap_err());
    assert!(error.contains("no Signed-off-by"), "{error}");
    git(&dir, &["reset", "-q", "--hard", "devmem-lab/onto"]);
    let error = format!("{:#}", save(&dir, &lab.project(), &build_root().unwrap()).unwrap_err());
    assert!(error.contains("nothing to save"), "{error}");
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_checkout_is_never_overwritten() {
    let lab = lab();
    let dir = make_tree(&lab, "tree");
    fs::write(dir.join("drivers/x/x.c"), "mine\n").unwrap();
    let found = lab.with(|ctx| checkout(&request(&lab, "x", "tree"), &lab.project(), ctx)).unwrap();
    assert!(found.existed);
    assert_eq!(fs::read_to_string(dir.join("drivers/x/x.c")).unwrap(), "mine\n");
    let error = lab.with(|ctx| checkout(&request(&lab, "other", "tree"), &lab.project(), ctx)).unwrap_err();
    assert!(error.to_string().contains("holds series `x`"), "{error}");
    fs::create_dir(lab.top.path().join("plain")).unwrap();
    let error = lab.with(|ctx| checkout(&request(&lab, "x", "plain"), &lab.project(), ctx)).unwrap_err();
    assert!(error.to_string().contains("is no tree that `kernel tree` made"), "{error}");
    let names: Vec<_> = fs::read_dir(lab.top.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("unfinished")), "{names:?}");
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn a_tree_is_built_as_it_stands() {
    let lab = lab();
    let dir = make_tree(&lab, "tree");
    let scan = |dir: &Path| UserTree::scan(dir, &build_root().unwrap()).unwrap();
    let before = scan(&dir);
    assert_eq!(before.version, "7.3.4");
    fs::write(dir.join("drivers/x/x.c"), "changed, not committed\n").unwrap();
    fs::write(dir.join("drivers/x/new.c"), "new\n").unwrap();
    fs::write(dir.join("drivers/x/built.o"), "an object\n").unwrap();
    let after = scan(&dir);
    assert_ne!(before.digest, after.digest);
    let Content::Derived(descent, overlay) = &after.content else { panic!("{after:?}") };
    assert!(descent.has("x") && !descent.has("y"));
    assert_eq!(overlay.keys().collect::<Vec<_>>(), ["drivers/x/new.c", "drivers/x/x.c"]);
    assert_eq!(after, scan(&dir), "looking changes nothing");

    // A linked worktree of the same repository, without the marker: a tree like any other.
    let linked = lab.top.path().join("linked");
    git(&dir, &["worktree", "add", "-q", linked.to_str().unwrap(), "devmem-lab/base"]);
    let tree = scan(&linked);
    let Content::Files(files) = &tree.content else { panic!("{tree:?}") };
    assert!(files.contains_key("drivers/x/x.c") && !files.keys().any(|path| path.starts_with(".git/")), "{files:?}");
    assert_eq!(tree.commit.as_deref(), Some(git(&linked, &["rev-parse", "HEAD"]).trim()));
}

#[test]
#[ignore = "needs the build root; `cargo xtask ci` runs it"]
fn checking_finds_what_is_missing() {
    let lab = lab();
    let options = CheckOptions { series: vec!["x".into()], build: None };
    let report = lab.with(|ctx| check(&options, &lab.project(), ctx)).unwrap();
    let said = report.to_markdown();
    assert!(said.contains("the series has no test"), "{said}");
    assert!(said.contains("checkpatch failed"), "this tree has no scripts/checkpatch.pl: {said}");
    assert!(said.contains("On linux-7.3.4: applies."), "{said}");

    let file = series(&lab).join("0001-x-Say-which-error.patch");
    fs::write(&file, patch("x: Say which error", &DIFF.replace("int err = 0;", "long err = 0;"))).unwrap();
    let said = lab.with(|ctx| check(&options, &lab.project(), ctx)).unwrap().to_markdown();
    assert!(said.contains("does not apply") && said.contains("drivers/x/x.c"), "{said}");
}
