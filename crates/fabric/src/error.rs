//! What can go wrong with a switch.

use std::io;
use std::path::PathBuf;

/// Why a switch could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum FabricError {
    /// Two ports of one name.
    #[error("network `{network}` has two ports called `{port}`")]
    DuplicatePort {
        /// The network.
        network: String,
        /// The name.
        port: String,
    },
    /// An MTU that IP cannot use or the stream cannot carry.
    #[error("port `{port}` of network `{network}`: MTU {mtu}; an MTU is 68 to 65535 bytes")]
    BadMtu {
        /// The network.
        network: String,
        /// The port.
        port: String,
        /// The MTU, in bytes.
        mtu: u32,
    },
    /// A port nobody knows.
    #[error("network `{network}` has no port `{port}`; it has {}", list(.ports))]
    UnknownPort {
        /// The network.
        network: String,
        /// What was asked for.
        port: String,
        /// What there is.
        ports: Vec<String>,
    },
    /// A link from a port to itself.
    #[error("port `{port}` of network `{network}` has no link to itself: a fault needs two ports")]
    SelfLink {
        /// The network.
        network: String,
        /// The port.
        port: String,
    },
    /// A fault no link can have.
    #[error("no link can have {field} = {value}: {allowed}")]
    BadFault {
        /// Field of [`crate::Fault`].
        field: &'static str,
        /// Its value.
        value: String,
        /// What the field may be.
        allowed: String,
    },
    /// A socket that cannot be listened on.
    #[error("port `{port}` cannot listen on {}: {source}", .socket.display())]
    Listen {
        /// The port.
        port: String,
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("port `{port}` cannot listen on {}: another process does; stop the lab it belongs to", .socket.display())]
    SocketInUse {
        /// The port.
        port: String,
        /// Its socket.
        socket: PathBuf,
    },
    /// The kernel refused something a switch needs.
    #[error("network `{network}`: cannot {what}: {source}")]
    System {
        /// The network.
        network: String,
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A capture's file that cannot be written.
    #[error("cannot write the capture of port `{port}` to {}: {source}", .file.display())]
    Capture {
        /// The port.
        port: String,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The switch runs no longer.
    #[error("the switch of network `{network}` has stopped")]
    Stopped {
        /// The network.
        network: String,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
