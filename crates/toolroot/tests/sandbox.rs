//! What a sandbox promises, tried on real processes: statuses, isolation, and that nothing outlives it.
//!
//! The root is a skeleton over the host's own programs, so that no package has to be fetched.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use progress::{Cancel, Event, Progress};
use toolroot::{NamespaceSupport, Sandbox, SandboxError, probe_namespaces};

/// A root with the host's programs in it.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr", "etc", "var", "var/tmp", "home", "proc"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("etc/made-here"), "yes\n").unwrap();
        for name in ["bin", "sbin", "lib", "lib64"] {
            let host = Path::new("/").join(name);
            if host.is_symlink() {
                symlink(fs::read_link(host).unwrap(), dir.path().join(name)).unwrap();
            }
        }
        Root(dir)
    }

    fn sandbox(&self, program: &str) -> Sandbox {
        let mut sandbox = Sandbox::new(self.0.path(), program).bind_ro("/usr", "/usr");
        for name in ["/bin", "/sbin", "/lib", "/lib64"] {
            if Path::new(name).is_dir() && !Path::new(name).is_symlink() {
                sandbox = sandbox.bind_ro(name, name);
            }
        }
        sandbox
    }

    fn sh(&self, script: &str) -> Sandbox {
        self.sandbox("sh").args(["-c", script])
    }

    fn says(&self, script: &str) -> String {
        let output = self.sh(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A string no other process has in its arguments.
fn mark(what: &str) -> String {
    format!("{what}{}{:?}", std::process::id(), Instant::now()).replace(|c: char| !c.is_ascii_alphanumeric(), "")
}

/// Host processes with `mark` in their arguments.
fn processes(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|s| s.parse().ok()) else { continue };
        let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&args).contains(mark) && pid != std::process::id() {
            found.push(pid);
        }
    }
    found
}

fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !test() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn statuses_are_exact() {
    let root = Root::new();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        assert_eq!(root.sh(script).status().unwrap().code(), Some(code), "{script}");
    }
}

#[test]
fn orphans_do_not_keep_it_nor_change_its_status() {
    let root = Root::new();
    let mark = mark("orphan");
    let begun = Instant::now();
    let status =
        root.sh(&format!("(sh -c 'sleep 600; : {mark}' &) ; (exit 9 &) ; sleep 0.2; exit 3")).status().unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(begun.elapsed() < Duration::from_secs(30));
    eventually("the orphan is gone", || processes(&mark).is_empty());
}

#[test]
fn output_and_input_are_the_callers() {
    let root = Root::new();
    let output = root.sh("echo out; echo err >&2").output().unwrap();
    assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
    let mut running = root.sandbox("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(b"through").unwrap();
    let mut text = String::new();
    running.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    assert!(running.wait(&Progress::silent()).unwrap().success());
}

#[test]
fn the_host_does_not_show() {
    let root = Root::new();
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let env = root.says("env");
    let names: Vec<&str> = env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    for name in &names {
        assert!(["PATH", "HOME", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"].contains(name), "{name} leaked: {env}");
    }
    assert_eq!(root.says("id -u; id -g"), "0\n0\n");
    assert_eq!(root.says("cat /etc/made-here"), "yes\n");
    assert_eq!(root.says("ls -d /root /boot /opt 2>/dev/null || true"), "");
    assert!(root.says("ls /proc | grep -c '^[0-9]*$'").trim().parse::<u32>().unwrap() < 8);
    assert_eq!(root.says("cat /proc/1/comm | wc -l"), "1\n");
    assert_eq!(root.says("readlink /proc/self/fd/3 || true; ls /proc/self/fd | wc -l"), "4\n");
    // Only loopback, and that is down.
    assert_eq!(root.says("tail -n +3 /proc/net/dev | wc -l"), "1\n");
    assert!(root.sh("echo x > /usr/x").output().unwrap().status.code() != Some(0));
    assert!(root.sh("echo x > /etc/made-here").output().unwrap().status.code() != Some(0));
    assert!(root.sh("mount -o remount,rw,bind /usr").output().unwrap().status.code() != Some(0));
    root.says("echo x > /tmp/x && echo x > /var/tmp/x && echo x > /run/x && echo x > /dev/null && [ -c /dev/null ]");
    assert_eq!(fs::read_dir(root.0.path().join("var/tmp")).unwrap().count(), 0);
}

#[test]
fn the_hosts_mounts_are_untouched() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = Root::new();
    let mine = |text: &str| text.lines().filter(|l| l.contains(root.0.path().to_str().unwrap())).count();
    root.says("true");
    assert_eq!(mine(&mounts()), 0);
}

#[test]
fn binds_show_at_their_places() {
    let root = Root::new();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("in"), "data\n").unwrap();
    fs::write(host.path().join("single"), "file\n").unwrap();
    // /usr is itself a bind here, so places in it need to be there; a toolroot's own directories are split instead.
    let error = root.sh("true").bind_ro(host.path(), "/lib/of-links").output().unwrap_err().to_string();
    assert!(error.contains("/usr/lib/of-links"), "{error}");

    fs::create_dir_all(root.0.path().join("opt/tool")).unwrap();
    fs::write(root.0.path().join("opt/tool/kept"), "kept\n").unwrap();
    let output = root
        .sh("cat in /opt/tool/kept /opt/tool/deep/er/in /etc/made-here /etc/other; echo new > out; \
             echo no > /opt/tool/deep/er/out || echo refused")
        .cwd(host.path())
        .bind_rw(host.path(), host.path())
        .bind_ro(host.path(), "/opt/tool/deep/er")
        .bind_ro(host.path().join("single"), "/etc/other")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "data\nkept\ndata\nyes\nfile\nrefused\n", "{output:?}");
    assert_eq!(fs::read_to_string(host.path().join("out")).unwrap(), "new\n");
}

