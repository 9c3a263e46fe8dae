//! The kit: everything in a guest that belongs to one kernel or to the lab itself, laid over the base image.
//!
//! Modules, the upstream selftests built from the very tree, and programs of the lab's own. So changing a kernel or a
//! program never rebuilds the base image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use artifacts::{Key, Kind as CacheKind, Lock, Recipe, sha256_file};
use kernel::KernelArtifacts;

use crate::base::writers;
use crate::built::{self, BuiltImage, Ctx};
use crate::definition::{Filesystem, inside};
use crate::manifest::Manifest;
use crate::tree::{Content, Node, Tree};

/// Raised whenever the same inputs would give another image.
const FORMAT: u32 = 2;
/// The image's file name.
pub const FILE: &str = "kit.erofs";
/// UUID in a kit's superblock.
const UUID: &str = "6c61622d-6b69-4374-8000-000000000001";
/// Where a kernel's modules go.
const MODULES: &str = "usr/lib/modules";
/// Where the upstream selftests go.
const SELFTESTS: &str = "usr/lib/kselftests";

/// A file of the lab's own for the guest: a program, a script, data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Path in the guest, for instance `/usr/lib/devmem-lab/verbs`.
    pub inside: String,
    /// The file on the host.
    pub source: PathBuf,
    /// Permissions in the guest.
    pub mode: u32,
    /// Stands for its content: its hash, or the key of what made it.
    pub digest: Key,
}

impl Extra {
    /// A file known by its content, which is hashed now.
    pub fn hashed(inside: &str, source: &Path, mode: u32) -> Result<Self> {
        let digest = sha256_file(source)?;
        Ok(Extra { inside: inside.to_owned(), source: source.to_owned(), mode, digest })
    }
}

/// What a kit is made of.
#[derive(Debug, Clone)]
pub struct KitPlan {
    /// Name of the kernel in `lab.toml`.
    pub kernel: String,
    /// Files besides the kernel's.
    pub extras: Vec<Extra>,
    /// Time and compression, as for the base image.
    pub filesystem: Filesystem,
    recipe: Recipe,
}

/// Plans the kit of a kernel, which may not be built yet: `key` is that of its recipe.
pub fn kit_plan(kernel: &str, key: &Key, extras: &[Extra], filesystem: &Filesystem, lock: &Lock) -> Result<KitPlan> {
    let filesystem = Filesystem { uuid: UUID.to_owned(), ..filesystem.clone() };
    let text = serde_json::to_string(&filesystem).context("describing the kit's file system")?;
    let mut recipe = Recipe::new(&format!("kit:{kernel}"))
        .value("format", FORMAT)
        .value("filesystem", text)
        .value("mkfs", writers(lock)?)
        .key_of("kernel", key);
    let mut sorted = extras.to_vec();
    sorted.sort_by(|a, b| a.inside.cmp(&b.inside));
    for pair in sorted.windows(2) {
        if pair[0].inside == pair[1].inside {
            bail!("two files are to become {} in the kit of kernel {kernel}", pair[0].inside);
        }
    }
    for extra in &sorted {
        inside(&extra.inside)?;
        recipe = recipe.value(&extra.inside, format!("{:04o} {}", extra.mode, extra.digest));
    }
    Ok(KitPlan { kernel: kernel.to_owned(), extras: sorted, filesystem, recipe })
}

impl KitPlan {
    /// The recipe, for [`artifacts::Cache::why`].
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The key of the image.
    pub fn key(&self) -> Key {
        self.recipe.key()
    }
}

/// Has the kit in the cache: looks it up, or builds it from a finished kernel.
pub fn build_kit(plan: &KitPlan, kernel: &KernelArtifacts, ctx: &Ctx<'_>) -> Result<BuiltImage> {
    let built = ctx.cache.with_progress(ctx.progress).get_or_build(CacheKind::Image, &plan.recipe, |dir| {
        let tree = tree(plan, kernel)?;
        let manifest = Manifest::of(&tree, &[], &BTreeMap::new());
        built::publish(&tree, &plan.filesystem, &manifest, dir, FILE, ctx)
    })?;
    if built.cached {
        ctx.progress.step(format!("kit:{}", plan.kernel), format!("kit of kernel {}", plan.kernel)).cached();
    }
    BuiltImage::open(built)
}

/// The kit's files.
fn tree(plan: &KitPlan, kernel: &KernelArtifacts) -> Result<Tree> {
    let mut tree = Tree::new();
    let modules = kernel.modules_dir();
    if !modules.join("modules.dep").is_file() {
        bail!("kernel {} has no {}/modules.dep; depmod did not run there", kernel.name, modules.display());
    }
    add_dir(&mut tree, &modules, &format!("{MODULES}/{}", kernel.release), &Arc::from("kernel"))?;
    // Where the guest looks up what its kernel was configured with.
    let config = Node::file(outside(&kernel.config)?, 0o644, &Arc::from("kernel"));
    tree.put(&format!("{MODULES}/{}/config", kernel.release), config)?;
    if let Some(selftests) = &kernel.selftests {
        add_dir(&mut tree, selftests, SELFTESTS, &Arc::from("selftests"))?;
    }
    let lab: Arc<str> = Arc::from("lab");
    for extra in &plan.extras {
        let content = outside(&extra.source)?;
        tree.put(inside(&extra.inside)?, Node::file(content, extra.mode, &lab))?;
    }
    tree.settle(&lab)?;
    Ok(tree)
}

/// Links of a modules directory that lead to the build tree, which no guest has.
const BUILD_LINKS: [&str; 2] = ["build", "source"];

