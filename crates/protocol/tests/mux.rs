//! The multiplexer at both ends, over no pipe at all: the test carries the frames.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::frame::{Frame, Kind, MAX_PAYLOAD};
use protocol::mux::{Item, Mux, MuxStream, Service, Vitals, WINDOW};
use protocol::{ChannelError, Hello};

const NOW: Duration = Duration::ZERO;

#[derive(Default)]
struct Guest {
    accepted: Mutex<Vec<(MuxStream, Vec<u8>)>>,
}

impl Service for Guest {
    fn accept(&self, stream: MuxStream, request: Vec<u8>) {
        self.accepted.lock().unwrap().push((stream, request));
    }
    fn vitals(&self) -> Vitals {
        Vitals { uptime_ms: 5000, idle_ms: 4000, cpus: 2 }
    }
}

/// Both ends of a channel, and what carries bytes between them.
struct Pair {
    host: Mux,
    guest: Mux,
    service: Arc<Guest>,
}

fn hello(build: &str) -> Hello {
    Hello { build: build.into(), boot: None }
}

impl Pair {
    fn new(nonce: u32) -> Pair {
        Pair { host: Mux::host(nonce, hello("host")), guest: Mux::guest(None, hello("guest")), service: Arc::default() }
    }

    /// Carries one frame to the guest, if there is one.
    fn to_guest(&self) -> Option<Frame> {
        let frame = self.host.try_next_out()?;
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.guest.feed(&bytes, &*self.service);
        Some(frame)
    }

    fn to_host(&self) -> Option<Frame> {
        let frame = self.guest.try_next_out()?;
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.host.feed(&bytes, &*self.service);
        Some(frame)
    }

    fn settle(&self) {
        while self.to_guest().is_some() || self.to_host().is_some() {}
    }

    fn accepted(&self) -> MuxStream {
        self.service.accepted.lock().unwrap().pop().expect("a stream was opened").0
    }
}

#[test]
fn the_guest_answers_a_greeting_and_a_heartbeat() {
    let pair = Pair::new(7);
    pair.settle();
    assert_eq!(pair.host.wait_hello(NOW).unwrap().build, "guest");
    pair.host.ping();
    pair.settle();
    assert_eq!(pair.host.heartbeat().expect("a heartbeat").vitals.idle_ms, 4000);
    // One that is lost does not stop the heart.
    let first = pair.host.heartbeat().expect("a heartbeat").at;
    pair.host.ping();
    assert_eq!(pair.host.try_next_out().expect("a question").kind, Kind::Ping);
    pair.host.ping();
    pair.settle();
    assert!(pair.host.heartbeat().expect("a heartbeat").at > first);
}

#[test]
fn a_guest_that_knows_its_nonce_speaks_first() {
    let pair = Pair { guest: Mux::guest(Some(7), hello("guest")), ..Pair::new(7) };
    assert!(pair.to_host().is_some());
    assert_eq!(pair.host.wait_hello(NOW).unwrap().build, "guest");
}

#[test]
fn an_agent_of_another_version_is_told_apart_from_a_silent_one() {
    let host = Mux::host(7, hello("host"));
    assert!(matches!(host.wait_hello(NOW), Err(ChannelError::NoHello { heard: 0, .. })));
    let mut payload = hello("old agent").encode();
    payload[0] ^= 0x40;
    let mut bytes = Vec::new();
    Frame { kind: Kind::Hello, flags: 0, stream: 0, nonce: 7, payload }.encode(&mut bytes);
    host.feed(&bytes, &Guest::default());
    let Err(ChannelError::Version { theirs, build, .. }) = host.wait_hello(NOW) else { panic!("no version error") };
    assert_eq!((theirs, build.as_str()), (protocol::VERSION ^ 0x40, "old agent"));
    assert!(matches!(host.open(b"x"), Err(ChannelError::Version { .. })));
}

#[test]
fn messages_of_any_size_arrive_whole_and_in_order_with_data() {
    let pair = Pair::new(7);
    let request: Vec<u8> = (0..3 * MAX_PAYLOAD + 5).map(|at| at as u8).collect();
    let asked = pair.host.open(&request).unwrap();
    pair.settle();
    let (answered, got) = pair.service.accepted.lock().unwrap().pop().unwrap();
    assert!(got == request);
    answered.send_data(false, b"one").unwrap();
    answered.send_message(b"two").unwrap();
    answered.send_data(true, b"three").unwrap();
    answered.send_eof().unwrap();
    drop(answered);
    pair.settle();
    assert_eq!(asked.recv(NOW).unwrap(), Some(Item::Data { stderr: false, bytes: b"one".to_vec() }));
    assert_eq!(asked.recv(NOW).unwrap(), Some(Item::Message(b"two".to_vec())));
    assert_eq!(asked.recv(NOW).unwrap(), Some(Item::Data { stderr: true, bytes: b"three".to_vec() }));
    assert_eq!(asked.recv(NOW).unwrap(), Some(Item::Eof));
    assert_eq!(asked.recv(NOW), Err(ChannelError::Ended));
}

/// Queues data until the sender would have to wait.
fn fill(stream: &MuxStream) -> usize {
    let mut sent = 0;
    while stream.has_room().unwrap() {
        stream.send_data(false, &vec![1; MAX_PAYLOAD]).unwrap();
        sent += MAX_PAYLOAD;
    }
    sent
}

