//! The channel under a real agent: heartbeats under load, hosts that vanish, garbage.

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use protocol::frame::Kind;
use protocol::host::{CallError, Session};
use protocol::{Condition, Event, FailureKind, Input, Push, Request, Wait};
use support::*;

#[test]
fn a_bulk_copy_does_not_starve_the_heartbeat() {
    let (_agent, pipe) = start();
    // The pace of a virtio port under emulation.
    let (relay, socket) = Relay::new(&pipe, u64::MAX, 8 << 20);
    let session = Session::start(socket, 5).expect("a session");
    session.wait_hello(LONG).expect("a greeting");
    let copying = session.clone();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bulk").display().to_string();
    let size = 24 << 20;
    let push = Push { path: path.clone(), mode: 0o644, size };
    let copy = thread::spawn(move || copying.push(push, std::io::repeat(7).take(size), LONG, |_| {}));
    let (mut beats, mut worst, mut execs) = (0, Duration::ZERO, 0);
    let mut last = None;
    while !copy.is_finished() {
        if let Some(beat) = session.heartbeat().filter(|beat| Some(beat.at) != last) {
            last = Some(beat.at);
            beats += 1;
            worst = worst.max(beat.round_trip);
        }
        run(&session, "true");
        execs += 1;
    }
    copy.join().expect("the copy").expect("the file");
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), size);
    assert!(beats >= 2 && execs >= 2, "{beats} beats, {execs} programs");
    // 24 MiB at 8 MiB/s are 3 s; what may stand before a heartbeat is a frame and the sockets' own buffers.
    assert!(worst < Duration::from_secs(1), "a heartbeat took {worst:?}");
    relay.cut();
}

#[test]
fn a_host_that_comes_back_finds_the_agent_and_none_of_its_old_programs() {
    let (_agent, pipe) = start();
    let mut old = Vec::new();
    for nonce in 1..=5 {
        // The second and fourth hosts vanish in the middle of a frame.
        let limit = if nonce % 2 == 0 { 40_000 } else { u64::MAX };
        let (relay, socket) = Relay::new(&pipe, limit, 0);
        let session = Session::start(socket, nonce).expect("a session");
        session.wait_hello(LONG).expect("a greeting");
        eventually("the programs of the host before are gone", || old.iter().all(|pid| !exists(*pid)));
        let stream = open(&session, protocol::Exec { stdin: true, ..shell("sleep 1000") });
        old.push(started(&stream));
        if limit != u64::MAX {
            // More than the relay lets through; it gets stuck or fails, both are fine.
            thread::spawn(move || stream.send(Input::Stdin(vec![1; 1 << 20])));
            relay.wait_stopped();
            relay.cut();
        } else {
            assert_eq!(text(&run(&session, "echo here").stdout), "here\n");
            relay.cut();
            drop(stream);
        }
    }
}

#[test]
fn garbage_never_kills_the_agent() {
    let (mut agent, mut pipe) = start();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut garbage = Vec::new();
    for _ in 0..200_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        garbage.push(seed as u8);
    }
    pipe.write_all(&garbage).expect("garbage");
    // Frames that are valid but mean nothing: requests and inputs of random bytes, in a session begun properly.
    let mut bytes = Vec::new();
    let mut frame = |kind, stream, payload| {
        protocol::frame::Frame { kind, flags: 0, stream, nonce: 77, payload }.encode(&mut bytes);
    };
    frame(Kind::Hello, 0, protocol::Hello { build: "nonsense".into(), boot: None }.encode());
    for (at, piece) in garbage.chunks(97).enumerate() {
        for kind in [Kind::Open, Kind::Message, Kind::Data, Kind::Credit, Kind::Ping, Kind::Close] {
            frame(kind, 1 + at as u32, piece.to_vec());
        }
    }
    pipe.write_all(&bytes).expect("nonsense");
    let again = Session::start(pipe, 78).expect("a session");
    again.wait_hello(LONG).expect("a greeting after nonsense");
    assert_eq!(text(&run(&again, "echo alive").stdout), "alive\n");
    assert!(agent.child.try_wait().expect("a child").is_none());
}

#[test]
fn the_agent_ends_with_its_pipe_and_takes_its_programs_along() {
    let (mut agent, session) = connect();
    let stream = open(&session, shell("sleep 1000"));
    let pid = started(&stream);
    drop((stream, session));
    eventually("the program is killed", || !exists(pid));
    let status = agent.child.wait().expect("an exit status");
    assert!(status.success(), "{status}");
}

