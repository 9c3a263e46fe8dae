//! Which module files a kernel needs to have loaded before it can do without an initramfs.
//!
//! In: depmod's tables of an installed kernel (`modules.dep`, `modules.builtin`, `modules.softdep`) and the names of
//! the modules wanted. Out: files in load order, without what is built in. The names are compared as the kernel does:
//! dashes and underscores are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// Its file, possibly compressed.
    pub file: PathBuf,
}

/// depmod's tables of one kernel.
#[derive(Debug)]
pub struct ModuleTables {
    dir: PathBuf,
    /// Name → its file and all files it needs, in `modules.dep`'s order (the last is loaded first).
    dependencies: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
    /// Name → names to load before it if they exist.
    soft: BTreeMap<String, Vec<String>>,
}

impl ModuleTables {
    /// Reads the tables in `dir`, a `lib/modules/<release>`.
    pub fn load(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}; was depmod run there?", path.display()))
        };
        let softdep = fs::read_to_string(dir.join("modules.softdep")).unwrap_or_default();
        Self::parse(dir, &read("modules.dep")?, &read("modules.builtin")?, &softdep)
    }

    fn parse(dir: &Path, dep: &str, builtin: &str, softdep: &str) -> Result<Self> {
        let mut dependencies = BTreeMap::new();
        for line in dep.lines().filter(|line| !line.trim().is_empty()) {
            let (file, needs) = line
                .split_once(':')
                .with_context(|| format!("{}: a line without a colon: {line:?}", dir.join("modules.dep").display()))?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            dependencies.insert(name_of(file), (file.to_owned(), needs));
        }
        let mut soft: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let before = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
            soft.entry(name_of(module)).or_default().extend(before.map(name_of));
        }
        let builtin = builtin.lines().map(name_of).collect();
        Ok(ModuleTables { dir: dir.to_owned(), dependencies, builtin, soft })
    }

    /// The files to load for `wanted`, each after what it needs and none twice.
    pub fn load_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Order { tables: self, seen: BTreeSet::new(), modules: Vec::new() };
        for name in wanted {
            let name = name_of(name);
            if !order.add(&name)? {
                bail!(
                    "the kernel in {} has {name} neither built in nor as a module; a guest cannot reach its disks \
                     without: enable it in the kernel's configuration",
                    self.dir.display()
                );
            }
        }
        Ok(order.modules)
    }
}

struct Order<'a> {
    tables: &'a ModuleTables,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    /// `false` if the kernel knows no such module.
    fn add(&mut self, name: &str) -> Result<bool> {
        if self.seen.contains(name) || self.tables.builtin.contains(name) {
            return Ok(true);
        }
        let Some((file, needs)) = self.tables.dependencies.get(name) else { return Ok(false) };
        self.seen.insert(name.to_owned());
        for soft in self.tables.soft.get(name).into_iter().flatten() {
            // A soft dependency may be an alias or missing; modprobe goes on without it, too.
            self.add(soft)?;
        }
        for need in needs.iter().rev() {
            let need = name_of(need);
            if !self.add(&need)? {
                bail!(
                    "{}: {name} needs {need}, which is not listed itself",
                    self.tables.dir.join("modules.dep").display()
                );
            }
        }
        self.modules.push(Module { name: name.to_owned(), file: self.tables.dir.join(file) });
        Ok(true)
    }
}

/// `kernel/drivers/block/virtio-blk.ko.xz` → `virtio_blk`.
fn name_of(file: &str) -> String {
    let base = file.trim().rsplit('/').next().unwrap_or(file);
    let stem = base.split_once(".ko").map_or(base, |(stem, _)| stem);
    stem.replace('-', "_")
}

/// The bytes of a module file, decompressed if its name says it is compressed.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let context = || format!("cannot read module {}", file.display());
    let raw = fs::read(file).with_context(context)?;
    let mut plain = Vec::new();
    match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(raw.as_slice()).read_to_end(&mut plain),
        Some("gz") => flate2::read::GzDecoder::new(raw.as_slice()).read_to_end(&mut plain),
        Some("zst") => ruzstd::decoding::StreamingDecoder::new(raw.as_slice())
            .map_err(std::io::Error::other)
            .and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        _ => return Ok(raw),
    }
    .with_context(context)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Debian's 7.3.4: the lines that concern the disks, in depmod's own format.
    const DEP: &str = "\
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz:
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_pci_modern_dev.ko.xz kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/block/virtio-blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/fs/erofs/erofs.ko.xz: kernel/fs/netfs/netfs.ko.xz
kernel/fs/netfs/netfs.ko.xz:
kernel/lib/crc/crc_soft.ko:
";
    const BUILTIN: &str = "kernel/drivers/char/virtio-console.ko\nkernel/fs/overlayfs/overlay.ko\n";
    const SOFT: &str = "# Soft dependencies\nsoftdep erofs pre: crypto-none crc-soft post: later\n";

    fn tables() -> ModuleTables {
        ModuleTables::parse(Path::new("/m"), DEP, BUILTIN, SOFT).unwrap()
    }

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let order = tables().load_order(&["virtio_pci", "virtio_blk", "virtio_console", "erofs", "overlay"]).unwrap();
        let names: Vec<&str> = order.iter().map(|m| m.name.as_str()).collect();
        let want = [
            "virtio",
            "virtio_ring",
            "virtio_pci_modern_dev",
            "virtio_pci",
            "virtio_blk",
            "crc_soft",
            "netfs",
            "erofs",
        ];
        assert_eq!(names, want);
        assert_eq!(order[4].file, Path::new("/m/kernel/drivers/block/virtio-blk.ko.xz"));
    }

    #[test]
    fn a_kernel_without_a_needed_driver_is_refused_by_name() {
        let error = tables().load_order(&["virtio_net"]).unwrap_err().to_string();
        assert!(error.contains("/m has virtio_net neither built in nor as a module"), "{error}");
    }

    #[test]
    fn compressed_modules_come_out_plain() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let plain = b"\x7fELF module".repeat(100);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&plain).unwrap();
        let zst = ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        let files = [
            ("a.ko", plain.clone()),
            ("a.ko.xz", xz.finish().unwrap()),
            ("a.ko.zst", zst),
            ("a.ko.gz", gz.finish().unwrap()),
        ];
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
            assert_eq!(read(&dir.path().join(name)).unwrap(), plain, "{name}");
        }
    }
}
