//! Running programs through a real agent: output, exits, input, signals, terminals, scopes.

mod support;

use std::time::{Duration, Instant};

use protocol::host::CallError;
use protocol::{Event, Exec, FailureKind, Input, Request, WinSize};
use support::*;

#[test]
fn output_and_exit_status_are_exact() {
    let (_agent, session) = connect();
    let done = run(&session, "echo out; echo err >&2; exit 3");
    assert_eq!((text(&done.stdout), text(&done.stderr)), ("out\n".into(), "err\n".into()));
    assert_eq!((done.exit.code, done.exit.signal, done.exit.success()), (Some(3), None, false));
    let done = run(&session, "kill -KILL $$");
    assert_eq!((done.exit.code, done.exit.signal, done.exit.shell_code()), (None, Some(9), 137));
    let done = run(&session, "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
    assert!(done.exit.success() && done.exit.user_us > 1000 && done.exit.max_rss_kib > 100, "{:?}", done.exit);
    assert!(done.exit.wall_us >= done.exit.user_us / 2, "{:?}", done.exit);
}

#[test]
fn environment_and_folder_are_as_asked_and_nothing_else() {
    let (_agent, session) = connect();
    let exec =
        Exec { env: vec![("GREETING".into(), "a b".into())], cwd: Some("/tmp".into()), ..shell("pwd; env | sort") };
    let output = text(&session.run(exec, LONG).expect("a run").stdout);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "/tmp");
    assert!(lines.contains(&"GREETING=a b") && lines.contains(&"HOME=/root"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("CARGO")), "the agent's own environment leaks: {lines:?}");
}