#[test]
fn what_fails_is_named() {
    let root = Root::new();
    let text = |sandbox: Sandbox| sandbox.output().unwrap_err().to_string();
    assert!(text(root.sandbox("no-such-program")).contains("no-such-program"));
    assert!(text(root.sandbox("no-such-program")).contains(root.0.path().to_str().unwrap()));
    assert!(text(root.sh("true").cwd("/no/such/dir")).contains("/no/such/dir"));
    assert!(text(root.sh("true").bind_ro("/no/such/host", "/x")).contains("/no/such/host"));
    assert!(text(root.sh("true").bind_ro("/usr", "relative")).contains("relative"));
    assert!(text(root.sh("true").bind_ro("/usr", "/x/../../y")).contains("absolute path without"));
}

#[test]
fn a_dropped_handle_takes_everything_along() {
    let root = Root::new();
    let mark = mark("dropped");
    let script =
        format!("trap '' TERM INT HUP; (setsid sh -c 'trap \"\" TERM; sleep 600; : {mark}' &); sleep 600; : {mark}");
    let running = root.sh(&script).spawn().unwrap();
    eventually("both run", || processes(&mark).len() >= 2);
    drop(running);
    // Not "eventually": drop waits.
    assert_eq!(processes(&mark), Vec::<u32>::new());
}

#[test]
fn programs_are_asked_before_they_are_killed() {
    let root = Root::new();
    let mut running = root
        .sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    assert_eq!(running.terminate().unwrap().code(), Some(5));
    assert_eq!(lines.next().unwrap().unwrap(), "bye");
}

#[test]
fn a_killed_outer_process_takes_everything_along() {
    let root = Root::new();
    let mark = mark("outer");
    let running =
        root.sh(&format!("(setsid sh -c 'sleep 600; : {mark}' &) ; sh -c 'sleep 600; : {mark}'")).spawn().unwrap();
    eventually("they run", || processes(&mark).len() >= 2);
    let pid = rustix::process::Pid::from_raw(running.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("all are gone", || processes(&mark).is_empty());
    drop(running);
}

/// Run by the next test in a process of its own, which that kills.
#[test]
#[ignore = "no test by itself: sleeps until it is killed; the next test runs it in a process of its own"]
fn hold_a_sandbox() {
    let Ok(mark) = std::env::var("SANDBOX_MARK") else { return };
    let status = Root::new().sh(&format!("(setsid sh -c 'sleep 600; : {mark}' &); sleep 600; : {mark}")).status();
    panic!("not killed: {status:?}");
}

#[test]
fn a_killed_caller_takes_everything_along() {
    let mark = mark("caller");
    let mut caller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "hold_a_sandbox"])
        .env("SANDBOX_MARK", &mark)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("they run", || processes(&mark).len() >= 2);
    caller.kill().unwrap();
    caller.wait().unwrap();
    eventually("all are gone", || processes(&mark).is_empty());
}

#[test]
fn a_thread_that_ends_leaves_its_program_alone() {
    let root = Root::new();
    let sandbox = root.sh("sleep 0.5; exit 4");
    let running = std::thread::spawn(move || sandbox.spawn().unwrap()).join().unwrap();
    assert_eq!(running.wait(&Progress::silent()).unwrap().code(), Some(4));
}

#[test]
fn logged_lines_reach_the_step_the_log_and_the_error() {
    let root = Root::new();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let progress = Progress::new(Cancel::default(), move |event| {
        if let Event::Line { line, .. } = event {
            sink.lock().unwrap().push(line);
        }
    });
    let step = progress.step("test", "test");
    let error = root.sh("echo one; echo two >&2; printf three; exit 6").run_logged(&step, &log).unwrap_err();
    assert_eq!(*seen.lock().unwrap(), ["one", "two", "three"]);
    assert_eq!(fs::read_to_string(&log).unwrap(), "one\ntwo\nthree");
    assert!(matches!(&error, SandboxError::Failed { code: 6, tail, .. } if tail.len() == 3), "{error}");
    assert!(error.to_string().contains(log.to_str().unwrap()));
    root.sh("exec >/dev/null 2>&1; sleep 0.3").run_logged(&step, &log).unwrap();
}

#[test]
fn cancelling_ends_the_tree() {
    let root = Root::new();
    let dir = tempfile::tempdir().unwrap();
    let mark = mark("cancelled");
    let cancel = Cancel::default();
    let progress = Progress::new(cancel.clone(), |_| {});
    let step = progress.step("test", "test");
    let watched = mark.clone();
    let watcher = std::thread::spawn(move || {
        eventually("it runs", || !processes(&watched).is_empty());
        cancel.cancel();
    });
    let error = root.sh(&format!("sleep 600; : {mark}")).run_logged(&step, &dir.path().join("log")).unwrap_err();
    watcher.join().unwrap();
    assert!(matches!(error, SandboxError::Cancelled(_)), "{error}");
    assert_eq!(processes(&mark), Vec::<u32>::new());
}

#[test]
fn many_at_once_from_many_threads() {
    let root = Root::new();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let root = &root;
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(root.sh(&format!("exit {n}")).status().unwrap().code(), Some(n));
                }
            });
        }
    });
}

#[test]
fn this_host_can() {
    assert!(!matches!(probe_namespaces(), NamespaceSupport::Forbidden { .. }), "{:?}", probe_namespaces());
}
