//! The decoded file → a [`Lab`]: references, defaults, and everything that takes more than one value to judge.
//!
//! All mistakes are collected; a part that is wrong is left out so that the rest can still be judged, and the lab
//! comes out only if there was none.

mod guests;
mod kernels;
mod machine;
mod macs;
mod networks;
mod nics;

use std::path::PathBuf;

use crate::catalog::Catalog;
use crate::errors::Diag;
use crate::file::{At, LabFile, Name, Named};
use crate::model::{Image, Lab, Mirrors};
use crate::nearest::nearest;

/// Resolves `file`. `profile`, `profiles` and `root` of the lab are the caller's to fill in. Without a catalogue,
/// names of files are taken on trust.
pub(crate) fn resolve(file: &LabFile, catalog: Option<&Catalog>) -> Result<Lab, Vec<Diag>> {
    let mut r = Resolver { file, catalog, errors: Vec::new() };
    let kernels = kernels::resolve(&mut r);
    let networks = networks::resolve(&mut r);
    let guests = guests::resolve(&mut r);
    let machine = machine::resolve(&mut r, &guests);
    let lab = Lab {
        name: file.lab.name.as_ref().map_or_else(|| "lab".to_owned(), text),
        root: PathBuf::new(),
        profile: None,
        profiles: Vec::new(),
        default_kernel: text(&file.lab.kernel),
        suites: r.suites(),
        kernels,
        images: r.images(),
        networks,
        guests,
        machine,
        mirrors: Mirrors {
            debian: file.mirrors.debian.iter().map(|url| url.get().0.clone()).collect(),
            snapshot: file.mirrors.snapshot.iter().map(|url| url.get().0.clone()).collect(),
            kernel: file.mirrors.kernel.iter().map(|url| url.get().0.clone()).collect(),
        },
    };
    if r.errors.is_empty() { Ok(lab) } else { Err(r.errors) }
}

/// What the parts share.
struct Resolver<'a> {
    file: &'a LabFile,
    catalog: Option<&'a Catalog>,
    errors: Vec<Diag>,
}

impl Resolver<'_> {
    /// Adds an error.
    fn report(&mut self, diag: Diag) {
        self.errors.push(diag);
    }

    /// Whether `name` is one of `there`; if not, an error that says so. `what` is the kind of thing, `source` where
    /// such things are declared.
    fn refers<'n>(&mut self, what: &str, source: &str, name: &At<Name>, there: impl Iterator<Item = &'n str>) -> bool {
        let there: Vec<&str> = there.collect();
        let given = name.get().0.as_str();
        if there.contains(&given) {
            return true;
        }
        let diag = Diag::new(name.span(), format!("there is no {what} `{given}`"))
            .meant(nearest(given, there.iter().copied()))
            .allowed(if there.is_empty() { format!("none yet; {source}") } else { there.join(", ") });
        self.report(if there.is_empty() { diag } else { diag.note(source) });
        false
    }

    /// [`Resolver::refers`] to a table of the file.
    fn refers_to<T>(&mut self, what: &str, name: &At<Name>, table: &Named<T>) -> bool {
        self.refers_to_one(what, name, table.keys().map(|n| n.get().0.as_str()))
    }

    /// [`Resolver::refers`] to some of the tables that `what` is declared with.
    fn refers_to_one<'n>(&mut self, what: &str, name: &At<Name>, there: impl Iterator<Item = &'n str>) -> bool {
        self.refers(what, &format!("declare one with [{what}.NAME]"), name, there)
    }

    fn suites(&mut self) -> Vec<String> {
        let file = self.file;
        for name in &file.lab.suites {
            if let Some(catalog) = self.catalog {
                self.refers("suite", "a suite is a file, suites/NAME.toml", name, strs(&catalog.suites));
            }
        }
        file.lab.suites.iter().map(text).collect()
    }

    fn images(&mut self) -> std::collections::BTreeMap<String, Image> {
        let file = self.file;
        let resolve = |(name, table): (&At<Name>, &crate::file::ImageTable)| {
            let path = &table.definition;
            let given = path.get().0.to_string_lossy();
            if let Some(catalog) = self.catalog
                && !catalog.definitions.iter().any(|d| *d == given)
            {
                let allowed =
                    if catalog.definitions.is_empty() { "none yet".into() } else { catalog.definitions.join(", ") };
                self.report(
                    Diag::new(path.span(), format!("there is no image definition `{given}`"))
                        .meant(nearest(&given, strs(&catalog.definitions)))
                        .allowed(allowed)
                        .note("an image definition is a file, images/NAME.toml"),
                );
            }
            (text(name), Image { name: text(name), definition: path.get().0.clone() })
        };
        file.image.iter().map(resolve).collect()
    }
}

/// The text of a name.
fn text(name: &At<Name>) -> String {
    name.get().0.clone()
}

/// Borrows every string of a list.
fn strs(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().map(String::as_str)
}
