//! Tools without installing them: pinned Debian packages, unpacked, and run from where they lie.

pub mod deb;
mod namespaces;
mod sandbox;

pub use namespaces::{NamespaceSupport, probe_namespaces};
pub use sandbox::{Bind, LayoutError, Running, Sandbox, SandboxError};
