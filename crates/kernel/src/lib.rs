//! Kernels: from a pinned source, a patch series and a configuration to an image, its modules and its selftests.
//!
//! In: a request (which source or package, which series, which fragments). Out: [`KernelArtifacts`], published whole in
//! the cache. A plan is data and says everything that can change the result; building is the only place with effects.
//! Trees and objects are mutable, locked and shared: kernels of one source differ in a handful of files, so building
//! the second costs what those files cost.

mod apply;
mod artifacts;
mod build;
mod compile;
mod config;
pub mod dev;
mod git;
mod install;
mod kbuild;
mod kconfig;
mod lay;
mod make;
mod package;
mod plan;
mod rebuild;
mod selftests;
mod series;
mod source;
mod tree;
mod worktree;

pub use self::artifacts::{DESCRIPTION, KernelArtifacts};
pub use build::{BuiltKernel, Ctx, build};
pub use config::{Absent, ConfigError, Fragment, Request, Requests, Variables, Want, fragment_names};
pub use kbuild::Refused;
pub use plan::{BuildPlan, KernelPlan, KernelRequest, Kind, Origin, PlanError, SELFTESTS, plan};
pub use series::{Patch, Present, Series, SeriesError, names as series_names};
pub use tree::{Content, Descent, UserTree};
