//! The control socket: one thread a connection, one question a connection.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::host::Stream;
use protocol::{Event, Input};

use super::Shared;
use crate::control::{self, Answer, Ask, Kind, LabStatus, read_frame, receive, send, write_frame};

/// Accepts connections until the lab is told to stop.
pub(super) fn serve(shared: &Arc<Shared>, listener: &UnixListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    while !shared.stopping() {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                stream.set_nonblocking(false)?;
                // A detached thread: it ends with its connection or with the process.
                let spawned = std::thread::Builder::new().name("client".into()).spawn(move || {
                    // The client reads the error from its own end of the connection.
                    let _ = talk(&shared, stream);
                });
                spawned.context("cannot start a thread")?;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait_readable(listener),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the control socket failed"),
        }
    }
    Ok(())
}

/// Sleeps until somebody connects, looking at the stop flag ten times a second.
fn wait_readable(listener: &UnixListener) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout));
}

fn talk(shared: &Arc<Shared>, mut stream: UnixStream) -> Result<()> {
    let greeting = control::greeting();
    let mut theirs = vec![0; greeting.len()];
    stream.write_all(greeting.as_bytes())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.read_exact(&mut theirs)?;
    if theirs != greeting.as_bytes() {
        bail!("a client of another build");
    }
    let Some(ask) = receive::<Ask>(&mut stream)? else { return Ok(()) };
    stream.set_read_timeout(None)?;
    if let Err(e) = answer(shared, &mut stream, ask) {
        send(&mut stream, &Answer::Failed(format!("{e:#}")))?;
    }
    Ok(())
}

fn answer(shared: &Arc<Shared>, stream: &mut UnixStream, ask: Ask) -> Result<()> {
    match ask {
        Ask::Status => send(stream, &Answer::Status(Box::new(status(shared))))?,
        Ask::WaitReady => {
            wait_ready(shared, stream)?;
            send(stream, &Answer::Done)?;
        }
        Ask::Open { guest, request } => {
            let opened = shared.guest(&guest)?.session()?.open(request).with_context(|| format!("guest `{guest}`"))?;
            send(stream, &Answer::Done)?;
            carry(stream, Arc::new(opened));
        }
        Ask::Reboot { guest, reason } => {
            shared.guest(&guest)?.reboot(&reason)?;
            send(stream, &Answer::Done)?;
        }
        Ask::Health { guest } => send(stream, &Answer::Health(shared.guest(&guest)?.health()))?,
        Ask::Fault { port, fault } => {
            shared.fabric.set_fault(&port, &fault)?;
            send(stream, &Answer::Done)?;
        }
        Ask::Device { port, order } => {
            super::device::order(&shared.launch, &port, &order)?;
            send(stream, &Answer::Done)?;
        }
        Ask::Capture { port, file } => {
            let capture = shared.fabric.capture(&port, &file)?;
            send(stream, &Answer::Done)?;
            // Until the client goes away.
            let _ = stream.read(&mut [0]);
            drop(capture);
        }
        Ask::Down => {
            // Answered first: the process that answers is the one that ends.
            send(stream, &Answer::Done)?;
            shared.stop.store(true, Ordering::SeqCst);
        }
    }
    Ok(())
}

fn status(shared: &Shared) -> LabStatus {
    LabStatus {
        name: shared.launch.name.clone(),
        supervisor_pid: i32::try_from(std::process::id()).unwrap_or_default(),
        up_s: shared.started.elapsed().as_secs(),
        launch_id: shared.launch_id.clone(),
        guests: shared.guests.iter().map(super::guest::Slot::status).collect(),
        ports: shared.fabric.status(),
        devices: shared.guests.iter().flat_map(|slot| super::device::status(&slot.launch.plan)).collect(),
    }
}

fn wait_ready(shared: &Shared, stream: &mut UnixStream) -> Result<()> {
    let events = shared.events.subscribe();
    for slot in &shared.guests {
        let settled = loop {
            let settled = slot.wait_settled(Duration::from_millis(50));
            for event in events.try_iter() {
                send(stream, &Answer::Progress(event))?;
            }
            if let Some(settled) = settled {
                break settled;
            }
            if shared.stopping() {
                bail!("the lab is going down");
            }
        };
        settled?;
    }
    Ok(())
}

/// Carries a guest's stream over the connection, both ways, until either end closes. Nothing is buffered here: a client
/// that does not read holds its own stream's credits and nobody else's.
fn carry(socket: &mut UnixStream, stream: Arc<Stream>) {
    let Ok(mut input) = socket.try_clone() else { return };
    let inward = Arc::clone(&stream);
    let reader = std::thread::Builder::new().name("client-input".into()).spawn(move || {
        while let Ok(Some((Kind::Stream, payload))) = read_frame(&mut input) {
            let Ok(message) = postcard::from_bytes::<Input>(&payload) else { break };
            if inward.send(message).is_err() {
                break;
            }
        }
        // The client is gone: what it started in the guest goes too.
        inward.abort();
    });
    if reader.is_err() {
        return;
    }
    loop {
        match stream.recv(Duration::from_secs(3600)) {
            Ok(Some(event)) => {
                let last = Event::is_last(&event);
                let Ok(bytes) = postcard::to_stdvec(&event) else { break };
                if write_frame(socket, Kind::Stream, &bytes).is_err() || last {
                    break;
                }
            }
            Ok(None) => {}
            Err(e) => {
                let _ = send(socket, &Answer::Failed(e.to_string()));
                break;
            }
        }
    }
    stream.abort();
    let _ = socket.shutdown(std::net::Shutdown::Both);
}
