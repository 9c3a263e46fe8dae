//! Running a part of a test in another process: the test binary starts itself again and runs just the test `child`,
//! which looks up what to do. Only another process can be killed, race for a lock file with different descriptors, or
//! live with a small disk.

use std::collections::HashMap;
use std::env;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const ROLE: &str = "ARTIFACTS_TEST_ROLE";

/// In the test named `child`: the role and its arguments, or `None` in an ordinary run.
pub fn role() -> Option<(String, HashMap<String, String>)> {
    let role = env::var(ROLE).ok()?;
    let arguments = env::vars().filter_map(|(k, v)| Some((k.strip_prefix("ARG_")?.to_lowercase(), v))).collect();
    Some((role, arguments))
}

/// A command that runs this binary's test `child` in a role; `wrap` is what it is run through, a shell line that ends
/// in `exec "$@"`.
pub fn command(wrap: Option<&[&str]>, role: &str, arguments: &[(&str, &str)]) -> Command {
    let this = env::current_exe().unwrap();
    let mut command = match wrap {
        None => Command::new(this),
        Some(wrap) => {
            let mut command = Command::new(wrap[0]);
            command.args(&wrap[1..]).arg("sh").arg(this);
            command
        }
    };
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    for (name, value) in arguments {
        command.env(format!("ARG_{}", name.to_uppercase()), value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a role to its end, which must be good.
pub fn run(wrap: Option<&[&str]>, role: &str, arguments: &[(&str, &str)]) {
    check(&command(wrap, role, arguments).output().unwrap(), role);
}

/// Fails with what the child printed unless it ended well.
pub fn check(output: &Output, role: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = text(&output.stdout).contains("1 passed");
    assert!(output.status.success() && ran, "{role}: {}\n{}", text(&output.stdout), text(&output.stderr));
}

/// Waits until a file is there.
pub fn await_file(path: &Path) {
    let until = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < until, "{} never came", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

/// How to run a child with a tmpfs of one MiB at `dir`, if this host lets us: as root, or in a user namespace.
pub fn small_disk(dir: &Path) -> Option<Vec<String>> {
    let line = format!("mount -t tmpfs -o size=1m none '{}' && exec \"$@\"", dir.display());
    ["-m", "-rm"].into_iter().find_map(|flags| {
        let wrap = ["unshare", flags, "sh", "-c", &line].map(str::to_string).to_vec();
        let tried = Command::new(&wrap[0]).args(&wrap[1..]).args(["sh", "true"]).output();
        tried.is_ok_and(|o| o.status.success()).then_some(wrap)
    })
}

/// Runs a child that may not make files larger than 128 KiB.
pub const SMALL_FILES: [&str; 3] = ["sh", "-c", "trap '' XFSZ; ulimit -f 256; exec \"$@\""];
