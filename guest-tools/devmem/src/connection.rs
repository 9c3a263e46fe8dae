//! The TCP connection of a run, and waiting for it with a limit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::sys;

/// Listens, and takes the first connection. There is no limit to that: who waits for nobody is ended by a signal.
///
/// # Errors
/// When the address is not ours, or the port taken.
pub fn accept(address: SocketAddr) -> Result<TcpStream> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let (stream, _) = listener.accept().context("nobody connected")?;
    Ok(stream)
}

/// Connects, from an address and through a netdev if they are given.
///
/// # Errors
/// When nobody listens there, or there is no way to it.
pub fn connect(to: SocketAddr, from: Option<IpAddr>, from_port: u16, netdev: Option<&str>) -> Result<TcpStream> {
    let (family, any) = match to {
        SocketAddr::V4(_) => (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("cannot make a socket")?;
    if let Some(netdev) = netdev {
        sys::bind_to_device(&socket, netdev)
            .with_context(|| format!("cannot bind a socket to {netdev} (SO_BINDTODEVICE)"))?;
    }
    if from.is_some() || from_port != 0 {
        let from = SocketAddr::new(from.unwrap_or(any), from_port);
        sockopt::set_socket_reuseaddr(&socket, true).context("SO_REUSEADDR")?;
        rustix::net::bind(&socket, &from).with_context(|| format!("cannot send from {from}"))?;
    }
    rustix::net::connect(&socket, &to).with_context(|| format!("cannot connect to {to}"))?;
    Ok(TcpStream::from(socket))
}

/// Waits for something of a socket, and for errors, which are always of interest.
///
/// # Errors
/// When nothing comes for `patience`.
pub fn wait(socket: impl AsFd, events: PollFlags, patience: Duration, what: &str) -> Result<PollFlags> {
    let socket = socket.as_fd();
    let limit = Timespec { tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    let mut sockets = [PollFd::new(&socket, events)];
    loop {
        match poll(&mut sockets, Some(&limit)) {
            Ok(0) => bail!("{what} for {} s; --patience SECONDS waits longer", patience.as_secs()),
            Ok(_) => return Ok(sockets[0].revents()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error)).context("poll"),
        }
    }
}
