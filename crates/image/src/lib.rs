//! What a guest boots from and lives in: file system images and the initramfs, from packages and kernels.
//!
//! In: an image [`Definition`] and the lock, a finished kernel, the agent. Out, each in the cache and each the same
//! bytes whenever and wherever it is built:
//!
//! * `base.erofs` ([`build_base`]): the packages, pruned and put in order; the same for every kernel;
//! * `kit.erofs` ([`build_kit`]): one kernel's modules and selftests and the lab's own programs;
//! * `initramfs.cpio` ([`build_initramfs`]): the agent, and the modules without which a guest cannot reach the others.
//!
//! A guest mounts the kit over the base and a tmpfs over both. Nothing is installed, no maintainer script is run and no
//! privilege is needed: packages stream into a [`Tree`] in memory, and the tree streams as a tar into `mkfs.erofs`.
//! [`Manifest`] tells what an image holds without opening it.

mod base;
mod built;
pub mod cpio;
mod definition;
mod erofs;
mod fixups;
mod initramfs;
mod kit;
mod manifest;
mod modules;
mod payload;
mod prune;
mod python;
mod tarball;
mod tree;

pub use base::{BasePlan, base_plan, build_base};
pub use built::{BuiltImage, Ctx};
pub use definition::{Definition, Directory, File, Filesystem, Mode, Python};
pub use erofs::arguments as mkfs_arguments;
pub use initramfs::{Initramfs, InitramfsPlan, NEEDED, build_initramfs, initramfs_plan};
pub use kit::{Extra, KitPlan, build_kit, kit_plan};
pub use manifest::{Entry, Filter, Manifest, Origin};
pub use payload::Pruned;
pub use prune::{Pattern, Prune};
pub use tree::{Content, Kind, Node, Tree, TreeError};
