//! Kernels: `extends` chains, the one origin each must have, and what goes with which origin.

use std::collections::BTreeMap;

use crate::errors::Diag;
use crate::file::{At, KernelTable, Name};
use crate::model::{Kernel, KernelOrigin};
use crate::source::Span;

use super::{Resolver, strs, text};

pub(super) fn resolve(r: &mut Resolver<'_>) -> BTreeMap<String, Kernel> {
    let file = r.file;
    r.refers_to("kernel", &file.lab.kernel, &file.kernel);
    let mut kernels = BTreeMap::new();
    for (name, own) in &file.kernel {
        let Some(whole) = flatten(r, name, own) else { continue };
        references(r, own);
        if let Some(origin) = origin(r, name, own, &whole) {
            let series = match origin {
                KernelOrigin::Package { .. } => Vec::new(),
                _ => whole.series.iter().flat_map(|s| s.get()).map(text).collect(),
            };
            kernels.insert(text(name), Kernel { name: text(name), origin, series });
        }
    }
    kernels
}

/// The kernel with what it inherits. An origin of its own hides the inherited one; other keys are hidden singly.
fn flatten(r: &mut Resolver<'_>, name: &At<Name>, own: &KernelTable) -> Option<KernelTable> {
    let file = r.file;
    let mut whole = own.clone();
    let mut seen = vec![text(name)];
    let mut next = own.extends.as_ref();
    while let Some(parent) = next {
        let others = file.kernel.keys().map(|n| n.get().0.as_str()).filter(|n| *n != name.get().0);
        if !file.kernel.contains_key(parent) {
            r.refers_to_one("kernel", parent, others);
            return None;
        }
        if seen.contains(&text(parent)) {
            seen.push(text(parent));
            let chain = seen.join(" → ");
            r.report(
                Diag::new(parent.span(), format!("kernel `{}` extends itself: {chain}", name.get().0))
                    .note("remove one `extends` of the circle"),
            );
            return None;
        }
        seen.push(text(parent));
        let table = &file.kernel[parent];
        if origins(&whole).is_empty() {
            whole.source = table.source.clone();
            whole.package = table.package.clone();
            whole.rebuild = table.rebuild.clone();
        }
        whole.series = whole.series.or_else(|| table.series.clone());
        whole.fragments = whole.fragments.or_else(|| table.fragments.clone());
        whole.debug_info = whole.debug_info.or_else(|| table.debug_info.clone());
        whole.btf = whole.btf.or_else(|| table.btf.clone());
        next = table.extends.as_ref();
    }
    Some(whole)
}

fn origins(table: &KernelTable) -> Vec<(&'static str, Span)> {
    let source = table.source.as_ref().map(|v| ("source", v.span()));
    let package = table.package.as_ref().map(|v| ("package", v.span()));
    let rebuild = table.rebuild.as_ref().map(|v| ("rebuild", v.span()));
    [source, package, rebuild].into_iter().flatten().collect()
}

const ORIGINS: &str = "exactly one of `source` (build it), `package` (Debian's binary as it is) and `rebuild` \
                       (that binary, with the modules a series touches rebuilt)";

