//! Commands and shells in a guest, for people: streamed output, a real terminal, exact exit codes.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::{Channel, Event, Exec, Exit, Input, Request, WinSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use signal_hook::consts::{SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use crate::client::{Client, StreamSender};

/// Runs `argv` in a guest with this process's standard streams; returns how it ended.
///
/// With `tty` the command gets a pseudo-terminal of this terminal's size and this terminal goes raw for as long.
/// Without, SIGINT and SIGTERM are passed on to the command.
///
/// # Errors
/// When the guest cannot run it, or goes away meanwhile.
pub fn run(client: &Client, guest: &str, argv: &[String], tty: bool) -> Result<Exit> {
    let stdin = std::io::stdin();
    if tty && !stdin.is_terminal() {
        bail!("a terminal was asked for, but standard input is none; leave `--tty` out");
    }
    let pty = if tty { Some(window()?) } else { None };
    let exec = Exec { argv: argv.to_vec(), pty, stdin: true, ..Exec::default() };
    let mut stream = client.open(guest, Request::Exec(exec))?;
    let raw = if tty { Some(Raw::enter()?) } else { None };
    forward_input(stream.sender()?)?;
    let signals = if tty { vec![SIGWINCH] } else { vec![SIGINT, SIGTERM] };
    forward_signals(stream.sender()?, &signals)?;
    let exit = loop {
        match stream.recv(Duration::from_secs(1))? {
            None => {}
            Some(Event::Output { channel: Channel::Stdout, bytes }) => write_all(&mut std::io::stdout(), &bytes)?,
            Some(Event::Output { channel: Channel::Stderr, bytes }) => write_all(&mut std::io::stderr(), &bytes)?,
            Some(Event::Exited(exit)) => break exit,
            Some(Event::Failed(failure)) => {
                drop(raw);
                bail!("guest `{guest}`: {failure}");
            }
            Some(_) => {}
        }
    };
    Ok(exit)
}

fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write the command's output")
}

/// Standard input to the guest, in a thread that ends with the process: a read of a terminal cannot be taken back.
fn forward_input(mut sender: StreamSender) -> Result<()> {
    let spawned = std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => {
                    let _ = sender.send(&Input::StdinEof);
                    return;
                }
                Ok(n) => {
                    if sender.send(&Input::Stdin(buffer[..n].to_vec())).is_err() {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    spawned.map(drop).context("cannot start a thread")
}

fn forward_signals(mut sender: StreamSender, which: &[i32]) -> Result<()> {
    let mut signals = Signals::new(which).context("cannot watch for signals")?;
    let spawned = std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            let input = match signal {
                SIGWINCH => match window() {
                    Ok(size) => Input::Resize(size),
                    Err(_) => continue,
                },
                other => Input::Signal(other),
            };
            if sender.send(&input).is_err() {
                return;
            }
        }
    });
    spawned.map(drop).context("cannot start a thread")
}

fn window() -> Result<WinSize> {
    let size = tcgetwinsize(std::io::stdin().as_fd()).context("cannot tell the terminal's size")?;
    Ok(WinSize { rows: size.ws_row, cols: size.ws_col, term: std::env::var("TERM").unwrap_or_default() })
}

/// The terminal in raw mode; the old mode comes back when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let old = tcgetattr(stdin.as_fd()).context("cannot read the terminal's mode")?;
        let mut raw = old.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Raw(old))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}