/// Adds a directory of the host's. Owners become root and permissions 0755 or 0644, whatever the umask was.
fn add_dir(tree: &mut Tree, dir: &Path, inside: &str, origin: &Arc<str>) -> Result<()> {
    let context = || format!("reading {}", dir.display());
    tree.put(inside, Node::directory(0o755, origin))?;
    for entry in fs::read_dir(dir).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let target = format!("{inside}/{name}");
        let kind = entry.file_type().with_context(context)?;
        if kind.is_dir() {
            add_dir(tree, &path, &target, origin)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&path).with_context(|| format!("reading {}", path.display()))?;
            let link = link.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            if !(BUILD_LINKS.contains(&name) && link.starts_with('/')) {
                tree.put(&target, Node::symlink(link, origin))?;
            }
        } else if kind.is_file() {
            let mode = entry.metadata().with_context(context)?.permissions().mode();
            let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
            tree.put(&target, Node::file(outside(&path)?, mode, origin))?;
        } else {
            bail!("{} is neither file, directory nor link", path.display());
        }
    }
    Ok(())
}

fn outside(path: &Path) -> Result<Content> {
    let size = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len();
    Ok(Content::Outside { path: path.to_owned(), size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn filesystem() -> Filesystem {
        Filesystem { uuid: "x".into(), epoch: 1, compression: "lz4".into(), cluster: 65536 }
    }

    fn kernel(dir: &Path) -> KernelArtifacts {
        let modules = dir.join("modules");
        fs::create_dir_all(modules.join("lib/modules/7.3.4-lab/kernel/fs")).unwrap();
        let at = |name: &str| modules.join("lib/modules/7.3.4-lab").join(name);
        fs::write(at("modules.dep"), "").unwrap();
        fs::write(dir.join("config"), "CONFIG_RDMA_RXE=m\n").unwrap();
        fs::write(at("kernel/fs/a.ko"), "elf").unwrap();
        std::os::unix::fs::symlink("/home/somebody/linux", at("build")).unwrap();
        fs::create_dir_all(dir.join("selftests/rdma")).unwrap();
        let script = dir.join("selftests/rdma/rxe.sh");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        KernelArtifacts {
            name: "patched".into(),
            release: "7.3.4-lab".into(),
            image: dir.join("bzImage"),
            modules,
            vmlinux: None,
            system_map: dir.join("System.map"),
            config: dir.join("config"),
            selftests: Some(dir.join("selftests")),
            tree_id: String::new(),
            series: vec![],
            present: vec![],
            source_used: String::new(),
            dir: dir.to_owned(),
        }
    }

    fn lock() -> Lock {
        let text = "version = 1\n[distribution]\nsuites = [\"trixie\"]\nsnapshot = \"20251122T150000Z\"\n\
                    [[root]]\nname = \"vm\"\nrequested = []\nmembers = []\n";
        Lock::parse(text, Path::new("lab.lock")).unwrap()
    }

    fn extra(inside: &str, source: &Path) -> Extra {
        Extra::hashed(inside, source, 0o755).unwrap()
    }

    #[test]
    fn a_kit_is_modules_selftests_and_the_labs_own_files() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = kernel(dir.path());
        let program = dir.path().join("verbs");
        fs::write(&program, "elf").unwrap();
        let key = artifacts::sha256_bytes(b"kernel");
        let extras = [extra("/usr/lib/devmem-lab/verbs", &program)];
        let plan = kit_plan("patched", &key, &extras, &filesystem(), &lock()).unwrap();
        let tree = tree(&plan, &kernel).unwrap();
        let files: Vec<String> = tree
            .iter()
            .filter(|(_, node)| !matches!(node.kind, Kind::Directory))
            .map(|(path, node)| format!("{path} {:o} {}", node.mode, node.origin))
            .collect();
        let want = [
            "usr/lib/devmem-lab/verbs 755 lab",
            "usr/lib/kselftests/rdma/rxe.sh 755 selftests",
            "usr/lib/modules/7.3.4-lab/config 644 kernel",
            "usr/lib/modules/7.3.4-lab/kernel/fs/a.ko 644 kernel",
            "usr/lib/modules/7.3.4-lab/modules.dep 644 kernel",
        ];
        assert_eq!(files, want);

        fs::remove_file(kernel.modules_dir().join("modules.dep")).unwrap();
        let error = super::tree(&plan, &kernel).unwrap_err().to_string();
        assert!(error.starts_with("kernel patched has no") && error.contains("modules.dep"), "{error}");
    }

    #[test]
    fn the_key_knows_every_file_and_not_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("p");
        fs::write(&program, "one").unwrap();
        let (a, b) = (extra("/usr/bin/a", &program), extra("/usr/bin/b", &program));
        let key = artifacts::sha256_bytes(b"kernel");
        let plan = |extras: &[Extra]| kit_plan("patched", &key, extras, &filesystem(), &lock());
        let both = plan(&[a.clone(), b.clone()]).unwrap().key();
        assert_eq!(both, plan(&[b.clone(), a.clone()]).unwrap().key());
        assert_ne!(both, plan(std::slice::from_ref(&a)).unwrap().key());
        fs::write(&program, "two").unwrap();
        assert_ne!(both, plan(&[extra("/usr/bin/a", &program), b]).unwrap().key());
        let error = plan(&[a.clone(), a]).unwrap_err().to_string();
        assert!(error.contains("two files are to become /usr/bin/a"), "{error}");
        assert!(plan(&[extra("usr/bin/a", &program)]).unwrap_err().to_string().contains("no plain absolute path"));
    }
}