#[test]
fn what_cannot_be_started_says_why() {
    let (_agent, session) = connect();
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a file");
    let plain = script.display().to_string();
    let kind = |exec: Exec| match session.run(exec, LONG) {
        Err(CallError::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    };
    let (sort, message) = kind(Exec::new(["no-such-program"]));
    assert!(
        sort == FailureKind::NotFound && message.contains("no-such-program") && message.contains("PATH"),
        "{message}"
    );
    assert_eq!(kind(Exec::new([plain.as_str()])).0, FailureKind::Denied);
    std::process::Command::new("chmod").args(["+x", &plain]).status().expect("chmod");
    let (sort, message) = kind(Exec::new([plain.as_str()]));
    assert!(sort == FailureKind::NotFound && message.contains("interpreter"), "{message}");
    assert_eq!(kind(Exec::default()).0, FailureKind::Invalid);
    assert_eq!(kind(Exec::new(["a\0b"])).0, FailureKind::Invalid);
    let (sort, message) = kind(Exec { cwd: Some("/no/such/folder".into()), ..shell("true") });
    assert!(sort == FailureKind::NotFound && message.contains("/no/such/folder"), "{message}");
}

#[test]
fn a_flood_of_output_arrives_whole() {
    let (_agent, session) = connect();
    let done = run(&session, "head -c 20000000 /dev/zero | tr '\\0' x; echo end");
    assert_eq!(done.stdout.len(), 20_000_004);
    assert!(done.stdout[..20_000_000].iter().all(|byte| *byte == b'x') && done.stdout.ends_with(b"end\n"));
}

#[test]
fn input_goes_in_while_output_comes_out() {
    let (_agent, session) = connect();
    let stream = open(&session, Exec { stdin: true, ..shell("cat; echo done") });
    let sent: Vec<u8> = (0..5_000_000_u32).map(|at| (at / 7) as u8).collect();
    let (mut got, exit) = std::thread::scope(|scope| {
        scope.spawn(|| {
            stream.send(Input::Stdin(sent.clone())).expect("input");
            stream.send(Input::StdinEof).expect("the end of input");
        });
        finish(&stream)
    });
    assert!(exit.success());
    assert!(got.ends_with(b"done\n"));
    got.truncate(got.len() - 5);
    assert!(got == sent);
}

#[test]
fn a_program_that_does_not_read_stops_nobody_else_and_can_be_signalled() {
    let (_agent, session) = connect();
    let stream = std::sync::Arc::new(open(&session, Exec { stdin: true, ..shell("sleep 1000") }));
    started(&stream);
    let sender = stream.clone();
    // Far more than pipe and window hold: the sender gets stuck.
    let stuck = std::thread::spawn(move || sender.send(Input::Stdin(vec![0; 4_000_000])));
    assert_eq!(text(&run(&session, "echo free").stdout), "free\n");
    assert!(!stuck.is_finished());
    stream.send(Input::Signal(15)).expect("a signal");
    assert_eq!(finish(&stream).1.signal, Some(15));
    // Either the stream ended under it, or the agent took what nobody will read any more.
    let _ = stuck.join().expect("the sender");
}

#[test]
fn output_that_nobody_takes_stops_nobody_else() {
    let (_agent, session) = connect();
    let stream = open(&session, shell("yes"));
    let pid = started(&stream);
    assert_eq!(text(&run(&session, "echo free").stdout), "free\n");
    drop(stream);
    eventually("the program is killed", || !exists(pid));
}

#[test]
fn time_limits_ask_first_and_then_kill() {
    let (_agent, session) = connect();
    let limited =
        |script: &str| session.run(Exec { timeout_ms: Some(200), ..shell(script) }, LONG).expect("a run").exit;
    let exit = limited("sleep 1000");
    assert_eq!((exit.signal, exit.timed_out), (Some(15), true));
    let exit = limited("trap 'exit 7' TERM; while :; do sleep 0.05; done");
    assert_eq!((exit.code, exit.timed_out, exit.success()), (Some(7), true, false));
    let exit = limited("trap '' TERM; while :; do sleep 0.05; done");
    assert_eq!((exit.signal, exit.timed_out), (Some(9), true));
    assert!(!limited("true").timed_out);
}

#[test]
fn closing_the_stream_kills_the_program_and_its_background_jobs() {
    let (_agent, session) = connect();
    // With job control, each job has a process group of its own.
    let pty = Some(WinSize { rows: 24, cols: 80, term: String::new() });
    let stream = open(&session, Exec { pty, ..shell("set -m; sleep 1000 & sleep 1001 & echo $!; wait") });
    let leader = started(&stream);
    let job: u32 = expect(&stream, "\n").trim().parse().expect("a pid");
    assert!(exists(leader) && exists(job));
    drop(stream);
    eventually("all of them are gone and reaped", || !exists(leader) && !exists(job));
}

#[test]
fn what_a_program_leaves_behind_does_not_hold_up_its_exit() {
    let (_agent, session) = connect();
    let begun = Instant::now();
    let done = run(&session, "sleep 30 & echo $!");
    assert!(done.exit.success() && begun.elapsed() < Duration::from_secs(20));
    let left: u32 = text(&done.stdout).trim().parse().expect("a pid");
    assert!(exists(left), "it was killed");
    // Output of what was left behind goes nowhere, but does not kill it.
    let done =
        run(&session, "(sleep 1; echo late; echo alive >$0) & echo ok".replace("$0", "/tmp/agent-left-$$").as_str());
    assert_eq!(text(&done.stdout), "ok\n");
    run(&session, &format!("kill {left}"));
    eventually("the orphan is reaped", || !exists(left));
    let found = || text(&run(&session, "cat /tmp/agent-left-* 2>/dev/null").stdout);
    eventually("the late writer lives", || found().contains("alive"));
    run(&session, "rm -f /tmp/agent-left-*");
}

#[test]
fn orphans_are_reaped() {
    let (_agent, session) = connect();
    let done = run(&session, "(sleep 0.05 & echo $!) ");
    let orphan: u32 = text(&done.stdout).trim().parse().expect("a pid");
    eventually("the orphan is no zombie", || !exists(orphan));
}

#[test]
fn a_terminal_has_a_size_and_an_owner() {
    let (_agent, session) = connect();
    let size = |rows, cols| WinSize { rows, cols, term: "vt100".into() };
    let pty = Some(size(33, 99));
    let done = session.run(Exec { pty, ..shell("tty; stty size; echo $TERM; exit 5") }, LONG).expect("a run");
    let lines: Vec<String> = text(&done.stdout).lines().map(str::to_string).collect();
    assert!(lines[0].starts_with("/dev/pts/"), "{lines:?}");
    assert_eq!(lines[1..], ["33 99", "vt100"]);
    assert_eq!(done.exit.code, Some(5));

    let stream = open(&session, Exec { pty: Some(size(24, 80)), ..Exec::new(["sh", "-i"]) });
    started(&stream);
    stream.send(Input::Resize(size(50, 132))).expect("a resize");
    stream.send(Input::Stdin(b"stty size; PS1=; echo read\\y\n".to_vec())).expect("input");
    assert!(expect(&stream, "ready").contains("50 132"));
    // What a person's Ctrl-C sends reaches the program in the foreground, not the shell. The program may not be in the
    // foreground yet, so, as a person would, press again.
    stream.send(Input::Stdin(b"echo sleep''ing; sleep 1000\n".to_vec())).expect("input");
    expect(&stream, "sleeping");
    let done = std::thread::scope(|scope| {
        let pressing = scope.spawn(|| expect(&stream, "still here"));
        while !pressing.is_finished() {
            stream.send(Input::Stdin(b"\x03echo still he''re\n".to_vec())).expect("an interrupt");
            std::thread::sleep(Duration::from_millis(200));
        }
        pressing.join()
    });
    done.expect("the shell goes on");
    stream.send(Input::StdinEof).expect("the end of input");
    finish(&stream);
}

#[test]
fn many_programs_at_once_do_not_mix_up() {
    let (_agent, session) = connect();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let session = &session;
            scope.spawn(move || {
                let done = run(session, &format!("for i in 1 2 3 4 5; do echo {number}; done; exit {number}"));
                assert_eq!((text(&done.stdout), done.exit.code), (format!("{number}\n").repeat(5), Some(number)));
            });
        }
    });
}

