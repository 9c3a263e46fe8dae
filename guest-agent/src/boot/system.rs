//! Small things every program relies on: the host name, `lo`, resource limits.

use std::io;

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::sys;

/// Sets them up. An empty name leaves the kernel's.
pub fn set_up(guest: &str, faults: &mut Vec<String>) {
    sys::ignore_broken_pipes();
    let mut check = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            faults.push(format!("{what}: {error}"));
        }
    };
    if !guest.is_empty() {
        check("setting the host name", rustix::system::sethostname(guest.as_bytes()).map_err(Into::into));
    }
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(io::Error::from);
    check("bringing lo up", socket.and_then(|socket| sys::bring_up(&socket, "lo")));
    // RDMA and dma-buf tests pin memory; sockets and queues are file descriptors.
    for (resource, limit) in [(Resource::Memlock, None), (Resource::Nofile, Some(1 << 16)), (Resource::Stack, None)] {
        let soft = if resource == Resource::Stack { Some(8 << 20) } else { limit };
        let result = setrlimit(resource, Rlimit { current: soft, maximum: limit });
        check(&format!("setting the limit {resource:?}"), result.map_err(Into::into));
    }
}
