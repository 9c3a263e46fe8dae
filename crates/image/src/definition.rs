//! The image definition: a TOML file (`images/lab.toml`) as typed data.
//!
//! It says which root of the lock the packages come from, what is pruned, and which fix-ups stand in for maintainer
//! scripts (none is ever run): links that update-alternatives would have made, account files, directories and small
//! files of the lab's own. All paths are absolute paths inside the image.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::prune::Prune;

/// One image definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Which root of the lock holds the packages.
    pub root: String,
    /// How the file system is written.
    pub filesystem: Filesystem,
    /// What of the packages stays out.
    #[serde(default)]
    pub prune: Prune,
    /// Python sources that are compiled ahead.
    #[serde(default)]
    pub python: Python,
    /// Symbolic links: path → target.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Copies of files that packages ship: path → path of the original.
    #[serde(default)]
    pub copies: BTreeMap<String, String>,
    /// Directories: path → attributes.
    #[serde(default)]
    pub directories: BTreeMap<String, Directory>,
    /// Files written out: path → content.
    #[serde(default)]
    pub files: BTreeMap<String, File>,
}

/// Parameters of the erofs file system. Fixed values make the image the same wherever and whenever it is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Filesystem {
    /// UUID in the superblock.
    pub uuid: String,
    /// Time of every file and of the file system itself, in seconds since 1970.
    pub epoch: u64,
    /// Compression as `mkfs.erofs -z` takes it, for instance `lz4` or `lz4hc,12`.
    pub compression: String,
    /// Largest compressed cluster in bytes.
    pub cluster: u32,
}

/// Which Python sources are compiled to `.pyc` ahead: in an emulated guest, importing from source takes many seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Python {
    /// The interpreter in the image, for instance `/usr/bin/python3`.
    pub interpreter: Option<String>,
    /// Directories whose `.py` files are compiled.
    pub compile: Vec<String>,
}

/// A directory of the image's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Directory {
    /// Permissions in octal, `"0755"` unless told.
    pub mode: Mode,
}

/// A file of the image's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it holds.
    pub content: String,
    /// Permissions in octal, `"0644"` unless told.
    pub mode: Option<Mode>,
}

/// Permission bits, written as an octal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Mode(0o755)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Mode(mode)),
            _ => Err(format!("mode {text:?} is no octal number up to 7777, as in \"0755\"")),
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        format!("{:04o}", mode.0)
    }
}

impl Definition {
    /// Reads a definition file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("image definition {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("image definition {}", path.display()))
    }

    /// Reads a definition from its text.
    pub fn parse(text: &str) -> Result<Self> {
        let definition: Definition = toml::from_str(text)?;
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<()> {
        let fs = &self.filesystem;
        let groups: Vec<usize> = fs.uuid.split('-').map(str::len).collect();
        if groups != [8, 4, 4, 4, 12] || !fs.uuid.chars().all(|c| c == '-' || c.is_ascii_hexdigit()) {
            bail!("filesystem.uuid {:?} is no UUID, as in \"6c61622d-6261-4365-8000-000000000001\"", fs.uuid);
        }
        // The kernel takes physical clusters of up to 1 MiB (fs/erofs/erofs_fs.h, Z_EROFS_PCLUSTER_MAX_SIZE).
        if !fs.cluster.is_power_of_two() || !(4096..=1 << 20).contains(&fs.cluster) {
            bail!("filesystem.cluster {} must be a power of two from 4096 to 1048576", fs.cluster);
        }
        if fs.compression.is_empty() || fs.compression.contains(char::is_whitespace) {
            bail!("filesystem.compression {:?} must be what mkfs.erofs -z takes, as in \"lz4\"", fs.compression);
        }
        if !self.python.compile.is_empty() && self.python.interpreter.is_none() {
            bail!("python.compile needs python.interpreter, the path of the image's own Python");
        }
        let sources = self.copies.values().map(|p| ("copies", p));
        let python = self.python.compile.iter().chain(&self.python.interpreter).map(|p| ("python", p));
        let made = self.links.keys().map(|p| ("links", p)).chain(self.copies.keys().map(|p| ("copies", p)));
        let made = made.chain(self.files.keys().map(|p| ("files", p)));
        let mut seen = BTreeMap::new();
        for (table, path) in made.chain(self.directories.keys().map(|p| ("directories", p))) {
            if let Some(other) = seen.insert(path, table) {
                bail!("{path:?} is in both [{other}] and [{table}]; a path is made once");
            }
        }
        for (table, path) in seen.into_iter().map(|(p, t)| (t, p)).chain(sources).chain(python) {
            inside(path).with_context(|| format!("in [{table}]"))?;
        }
        Ok(())
    }
}

/// The path without its leading slash; an error unless it is a plain absolute path.
pub fn inside(path: &str) -> Result<&str> {
    match path.strip_prefix('/') {
        Some(rest) if !rest.split('/').any(|part| matches!(part, "" | "." | "..")) => Ok(rest),
        _ => bail!("{path:?} is no plain absolute path, as in \"/usr/bin/awk\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "root = \"guest\"\n[filesystem]\nuuid = \"6c61622d-6261-4365-8000-000000000001\"\nepoch = 1\n\
                         compression = \"lz4\"\ncluster = 65536\n";

    #[test]
    fn the_projects_own_definition_is_valid() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/lab.toml");
        assert_eq!(Definition::load(&path).unwrap().root, "guest");
    }

    #[test]
    fn every_mistake_is_named() {
        let table = [
            ("[prun]\n", "unknown field `prun`"),
            ("[prune]\nremove = [\"usr\"]\n", "must start with a slash"),
            ("[links]\n\"usr/bin/awk\" = \"gawk\"\n", "\"usr/bin/awk\" is no plain absolute path"),
            ("[copies]\n\"/etc/passwd\" = \"../x\"\n", "\"../x\" is no plain absolute path"),
            ("[files.\"/etc/x\"]\ncontent = \"\"\nmode = \"999\"\n", "mode \"999\" is no octal number"),
            ("[links]\n\"/x\" = \"y\"\n[files.\"/x\"]\ncontent = \"\"\n", "in both [links] and [files]"),
            ("[python]\ncompile = [\"/usr/lib/python3\"]\n", "needs python.interpreter"),
        ];
        for (text, want) in table {
            let error = format!("{:#}", Definition::parse(&format!("{SMALL}{text}")).unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
        let error = Definition::parse(&SMALL.replace("65536", "65000")).unwrap_err().to_string();
        assert!(error.contains("cluster 65000 must be a power of two"), "{error}");
        let error = Definition::parse(&SMALL.replace("-8000-", "-800-")).unwrap_err().to_string();
        assert!(error.contains("is no UUID"), "{error}");
    }
}
