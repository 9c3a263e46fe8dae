//! AF_XDP over a queue of a NIC, also a leased one: numbered packets are received where the NIC put them, compared, and sent
//! back from there (Documentation/networking/af_xdp.rst, netkit in mode single).
//!
//! `receive` binds a socket to a queue of a netdev, in a namespace of its own if need be, and has the NIC's XDP program lead that
//! queue's packets to it. `send` is an ordinary UDP socket. Results are lines of `name value`. The exit status is 0 if all is as
//! it should be, 1 if not, 2 if it could not be found out.

mod bpf;
mod packet;
mod rings;
mod socket;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use packet::Numbered;
use socket::{Fate, Socket};

/// AF_XDP over a queue of a NIC.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    /// Receives numbered packets, compares them, and sends them back if told to.
    Receive(Receiver),
    /// Sends numbered packets from an ordinary socket, and waits for them to come back if told to.
    Send(Sender),
}

#[derive(Debug, clap::Args)]
struct Receiver {
    /// The netdev the socket is bound to: a NIC, or a netkit that leases a queue of it.
    #[arg(long)]
    netdev: String,
    /// The namespace that netdev is in, as `ip netns` names it.
    #[arg(long)]
    netns: Option<String>,
    /// Its queue.
    #[arg(long)]
    queue: u32,
    /// The NIC, here; the netdev itself unless told otherwise.
    #[arg(long)]
    nic: Option<String>,
    /// The NIC's queue that it is; the same number unless told otherwise.
    #[arg(long)]
    nic_queue: Option<u32>,
    /// Have the kernel copy, where the driver's zero copy is not asked for.
    #[arg(long)]
    copy: bool,
    /// Ends after so many.
    #[arg(long)]
    packets: u64,
    /// Sends each back to where it came from.
    #[arg(long)]
    echo: bool,
    /// Seconds for which nothing may come.
    #[arg(long, default_value_t = 10)]
    patience: u64,
}

#[derive(Debug, clap::Args)]
struct Sender {
    /// Where to: an address and a UDP port.
    #[arg(long)]
    to: SocketAddr,
    /// How many.
    #[arg(long)]
    packets: u64,
    /// Each has to come back.
    #[arg(long)]
    echoed: bool,
    /// How many are under way at a time at most.
    #[arg(long, default_value_t = 16)]
    window: u64,
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Receive(asked) => receive(&asked),
        Cli::Send(asked) => send(&asked),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab-xsk: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs something in a network namespace, and comes back.
fn within<T>(netns: Option<&str>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(name) = netns else { return work() };
    let open = |path: String| File::open(&path).with_context(|| format!("cannot open the network namespace {path}"));
    let (here, there) = (open("/proc/thread-self/ns/net".into())?, open(format!("/run/netns/{name}"))?);
    let go = |file: &File| {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("cannot change the namespace")
    };
    go(&there)?;
    let done = work();
    go(&here)?;
    done
}

fn receive(asked: &Receiver) -> Result<bool> {
    let nic = asked.nic.as_deref().unwrap_or(&asked.netdev);
    let sockets = bpf::Sockets::new().context("cannot make a map of AF_XDP sockets; is this root?")?;
    // The driver makes its queues anew for the program, and the socket's with it once there is one.
    let program = sockets.redirect(socket::index(nic)?);
    let _program = program.with_context(|| format!("cannot have an XDP program on {nic}"))?;
    let mut socket = within(asked.netns.as_deref(), || Socket::bind(&asked.netdev, asked.queue, !asked.copy))?;
    sockets
        .set(asked.nic_queue.unwrap_or(asked.queue), socket.as_fd())
        .context("cannot put the socket into the map")?;
    eprintln!("lab-xsk: ready");

    let (mut packets, mut bytes, mut wrong, mut others, mut echoed) = (0, 0, 0, 0, 0);
    let mut last = Instant::now();
    while packets < asked.packets && last.elapsed() < Duration::from_secs(asked.patience) {
        socket.receive(Duration::from_millis(100), |frame| {
            let Some(payload) = packet::payload(frame) else {
                others += 1;
                return Fate::Done;
            };
            last = Instant::now();
            packets += 1;
            bytes += payload.len() as u64;
            wrong += u64::from(Numbered::read(payload).is_none());
            if asked.echo && packet::turn(frame) {
                echoed += 1;
                Fate::Send
            } else {
                Fate::Done
            }
        })?;
    }
    let sent = socket.finish(Duration::from_secs(2))?;
    let zero_copy = u8::from(socket.is_zero_copy()?);
    println!("packets {packets}\nbytes {bytes}\nwrong_packets {wrong}\nother_frames {others}");
    println!("echoed {echoed}\ntransmitted {sent}\nzero_copy {zero_copy}");
    Ok(packets >= asked.packets && wrong == 0 && sent == echoed)
}

fn send(asked: &Sender) -> Result<bool> {
    let any = if asked.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("cannot make a UDP socket")?;
    socket.connect(asked.to).with_context(|| format!("cannot reach {}", asked.to))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let (mut back, mut wrong, mut lost) = (0, 0, 0);
    let mut buffer = [0; 2048];
    for number in 0..asked.packets {
        let packet = Numbered(number).bytes();
        socket.send(&packet).with_context(|| format!("cannot send to {}", asked.to))?;
        if !asked.echoed {
            // So that a receiver without a socket buffer keeps up.
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let last = number + 1 == asked.packets;
        while number + 1 - back - lost >= asked.window || (last && back + lost < asked.packets) {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    back += 1;
                    wrong += u64::from(Numbered::read(&buffer[..length]).is_none());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => lost = number + 1 - back,
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
    println!("sent {}\nback {back}\nwrong_back {wrong}\nlost {lost}", asked.packets);
    Ok(!asked.echoed || (back == asked.packets && wrong == 0))
}
