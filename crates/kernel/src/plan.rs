//! What is to be built, as data.
//!
//! In: a [`KernelRequest`] (a kernel of `lab.toml`), the project's directory and the lock. Out: a [`KernelPlan`] that
//! holds everything that can change the result, read and checked, and from which the key in the cache follows. Making a
//! plan reads small files of the project and nothing else; nothing is fetched, unpacked or run.

use std::path::Path;

use artifacts::{Deb, Lock, LockError, Recipe, Source, sha256_bytes};
use serde::Serialize;

use crate::config::{ConfigError, Fragment, Requests, Variables, merge, render};
use crate::series::{Series, SeriesError};
use crate::tree::UserTree;

/// Selftests built with every kernel that comes with its source. A script is taken out of a folder that is not built as a
/// whole: `net` is a hundred programs, and the one about queue leases needs none of them.
pub const SELFTESTS: [&str; 5] = ["drivers/net", "drivers/net/hw", "net/lib", "net/nk_qlease.py", "rdma"];
/// Those of them for which the kernel is not asked to have all that their `config` wishes for: BTF, fault injection and
/// tunnels of every kind would make each kernel slower to build and to run for tests of other drivers.
pub const UNCONFIGURED: [&str; 2] = ["drivers/net", "drivers/net/hw"];

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A source of the lock, by name: `linux-7.3.4`.
    Source(String),
    /// The distribution's binary kernel, by release: `7.3.4+deb13-amd64`.
    Package(String),
    /// That kernel with only the modules rebuilt that a series touches.
    Rebuild(String),
    /// A tree of the user's own, looked at by [`UserTree::scan`].
    Tree(Box<UserTree>),
}

/// A kernel somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRequest {
    /// Its name in `lab.toml`.
    pub name: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Patch series, in order.
    pub series: Vec<String>,
    /// Config fragments, in order.
    pub fragments: Vec<String>,
    /// DWARF in vmlinux.
    pub debug_info: bool,
    /// BTF type information.
    pub btf: bool,
    /// Selftests to build, as `TARGETS` of their Makefile names them, and single scripts by their path; usually [`SELFTESTS`].
    pub selftests: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A series.
    #[error("kernel `{kernel}`: {error}")]
    Series {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        error: SeriesError,
    },
    /// The configuration.
    #[error("kernel `{kernel}`: {error}")]
    Config {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        error: ConfigError,
    },
    /// The lock lacks something.
    #[error("kernel `{kernel}`: {error}")]
    Lock {
        /// The kernel.
        kernel: String,
        /// What is missing.
        error: LockError,
    },
    /// The lock has another release of the distribution's kernel, or none.
    #[error("kernel `{kernel}`: root `stock` of lab.lock has no package {package}; the kernels it has: {}",
        known.join(", "))]
    Package {
        /// The kernel.
        kernel: String,
        /// The package that is missing.
        package: String,
        /// Releases there are.
        known: Vec<String>,
    },
}

/// How a kernel is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Kind {
    /// Compiled from a source of the lock.
    Source {
        /// The source with its alternatives.
        source: Source,
        /// How it is configured and what else is built.
        build: BuildPlan,
    },
    /// Compiled from the user's own tree.
    Tree {
        /// The tree as it was found.
        tree: UserTree,
        /// How it is configured and what else is built.
        build: BuildPlan,
    },
    /// Unpacked from binary packages.
    Package {
        /// `uname -r`.
        release: String,
        /// Image and modules.
        packages: Vec<Deb>,
    },
    /// Unpacked, with some modules rebuilt.
    Rebuild {
        /// `uname -r`.
        release: String,
        /// Image and modules.
        packages: Vec<Deb>,
        /// What modules are built against.
        headers: Vec<Deb>,
        /// Where the modules' source comes from, the form closest to the packages first.
        source: Source,
        /// Digest of the compiler packages.
        compiler: String,
    },
}

/// How a tree is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildPlan {
    /// The fragments, rendered.
    pub fragments: Vec<Fragment>,
    /// Every option they ask for.
    #[serde(skip)]
    pub requests: Requests,
    /// Selftests to build.
    pub selftests: Vec<String>,
    /// Digest of the compiler packages.
    pub compiler: String,
}

