//! The matrix: every operation between every pair of memories, in many sizes and at odd places, each compared byte for byte
//! on the side where it arrives.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::buffer::{Buffer, Kind};
use crate::control::{self, Control};
use crate::device::{ALL_ACCESS, Connection, Device, Region, Work};
use crate::ffi;
use crate::pattern;
use crate::report::{Report, status_name};
use crate::serve::{IOVA, get_word, put_word};

const PAGE: usize = 4096;

/// What is run over which memories.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Memories of this end.
    pub local: Vec<Kind>,
    /// Memories of the other end.
    pub remote: Vec<Kind>,
    /// `write`, `read`, `send`, `fetch-add`, `cmp-swap`.
    pub operations: Vec<String>,
    /// Bytes of a transfer.
    pub sizes: Vec<usize>,
    /// Places in the memory; each is tried with its neighbour in the list as the place at the other end.
    pub offsets: Vec<usize>,
}

/// This end of a run.
pub struct Client {
    device: Rc<Device>,
    /// To the other end.
    pub control: Control,
    connection: Connection,
    key: u64,
}

/// The other end's region.
#[derive(Debug, Clone, Copy)]
pub struct Remote {
    /// Its address.
    pub iova: u64,
    /// Its key.
    pub rkey: u32,
}

/// The request of an operation's name.
fn opcode(operation: &str) -> Result<u32> {
    Ok(match operation {
        "write" => ffi::WR_WRITE,
        "read" => ffi::WR_READ,
        "send" => ffi::WR_SEND,
        "fetch-add" => ffi::WR_FETCH_ADD,
        "cmp-swap" => ffi::WR_CMP_SWAP,
        other => anyhow::bail!("`{other}` is no operation; there are write, read, send, fetch-add, cmp-swap"),
    })
}

impl Client {
    /// Connects queue pairs with a server.
    pub fn new(device: &str, mut control: Control) -> Result<Client> {
        let device = Device::open(device)?;
        let connection = connect(&device, &mut control)?;
        Ok(Client { device, control, connection, key: 0 })
    }

    /// A new connection, since an error ends the old one.
    pub fn reconnect(&mut self) -> Result<()> {
        self.connection = connect(&self.device, &mut self.control)?;
        Ok(())
    }

    /// A region of this end.
    pub fn region(&self, kind: Kind, length: usize) -> Result<Region> {
        Ok(self.device.register(Buffer::new(kind, length)?, IOVA + 0x10_0000_0000, ALL_ACCESS)?)
    }

    /// A region of the other end.
    pub fn remote(&mut self, kind: Kind, length: usize, access: u32) -> Result<Remote> {
        let answer = self.control.ask(&format!("region {kind} {length} {access}"))?;
        ensure!(answer.len() == 2, "a region has an address and a key");
        Ok(Remote { iova: answer[0], rkey: u32::try_from(answer[1])? })
    }

    /// Runs a request of this end.
    pub fn run(&self, region: &Region, work: &Work) -> Result<u32> {
        self.connection.run(region, work)
    }

    /// A key that was not used before.
    pub fn fresh_key(&mut self) -> u64 {
        self.key += 1;
        self.key
    }

