//! The panel: questions and faults from the lab, a line of JSON each way.
//!
//! It also keeps the device's time ([`Control::tick`]), since somebody has to and it has little to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use gvnic::control::{Control, TICK};
use gvnic::fault::FaultPlan;
use serde::{Deserialize, Serialize};

/// Longest line that is read. The largest fault plan is far shorter.
const LINE_MAX: u64 = 64 * 1024;
/// How long somebody who connected may think.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Request {
    /// [`gvnic::status::PortStatus`].
    Status,
    /// Plug the cable in, or pull it.
    Link(bool),
    /// Have the driver reset the device.
    Reset,
    /// Replace the faults, those of commands and those of frames: one plan for both.
    Faults(FaultPlan),
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Status(Box<gvnic::status::PortStatus>),
    Done,
    Refused(String),
}

/// Starts the threads.
pub fn start(listener: UnixListener, control: Arc<Control>) -> io::Result<()> {
    let timekeeper = control.clone();
    thread::Builder::new().name("ticks".into()).spawn(move || {
        loop {
            thread::sleep(TICK);
            timekeeper.tick();
        }
    })?;
    thread::Builder::new().name("panel".into()).spawn(move || {
        for socket in listener.incoming().flatten() {
            // Whoever asks and does not listen loses the answer.
            let _ = converse(&socket, &control);
        }
    })?;
    Ok(())
}

fn converse(socket: &UnixStream, control: &Control) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => answer(request, control),
            Err(error) => Answer::Refused(error.to_string()),
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        (&mut &*socket).write_all(text.as_bytes())?;
    }
}

fn answer(request: Request, control: &Control) -> Answer {
    match request {
        Request::Status => return Answer::Status(Box::new(control.status())),
        Request::Link(up) => control.set_link(up),
        Request::Reset => control.request_reset(),
        Request::Faults(plan) => {
            if let Err(error) = control.set_faults(plan) {
                return Answer::Refused(error.to_string());
            }
        }
    }
    Answer::Done
}
