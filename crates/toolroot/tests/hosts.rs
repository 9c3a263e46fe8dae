//! The same sandbox tests on hosts of other kinds, which are made here: for an ordinary user, for root without user
//! namespaces, and for one who may do nothing at all.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use toolroot::{NamespaceSupport, probe_namespaces};

/// An ordinary user's id; nobody, who owns no files.
const NOBODY: u32 = 65534;

/// The test program of `tests/NAME.rs`, copied to where every user can read it.
fn test_program(name: &str, dir: &Path) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let mut found: Vec<PathBuf> = fs::read_dir(own.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_none())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}-")))
        .collect();
    found.sort_by_key(|p| fs::metadata(p).unwrap().modified().unwrap());
    let copy = dir.join(name);
    fs::copy(found.pop().unwrap_or_else(|| panic!("no test program `{name}` beside {own:?}")), &copy).unwrap();
    copy
}

fn shared_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// One test at a time: a program that one test has just written cannot be started while another test's child still
/// holds it open for writing (execve(2), ETXTBSY).
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" passed; 0 failed"), "{text}\n{output:?}");
}

/// Runs a script as root of a user namespace that allows no further ones.
fn without_user_namespaces(script: &str, program: &Path) -> Output {
    let script = format!("echo 0 > /proc/sys/user/max_user_namespaces || exit 99; {script}");
    let output = Command::new("unshare").args(["-Ur", "sh", "-c", &script, "sh"]).arg(program).output();
    output.expect("`unshare` of util-linux is needed for this test")
}

#[test]
fn an_ordinary_user_can_too() {
    let _alone = alone();
    // Elsewhere everything else here runs as one anyway.
    if rustix::process::geteuid().is_root() {
        let dir = shared_dir();
        let program = test_program("sandbox", dir.path());
        passed(&Command::new(program).uid(NOBODY).gid(NOBODY).env("TMPDIR", "/tmp").output().unwrap());
    }
}

#[test]
fn root_without_user_namespaces_can_too() {
    let _alone = alone();
    let dir = shared_dir();
    let program = test_program("sandbox", dir.path());
    passed(&without_user_namespaces("exec \"$1\"", &program));
    let said =
        without_user_namespaces("exec \"$1\" --ignored --exact tell --nocapture", &std::env::current_exe().unwrap());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("RootOnly") && said.contains("unshare"), "{said}");
}

#[test]
fn who_may_do_nothing_is_told_what_helps() {
    let _alone = alone();
    let own = std::env::current_exe().unwrap();
    let said = without_user_namespaces(
        "exec setpriv --bounding-set=-all --no-new-privs \"$1\" --ignored --exact tell --nocapture",
        &own,
    );
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("Forbidden"), "{said}");
    assert!(said.contains("sysctl -w user.max_user_namespaces="), "{said}");
}

#[test]
#[ignore = "no test by itself: prints what the tests above look for, and they run it in a process of its own"]
fn tell() {
    println!("{:?}", probe_namespaces());
}

#[test]
fn this_host_has_user_namespaces_or_says_why() {
    let _alone = alone();
    match probe_namespaces() {
        NamespaceSupport::User => {}
        NamespaceSupport::RootOnly { why } => assert!(!why.is_empty()),
        NamespaceSupport::Forbidden { why, remedy } => panic!("{why}; {remedy}"),
    }
}
