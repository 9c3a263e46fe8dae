//! Unpacks a kernel source, whatever form it came in.
//!
//! In: a verified file from the lock (a compressed tar archive, or a Debian package that holds one). Out: the tree, or
//! only the parts of it that are asked for.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use artifacts::{Alternative, AlternativeKind, FetchedSource};
use progress::{Step, Unit};

/// Unpacks the files that `wanted` says yes to (paths without the archive's leading directory) into `into`.
///
/// `step` counts bytes of the compressed archive.
pub fn unpack(source: &FetchedSource, into: &Path, step: &Step, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let path = &source.path;
    let alternative = &source.alternative;
    step.total(alternative.size, Unit::Bytes);
    match alternative.kind {
        AlternativeKind::Tarball => {
            let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
            let name = alternative.path.as_ref().or(alternative.url.as_ref()).map_or("", String::as_str);
            unpack_archive(file, name, alternative, into, step, &wanted)
        }
        AlternativeKind::Deb => {
            let inner = alternative.inner.as_deref().unwrap_or_default();
            let mut members = toolroot::deb::data(path)?;
            for member in members.entries().with_context(|| format!("read {}", path.display()))? {
                let member = member.with_context(|| format!("read {}", path.display()))?;
                let found = member.path().is_ok_and(|p| p.strip_prefix("./").unwrap_or(&p) == Path::new(inner));
                if found {
                    return unpack_archive(member, inner, alternative, into, step, &wanted);
                }
            }
            bail!("{} holds no {inner}, which lab.lock says it does", path.display())
        }
    }
    .with_context(|| format!("unpack the kernel source `{}`", alternative.name))
}

fn unpack_archive(
    file: impl Read,
    name: &str,
    alternative: &Alternative,
    into: &Path,
    step: &Step,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let counted = BufReader::with_capacity(1 << 20, Counted { inner: file, step });
    let reader: Box<dyn Read + '_> = match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(counted)),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(counted)),
        Some("tar") => Box::new(counted),
        _ => bail!("`{name}` is none of .tar, .tar.gz, .tar.xz"),
    };
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, reader));
    let mut made: HashSet<PathBuf> = HashSet::new();
    let mut count = 0u64;
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        step.progress().check_cancelled()?;
        let path = entry.path().context("read the archive")?.into_owned();
        let mut rest = PathBuf::new();
        let mut parts = path.components().filter(|c| !matches!(c, Component::CurDir));
        parts.by_ref().take(alternative.strip as usize).for_each(drop);
        for part in parts {
            match part {
                Component::Normal(part) => rest.push(part),
                _ => bail!("the archive has a path that leads out of it: {}", path.display()),
            }
        }
        let Some(name) = rest.to_str().filter(|name| !name.is_empty()) else { continue };
        if entry.header().entry_type().is_dir() || !wanted(name) {
            continue;
        }
        let target = into.join(&rest);
        if let Some(parent) = target.parent()
            && !made.contains(parent)
        {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            made.insert(parent.to_path_buf());
        }
        entry.unpack(&target).with_context(|| format!("unpack {name}"))?;
        count += 1;
    }
    if count == 0 {
        bail!("nothing in the archive was asked for");
    }
    Ok(())
}

/// Tells the step what was read.
struct Counted<'a, R> {
    inner: R,
    step: &'a Step,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.step.inc(n as u64);
        Ok(n)
    }
}
