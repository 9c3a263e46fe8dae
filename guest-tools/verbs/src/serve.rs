//! The passive end: does what the other end asks for, one connection at a time, until it is told to end.
//!
//! | Command | Does | Answers |
//! |---|---|---|
//! | `connect QPN GID GID` | a new queue pair, connected to that one | its own |
//! | `region KIND LENGTH ACCESS` | a new region instead of the one before | address and key |
//! | `fill KEY OFFSET LENGTH` | the pattern, guards around it | |
//! | `check KEY OFFSET LENGTH` | compares | bytes that are wrong |
//! | `word OFFSET VALUE` | eight bytes, guards around them | |
//! | `value OFFSET` | reads eight bytes | the value, guard bytes that are wrong |
//! | `receive OFFSET LENGTH` | posts a receive | |
//! | `received` | waits for it | status and bytes |
//! | `run OPCODE OFFSET REMOTE KEY LENGTH` | a request of its own | status |
//! | `end`, `vanish` | ends in order, or with everything registered | |

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};

use crate::buffer::{Buffer, Kind};
use crate::control::{self, Control};
use crate::device::{Connection, Device, Region, Work};
use crate::pattern;

/// Where dma-bufs are registered: an address that is no virtual one of anybody's.
pub const IOVA: u64 = 0x7abc_0000_0000;

struct Session {
    device: Rc<Device>,
    connection: Option<Connection>,
    region: Option<Region>,
}

/// Serves one client.
pub fn serve(device: &str, address: SocketAddr) -> Result<()> {
    let device = Device::open(device)?;
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let (stream, _) = listener.accept()?;
    let mut control = Control::new(stream)?;
    let mut session = Session { device, connection: None, region: None };
    while let Some(line) = control.line()? {
        match line.as_str() {
            "end" => return control.say("ok"),
            "vanish" => {
                control.say("ok")?;
                // No destructor runs: the kernel has to clean up.
                std::process::exit(0);
            }
            command => match session.obey(command, &control) {
                Ok(answer) => control.say(format!("ok {answer}").trim_end())?,
                Err(error) => control.say(&format!("error {error:#}").replace('\n', " "))?,
            },
        }
    }
    bail!("the client went away without a word")
}

impl Session {
    fn obey(&mut self, line: &str, control: &Control) -> Result<String> {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        if command == "region" {
            let (kind, rest) = rest.split_once(' ').context("region KIND LENGTH ACCESS")?;
            let [length, access] = control::numbers(rest)?[..] else { bail!("region KIND LENGTH ACCESS") };
            // The old one first: two of the largest may not fit.
            self.region = None;
            let buffer = Buffer::new(kind.parse::<Kind>()?, usize::try_from(length)?)?;
            let region = self.device.register(buffer, IOVA, u32::try_from(access)?)?;
            let answer = format!("{} {}", region.iova, region.rkey());
            self.region = Some(region);
            return Ok(answer);
        }
        let numbers = control::numbers(rest)?;
        if command == "connect" {
            let connection = Connection::new(&self.device, control.local()?)?;
            connection.connect(control::endpoint_of(&numbers)?)?;
            let answer = control::endpoint_line(connection.endpoint());
            self.connection = Some(connection);
            return Ok(answer);
        }
        let region = self.region.as_mut().context("there is no region yet")?;
        let place = |n: usize| usize::try_from(numbers[n]);
        Ok(match (command, numbers.len()) {
            ("fill", 3) => {
                let (offset, length) = (place(1)?, place(2)?);
                region.buffer()?.access(|memory| pattern::fill(memory, numbers[0], offset, length))?;
                String::new()
            }
            ("check", 3) => {
                let (offset, length) = (place(1)?, place(2)?);
                let memory = region.buffer()?;
                memory.access(|memory| pattern::mismatches(memory, numbers[0], offset, length))?.to_string()
            }
            ("word", 2) => {
                let offset = place(0)?;
                region.buffer()?.access(|memory| put_word(memory, offset, numbers[1]))?;
                String::new()
            }
            ("value", 1) => {
                let offset = place(0)?;
                let (value, wrong) = region.buffer()?.access(|memory| get_word(memory, offset))?;
                format!("{value} {wrong}")
            }
            (command, count) => {
                let connection = self.connection.as_ref().context("there is no connection yet")?;
                match (command, count) {
                    ("receive", 2) => {
                        connection.receive(region, numbers[0], u32::try_from(numbers[1])?)?;
                        String::new()
                    }
                    ("received", 0) => {
                        let wc = connection.wait()?;
                        format!("{} {}", wc.status, wc.byte_len)
                    }
                    ("run", 5) => {
                        let work = Work {
                            opcode: u32::try_from(numbers[0])?,
                            local: numbers[1],
                            remote: numbers[2],
                            rkey: u32::try_from(numbers[3])?,
                            length: u32::try_from(numbers[4])?,
                            operands: (0, 0),
                        };
                        connection.run(region, &work)?.to_string()
                    }
                    _ => bail!("`{line}` is no command"),
                }
            }
        })
    }
}

/// Guard bytes, and a value at `offset`, in the byte order of the processor as atomics have it.
pub fn put_word(memory: &mut [u8], offset: usize, value: u64) {
    memory.fill(pattern::GUARD);
    memory[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
}

/// The value at `offset`, and how many bytes around it are no guard bytes.
pub fn get_word(memory: &mut [u8], offset: usize) -> (u64, u64) {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&memory[offset..offset + 8]);
    let wrong = pattern::guards(&memory[..offset]) + pattern::guards(&memory[offset + 8..]);
    (u64::from_ne_bytes(bytes), wrong)
}
