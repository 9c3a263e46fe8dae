//! A local package repository of locked packages, as apt wants it: the files and a `Packages` index.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use artifacts::{Deb, Lock};

/// What maintainer scripts run and images leave out.
const SCRIPTS_NEED: [&str; 1] = ["perl-base"];

/// Locked packages that installing `debs` takes besides them.
///
/// # Errors
/// When the lock has none of that name.
pub fn extra<'a>(lock: &'a Lock, debs: &[Deb]) -> Result<Vec<&'a Deb>> {
    let missing = SCRIPTS_NEED.iter().filter(|name| !debs.iter().any(|deb| deb.name == **name));
    missing
        .map(|name| {
            lock.debs.iter().find(|deb| deb.name == *name).with_context(|| {
                format!("lab.lock has no `{name}`, which mmdebstrap needs; add it to a root of images/roots.toml")
            })
        })
        .collect()
}

/// Makes the repository in the new directory `dir`; `files` are where `debs` were downloaded to.
///
/// # Errors
/// When a package cannot be read or linked.
pub fn make(dir: &Path, debs: &[&Deb], files: &[PathBuf]) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut paragraphs = Vec::new();
    for (deb, file) in debs.iter().zip(files) {
        let name = deb.path.rsplit('/').next().unwrap_or(&deb.path);
        let place = dir.join(name);
        fs::hard_link(file, &place)
            .or_else(|_| fs::copy(file, &place).map(drop))
            .with_context(|| format!("cannot put {} into {}", file.display(), dir.display()))?;
        let control = control(file).with_context(|| format!("package {}", deb.id()))?;
        paragraphs.push((control, format!("Filename: ./{name}\nSize: {}\nSHA256: {}\n", deb.size, deb.sha256)));
    }
    let known: BTreeSet<String> = paragraphs.iter().flat_map(|(control, _)| provided(control)).collect();
    let mut index = String::new();
    for (control, place) in &paragraphs {
        let _ = writeln!(index, "{}{place}", within(control, &known));
    }
    let path = dir.join("Packages");
    fs::write(&path, index).with_context(|| format!("cannot write {}", path.display()))
}

/// A package's control paragraph.
fn control(deb: &Path) -> Result<String> {
    let mut members = toolroot::deb::control(deb)?;
    for member in members.entries()? {
        let mut member = member?;
        if member.path()?.file_name().is_some_and(|name| name == "control") {
            let mut text = String::new();
            member.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "it has no control file").into())
}

/// The fields of a paragraph; continuation lines stay with their field.
fn fields(control: &str) -> Vec<(&str, String)> {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in control.lines() {
        match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
            (true, _, Some((_, value))) => {
                value.push('\n');
                value.push_str(line);
            }
            (false, Some((name, value)), _) => fields.push((name, value.trim().to_owned())),
            _ => {}
        }
    }
    fields
}

/// The name a dependency asks for, without version and architecture.
fn name(alternative: &str) -> &str {
    alternative.trim().split([' ', '(', ':', '[']).next().unwrap_or_default()
}

/// What can be depended on when this package is there.
fn provided(control: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (field, value) in fields(control) {
        match field {
            "Package" => names.push(value),
            "Provides" => names.extend(value.split(',').map(|one| name(one).to_owned())),
            _ => {}
        }
    }
    names
}

/// The paragraph without dependencies on what is not `known`: an image leaves such packages out on purpose.
fn within(control: &str, known: &BTreeSet<String>) -> String {
    let mut out = String::new();
    for (field, value) in fields(control) {
        let value = if matches!(field, "Depends" | "Pre-Depends") {
            let groups = value.split(',').filter(|group| group.split('|').any(|one| known.contains(name(one))));
            groups.map(str::trim).collect::<Vec<_>>().join(", ")
        } else {
            value
        };
        if !value.is_empty() {
            let _ = writeln!(out, "{field}: {value}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: &str = "Package: a\nProvides: awk, mail (= 1)\nDepends: libc6 (>= 2.3), gone | b:any, gone2\nPre-Depends: gone\nDescription: x\n more\n";

    #[test]
    fn only_what_is_there_is_depended_on() {
        assert_eq!(provided(CONTROL), ["a", "awk", "mail"]);
        let known = ["libc6", "b"].map(str::to_owned).into();
        assert_eq!(
            within(CONTROL, &known),
            "Package: a\nProvides: awk, mail (= 1)\nDepends: libc6 (>= 2.3), gone | b:any\nDescription: x\n more\n"
        );
    }
}