    /// Runs a matrix.
    pub fn matrix(&mut self, matrix: &Matrix, report: &mut Report) -> Result<()> {
        let reach = matrix.offsets.iter().max().copied().unwrap_or(0);
        for local in &matrix.local {
            for remote in &matrix.remote {
                for size in &matrix.sizes {
                    // One page more, so that there are guards behind the longest.
                    let length = (reach + size).next_multiple_of(PAGE) + PAGE;
                    let mut near = self.region(*local, length)?;
                    let far = self.remote(*remote, length, ALL_ACCESS)?;
                    for operation in &matrix.operations {
                        let atomic = matches!(opcode(operation)?, ffi::WR_FETCH_ADD | ffi::WR_CMP_SWAP);
                        if atomic && *size != 8 {
                            continue;
                        }
                        for (n, offset) in matrix.offsets.iter().enumerate() {
                            let other = matrix.offsets[(n + 1) % matrix.offsets.len()];
                            // Only operands of atomics have to be aligned, and only at the other end.
                            let there = if atomic { other.next_multiple_of(8) } else { other };
                            let name = format!("{operation} {size} {local}+{offset} {remote}+{there}");
                            let places = (*offset, there);
                            if atomic {
                                self.atomic(operation, &mut near, far, places, &name, report)?;
                            } else {
                                self.transfer(operation, &mut near, far, places, *size, &name, report)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a case is that many things")]
    fn transfer(
        &mut self,
        operation: &str,
        near: &mut Region,
        far: Remote,
        (here, there): (usize, usize),
        size: usize,
        name: &str,
        report: &mut Report,
    ) -> Result<()> {
        let (key, stale) = (self.fresh_key(), self.fresh_key());
        let read = operation == "read";
        // The pattern where it comes from; where it is due, guards, and another pattern in its place.
        let (near_key, far_key) = if read { (stale, key) } else { (key, stale) };
        near.buffer()?.access(|memory| pattern::fill(memory, near_key, here, size))?;
        self.control.ask(&format!("fill {far_key} {there} {size}"))?;
        if operation == "send" {
            self.control.ask(&format!("receive {there} {size}"))?;
        }
        let start = Instant::now();
        let work = Work {
            opcode: opcode(operation)?,
            local: here as u64,
            remote: far.iova + there as u64,
            rkey: far.rkey,
            length: u32::try_from(size)?,
            operands: (0, 0),
        };
        let status = self.connection.run(near, &work)?;
        let took = start.elapsed();
        let mut good = status == 0;
        if operation == "send" && good {
            good = self.control.ask("received")? == [0, size as u64];
        }
        // Both sides: what was sent must not change either.
        let there_wrong = self.control.ask_one(&format!("check {key} {there} {size}"))?;
        let here_wrong = near.buffer()?.access(|memory| pattern::mismatches(memory, key, here, size))?;
        let wrong = here_wrong + there_wrong;
        let facts = json!({ "operation": operation, "bytes": size, "status": status_name(status), "us": took.as_micros() as u64 });
        report.case(name, good && wrong == 0, wrong, size as u64, facts);
        if status != 0 {
            self.reconnect()?;
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        operation: &str,
        near: &mut Region,
        far: Remote,
        (here, there): (usize, usize),
        name: &str,
        report: &mut Report,
    ) -> Result<()> {
        let before = pattern::GUARD as u64 + (self.fresh_key() << 33);
        // (compare or add, swap, what is there afterwards); a comparison that fails must change nothing.
        let rounds = match operation {
            "fetch-add" => vec![(0x1_0000_0001, 0, before.wrapping_add(0x1_0000_0001)), (u64::MAX, 0, before - 1)],
            _ => vec![(before, 77, 77), (before + 1, 77, before)],
        };
        for (compare_add, swap, after) in rounds {
            near.buffer()?.access(|memory| put_word(memory, here, 0))?;
            self.control.ask(&format!("word {there} {before}"))?;
            let work = Work {
                opcode: opcode(operation)?,
                local: here as u64,
                remote: far.iova + there as u64,
                rkey: far.rkey,
                length: 8,
                operands: (compare_add, swap),
            };
            let status = self.connection.run(near, &work)?;
            let answer = self.control.ask(&format!("value {there}"))?;
            let (fetched, here_wrong) = near.buffer()?.access(|memory| get_word(memory, here))?;
            let differ = |found: u64, due: u64| {
                found.to_ne_bytes().iter().zip(due.to_ne_bytes()).filter(|(a, b)| **a != *b).count() as u64
            };
            let (found, there_wrong) = (answer.first().copied().unwrap_or(0), answer.get(1).copied().unwrap_or(0));
            let wrong = differ(found, after) + differ(fetched, before) + here_wrong + there_wrong;
            let facts = json!({ "operation": operation, "bytes": 8, "status": status_name(status) });
            report.case(name, status == 0 && wrong == 0, wrong, 8, facts);
            if status != 0 {
                self.reconnect()?;
            }
        }
        Ok(())
    }
}

fn connect(device: &Rc<Device>, control: &mut Control) -> Result<Connection> {
    let connection = Connection::new(device, control.local()?)?;
    let answer = control.ask(&format!("connect {}", control::endpoint_line(connection.endpoint())))?;
    connection.connect(control::endpoint_of(&answer)?)?;
    Ok(connection)
}
