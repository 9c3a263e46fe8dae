//! Every byte a lab is made of: what it is (`lab.lock`), where it comes from (mirrors), and where it is kept (the cache).
//!
//! In: a [`Lock`] that pins packages and sources by size and SHA-256, and [`Recipe`]s that list the inputs of a build
//! step. Out: verified files and directories in a content-addressed [`Cache`], each published whole or not at all.
//! A step's [`Key`] is the hash of its inputs, so finding out that nothing is to be done costs a few `stat`s.

mod cache;
mod digest;
mod fetch;
mod flock;
mod fstree;
mod key;
mod lock;
mod mirrors;
mod prune;
mod recipe;
mod space;
mod why;
mod work;

pub use cache::{Built, Cache, Hold, Kind};
pub use digest::{sha256_bytes, sha256_file};
pub use fetch::{Attempt, Failure, FetchError, FetchOptions, FetchedSource, Fetcher, Refusal};
pub use fstree::remove_tree;
pub use key::{BadKey, Key};
pub use lock::{
    Alternative, AlternativeKind, Deb, Distribution, LOCK_VERSION, Lock, LockError, MirrorEntry, RootLock, RootSpec,
    Source, Wheel,
};
pub use mirrors::{Archive, MIRROR_VARIABLE, Mirror, Mirrors, Origin};
pub use prune::{PruneReport, Pruned, What};
pub use recipe::{Input, Recipe};
pub use space::{FreeSpace, free_space};
pub use why::{Change, Why};
pub use work::WorkDir;
