//! The command line's side of a running lab.
//!
//! [`Client`] asks the supervisor over its control socket, one connection a question. [`LabGuests`] is what the suite
//! sees of it: streams to guests, their health, reboots and consoles.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use progress::Progress;
use protocol::{Event, Input, Request};
use suite::{GuestError, GuestInfo, GuestStream, Guests, Health, NicBooks};

use crate::control::{
    self, Answer, Ask, FaultSpec, HealthReport, Kind, LabStatus, read_frame, receive, send, write_frame,
};
use crate::order::DeviceOrder;
use crate::paths::LabPaths;

/// A lab's supervisor, as a client.
#[derive(Debug, Clone)]
pub struct Client {
    paths: LabPaths,
}

impl Client {
    /// A client of the lab with these folders; connects only when it asks.
    pub fn new(paths: LabPaths) -> Self {
        Client { paths }
    }

    /// The lab's folders.
    pub fn paths(&self) -> &LabPaths {
        &self.paths
    }

    fn connect(&self) -> Result<UnixStream> {
        let path = self.paths.control_socket();
        let mut stream = UnixStream::connect(&path).map_err(|e| {
            anyhow!(
                "lab `{}` does not answer on {} ({e}); is it up? (`cargo xtask lab status`)",
                self.paths.name,
                path.display()
            )
        })?;
        use std::io::Write;
        stream.write_all(control::greeting().as_bytes()).context("the supervisor closed the connection")?;
        let mut theirs = Vec::new();
        let mut byte = [0];
        while theirs.last() != Some(&b'\n') && theirs.len() < 200 {
            if stream.read(&mut byte).context("the supervisor closed the connection")? == 0 {
                break;
            }
            theirs.push(byte[0]);
        }
        if theirs != control::greeting().as_bytes() {
            bail!(
                "lab `{}` was brought up by another build (it says `{}`, this is `{}`); take it down with `cargo xtask lab down` and bring it up again",
                self.paths.name,
                String::from_utf8_lossy(&theirs).trim(),
                control::greeting().trim()
            );
        }
        Ok(stream)
    }

    fn ask(&self, ask: &Ask) -> Result<Answer> {
        let mut stream = self.connect()?;
        send(&mut stream, ask)?;
        answer(&mut stream)
    }

    fn done(&self, ask: &Ask) -> Result<()> {
        match self.ask(ask)? {
            Answer::Done => Ok(()),
            Answer::Failed(why) => bail!(why),
            other => bail!("the supervisor gave an unexpected answer: {other:?}"),
        }
    }

    /// How everything is.
    pub fn status(&self) -> Result<LabStatus> {
        match self.ask(&Ask::Status)? {
            Answer::Status(status) => Ok(*status),
            Answer::Failed(why) => bail!(why),
            other => bail!("the supervisor gave an unexpected answer: {other:?}"),
        }
    }

    /// Follows the boots until every guest is ready; fails with the first guest that cannot be.
    pub fn wait_ready(&self, progress: &Progress) -> Result<()> {
        let mut stream = self.connect()?;
        send(&mut stream, &Ask::WaitReady)?;
        // A look at the cancel flag four times a second keeps Ctrl-C prompt.
        stream.set_read_timeout(Some(Duration::from_millis(250)))?;
        loop {
            progress.check_cancelled()?;
            let mut peek = [0u8; 1];
            match rustix::net::recv(&stream, &mut peek, rustix::net::RecvFlags::PEEK) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).context("the supervisor went away; see `cargo xtask lab logs`"),
                Ok(_) => {}
            }
            stream.set_read_timeout(None)?;
            match answer(&mut stream)? {
                Answer::Progress(event) => progress.emit(event),
                Answer::Done => return Ok(()),
                Answer::Failed(why) => bail!(why),
                other => bail!("the supervisor gave an unexpected answer: {other:?}"),
            }
            stream.set_read_timeout(Some(Duration::from_millis(250)))?;
        }
    }

    /// Opens a stream to a guest's agent.
    pub fn open(&self, guest: &str, request: Request) -> Result<RemoteStream> {
        let mut stream = self.connect()?;
        send(&mut stream, &Ask::Open { guest: guest.to_owned(), request })?;
        match answer(&mut stream)? {
            Answer::Done => RemoteStream::start(stream),
            Answer::Failed(why) => bail!(why),
            other => bail!("the supervisor gave an unexpected answer: {other:?}"),
        }
    }

    /// Resets a guest; returns when its agent is ready again.
    pub fn reboot(&self, guest: &str, reason: &str) -> Result<()> {
        self.done(&Ask::Reboot { guest: guest.into(), reason: reason.into() })
    }

    /// Changes a port's fault.
    pub fn fault(&self, port: &str, fault: FaultSpec) -> Result<()> {
        self.done(&Ask::Fault { port: port.into(), fault })
    }

    /// Tells a gvnic what to do.
    pub fn device(&self, port: &str, order: DeviceOrder) -> Result<()> {
        self.done(&Ask::Device { port: port.into(), order })
    }

    /// Captures a port until the returned connection is dropped.
    pub fn capture(&self, port: &str, file: PathBuf) -> Result<UnixStream> {
        let mut stream = self.connect()?;
        send(&mut stream, &Ask::Capture { port: port.into(), file })?;
        match answer(&mut stream)? {
            Answer::Done => Ok(stream),
            Answer::Failed(why) => bail!(why),
            other => bail!("the supervisor gave an unexpected answer: {other:?}"),
        }
    }

    /// Asks the supervisor to power everything off.
    pub fn down(&self) -> Result<()> {
        self.done(&Ask::Down)
    }
}

