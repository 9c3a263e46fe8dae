//! Kernels: where one comes from and what is laid over it.

use serde::Serialize;

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Its name in the file.
    pub name: String,
    /// Where it comes from.
    pub origin: KernelOrigin,
    /// Patch series, in the order they are applied; each is `kernel-patches/<name>/`. Empty for a stock package.
    pub series: Vec<String>,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum KernelOrigin {
    /// Built from source in the toolroot.
    Source {
        /// Name of the source in `lab.lock`, for instance `linux-7.3.4`.
        source: String,
        /// Config fragments, merged in this order; each is `templates/kernel/<name>.config`.
        fragments: Vec<String>,
        /// DWARF in `vmlinux`: an oops is decoded to lines, the build takes longer.
        debug_info: bool,
        /// BTF type information (implies DWARF while building).
        btf: bool,
    },
    /// The distribution's binary kernel as it is.
    Package {
        /// The release it calls itself, for instance `7.3.4+deb13-amd64`; package names derive from it.
        package: String,
    },
    /// A package kernel with only the modules that a series touches rebuilt against its headers.
    Rebuild {
        /// The kernel whose package is used: a key of `Lab::kernels` whose origin is `Package`.
        of: String,
    },
}
