//! Whether a lock makes sense as a whole: names are unique, references lead somewhere, addresses can be used.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Alternative, AlternativeKind, Deb, Lock, LockError, RootLock, RootSpec, Source, Wheel};

impl Lock {
    /// A package set with its packages, sorted by name and version.
    pub fn root(&self, name: &str) -> Result<RootLock<'_>, LockError> {
        let known = || self.roots.iter().map(|r| r.name.clone()).collect();
        let spec = find(&self.roots, |r| &r.name, "root", name, known)?;
        let debs = self.members(spec, &self.by_member())?;
        Ok(RootLock { name: &spec.name, requested: &spec.requested, debs })
    }

    /// A source by name.
    pub fn source(&self, name: &str) -> Result<&Source, LockError> {
        find(&self.sources, |s| &s.name, "source", name, || self.sources.iter().map(|s| s.name.clone()).collect())
    }

    /// A wheel by name.
    pub fn wheel(&self, name: &str) -> Result<&Wheel, LockError> {
        find(&self.wheels, |w| &w.name, "wheel", name, || self.wheels.iter().map(|w| w.name.clone()).collect())
    }

    /// A package by name; `None` if there is none or the lock has several versions of it.
    pub fn deb(&self, name: &str) -> Option<&Deb> {
        let mut found = self.debs.iter().filter(|d| d.name == name);
        found.next().filter(|_| found.next().is_none())
    }

    /// Packages by the words roots use for them: `name=version`, and `name` where that is enough.
    fn by_member(&self) -> HashMap<String, &Deb> {
        let mut found: HashMap<String, &Deb> = HashMap::new();
        let mut several = HashSet::new();
        for deb in &self.debs {
            found.insert(deb.id(), deb);
            if found.insert(deb.name.clone(), deb).is_some() {
                several.insert(deb.name.clone());
            }
        }
        found.retain(|member, _| !several.contains(member));
        found
    }

    fn members<'a>(&self, spec: &RootSpec, by: &HashMap<String, &'a Deb>) -> Result<Vec<&'a Deb>, LockError> {
        let entry = || format!("root {}", spec.name);
        let mut debs = Vec::with_capacity(spec.members.len());
        let mut names: HashSet<&String> = HashSet::new();
        for member in &spec.members {
            let Some(deb) = by.get(member) else {
                let versions: Vec<String> = self.debs.iter().filter(|d| d.name == *member).map(Deb::id).collect();
                return Err(blame(
                    entry(),
                    if versions.is_empty() {
                        format!("its member `{member}` has no [[deb]] entry")
                    } else {
                        format!("its member `{member}` could be any of {}; say which", versions.join(", "))
                    },
                ));
            };
            if !names.insert(&deb.name) {
                return Err(blame(entry(), format!("it has the package `{}` twice", deb.name)));
            }
            debs.push(*deb);
        }
        for request in &spec.requested {
            let (name, wanted) = requested(request);
            match (wanted, names.contains(&name)) {
                (true, false) => {
                    return Err(blame(entry(), format!("`{request}` is requested but is not among its members")));
                }
                (false, true) => {
                    return Err(blame(entry(), format!("`{request}` keeps a package out that is among its members")));
                }
                _ => {}
            }
        }
        debs.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(debs)
    }

    /// Names the first entry that makes no sense.
    pub fn check(&self) -> Result<(), LockError> {
        let dated = self.distribution.snapshot.as_bytes();
        let digits = |range: std::ops::Range<usize>| dated.get(range).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
        if dated.len() != 16 || !digits(0..8) || dated[8] != b'T' || !digits(9..15) || dated[15] != b'Z' {
            let problem = format!("`{}` is no moment like 20251122T150000Z", self.distribution.snapshot);
            return Err(blame("distribution.snapshot".into(), problem));
        }
        for mirror in &self.mirrors {
            check_url(&mirror.url, || format!("mirror {}", mirror.url))?;
        }
        for deb in &self.debs {
            let entry = || format!("deb {} {} {}", deb.name, deb.version, deb.arch);
            check_path(&deb.path, entry)?;
            check_size(deb.size, entry)?;
        }
        unique("deb", self.debs.iter().map(|d| format!("{} {} {}", d.name, d.version, d.arch)))?;
        let by = self.by_member();
        for root in &self.roots {
            self.members(root, &by)?;
        }
        unique("root", self.roots.iter().map(|r| r.name.clone()))?;
        for source in &self.sources {
            let entry = || format!("source {}", source.name);
            if source.alternatives.is_empty() {
                return Err(blame(entry(), "it has no [[source.alternative]]".into()));
            }
            for alternative in &source.alternatives {
                check_alternative(alternative, || format!("source {}, alternative {}", source.name, alternative.name))?;
            }
            let names = source.alternatives.iter().map(|a| format!("{}, alternative {}", source.name, a.name));
            unique("source", names)?;
        }
        unique("source", self.sources.iter().map(|s| s.name.clone()))?;
        for wheel in &self.wheels {
            let entry = || format!("wheel {}", wheel.name);
            check_url(&wheel.url, entry)?;
            check_size(wheel.size, entry)?;
        }
        unique("wheel", self.wheels.iter().map(|w| w.name.clone()))
    }
}