/// A kernel to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelPlan {
    /// Its name in `lab.toml`.
    pub name: String,
    /// Upstream version, as far as it is known: `7.3.4`.
    pub version: String,
    /// How it is made.
    pub kind: Kind,
    /// The series, read.
    pub series: Vec<Series>,
}

/// Raised when the same inputs come to be built into something else: part of every key.
const FORMAT: u32 = 1;

/// Packages of the lock's root `build` whose version can change what is compiled: names, or beginnings of names that end
/// in `*`. The rest (shells, git, apt) does not get into a kernel.
const COMPILER: [&str; 22] = [
    "bc",
    "binutils*",
    "bison",
    "bpftool",
    "clang*",
    "cpp*",
    "dwarves",
    "flex",
    "gcc*",
    "kmod",
    "libbpf*",
    "libc6*",
    "libcap*",
    "libelf*",
    "libgcc*",
    "libmnl*",
    "libnuma*",
    "linux-libc-dev",
    "llvm*",
    "lz4",
    "make",
    "pahole",
];

/// Works out what a request comes to. `project` holds `kernel-patches/` and `templates/`.
pub fn plan(request: &KernelRequest, project: &Path, lock: &Lock) -> Result<KernelPlan, PlanError> {
    let kernel = || request.name.clone();
    let lock_error = |error| PlanError::Lock { kernel: kernel(), error };
    let series_error = |error| PlanError::Series { kernel: kernel(), error };
    let patches = project.join("kernel-patches");
    let series: Vec<Series> = unique(&request.series)
        .map(|name| Series::load(&patches, name))
        .collect::<Result<_, _>>()
        .map_err(series_error)?;
    let build_plan = |version: &str| -> Result<BuildPlan, PlanError> {
        let variables = Variables { version: version.into(), debug_info: request.debug_info, btf: request.btf };
        let templates = project.join("templates/kernel");
        let config = |error| PlanError::Config { kernel: kernel(), error };
        let names: Vec<String> = unique(&request.fragments).cloned().collect();
        let fragments = render(&templates, &names, &variables).map_err(config)?;
        Ok(BuildPlan {
            requests: merge(&fragments).map_err(config)?,
            fragments,
            selftests: request.selftests.clone(),
            compiler: compiler(lock).map_err(lock_error)?,
        })
    };
    let (version, kind) = match &request.origin {
        Origin::Source(name) => {
            let source = lock.source(name).map_err(lock_error)?.clone();
            (source.version.clone(), Kind::Source { build: build_plan(&source.version)?, source })
        }
        Origin::Tree(tree) => {
            (tree.version.clone(), Kind::Tree { build: build_plan(&tree.version)?, tree: tree.as_ref().clone() })
        }
        Origin::Package(release) => {
            let packages = packages(lock, &request.name, release, &IMAGE)?;
            (upstream(release).into(), Kind::Package { release: release.clone(), packages })
        }
        Origin::Rebuild(release) => {
            let version = upstream(release);
            let mut source = lock.source(&format!("linux-{version}")).map_err(lock_error)?.clone();
            // The packages were built from the distribution's own tree, so its source is the closest.
            source.alternatives.sort_by_key(|a| a.kind != artifacts::AlternativeKind::Deb);
            let kind = Kind::Rebuild {
                packages: packages(lock, &request.name, release, &IMAGE)?,
                headers: packages(lock, &request.name, release, &HEADERS)?,
                compiler: compiler(lock).map_err(lock_error)?,
                source,
                release: release.clone(),
            };
            (version.into(), kind)
        }
    };
    // A user's own tree is the user's business: its version says little about what was merged into it.
    if !matches!(kind, Kind::Tree { .. }) {
        series.iter().try_for_each(|s| s.require(&version)).map_err(series_error)?;
    }
    Ok(KernelPlan { name: request.name.clone(), version, kind, series })
}

