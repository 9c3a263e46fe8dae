//! Files in and out through a real agent.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use protocol::host::CallError;
use protocol::{FailureKind, Input, Push, Request};
use support::*;

#[test]
fn a_file_goes_in_and_comes_back_the_same() {
    let (_agent, session) = connect();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("new/folders/file");
    let name = path.display().to_string();
    let content: Vec<u8> = (0..3_000_001_u32).map(|at| (at.wrapping_mul(at) >> 3) as u8).collect();
    let push = Push { path: name.clone(), mode: 0o750, size: content.len() as u64 };
    let mut told = 0;
    session.push(push, &content[..], LONG, |bytes| told += bytes).expect("a push");
    assert_eq!(told, content.len() as u64);
    assert!(fs::read(&path).expect("the file") == content);
    assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o7777, 0o750);
    let mut back = Vec::new();
    let mode = session.pull(&name, &mut back, LONG).expect("a pull");
    assert!(mode == 0o750 && back == content);
    // Over an existing file, and an empty one.
    session.push(Push { path: name.clone(), mode: 0o600, size: 0 }, &[][..], LONG, |_| {}).expect("a push");
    assert_eq!(fs::read(&path).expect("the file"), []);
    assert_eq!(fs::read_dir(path.parent().expect("a folder")).expect("a folder").count(), 1, "a draft was left");
}

#[test]
fn a_file_without_a_size_is_read_to_its_end() {
    let (_agent, session) = connect();
    let mut content = Vec::new();
    session.pull("/proc/self/status", &mut content, LONG).expect("a pull");
    assert!(text(&content).contains("Name:\tguest-agent"), "{}", text(&content));
}

#[test]
fn a_push_that_ends_early_or_late_leaves_nothing() {
    let (_agent, session) = connect();
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().join("sub/file").display().to_string();
    let push = |size| Push { path: name.clone(), mode: 0o644, size };
    let short = session.push(push(10), &b"five!"[..], LONG, |_| {});
    assert!(matches!(short, Err(CallError::Failed(failure)) if failure.message.contains("5 bytes came where 10")));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    let stream = session.open(Request::Push(push(2))).expect("a stream");
    stream.send(Input::Stdin(b"three".to_vec())).expect("bytes");
    let answer = stream.recv(LONG).expect("an answer");
    assert!(matches!(answer, Some(protocol::Event::Failed(failure)) if failure.kind == FailureKind::Invalid));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    // A host that goes away in the middle.
    let stream = session.open(Request::Push(push(1000))).expect("a stream");
    stream.send(Input::Stdin(b"part".to_vec())).expect("bytes");
    eventually("the draft is there", || folder.path().join("sub").exists());
    drop(stream);
    eventually("the draft is gone", || !folder.path().join("sub").exists());
}

#[test]
fn what_cannot_be_read_or_written_says_why() {
    let (_agent, session) = connect();
    let pull = |path: &str| match session.pull(path, std::io::sink(), LONG) {
        Err(CallError::Failed(failure)) => (failure.kind, failure.message),
        other => panic!("{other:?}"),
    };
    let (kind, message) = pull("/no/such/file");
    assert!(kind == FailureKind::NotFound && message.contains("/no/such/file"), "{message}");
    assert_eq!(pull("relative").0, FailureKind::Invalid);
    assert_eq!(pull("/tmp").0, FailureKind::Invalid);
    let push =
        |path: &str| match session.push(Push { path: path.into(), mode: 0o644, size: 1 }, &b"x"[..], LONG, |_| {}) {
            Err(CallError::Failed(failure)) => failure.message,
            other => panic!("{other:?}"),
        };
    assert!(push("/proc/nope/file").contains("/proc/nope"));
    assert!(push("/tmp").contains("folder"));
}