/// The package a request is about and whether it is wanted, in apt-get(8)'s words: `name`, `name/suite`,
/// `name=version`, `name:arch`, and `name-` for what is to stay out.
fn requested(request: &str) -> (String, bool) {
    let name = request.split(['/', '=', ':']).next().unwrap_or_default();
    match name.strip_suffix('-') {
        Some(name) => (name.to_string(), false),
        None => (name.to_string(), true),
    }
}

fn find<'a, T>(
    list: &'a [T],
    name_of: impl Fn(&T) -> &String,
    what: &'static str,
    name: &str,
    known: impl Fn() -> Vec<String>,
) -> Result<&'a T, LockError> {
    let found = list.iter().find(|item| name_of(item) == name);
    found.ok_or_else(|| LockError::Unknown { what, name: name.to_string(), known: known() })
}

fn blame(entry: String, problem: String) -> LockError {
    LockError::Entry { entry, problem }
}

fn unique(what: &str, names: impl Iterator<Item = String>) -> Result<(), LockError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if seen.contains(&name) {
            return Err(blame(format!("{what} {name}"), "it is there twice".into()));
        }
        seen.insert(name);
    }
    Ok(())
}

fn check_alternative(alternative: &Alternative, entry: impl Fn() -> String) -> Result<(), LockError> {
    match (&alternative.url, &alternative.path) {
        (Some(url), None) => check_url(url, &entry)?,
        (None, Some(path)) => check_path(path, &entry)?,
        (Some(_), Some(_)) => return Err(blame(entry(), "it has both `url` and `path`; one says where it is".into())),
        (None, None) => return Err(blame(entry(), "it has neither `url` nor `path`".into())),
    }
    if alternative.kind == AlternativeKind::Deb && alternative.inner.is_none() {
        return Err(blame(entry(), "a package needs `inner`, the archive inside it".into()));
    }
    check_size(alternative.size, entry)
}

fn check_size(size: u64, entry: impl Fn() -> String) -> Result<(), LockError> {
    if size == 0 { Err(blame(entry(), "its size is 0".into())) } else { Ok(()) }
}

fn check_url(url: &str, entry: impl Fn() -> String) -> Result<(), LockError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Ok(()),
        _ => Err(blame(entry(), format!("`{url}` is no http:// or https:// address"))),
    }
}

fn check_path(path: &str, entry: impl Fn() -> String) -> Result<(), LockError> {
    let sound = path.starts_with("pool/") && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if sound { Ok(()) } else { Err(blame(entry(), format!("`{path}` is no path in the pool (pool/…)"))) }
}
