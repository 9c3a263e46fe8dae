//! Questions to the processes behind gvnics, for `lab status`: a line of JSON each way on their control sockets.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use machine::{LaunchPlan, NicBackend};
use rustix::net::sockopt::socket_peercred;
use serde::Deserialize;

use crate::control::{DeviceStatus, QueueStatus};

/// How long a device may take to answer; it needs less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part of the device's answer that is shown (`PortStatus` of the crate gvnic).
#[derive(Debug, Deserialize)]
struct Port {
    driver: String,
    link: bool,
    tx: Vec<Queue>,
    rx: Vec<Queue>,
}

#[derive(Debug, Deserialize)]
struct Queue {
    frames: Frames,
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
}

/// The gvnics of a guest. One that does not answer is left out: why it is gone is in the guest's own state.
pub fn status(plan: &LaunchPlan) -> Vec<DeviceStatus> {
    let devices = plan.nics.iter().enumerate().filter(|(_, nic)| matches!(nic.backend, NicBackend::Process { .. }));
    devices
        .filter_map(|(n, _)| Some(describe(format!("{}.{n}", plan.name), ask(&plan.device_control(n)).ok()?)))
        .collect()
}

/// The process that listens there, and what it says.
fn ask(socket: &Path) -> Result<(i32, Port)> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let pid = socket_peercred(&stream)?.pid.as_raw_pid();
    stream.write_all(b"\"status\"\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let Answer::Status(port) = serde_json::from_str(&line).context("the device's answer is none")?;
    Ok((pid, port))
}

fn describe(port: String, (pid, said): (i32, Port)) -> DeviceStatus {
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
    DeviceStatus { port, pid, driver: said.driver, link: said.link, queues: queues.collect() }
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
            "merged_segments":0,"drop_no_buffer":1,"drop_oversize":4}}"#;
        let tx = r#"{"setup":null,"frames":{"frames":5,"bytes":300,"packets":2,"drop_malformed":8}}"#;
        let line = format!(r#"{{"status":{{"mac":"x","driver":"GVE-1.0.0","link":true,"tx":[{tx}],"rx":[{rx}]}}}}"#);
        let Answer::Status(port) = serde_json::from_str(&line).expect("an answer");
        let status = describe("a.0".into(), (7, port));
        let queue = &status.queues[0];
        assert_eq!((status.port.as_str(), status.driver.as_str(), status.link), ("a.0", "GVE-1.0.0", true));
        assert_eq!((queue.tx_frames, queue.rx_frames, queue.split_frames, queue.dropped), (5, 3, 2, 13));
    }
}