fn answer(stream: &mut UnixStream) -> Result<Answer> {
    receive(stream)
        .context("the supervisor's answer did not arrive")?
        .context("the supervisor closed the connection; see `cargo xtask lab logs`")
}

/// A stream to a guest's agent, through the supervisor. Dropping it kills what it started.
#[derive(Debug)]
pub struct RemoteStream {
    socket: UnixStream,
    events: Receiver<Result<Event, String>>,
}

impl RemoteStream {
    fn start(socket: UnixStream) -> Result<Self> {
        let (sender, events) = channel();
        let reading = socket.try_clone()?;
        std::thread::Builder::new().name("guest-stream".into()).spawn(move || {
            let mut reading = BufReader::new(reading);
            loop {
                let event = match read_frame(&mut reading) {
                    Ok(Some((Kind::Stream, payload))) => {
                        postcard::from_bytes::<Event>(&payload).map_err(|e| format!("undecodable event: {e}"))
                    }
                    Ok(Some((Kind::Control, payload))) => match serde_json::from_slice(&payload) {
                        Ok(Answer::Failed(why)) => Err(why),
                        _ => Err("unexpected answer on a stream".into()),
                    },
                    Ok(None) => return,
                    Err(e) => Err(e.to_string()),
                };
                let last = event.as_ref().map_or(true, Event::is_last);
                if sender.send(event).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(RemoteStream { socket, events })
    }

    /// The next event; `None` when `timeout` passed without one.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Event>> {
        match self.events.recv_timeout(timeout) {
            Ok(Ok(event)) => Ok(Some(event)),
            Ok(Err(why)) => bail!(why),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the stream ended: the supervisor or the guest went away"),
        }
    }

    /// The sending half, for another thread.
    pub fn sender(&self) -> Result<StreamSender> {
        Ok(StreamSender { socket: self.socket.try_clone()? })
    }

    /// Sends input.
    pub fn send(&mut self, input: &Input) -> Result<()> {
        send_input(&mut self.socket, input)
    }
}

impl Drop for RemoteStream {
    fn drop(&mut self) {
        // Wakes the reading thread; the supervisor closes the guest's stream when it sees the end.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Sends input on a stream from another thread than the one that reads it.
#[derive(Debug)]
pub struct StreamSender {
    socket: UnixStream,
}

impl StreamSender {
    /// Sends input.
    pub fn send(&mut self, input: &Input) -> Result<()> {
        send_input(&mut self.socket, input)
    }
}

fn send_input(socket: &mut UnixStream, input: &Input) -> Result<()> {
    let bytes = postcard::to_stdvec(input).context("cannot encode input")?;
    write_frame(socket, Kind::Stream, &bytes).context("the stream is closed")
}

/// The guests of a running lab, for the suite.
#[derive(Debug)]
pub struct LabGuests {
    client: Client,
    infos: Vec<GuestInfo>,
    consoles: Vec<(String, PathBuf)>,
}

impl LabGuests {
    /// Looks at the lab once; the guests of a lab do not change while it is up.
    pub fn new(client: Client) -> Result<Self> {
        let status = client.status()?;
        let consoles = status.guests.iter().map(|g| (g.name.clone(), g.console.clone())).collect();
        let infos = status
            .guests
            .into_iter()
            .map(|g| GuestInfo {
                name: g.name,
                kernel: g.kernel,
                kernel_release: g.kernel_release,
                kernel_tree: g.kernel_tree,
                accelerator: g.accelerator,
                deterministic: g.deterministic,
                nics: g.nics,
            })
            .collect();
        Ok(LabGuests { client, infos, consoles })
    }

    fn channel(guest: &str, error: &anyhow::Error) -> GuestError {
        GuestError::Channel { guest: guest.into(), message: format!("{error:#}") }
    }
}

impl Guests for LabGuests {
    fn guests(&self) -> Vec<GuestInfo> {
        self.infos.clone()
    }

    fn open(&self, guest: &str, request: Request) -> Result<Box<dyn GuestStream>, GuestError> {
        if !self.infos.iter().any(|g| g.name == guest) {
            return Err(GuestError::Unknown(guest.into()));
        }
        let stream = self.client.open(guest, request).map_err(|e| Self::channel(guest, &e))?;
        Ok(Box::new(SuiteStream { guest: guest.into(), stream }))
    }

    fn reboot(&self, guest: &str, reason: &str) -> Result<(), GuestError> {
        self.client
            .reboot(guest, reason)
            .map_err(|e| GuestError::Reboot { guest: guest.into(), message: format!("{e:#}") })
    }

    fn console(&self, guest: &str, from: u64) -> Result<(Vec<u8>, u64), GuestError> {
        let error = |message: String| GuestError::Console { guest: guest.into(), message };
        let (_, path) =
            self.consoles.iter().find(|(name, _)| name == guest).ok_or_else(|| GuestError::Unknown(guest.into()))?;
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| error(format!("{}: {e}", path.display())))?;
        let next = from + bytes.len() as u64;
        Ok((bytes, next))
    }

    fn nic_order(&self, guest: &str, nic: usize, order: &str) -> Result<(), GuestError> {
        let refused = |error: String| GuestError::Refused { guest: guest.into(), message: error };
        let order = order.parse().map_err(|error| refused(format!("{error:#}")))?;
        self.client.device(&format!("{guest}.{nic}"), order).map_err(|error| refused(format!("{error:#}")))
    }

    fn nic_books(&self, guest: &str, nic: usize) -> Result<NicBooks, GuestError> {
        let status = self.client.status().map_err(|error| Self::channel(guest, &error))?;
        let port = format!("{guest}.{nic}");
        let device = status.devices.into_iter().find(|device| device.port == port);
        device.map(|device| device.books).ok_or_else(|| GuestError::Refused {
            guest: guest.into(),
            message: format!("NIC `{port}` is no gvnic, or its process does not answer"),
        })
    }

    fn health(&self, guest: &str) -> Health {
        match self.client.ask(&Ask::Health { guest: guest.into() }) {
            Ok(Answer::Health(HealthReport::Alive { idle_us })) => {
                Health::Alive { idle: Duration::from_micros(idle_us) }
            }
            Ok(Answer::Health(HealthReport::Crashed(info))) => Health::Crashed(info),
            Ok(Answer::Health(HealthReport::Hung { idle_us })) => Health::Hung { idle: Duration::from_micros(idle_us) },
            Ok(Answer::Health(HealthReport::Down { reason })) => Health::Down { reason },
            Ok(Answer::Failed(reason)) => Health::Down { reason },
            Ok(other) => Health::Down { reason: format!("unexpected answer: {other:?}") },
            Err(e) => Health::Down { reason: format!("{e:#}") },
        }
    }
}

struct SuiteStream {
    guest: String,
    stream: RemoteStream,
}

impl GuestStream for SuiteStream {
    fn recv(&mut self, timeout: Duration) -> Result<Option<Event>, GuestError> {
        self.stream.recv(timeout).map_err(|e| LabGuests::channel(&self.guest, &e))
    }

    fn send(&mut self, input: Input) -> Result<(), GuestError> {
        self.stream.send(&input).map_err(|e| LabGuests::channel(&self.guest, &e))
    }
}