#[test]
fn data_stops_at_the_window_and_goes_on_with_credit() {
    let pair = Pair::new(7);
    let asked = pair.host.open(b"").unwrap();
    pair.settle();
    let answered = pair.accepted();
    let mut sent = 0;
    loop {
        let more = fill(&answered);
        pair.settle();
        if more == 0 {
            break;
        }
        sent += more;
    }
    // The window is full and the queue behind it too; nothing was taken, so no more flows.
    assert!(sent as u32 > WINDOW && (sent as u32) < 2 * WINDOW, "{sent}");
    let mut got = 0;
    while let Some(Item::Data { bytes, .. }) = asked.recv(NOW).unwrap() {
        got += bytes.len();
        pair.settle();
    }
    assert_eq!(got, sent);
}

#[test]
fn a_heartbeat_and_messages_overtake_queued_data() {
    let pair = Pair::new(7);
    let bulk = pair.host.open(b"bulk").unwrap();
    pair.settle();
    fill(&bulk);
    let quick = pair.host.open(b"quick").unwrap();
    pair.host.ping();
    assert_eq!(pair.to_guest().unwrap().kind, Kind::Ping);
    let frame = pair.to_guest().unwrap();
    assert_eq!((frame.kind, frame.stream), (Kind::Open, quick.id()));
    assert_eq!(pair.to_guest().unwrap().kind, Kind::Data);
}

#[test]
fn two_bulk_streams_take_turns() {
    let pair = Pair::new(7);
    let (one, two) = (pair.host.open(b"1").unwrap(), pair.host.open(b"2").unwrap());
    pair.settle();
    fill(&one);
    fill(&two);
    let order: Vec<u32> = (0..4).map(|_| pair.to_guest().unwrap().stream).collect();
    assert_eq!(order, [one.id(), two.id(), one.id(), two.id()]);
}

#[test]
fn a_peer_that_sends_more_than_its_credit_loses_the_stream_only() {
    let pair = Pair::new(7);
    let asked = pair.host.open(b"").unwrap();
    pair.settle();
    let answered = pair.accepted();
    let mut bytes = Vec::new();
    for _ in 0..=WINDOW as usize / MAX_PAYLOAD {
        Frame { kind: Kind::Data, flags: 0, stream: asked.id(), nonce: 7, payload: vec![0; MAX_PAYLOAD] }
            .encode(&mut bytes);
    }
    pair.guest.feed(&bytes, &*pair.service);
    let error = loop {
        match answered.recv(NOW) {
            Ok(item) => assert!(item.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ChannelError::Protocol { .. }), "{error}");
    drop(answered);
    pair.settle();
    assert_eq!(asked.recv(NOW), Err(ChannelError::Ended));
    let again = pair.host.open(b"again").unwrap();
    pair.settle();
    assert_eq!(pair.accepted().id(), again.id());
}

#[test]
fn a_new_session_ends_the_streams_of_the_old_one_and_ignores_its_frames() {
    let pair = Pair::new(7);
    let _old = pair.host.open(b"old").unwrap();
    pair.settle();
    let answered = pair.accepted();
    let late = Mux::host(7, hello("host"));
    late.open(b"late").unwrap();
    let second = Pair { host: Mux::host(8, hello("host")), guest: pair.guest.clone(), service: pair.service.clone() };
    second.settle();
    assert!(matches!(answered.recv(NOW), Err(ChannelError::Closed { .. })));
    assert!(answered.send_message(b"to nobody").is_err());
    let stream = second.host.open(b"new").unwrap();
    second.settle();
    assert_eq!(second.accepted().id(), stream.id());
    // A frame of the old session that comes late opens nothing. (Its greeting would begin a session again.)
    while let Some(frame) = late.try_next_out() {
        if frame.kind != Kind::Hello {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            pair.guest.feed(&bytes, &*pair.service);
        }
    }
    assert!(pair.service.accepted.lock().unwrap().is_empty());
    drop(answered);
    assert_eq!(stream.recv(NOW), Ok(None), "the handle of the old session closed a stream of the new one");
}

#[test]
fn closing_at_the_host_reaches_the_guest_and_frees_both_ends() {
    let pair = Pair::new(7);
    for _ in 0..3 * protocol::mux::MAX_STREAMS {
        let asked = pair.host.open(b"").unwrap();
        pair.settle();
        let answered = pair.accepted();
        drop(asked);
        pair.settle();
        assert_eq!(answered.recv(NOW), Err(ChannelError::Ended));
    }
}

#[test]
fn more_streams_than_allowed_are_refused_by_name() {
    let pair = Pair::new(7);
    let mut open = Vec::new();
    for _ in 0..protocol::mux::MAX_STREAMS {
        open.push(pair.host.open(b"").unwrap());
    }
    assert!(pair.host.open(b"").is_err_and(|error| error.to_string().contains("streams are open")));
    // A host that does not count itself is refused by the guest.
    pair.settle();
    let mut bytes = Vec::new();
    Frame { kind: Kind::Open, flags: 0, stream: 100_000, nonce: 7, payload: vec![] }.encode(&mut bytes);
    pair.guest.feed(&bytes, &*pair.service);
    let refusal = pair.guest.try_next_out().expect("a refusal");
    assert_eq!((refusal.kind, refusal.stream), (Kind::Message, 100_000));
}

#[test]
fn a_frame_cut_short_by_a_vanished_host_does_not_swallow_the_next_greeting() {
    let pair = Pair::new(7);
    pair.settle();
    let mut cut = Vec::new();
    Frame { kind: Kind::Data, flags: 0, stream: 1, nonce: 7, payload: vec![3; MAX_PAYLOAD] }.encode(&mut cut);
    pair.guest.feed(&cut[..1000], &*pair.service);
    let second = Pair { host: Mux::host(9, hello("host")), guest: pair.guest.clone(), service: pair.service.clone() };
    second.settle();
    assert!(second.host.wait_hello(NOW).is_err(), "the greeting lies inside the unfinished frame");
    second.host.greet_again();
    second.settle();
    assert_eq!(second.host.wait_hello(NOW).unwrap().build, "guest");
}
