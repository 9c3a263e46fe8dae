//! Serves a host: one thread reads the channel, one writes it, and every request gets one of its own, so that nothing
//! a request waits for holds up the rest, the heartbeat least of all.

pub mod answer;
mod exec;
mod files;
mod info;
mod launch;
mod nic;
pub mod port;
mod power;
mod probe;
mod snapshot;
mod wait;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use protocol::frame::Frame;
use protocol::mux::{Mux, MuxStream, Service, Vitals};
use protocol::{BootReport, ChannelError, Event, Failure, FailureKind, Hello, Request};

use crate::console::{self, Level};
use crate::{lease, proc, scope};
use answer::{failure, send};
use port::{Heard, Port};

/// How the agent describes itself.
pub const BUILD: &str = concat!("guest-agent ", env!("CARGO_PKG_VERSION"));
/// Room for a request's thread: nothing it does recurses deeply.
const STACK: usize = 256 * 1024;

/// How long requests may take to clean up after the channel is gone.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// What every request may need to know, and how many are being served.
struct Server {
    boot: BootReport,
    serving: Mutex<usize>,
    served: Condvar,
}

/// One request being served.
struct Serving(Arc<Server>);

impl Drop for Serving {
    fn drop(&mut self) {
        *self.0.serving.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.served.notify_all();
    }
}

/// The server as the channel sees it.
struct Door(Arc<Server>);

impl Service for Door {
    fn accept(&self, stream: MuxStream, request: Vec<u8>) {
        let stream = Arc::new(stream);
        let served = stream.clone();
        *self.0.serving.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let serving = Serving(self.0.clone());
        let work = move || answer(&served, &request, &serving.0.boot);
        let name = format!("stream-{}", stream.id());
        if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn(work) {
            let message = format!("the guest cannot start a thread for the request: {error}");
            let _ = send(&stream, &Event::Failed(failure(FailureKind::Io, message)));
        }
    }

    fn vitals(&self) -> Vitals {
        proc::vitals()
    }
}

/// Serves one request and says how it failed, if it did. A panic is a defect of ours: it costs this request.
fn answer(stream: &Arc<MuxStream>, request: &[u8], boot: &BootReport) {
    let outcome = match postcard::from_bytes::<Request>(request) {
        Ok(request) => catch_unwind(AssertUnwindSafe(|| serve(stream, &request, boot))).unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(failure(FailureKind::Protocol, format!("the guest agent panicked while serving this: {what}")))
        }),
        Err(error) => Err(failure(
            FailureKind::Protocol,
            format!("a request of {} bytes does not decode: {error}", request.len()),
        )),
    };
    if let Err(failure) = outcome {
        let _ = send(stream, &Event::Failed(failure));
    }
}

fn serve(stream: &Arc<MuxStream>, request: &Request, boot: &BootReport) -> Result<(), Failure> {
    let event = match request {
        Request::Exec(exec) => return exec::serve(stream, exec),
        Request::Push(push) => return files::push(stream, push),
        Request::Pull(pull) => return files::pull(stream, pull),
        Request::Wait(wait) => return wait::serve(stream, wait),
        Request::PowerOff { reboot } => return power::off(stream, *reboot),
        Request::Probe { names } => Event::Probed(probe::probe(names)),
        Request::Info => Event::Info(info::info(boot)),
        Request::Snapshot => Event::Snapshot(snapshot::take()),
        Request::Lease(ask) => lease::serve(ask)?,
        Request::EndScope { scope } => Event::ScopeEnded { killed: scope::end(scope)? },
    };
    // An error means that the host has closed the stream and does not want to know.
    let _ = send(stream, &event);
    Ok(())
}

/// Serves the channel until it is gone for good, which a virtio port never is. `settle` is done between the greeting and
/// the first request: the host and its answer take as long.
pub fn run(port: &Port, mut boot: BootReport, nonce: Option<u32>, settle: impl FnOnce(&mut BootReport)) {
    let mux = Mux::guest(nonce, Hello { build: BUILD.into(), boot: Some(boot.clone()) });
    // By this thread, since to start another would take as long as much of what came before.
    while let Some(frame) = mux.try_next_out() {
        if !send_frame(&frame, port, &mut Vec::new()) {
            return;
        }
    }
    settle(&mut boot);
    let (started, ready) = (boot.started_us / 1000, boot.ready_us / 1000);
    let server = Arc::new(Server { boot, serving: Mutex::new(0), served: Condvar::new() });
    let door = Door(server.clone());
    thread::scope(|scope| {
        let writer = thread::Builder::new().name("write".into());
        if let Err(error) = writer.spawn_scoped(scope, || write(&mux, port)) {
            return console::log(Level::Critical, &format!("cannot start the writing thread: {error}"));
        }
        console::log(Level::Info, &format!("serving the host (init began at {started} ms, ready at {ready} ms)"));
        let mut buffer = vec![0; 64 * 1024];
        let mut met = false;
        loop {
            match port.read(&mut buffer) {
                Heard::Bytes(length) => {
                    met = true;
                    mux.feed(&buffer[..length], &door);
                }
                Heard::HostLeft => {
                    // Whatever ran for that host is of no use to the next one. At boot, though, there is none yet, and
                    // our greeting waits for it.
                    if std::mem::take(&mut met) {
                        mux.end_session();
                    }
                    if let Err(error) = port.wait_for_host() {
                        let reason = format!("cannot wait for the next host: {error}");
                        console::log(Level::Error, &reason);
                        return mux.close(ChannelError::Closed { reason });
                    }
                }
                Heard::Gone(reason) => return mux.close(ChannelError::Closed { reason }),
            }
        }
    });
    // What still runs is being killed by whoever serves it.
    let serving = server.serving.lock().unwrap_or_else(PoisonError::into_inner);
    drop(server.served.wait_timeout_while(serving, CLEAN_UP, |serving| *serving > 0));
}

fn write(mux: &Mux, port: &Port) {
    let mut buffer = Vec::new();
    while let Some(frame) = mux.next_out() {
        if !send_frame(&frame, port, &mut buffer) {
            return;
        }
    }
}

/// Writes a frame, by way of a buffer that is used again. False when the channel is gone.
fn send_frame(frame: &Frame, port: &Port, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    frame.encode(buffer);
    let written = port.writer().write_all(buffer);
    if let Err(error) = &written
        && !power::under_way()
    {
        console::log(Level::Error, &format!("writing to the channel failed: {error}"));
    }
    written.is_ok()
}