fn origin(r: &mut Resolver<'_>, name: &At<Name>, own: &KernelTable, whole: &KernelTable) -> Option<KernelOrigin> {
    let given = name.get().0.as_str();
    match &origins(whole)[..] {
        [] => {
            let problem = format!("kernel `{given}` does not say where it comes from");
            r.report(Diag::new(name.span(), problem).allowed(ORIGINS).note("`extends` takes it from another kernel"));
            return None;
        }
        [_] => {}
        [(first, at), (second, span), ..] => {
            let problem = format!("kernel `{given}` has both `{first}` and `{second}`");
            r.report(Diag::new(span.clone(), problem).allowed(ORIGINS).place(format!("`{first}` is at"), at.clone()));
            return None;
        }
    }
    if let Some(source) = &whole.source {
        let Some(fragments) = &whole.fragments else {
            let problem = format!("kernel `{given}` is built from source but has no `fragments`");
            r.report(Diag::new(source.span(), problem).note("its config is merged from templates/kernel/*.config"));
            return None;
        };
        return Some(KernelOrigin::Source {
            source: source.get().0.clone(),
            fragments: fragments.get().iter().map(text).collect(),
            debug_info: whole.debug_info.as_ref().is_some_and(|v| *v.get()),
            btf: whole.btf.as_ref().is_some_and(|v| *v.get()),
        });
    }
    source_only(r, given, own);
    if let Some(package) = &whole.package {
        if let Some(series) = own.series.as_ref().filter(|s| !s.get().is_empty()) {
            let problem = format!("kernel `{given}` is a package, used as it is: no series can apply");
            r.report(Diag::new(series.span(), problem).note(
                "to rebuild the modules that a series touches, declare another kernel with `rebuild` and `series`",
            ));
        }
        return Some(KernelOrigin::Package { package: package.get().0.clone() });
    }
    rebuild(r, given, whole)
}

/// Keys of the table itself that mean nothing without a build from source; inherited ones are simply not used.
fn source_only(r: &mut Resolver<'_>, given: &str, own: &KernelTable) {
    let keys = [
        ("fragments", own.fragments.as_ref().map(At::span)),
        ("debug-info", own.debug_info.as_ref().map(At::span)),
        ("btf", own.btf.as_ref().map(At::span)),
    ];
    for (key, span) in keys {
        if let Some(span) = span {
            let problem = format!("kernel `{given}` is not built from source, so `{key}` has no effect");
            r.report(Diag::new(span, problem).note("remove it, or build the kernel with `source`"));
        }
    }
}

fn rebuild(r: &mut Resolver<'_>, given: &str, whole: &KernelTable) -> Option<KernelOrigin> {
    let file = r.file;
    let of = whole.rebuild.as_ref()?;
    let packages: Vec<String> = file.kernel.iter().filter(|(_, t)| is_package(r, t)).map(|(n, _)| text(n)).collect();
    if !file.kernel.contains_key(of) {
        r.refers_to_one("kernel", of, strs(&packages));
        return None;
    }
    if !packages.contains(&of.get().0) {
        let problem =
            format!("kernel `{}` is no package, and only a package has headers to rebuild against", of.get().0);
        let allowed =
            if packages.is_empty() { "none yet; declare one with `package`".into() } else { packages.join(", ") };
        r.report(Diag::new(of.span(), problem).allowed(allowed));
        return None;
    }
    if whole.series.as_ref().is_none_or(|s| s.get().is_empty()) {
        let problem = format!("kernel `{given}` has no `series`, so there is nothing to rebuild");
        r.report(Diag::new(of.span(), problem).note(format!("give it a series, or boot `{}` itself", of.get().0)));
        return None;
    }
    Some(KernelOrigin::Rebuild { of: text(of) })
}

/// Follows `extends` to the first origin; a broken chain is reported by the kernel it belongs to.
fn is_package<'a>(r: &Resolver<'a>, mut table: &'a KernelTable) -> bool {
    for _ in 0..=r.file.kernel.len() {
        if !origins(table).is_empty() {
            return table.package.is_some();
        }
        match table.extends.as_ref().and_then(|parent| r.file.kernel.get(parent)) {
            Some(parent) => table = parent,
            None => return false,
        }
    }
    false
}

fn references(r: &mut Resolver<'_>, own: &KernelTable) {
    let Some(catalog) = r.catalog else { return };
    for name in own.series.iter().flat_map(|s| s.get()) {
        r.refers(
            "series",
            "a series is a folder, kernel-patches/NAME/, with a series.toml",
            name,
            strs(&catalog.series),
        );
    }
    for name in own.fragments.iter().flat_map(|f| f.get()) {
        r.refers("fragment", "a fragment is a file, templates/kernel/NAME.config", name, strs(&catalog.fragments));
    }
}
