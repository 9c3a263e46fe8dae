//! Refreshes `lab.lock`: what `images/roots.toml` asks for, resolved against the archive as it is now.
//!
//! In: the request, the toolroot that holds apt (unpacked from the lock as it was), mirrors. Out: a new [`Lock`] and
//! what changed. apt itself does the resolving and the checking of signatures; this module only asks it and writes down
//! name, path, size and hash of everything it chose.

mod apt;
mod diff;
mod parse;
mod spec;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use artifacts::{
    Alternative, AlternativeKind, Archive, Cache, Deb, Distribution, LOCK_VERSION, Lock, Mirrors, Origin, RootSpec,
    Source,
};
use progress::{Progress, Step};

use apt::Apt;
pub use diff::{LockChange, changes};
pub use spec::{AlternativeRequest, DistributionSpec, Pin, RootRequest, RootsSpec, SourceRequest};

use crate::Toolroot;

/// How long after the newest index the dated archive surely has it: imports follow the archive's own runs, of which
/// there are four a day.
const IMPORT: i64 = 12 * 3600;

/// Resolves `spec` into a new lock. `root` holds apt; wheels and mirrors are taken over from the `old` lock.
///
/// The mirrors are tried in order; the first from which all indices can be had, signed, is used.
pub fn update(
    spec: &RootsSpec,
    root: &Toolroot,
    mirrors: &Mirrors,
    old: Option<&Lock>,
    cache: &Cache,
    progress: &Progress,
) -> Result<Lock> {
    let step = progress.step("lock", "refresh lab.lock");
    // Kept between refreshes: apt then fetches only indices that changed.
    let work = cache.with_progress(progress).work("apt")?;
    let apt = Apt::prepare(root, work.path(), spec, progress)?;
    fetch_indices(&apt, spec, mirrors, &step)?;

    let mut debs: BTreeMap<(String, String), Deb> = BTreeMap::new();
    let mut roots = Vec::new();
    for (name, request) in &spec.root {
        let members = resolve_root(&apt, request).with_context(|| format!("root {name} of images/roots.toml"))?;
        step.line(format!("{name}: {} packages", members.len()));
        debs.extend(members.iter().map(|deb| ((deb.name.clone(), deb.version.clone()), deb.clone())));
        roots.push((name, request, members));
    }
    let mut sources = Vec::new();
    for (name, request) in &spec.source {
        let alternatives = request.alternatives.iter().map(|a| resolve_alternative(&apt, &request.version, a));
        let alternatives = alternatives.collect::<Result<_>>().with_context(|| format!("source {name}"))?;
        sources.push(Source { name: name.clone(), version: request.version.clone(), alternatives });
    }
    let dates = apt.releases()?.iter().map(|text| parse::release_date(text)).collect::<Result<Vec<_>>>()?;
    let newest = dates.into_iter().max().context("apt fetched no Release file")?;

    let versions = |name: &str| debs.keys().filter(|(n, _)| n == name).count();
    let member = |deb: &Deb| if versions(&deb.name) > 1 { deb.id() } else { deb.name.clone() };
    let roots = roots
        .into_iter()
        .map(|(name, request, members)| RootSpec {
            name: name.clone(),
            requested: request.packages.clone(),
            members: members.iter().map(member).collect(),
        })
        .collect();
    let mut lock = Lock {
        version: LOCK_VERSION,
        distribution: Distribution {
            suites: spec.distribution.suites.clone(),
            snapshot: parse::stamp(newest + IMPORT),
        },
        mirrors: old.map(|old| old.mirrors.clone()).unwrap_or_default(),
        roots,
        sources,
        wheels: old.map(|old| old.wheels.clone()).unwrap_or_default(),
        debs: debs.into_values().collect(),
    };
    lock.sort();
    lock.check()?;
    step.done();
    Ok(lock)
}

fn fetch_indices(apt: &Apt<'_>, spec: &RootsSpec, mirrors: &Mirrors, step: &Step) -> Result<()> {
    let mut failures = Vec::new();
    // The dated archive would give the state the lock was made from.
    for mirror in mirrors.list().iter().filter(|m| m.archive == Archive::Main && m.origin != Origin::Snapshot) {
        step.line(format!("indices from {}", mirror.url));
        match apt.update(&mirror.url, spec) {
            Ok(()) => return Ok(()),
            Err(e) => {
                step.progress().check_cancelled()?;
                failures.push(format!("{} ({}): {e:#}", mirror.url, mirror.origin));
            }
        }
    }
    let suites = spec.distribution.suites.join(", ");
    bail!("no mirror gave the indices of {suites}:\n  {}", failures.join("\n  "))
}

/// The packages of a root, from the index.
fn resolve_root(apt: &Apt<'_>, request: &RootRequest) -> Result<Vec<Deb>> {
    let mut chosen = parse::chosen(&apt.simulate(&request.packages)?)?;
    if !request.dependencies {
        chosen.retain(|c| request.packages.contains(&c.name));
        for name in request.packages.iter().filter(|name| !name.ends_with('-')) {
            ensure!(chosen.iter().any(|c| c.name == *name), "package {name} is not what apt would install");
        }
    }
    let names: Vec<String> = chosen.iter().map(|c| format!("{}={}", c.name, c.version)).collect();
    let debs = parse::paragraphs(&apt.show(&names)?).iter().map(parse::deb).collect::<Result<Vec<_>>>()?;
    for name in &names {
        ensure!(debs.iter().any(|deb| deb.id() == *name), "the index has no paragraph of {name}, which apt chose");
    }
    Ok(debs)
}

fn resolve_alternative(apt: &Apt<'_>, version: &str, request: &AlternativeRequest) -> Result<Alternative> {
    match request {
        AlternativeRequest::Source { name, package, file, strip, .. } => {
            let sources = parse::paragraphs(&apt.show_source(package)?);
            let found = parse::source_file(&sources, file)?;
            Ok(Alternative {
                name: name.clone(),
                kind: AlternativeKind::Tarball,
                url: None,
                path: Some(found.path),
                size: found.size,
                sha256: found.sha256,
                strip: *strip,
                inner: None,
            })
        }
        AlternativeRequest::Package { name, package, inner, strip } => {
            let shown = parse::paragraphs(&apt.show(std::slice::from_ref(package))?);
            let deb = parse::deb(shown.first().with_context(|| format!("the index has no package {package}"))?)?;
            ensure!(
                deb.version.split('-').next() == Some(version),
                "package {package} has version {}, not {version}",
                deb.version
            );
            Ok(Alternative {
                name: name.clone(),
                kind: AlternativeKind::Deb,
                url: None,
                path: Some(deb.path),
                size: deb.size,
                sha256: deb.sha256,
                strip: *strip,
                inner: Some(inner.clone()),
            })
        }
        AlternativeRequest::Url { name, url, size, sha256, strip } => Ok(Alternative {
            name: name.clone(),
            kind: AlternativeKind::Tarball,
            url: Some(url.clone()),
            path: None,
            size: *size,
            sha256: sha256.clone(),
            strip: *strip,
            inner: None,
        }),
    }
}
