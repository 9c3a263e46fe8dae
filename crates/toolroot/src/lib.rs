//! Tools without installing them: pinned Debian packages, unpacked, and run from where they lie.
//!
//! In: packages named by `lab.lock`. Out: [`Toolroot`]s in the cache, and three ways to use one: [`Sandbox`] runs a
//! program as if the toolroot were the machine (rootless namespaces), [`Toolroot::loader`] runs one as a plain process
//! of the host, [`LinkerShim`] has the host's cargo link guest programs with it. No maintainer script is ever run; the little they would have done that matters is declared in
//! `images/toolroot.toml` ([`FixUps`]).

pub mod deb;
mod fixups;
mod linker;
mod loader;
mod namespaces;
pub mod resolve;
mod root;
mod sandbox;
mod tree;
mod unpack;

pub use fixups::{Copy, FixUpSet, FixUps, Join, Link, Text};
pub use linker::LinkerShim;
pub use loader::LoaderError;
pub use namespaces::{NamespaceSupport, probe_namespaces};
pub use root::Toolroot;
pub use sandbox::{Bind, LayoutError, Running, Sandbox, SandboxError};
pub use unpack::{Package, UnpackError, unpack};
