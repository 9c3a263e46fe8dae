//! How the two ends agree: lines over TCP, one command and one answer at a time.
//!
//! A command is a word and its numbers; the answer is `ok` with numbers, or `error` with a reason. The data itself goes
//! through the queue pairs only, so a check on one side says nothing of what the other side believes.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::device::{self, Endpoint};
use crate::ffi::Gid;

/// An answer may have to wait for a completion at the other end, which is to say by itself that none came.
const PATIENCE: Duration = Duration::from_secs(device::PATIENCE.as_secs() + 60);
/// How long the server may take to listen.
const CONNECT: Duration = Duration::from_secs(30);

/// One end of a control connection.
pub struct Control {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Control {
    /// Connects to a server.
    pub fn connect(address: SocketAddr) -> Result<Control> {
        let end = Instant::now() + CONNECT;
        loop {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Control::new(stream),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error).with_context(|| format!("cannot connect to {address}")),
            }
        }
    }

    /// Takes an accepted connection.
    pub fn new(stream: TcpStream) -> Result<Control> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Control { reader: BufReader::new(stream.try_clone()?), writer: stream })
    }

    /// The address of this end, which is also that of its queue pairs.
    pub fn local(&self) -> Result<IpAddr> {
        Ok(self.writer.local_addr()?.ip())
    }

    /// Reads a line; none at the end of the connection.
    pub fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line).context("waiting for the other end")?;
        Ok((read > 0).then(|| line.trim_end().to_owned()))
    }

    /// Writes a line.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.writer.write_all(format!("{line}\n").as_bytes()).context("telling the other end")
    }

    /// Asks the server; returns the numbers of its answer.
    pub fn ask(&mut self, command: &str) -> Result<Vec<u64>> {
        self.say(command)?;
        let answer = self.line()?.with_context(|| format!("the server went away when told `{command}`"))?;
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", rest) => numbers(rest).with_context(|| format!("the server's answer to `{command}`")),
            (_, why) => bail!("the server answers `{command}` with: {why}"),
        }
    }

    /// Asks for one number.
    pub fn ask_one(&mut self, command: &str) -> Result<u64> {
        let numbers = self.ask(command)?;
        numbers.first().copied().with_context(|| format!("the server's answer to `{command}` has no number"))
    }
}

/// The numbers of a line.
pub fn numbers(text: &str) -> Result<Vec<u64>> {
    text.split_ascii_whitespace().map(|word| word.parse().with_context(|| format!("`{word}` is no number"))).collect()
}

/// An endpoint as the three numbers that go over the line.
pub fn endpoint_line(endpoint: Endpoint) -> String {
    let gid = u128::from_be_bytes(endpoint.gid.0);
    format!("{} {} {}", endpoint.qpn, (gid >> 64) as u64, gid as u64)
}

/// The endpoint of three numbers.
pub fn endpoint_of(numbers: &[u64]) -> Result<Endpoint> {
    let [qpn, high, low] = numbers else { bail!("an endpoint is three numbers, not {}", numbers.len()) };
    let gid = (u128::from(*high) << 64) | u128::from(*low);
    Ok(Endpoint { qpn: u32::try_from(*qpn)?, gid: Gid(gid.to_be_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_the_line() {
        let endpoint = Endpoint { qpn: 17, gid: Gid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]) };
        assert_eq!(endpoint_of(&numbers(&endpoint_line(endpoint)).unwrap()).unwrap(), endpoint);
    }
}
