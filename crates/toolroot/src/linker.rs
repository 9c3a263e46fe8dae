//! A C compiler and linker for guest programs that is the toolroot's, run from the host with no namespace.
//!
//! In: a toolroot with gcc, and a directory for a few scripts. Out: a [`LinkerShim`], and the environment that makes
//! cargo link with it. Guest programs must not depend on the host's libc, which may be newer than the guest's or of
//! another kind; so gcc, its passes and binutils are started through the toolroot's own loader, and `--sysroot` keeps
//! their eyes off the host's headers and libraries. gcc starts its passes by path and would have the kernel pick the
//! host's loader for them; `-B` makes it find our scripts first. That works where namespaces are forbidden, and costs a
//! link a few milliseconds.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::loader::{self, ARCHITECTURE, LoaderError};
use crate::root::Toolroot;

/// Programs of binutils that gcc starts.
const BINUTILS: [&str; 3] = ["as", "ld", "ld.bfd"];

/// The scripts. They name the toolroot by path, so they live as long as the [`Toolroot`] they came from is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkerShim {
    /// gcc for the guest: `cc x.c -o x` compiles and links.
    pub cc: PathBuf,
    /// ar for the guest.
    pub ar: PathBuf,
}

impl Toolroot {
    /// Writes the scripts below `dir` (for instance `target/guest`), unless they are there.
    pub fn linker_shim(&self, dir: &Path) -> Result<LinkerShim> {
        let dir = std::path::absolute(dir)?.join(format!("toolroot-{}", self.key().short()));
        let passes = dir.join("passes");
        fs::create_dir_all(&passes).with_context(|| format!("cannot make {}", passes.display()))?;
        let triplet = ARCHITECTURE.ok_or(LoaderError::Architecture)?.triplet;
        let libexec = gcc_passes(self.dir(), triplet)?;
        for name in entries(&libexec)? {
            // What is not a program, the linker's plugin above all, is loaded and not started.
            if !name.as_bytes().ends_with(b".so") {
                let program = libexec.join(&name);
                self.script(&passes.join(&name), &program, &[])?;
            }
        }
        for name in BINUTILS {
            self.script(&passes.join(name), &self.dir().join(format!("usr/bin/{triplet}-{name}")), &[])?;
        }
        let mut prefix = OsString::from("-B");
        prefix.push(&passes);
        prefix.push("/");
        let mut sysroot = OsString::from("--sysroot=");
        sysroot.push(self.dir());
        let shim = LinkerShim { cc: dir.join("cc"), ar: dir.join("ar") };
        self.script(&shim.cc, &self.dir().join(format!("usr/bin/{triplet}-gcc")), &[prefix, sysroot])?;
        self.script(&shim.ar, &self.dir().join(format!("usr/bin/{triplet}-ar")), &[])?;
        Ok(shim)
    }

    /// A script at `path` that starts `program` through the loader, with `args` before its own arguments.
    fn script(&self, path: &Path, program: &Path, args: &[OsString]) -> Result<()> {
        // gcc finds its parts relative to the name it was started by, so that has to be the real one.
        let program = program.canonicalize().with_context(|| {
            format!("the toolroot has no {}; does its package list in images/roots.toml have it?", program.display())
        })?;
        let root = self.dir().canonicalize()?;
        let inside = program.strip_prefix(&root).unwrap_or(&program).to_string_lossy().into_owned();
        let mut words = loader::argv(&root, &format!("/{inside}"))?;
        if let Some(argv0) = words.iter().position(|word| word == "--argv0") {
            words[argv0 + 1] = program.into_os_string();
        }
        let mut text = b"#!/bin/sh\nexec".to_vec();
        for word in words.iter().chain(args) {
            text.push(b' ');
            text.extend_from_slice(quote(word).as_bytes());
        }
        text.extend_from_slice(b" \"$@\"\n");
        if fs::read(path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        write_program(path, &text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl LinkerShim {
    /// Makes `cargo build --target TARGET` link with the toolroot; `fixed` links libc into the program (a static one).
    ///
    /// Needs the explicit `--target`: only then does cargo keep these flags from build scripts and macros, which run on
    /// the host and need its linker.
    pub fn configure(&self, cargo: &mut Command, target: &str, fixed: bool) {
        let mut linker = OsString::from("linker=");
        linker.push(&self.cc);
        let mut flags = vec![OsString::from("-C"), linker];
        if fixed {
            flags.extend(["-C".into(), "target-feature=+crt-static".into()]);
            // At a fixed address: relocating itself would be the larger part of a small program's start.
            flags.extend(["-C".into(), "relocation-model=static".into()]);
            // And nothing is left to protect afterwards, so no call to do so.
            flags.extend(["-C".into(), "relro-level=off".into()]);
        }
        // Separated so that a path may have spaces (cargo's reference, build.rustflags).
        let flags = flags.join(OsStr::new("\u{1f}"));
        let target = target.replace('-', "_");
        cargo.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags);
        cargo.env(format!("CC_{target}"), &self.cc).env(format!("AR_{target}"), &self.ar);
    }
}

/// The directory of gcc's passes; there is one for each version, and a toolroot has one version.
fn gcc_passes(root: &Path, triplet: &str) -> Result<PathBuf> {
    let dir = root.join("usr/libexec/gcc").join(triplet);
    let versions = entries(&dir).unwrap_or_default();
    let newest = versions.last().with_context(|| {
        format!("the toolroot {} has no gcc; does its package list in images/roots.toml have it?", root.display())
    })?;
    Ok(dir.join(newest))
}

fn entries(dir: &Path) -> Result<Vec<OsString>> {
    let read = || -> io::Result<Vec<OsString>> { fs::read_dir(dir)?.map(|e| e.map(|e| e.file_name())).collect() };
    let mut names = read().with_context(|| format!("cannot list {}", dir.display()))?;
    names.sort();
    Ok(names)
}

/// A word as the shell reads it back.
fn quote(word: &OsStr) -> OsString {
    let mut quoted = b"'".to_vec();
    for byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(*other),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// Another process may write, or run, the same script at this moment.
fn write_program(path: &Path, text: &[u8]) -> io::Result<()> {
    let temp = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&temp)?;
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(file);
    fs::rename(&temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_come_back() {
        for word in ["plain", "with space", "it's", "$HOME `x` \"y\" \\z", "'"] {
            let script = format!("printf %s {}", quote(OsStr::new(word)).to_string_lossy());
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn flags_survive_spaces_in_paths() {
        let shim = LinkerShim { cc: "/a b/cc".into(), ar: "/a b/ar".into() };
        let mut cargo = Command::new("cargo");
        shim.configure(&mut cargo, "x86_64-unknown-linux-gnu", true);
        let env: Vec<_> = cargo.get_envs().collect();
        let flags = "-C\u{1f}linker=/a b/cc\u{1f}-C\u{1f}target-feature=+crt-static\u{1f}-C\u{1f}relocation-model=static\u{1f}-C\u{1f}relro-level=off";
        assert!(env.contains(&(OsStr::new("CARGO_ENCODED_RUSTFLAGS"), Some(OsStr::new(flags)))), "{env:?}");
        assert!(env.contains(&(OsStr::new("CC_x86_64_unknown_linux_gnu"), Some(OsStr::new("/a b/cc")))));
        assert!(env.contains(&(OsStr::new("RUSTFLAGS"), None)));
    }
}
