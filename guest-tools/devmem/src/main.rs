//! `lab-devmem`: device-memory TCP in bulk, with the share of bytes that really were in device memory.
//!
//! `receive` binds a dma-buf to queues of a NIC and takes a connection's bytes out of it; `send` sends out of one. Either end
//! may be plain, ncdevmem or nc. `probe` and `refusals` ask the kernel what it can and what it must not do. The exit status is 0
//! if all was as it has to be, 1 if not, 2 if it could not be found out.

mod connection;
mod control;
mod dmabuf;
mod ethtool;
mod flow;
mod inflight;
mod netdev;
mod netlink;
mod options;
mod pattern;
mod probe;
mod receive;
mod refusal;
mod refusals;
mod report;
mod send;
mod stage;
mod sys;
mod tokens;
mod vfio;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::dmabuf::PAGE;
use crate::flow::Name;
use crate::options::{Bytes, Options, Queues};
use crate::report::Required;

const USAGE: &str = "\
lab-devmem receive --netdev NETDEV --queues 1,2 --port P [--address A] [--sink SINK] [--setup] [--memory MEMORY]
                   [--memory-size 64M] [--require-devmem PERCENT] [--bytes N] [--patience SECONDS] [--json]
lab-devmem receive --plain --port P [--address A] [--sink SINK] [--bytes N] [--patience SECONDS] [--json]
lab-devmem send --netdev NETDEV --to A --port P [--source SOURCE] [--bytes N] [--from A] [--from-port P] [--memory MEMORY]
                [--memory-size 64M] [--part 256K] [--patience SECONDS] [--json]
lab-devmem send --plain --to A --port P [--source SOURCE] [--bytes N] [--from A] [--from-port P] [--json]
lab-devmem probe --netdev NETDEV [--queue Q] [--json]
lab-devmem refusals --netdev NETDEV --queues 1,2 [--vfio PCI-ADDRESS]
SOURCE and SINK are pattern:SEED, ncdevmem:PERIOD, file:PATH, -, and discard for a sink; MEMORY is udmabuf, huge or heap;
sizes may end in K, M, G";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab-devmem: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn command(words: &[String]) -> Result<bool> {
    let Some((command, rest)) = words.split_first() else { bail!("{USAGE}") };
    match command.as_str() {
        "receive" => {
            let options = Options::parse(rest, &RECEIVE, &["plain", "setup", "json"])?;
            let required = Required {
                devmem: options.maybe("require-devmem")?,
                bytes: options.maybe("bytes")?.map(|Bytes(bytes)| bytes),
            };
            let plan = receive_plan(&options)?;
            let reception = receive::receive(&plan)?;
            let faults = reception.faults(required);
            let json = options.has("json").then(|| reception.json(&faults).to_string() + "\n");
            let report = json.unwrap_or_else(|| reception.text());
            // Where the stream itself is the output, the report is not mixed into it.
            if plan.sink == Name::Standard {
                eprint!("{report}")
            } else {
                print!("{report}")
            }
            for fault in &faults {
                eprintln!("lab-devmem: {fault}");
            }
            Ok(faults.is_empty())
        }
        "send" => {
            let options = Options::parse(rest, &SEND, &["plain", "json"])?;
            let sending = send::send(&send_plan(&options)?)?;
            let json = options.has("json").then(|| sending.json().to_string() + "\n");
            print!("{}", json.unwrap_or_else(|| sending.text()));
            Ok(true)
        }
        "probe" => {
            let options = Options::parse(rest, &["netdev", "queue"], &["json"])?;
            let facts = probe::probe(&options.one::<String>("netdev", None)?, options.maybe("queue")?)?;
            let json = options.has("json").then(|| facts.to_string() + "\n");
            print!("{}", json.unwrap_or_else(|| probe::text(&facts)));
            Ok(true)
        }
        "refusals" => {
            let options = Options::parse(rest, &["netdev", "queues", "vfio"], &[])?;
            let queues = options.one::<Queues>("queues", None)?.0;
            let vfio = options.maybe::<String>("vfio")?;
            refusals::refusals(&options.one::<String>("netdev", None)?, &queues, vfio.as_deref())
        }
        other => bail!("`{other}` is no command\n{USAGE}"),
    }
}

const RECEIVE: [&str; 10] =
    ["netdev", "queues", "address", "port", "sink", "memory", "memory-size", "require-devmem", "bytes", "patience"];