#[test]
fn ending_a_scope_kills_what_escaped_its_session() {
    let (_agent, session) = connect();
    let scope = format!("agent-test-{}", std::process::id());
    let exec = Exec { scope: Some(scope.clone()), ..shell("setsid sleep 1000 >/dev/null 2>&1 & setsid true; echo $!") };
    let done = match session.run(exec, LONG) {
        Ok(done) => done,
        // A machine whose control groups are not ours to change; the same test runs in the guest.
        Err(CallError::Failed(failure)) if failure.message.contains("cgroup") => {
            return eprintln!("not here: {failure}");
        }
        Err(error) => panic!("{error}"),
    };
    let escaped: u32 = text(&done.stdout).trim().parse().expect("a pid");
    assert!(exists(escaped));
    let killed = match session.call(Request::EndScope { scope: scope.clone() }, LONG).expect("an answer") {
        Event::ScopeEnded { killed } => killed,
        other => panic!("{other:?}"),
    };
    assert!(killed.iter().any(|line| line.starts_with(&format!("{escaped} "))), "{killed:?}");
    eventually("it is gone", || !exists(escaped));
    let again = session.call(Request::EndScope { scope }, LONG).expect("an answer");
    assert_eq!(again, Event::ScopeEnded { killed: vec![] });
    for hierarchy in ["/sys/fs/cgroup/lab", "/sys/fs/cgroup/unified/lab"] {
        // Only goes if nobody else uses it.
        let _ = std::fs::remove_dir(hierarchy);
    }
    let bad = session.call(Request::EndScope { scope: "../x".into() }, LONG);
    assert!(matches!(bad, Err(CallError::Failed(failure)) if failure.kind == FailureKind::Invalid));
}
