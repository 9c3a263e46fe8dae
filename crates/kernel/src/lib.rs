//! Kernels: from a pinned source, a patch series and a configuration to an image, its modules and its selftests.
//!
//! In: a request (which source or package, which series, which fragments). Out: [`KernelArtifacts`], published whole in
//! the cache. A plan is data and says everything that can change the result; building is the only place with effects.

mod artifacts;

pub use artifacts::KernelArtifacts;
