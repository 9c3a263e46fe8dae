//! Questions and orders to the processes behind gvnics: a line of JSON each way on their control sockets.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use machine::{LaunchPlan, NicBackend};
use rustix::net::sockopt::socket_peercred;
use serde::Deserialize;
use suite::{Ledger, NicBooks};

use crate::control::{DeviceStatus, QueueStatus};
use crate::launch::Launch;
use crate::order::DeviceOrder;

/// How long a device may take to answer; it needs less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of the device's answer that is shown (`PortStatus` of the crate gvnic).
#[derive(Debug, Deserialize)]
struct Port {
    driver: String,
    link: bool,
    tx: Vec<TxQueue>,
    rx: Vec<RxQueue>,
    /// Whatever else is counted, by its name.
    control: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct TxQueue {
    frames: Frames,
    descriptors: Ledger,
}

#[derive(Debug, Deserialize)]
struct RxQueue {
    frames: Frames,
    buffers: Ledger,
}

#[derive(Debug, Deserialize)]
struct Frames {
    frames: u64,
    bytes: u64,
    #[serde(default)]
    split_frames: u64,
    #[serde(default)]
    header_bytes: u64,
    #[serde(default)]
    payload_bytes: u64,
    /// Drops by cause, and what is not shown.
    #[serde(flatten)]
    others: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Status(Port),
    Done,
    Refused(String),
}

/// The gvnics of a guest. One that does not answer is left out: why it is gone is in the guest's own state.
pub fn status(plan: &LaunchPlan) -> Vec<DeviceStatus> {
    devices(plan)
        .filter_map(|(port, socket)| match ask(&socket, "\"status\"\n").ok()? {
            (pid, Answer::Status(said)) => Some(describe(port, pid, said)),
            _ => None,
        })
        .collect()
}

/// The ports of a guest's gvnics, and their control sockets.
fn devices(plan: &LaunchPlan) -> impl Iterator<Item = (String, PathBuf)> {
    let gvnics = plan.nics.iter().enumerate().filter(|(_, nic)| matches!(nic.backend, NicBackend::Process { .. }));
    gvnics.map(|(n, _)| (format!("{}.{n}", plan.name), plan.device_control(n)))
}

/// Tells the device at a port what to do.
///
/// # Errors
/// When there is no gvnic at that port, its process does not answer, or it refuses.
pub fn order(launch: &Launch, port: &str, order: &DeviceOrder) -> Result<()> {
    let devices: BTreeMap<String, PathBuf> = launch.guests.iter().flat_map(|guest| devices(&guest.plan)).collect();
    let Some(socket) = devices.get(port) else {
        let there = if devices.is_empty() { "none".into() } else { devices.into_keys().collect::<Vec<_>>().join(", ") };
        bail!("no NIC `{port}` of this lab is a gvnic; there is {there} (`--profile gvnic` has some)");
    };
    let network = launch.networks.iter().find(|network| network.ports.iter().any(|other| other.name == port));
    let seed = network.map_or(0, |network| network.seed);
    match ask(socket, &order.line(seed)?).with_context(|| format!("NIC `{port}` does not take the order"))? {
        (_, Answer::Done) => Ok(()),
        (_, Answer::Refused(why)) => bail!("NIC `{port}` refuses: {why}"),
        (_, Answer::Status(_)) => bail!("NIC `{port}` tells how it is, where it was given an order"),
    }
}

/// The process that listens there, and what it answers.
fn ask(socket: &Path, line: &str) -> Result<(i32, Answer)> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let pid = socket_peercred(&stream)?.pid.as_raw_pid();
    stream.write_all(line.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok((pid, serde_json::from_str(&line).context("the device's answer is none")?))
}

fn describe(port: String, pid: i32, said: Port) -> DeviceStatus {
    let books = NicBooks {
        tx: said.tx.iter().map(|queue| queue.descriptors).sum(),
        rx: said.rx.iter().map(|queue| queue.buffers).sum(),
        events: said.control.clone(),
    };
    let queues = said.tx.iter().zip(&said.rx).zip(0..).map(|((tx, rx), id)| QueueStatus {
        id,
        tx_frames: tx.frames.frames,
        tx_bytes: tx.frames.bytes,
        rx_frames: rx.frames.frames,
        rx_bytes: rx.frames.bytes,
        split_frames: rx.frames.split_frames,
        header_bytes: rx.frames.header_bytes,
        payload_bytes: rx.frames.payload_bytes,
        dropped: tx.frames.dropped() + rx.frames.dropped(),
    });
    DeviceStatus { port, pid, driver: said.driver, link: said.link, queues: queues.collect(), books }
}

impl Frames {
    fn dropped(&self) -> u64 {
        self.others.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_every_cause_are_counted_together() {
        let rx = r#"{"setup":null,"frames":{"frames":3,"bytes":200,"split_frames":2,"header_bytes":108,"payload_bytes":92,
            "merged_segments":0,"drop_no_buffer":1,"drop_oversize":4},
            "buffers":{"posted":9,"consumed":3,"returned":3,"abandoned":2}}"#;
        let tx = r#"{"setup":null,"frames":{"frames":5,"bytes":300,"packets":2,"drop_malformed":8},
            "descriptors":{"posted":5,"consumed":5,"returned":5,"abandoned":0}}"#;
        let said = format!(
            r#"{{"mac":"x","driver":"GVE-1.0.0","link":true,"tx":[{tx}],"rx":[{rx}],"control":{{"driver_resets":2}}}}"#
        );
        let port = serde_json::from_str(&said).expect("a port");
        let status = describe("a.0".into(), 7, port);
        let queue = &status.queues[0];
        assert_eq!((status.port.as_str(), status.driver.as_str(), status.link), ("a.0", "GVE-1.0.0", true));
        assert_eq!((queue.tx_frames, queue.rx_frames, queue.split_frames, queue.dropped), (5, 3, 2, 13));
        assert_eq!((status.books.rx.outstanding(), status.books.tx.outstanding()), (4, 0));
        assert_eq!(status.books.events["driver_resets"], 2);
    }
}