impl KernelPlan {
    /// What decides about the result, and nothing else.
    pub fn recipe(&self) -> Recipe {
        let mut recipe = Recipe::new(&format!("kernel:{}", self.name)).value("format", FORMAT);
        let sources = |recipe: Recipe, source: &Source| {
            source
                .alternatives
                .iter()
                .fold(recipe, |r, a| r.value(&format!("source {} ({})", source.name, a.name), &a.sha256))
        };
        let debs = |recipe: Recipe, debs: &[Deb]| {
            debs.iter().fold(recipe, |r, d| r.value(&format!("package {}", d.name), &d.sha256))
        };
        recipe = match &self.kind {
            Kind::Source { source, build } => build.add_to(sources(recipe, source)),
            Kind::Tree { tree, build } => build.add_to(recipe.value("tree", &tree.digest)),
            Kind::Package { packages, .. } => debs(recipe, packages),
            Kind::Rebuild { packages, headers, source, compiler, .. } => {
                debs(debs(sources(recipe, source), packages), headers).value("compiler", compiler)
            }
        };
        for series in &self.series {
            for patch in &series.patches {
                let sign = format!("{}:{}", patch.present.file, patch.present.contains);
                let value = format!("{} unless {}", patch.sha256, sha256_bytes(sign.as_bytes()).short());
                recipe = recipe.value(&format!("patch {series}/{}", patch.file), value);
            }
        }
        recipe
    }

    /// A phrase for people: what will be done.
    pub fn summary(&self) -> String {
        let series: Vec<&str> = self.series.iter().map(|s| s.name.as_str()).collect();
        let with = if series.is_empty() { String::new() } else { format!(" with series {}", series.join(", ")) };
        match &self.kind {
            Kind::Source { source, .. } => format!("compile {}{with}", source.name),
            Kind::Tree { tree, .. } => format!("compile {}{with}", tree.dir.display()),
            Kind::Package { release, .. } => format!("unpack {release}"),
            Kind::Rebuild { release, .. } => format!("unpack {release}, rebuild its modules{with}"),
        }
    }
}

impl BuildPlan {
    fn add_to(&self, mut recipe: Recipe) -> Recipe {
        for fragment in &self.fragments {
            recipe = recipe.value(&format!("config {}", fragment.name), sha256_bytes(fragment.text.as_bytes()));
        }
        recipe.value("selftests", self.selftests.join(" ")).value("compiler", &self.compiler)
    }
}

/// Packages of the distribution's kernel, by their names' beginnings; `*` stands for the release.
const IMAGE: [&str; 3] = ["linux-base-*", "linux-binary-*", "linux-modules-*"];
const HEADERS: [&str; 3] = ["linux-headers-*", "linux-headers-~-common", "linux-kbuild-~"];

fn packages(lock: &Lock, kernel: &str, release: &str, names: &[&str]) -> Result<Vec<Deb>, PlanError> {
    let root = lock.root("stock").map_err(|error| PlanError::Lock { kernel: kernel.into(), error })?;
    // Flavours of one release share some packages: 7.3.4+deb13-amd64 is a flavour of 7.3.4+deb13.
    let shared = release.rsplit_once('-').map_or(release, |(shared, _)| shared);
    let find = |name: &&str| {
        let package = name.replace('*', release).replace('~', shared);
        root.debs.iter().find(|deb| deb.name == package).map(|deb| (*deb).clone()).ok_or_else(|| {
            let known = root.debs.iter().filter_map(|deb| deb.name.strip_prefix("linux-binary-")).map(str::to_string);
            PlanError::Package { kernel: kernel.into(), package, known: known.collect() }
        })
    };
    names.iter().map(find).collect()
}

/// Names in their order, each where it comes first.
fn unique(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().enumerate().filter(|(n, name)| !names[..*n].contains(name)).map(|(_, name)| name)
}

/// `7.3.4` of `7.3.4+deb13-amd64`.
fn upstream(release: &str) -> &str {
    release.split(['+', '-']).next().unwrap_or(release)
}

fn compiler(lock: &Lock) -> Result<String, LockError> {
    let matches = |name: &str| {
        COMPILER.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    };
    let mut text = String::new();
    for deb in lock.root("build")?.debs.iter().filter(|deb| matches(&deb.name)) {
        text.push_str(&format!("{} {}\n", deb.name, deb.sha256));
    }
    Ok(sha256_bytes(text.as_bytes()).to_string())
}

#[cfg(test)]
mod tests;