fn receive_plan(options: &Options) -> Result<receive::Plan> {
    let device = match options.has("plain") {
        true => {
            refuse_device(options, &["netdev", "queues", "memory", "memory-size", "setup", "require-devmem"])?;
            None
        }
        false => Some(receive::Device {
            netdev: options.one("netdev", None)?,
            queues: options.one("queues", None)?,
            memory: options.one("memory", Some("udmabuf"))?,
            size: memory_size(options)?,
            set_up: options.has("setup"),
        }),
    };
    Ok(receive::Plan {
        address: options.one::<IpAddr>("address", Some("::"))?,
        port: options.one("port", None)?,
        device,
        sink: options.one("sink", Some("discard"))?,
        patience: patience(options)?,
    })
}

const SEND: [&str; 11] =
    ["netdev", "to", "port", "from", "from-port", "source", "bytes", "memory", "memory-size", "part", "patience"];

fn send_plan(options: &Options) -> Result<send::Plan> {
    let device = match options.has("plain") {
        true => {
            refuse_device(options, &["netdev", "memory", "memory-size"])?;
            None
        }
        false => Some(send::Device {
            netdev: options.one("netdev", None)?,
            memory: options.one("memory", Some("udmabuf"))?,
            size: memory_size(options)?,
        }),
    };
    let Bytes(part) = options.one("part", Some("256K"))?;
    if part == 0 || device.as_ref().is_some_and(|device| part > device.size as u64) {
        bail!("--part {part}: a part has at least a byte, and at most those of the dma-buf");
    }
    Ok(send::Plan {
        to: SocketAddr::new(options.one("to", None)?, options.one("port", None)?),
        from: options.maybe("from")?,
        from_port: options.one("from-port", Some("0"))?,
        source: options.one("source", Some("-"))?,
        bytes: options.maybe("bytes")?,
        device,
        part: usize::try_from(part)?,
        patience: patience(options)?,
    })
}

fn refuse_device(options: &Options, names: &[&str]) -> Result<()> {
    match names.iter().find(|name| options.has(name)) {
        Some(name) => bail!("--{name} is about device memory, and --plain is to do without"),
        None => Ok(()),
    }
}

fn memory_size(options: &Options) -> Result<usize> {
    let Bytes(size) = options.one("memory-size", Some("64M"))?;
    let size = usize::try_from(size)?;
    if size == 0 || size % PAGE != 0 {
        bail!("--memory-size {size}: a dma-buf has whole pages of {PAGE} bytes");
    }
    Ok(size)
}

fn patience(options: &Options) -> Result<Duration> {
    match options.one("patience", Some("60"))? {
        0 => bail!("--patience 0: at least a second"),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        format!("{:#}", command(&words).unwrap_err())
    }

    #[test]
    fn mistakes_are_named_before_anything_is_done() {
        for (line, why) in [
            ("", "lab-devmem receive"),
            ("recieve", "`recieve` is no command"),
            ("receive --port 1", "--netdev is needed"),
            ("receive --netdev eth0 --port 1", "--queues is needed"),
            ("receive --netdev eth0 --queues 1", "--port is needed"),
            ("receive --netdev eth0 --queues 1 --port 70000", "--port 70000"),
            ("receive --netdev eth0 --queues 2-1 --port 1", "--queues 2-1: `2-1` is no range"),
            ("receive --netdev eth0 --queues 1 --port 1 --memory-size 5000", "whole pages"),
            ("receive --netdev eth0 --queues 1 --port 1 --require-devmem 101", "between 0 and 100"),
            ("receive --plain --netdev eth0 --port 1", "--netdev is about device memory"),
            ("receive --plain --port 1 --patience 0", "--patience 0"),
            ("receive --plain --port 1 --sink nowhere", "--sink nowhere"),
            ("send --plain --port 1", "--to is needed"),
            ("send --plain --to ::1 --port 1 --source pattern:1", "--bytes 1G"),
            ("send --netdev eth0 --to ::1 --port 1 --part 1G", "--part 1073741824"),
            ("send --to ::1 --port 1 --queues 1", "`--queues` is no option here"),
            ("probe", "--netdev is needed"),
            ("probe --netdev no-such-netdev", "there is no netdev `no-such-netdev`"),
            ("refusals --netdev eth0", "--queues is needed"),
            ("refusals --netdev eth0 --queues 1", "which two queues?"),
        ] {
            assert!(error(line).contains(why), "{line}: {}", error(line));
        }
    }
}
