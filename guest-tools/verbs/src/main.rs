//! Tries RDMA verbs over every kind of memory a guest has, dma-bufs above all, and compares every byte.
//!
//! Two ends, `serve` and one of `matrix`, `ping`, `requests`, agree over TCP and move data over a reliable connection from
//! the addresses of that TCP connection. `registrations` and `probe` need no other end. Results are JSON lines on the
//! standard output; the exit status is 0 if all was as it has to be, 1 if not, 2 if it could not be found out.

mod buffer;
mod control;
mod device;
mod ffi;
mod options;
mod pattern;
mod ping;
mod probe;
mod refuse;
mod report;
mod serve;
mod transfer;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::control::Control;
use crate::options::Options;
use crate::report::Report;
use crate::transfer::{Client, Matrix};

const USAGE: &str = "\
lab-verbs serve --device D --address A [--port P]
lab-verbs matrix --device D --address A [--port P] [--local KINDS] [--remote KINDS] [--operations OPS] [--sizes N,…]
                 [--offsets N,…] [--end end|vanish|exit]
lab-verbs ping --device D --address A [--port P] [--local KIND] [--remote KIND] [--count N] [--size N]
lab-verbs requests --device D --address A [--port P] [--local KINDS]
lab-verbs registrations --device D
lab-verbs probe
KINDS are host, udmabuf, heap; OPS are write, read, send, fetch-add, cmp-swap";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab-verbs: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn command(words: &[String]) -> Result<bool> {
    let Some((command, rest)) = words.split_first() else { bail!("{USAGE}") };
    let mut report = Report::default();
    match command.as_str() {
        "probe" => {
            Options::parse(rest, &[])?;
            probe::probe()?;
            return Ok(true);
        }
        "registrations" => {
            let options = Options::parse(rest, &["device"])?;
            refuse::registrations(&options.one::<String>("device", None)?, &mut report)?;
        }
        "serve" => {
            let options = Options::parse(rest, &["device", "address", "port"])?;
            serve::serve(&options.one::<String>("device", None)?, address(&options)?)?;
            return Ok(true);
        }
        "matrix" => {
            let options = Options::parse(
                rest,
                &["device", "address", "port", "local", "remote", "operations", "sizes", "offsets", "end"],
            )?;
            let matrix = Matrix {
                local: options.list("local", "host,udmabuf,heap")?,
                remote: options.list("remote", "host,udmabuf,heap")?,
                operations: options.list("operations", "write,read,send,fetch-add,cmp-swap")?,
                sizes: options.list("sizes", "1,8,4097")?,
                offsets: options.list("offsets", "0,1,4093")?,
            };
            let end: String = options.one("end", Some("end"))?;
            let mut client = client(&options)?;
            client.matrix(&matrix, &mut report)?;
            match end.as_str() {
                "end" => client.control.ask("end")?,
                "vanish" => client.control.ask("vanish")?,
                "exit" => {
                    // Both ends leave everything registered and connected to the kernel.
                    client.control.ask("vanish")?;
                    std::process::exit(i32::from(!report.finish()));
                }
                other => bail!("--end {other}: there are end, vanish, exit"),
            };
        }
        "ping" => {
            let options = Options::parse(rest, &["device", "address", "port", "local", "remote", "count", "size"])?;
            let (local, remote) = (options.one("local", Some("udmabuf"))?, options.one("remote", Some("heap"))?);
            let (count, size) = (options.one("count", Some("10"))?, options.one("size", Some("64"))?);
            let mut client = client(&options)?;
            ping::ping(&mut client, local, remote, count, size, &mut report)?;
            client.control.ask("end")?;
        }
        "requests" => {
            let options = Options::parse(rest, &["device", "address", "port", "local"])?;
            let kinds: Vec<buffer::Kind> = options.list("local", "host,udmabuf,heap")?;
            let mut client = client(&options)?;
            refuse::requests(&mut client, &kinds, &mut report)?;
            client.control.ask("end")?;
        }
        other => bail!("`{other}` is no command\n{USAGE}"),
    }
    Ok(report.finish())
}

fn address(options: &Options) -> Result<SocketAddr> {
    Ok(SocketAddr::new(options.one::<IpAddr>("address", None)?, options.one("port", Some("18600"))?))
}

fn client(options: &Options) -> Result<Client> {
    let control = Control::connect(address(options)?)?;
    Client::new(&options.one::<String>("device", None)?, control)
}
