//! What a kernel build leaves behind, as the image, the machine and the results need it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Name of the description inside a published kernel.
pub const DESCRIPTION: &str = "kernel.json";

/// One published kernel. Paths in [`DESCRIPTION`] are relative to its directory, so that a cache may be moved;
/// [`KernelArtifacts::load`] makes them absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelArtifacts {
    /// Name of the kernel in `lab.toml`: `patched`, `stock`…
    pub name: String,
    /// What `uname -r` says in the guest, for instance `7.3.4-lab`; also the folder below `lib/modules`.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// Directory that holds `lib/modules/<release>`, with depmod's data.
    pub modules: PathBuf,
    /// The ELF kernel with its symbol table (and DWARF only with the `debug-info` fragment); a distribution's binary
    /// package has none.
    pub vmlinux: Option<PathBuf>,
    /// Symbols and their addresses, as `nm` prints them.
    pub system_map: PathBuf,
    /// The complete configuration it was built with.
    pub config: PathBuf,
    /// Install tree of the selftests of this very source tree: `run_kselftest.sh`, `kselftest-list.txt`, `rdma/`,
    /// `net/lib/`…; the guest has it at `/usr/lib/kselftests`.
    pub selftests: Option<PathBuf>,
    /// Names the exact source: the hash of the tree's origin and of every patch applied.
    pub tree_id: String,
    /// Series applied, in order.
    pub series: Vec<String>,
    /// Series, or single patches of one as `series/patch`, left out because the tree already has them.
    pub present: Vec<String>,
    /// The alternative of the source that was used, as the lock names it.
    pub source_used: String,
    /// The directory all of this is in.
    #[serde(skip)]
    pub dir: PathBuf,
}

impl KernelArtifacts {
    /// Reads the description of the kernel published in `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(DESCRIPTION);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut this: Self = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        for path in [&mut this.image, &mut this.modules, &mut this.system_map, &mut this.config] {
            *path = dir.join(&*path);
        }
        for path in [&mut this.vmlinux, &mut this.selftests].into_iter().flatten() {
            *path = dir.join(&*path);
        }
        this.dir = dir.to_path_buf();
        Ok(this)
    }

    /// Writes the description into `dir`; the paths in `self` must be relative to it.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(DESCRIPTION);
        let mut text = serde_json::to_string_pretty(self).context("describe the kernel")?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// `<modules>/lib/modules/<release>`: `modules.dep`, `modules.builtin`, `kernel/`…
    pub fn modules_dir(&self) -> PathBuf {
        self.modules.join("lib/modules").join(&self.release)
    }
}