#[test]
fn an_agent_that_dies_is_noticed_at_once() {
    let (mut agent, session) = connect();
    let stream = open(&session, protocol::Exec::new(["sleep", "1000"]));
    let pid = started(&stream);
    agent.child.kill().expect("a kill");
    let begun = Instant::now();
    let error = stream.recv(LONG).expect_err("the end of the channel");
    assert!(error.to_string().contains("closed"), "{error}");
    assert!(session.wait_closed(LONG) && begun.elapsed() < Duration::from_secs(10));
    // Without an init that kills it, the program is still there.
    let _ = std::process::Command::new("kill").arg(pid.to_string()).status();
}

#[test]
fn an_ordinary_process_does_not_power_the_machine_off() {
    let (_agent, session) = connect();
    let refused = session.call(Request::PowerOff { reboot: false }, LONG);
    assert!(matches!(refused, Err(CallError::Failed(failure)) if failure.kind == FailureKind::Invalid));
}

fn wait(session: &Session, condition: Condition, timeout_ms: u64) -> Result<Event, CallError> {
    session.call(Request::Wait(Wait { condition, timeout_ms, interval_ms: 0 }), LONG)
}

#[test]
fn waits_end_when_the_condition_holds_and_say_what_they_saw_when_it_does_not() {
    let (_agent, session) = connect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log").display().to_string();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    let holds = |condition| match wait(&session, condition, 30_000) {
        Ok(event) => assert_eq!(event, Event::Done),
        Err(error) => panic!("{error}"),
    };
    let fails = |condition| match wait(&session, condition, 50) {
        Err(CallError::Failed(failure)) => {
            assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
            failure.message
        }
        other => panic!("{other:?}"),
    };
    holds(Condition::TcpListen { port, netns: None });
    drop(socket);
    let seen = fails(Condition::TcpListen { port, netns: None });
    assert!(seen.starts_with("after 50 ms: TCP port ") && seen.contains("does not listen"), "{seen}");
    holds(Condition::Link { name: "lo".into(), netns: None, up: true });
    assert!(fails(Condition::Link { name: "nope0".into(), netns: None, up: false }).contains("there is no link nope0"));
    assert!(
        fails(Condition::Link { name: "lo".into(), netns: Some("nope".into()), up: false }).contains("/run/netns/nope")
    );
    assert!(fails(Condition::RdmaListen { port: Some(7174), netns: None }).contains("7174"));
    assert!(fails(Condition::RdmaLinkActive { name: "rxe77".into(), netns: None }).contains("rxe77"));
    assert!(fails(Condition::FileExists { path: path.clone() }).contains("does not exist"));
    // What comes true while it is waited for.
    let writer = open(&session, shell(&format!("sleep 0.2; echo one >{path}; sleep 0.2; echo ready two >>{path}")));
    holds(Condition::FileExists { path: path.clone() });
    holds(Condition::FileContains { path: path.clone(), pattern: "ready".into() });
    finish(&writer);
    let seen = fails(Condition::FileContains { path, pattern: "three".into() });
    assert!(seen.contains("last line: \"ready two\""), "{seen}");
    holds(Condition::Succeeds { argv: vec!["true".into()] });
    assert!(fails(Condition::Succeeds { argv: vec!["false".into()] }).contains("exits with 1"));
    let missing = wait(&session, Condition::Succeeds { argv: vec!["no-such-program".into()] }, 50);
    assert!(matches!(missing, Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound));
}

#[test]
fn probes_info_and_snapshots_are_answered() {
    let (_agent, session) = connect();
    let names = ["tool:sh", "tool:nope", "file:/dev/null", "tun"].map(String::from).to_vec();
    let Event::Probed(answers) = session.call(Request::Probe { names: names.clone() }, LONG).expect("answers") else {
        panic!("no answers")
    };
    assert_eq!(answers.iter().map(|answer| answer.name.clone()).collect::<Vec<_>>(), names);
    assert_eq!(answers.iter().map(|answer| answer.present).take(3).collect::<Vec<_>>(), [true, false, true]);
    let Event::Info(info) = session.call(Request::Info, LONG).expect("an answer") else { panic!("no info") };
    assert!(info.cpus > 0 && info.mem_kib > 1000 && info.uptime_us > 0 && !info.kernel_release.is_empty(), "{info:?}");
    let Event::Snapshot(before) = session.call(Request::Snapshot, LONG).expect("an answer") else { panic!("none") };
    let stream = open(&session, shell("sleep 1000"));
    let pid = started(&stream);
    let Event::Snapshot(after) = session.call(Request::Snapshot, LONG).expect("an answer") else { panic!("none") };
    let leaks = after.leaks_since(&before);
    let wanted = format!("new: {pid} ");
    assert!(leaks.iter().any(|leak| leak.kind == "process" && leak.what.starts_with(&wanted)), "{leaks:?}");
}
