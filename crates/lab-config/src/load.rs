//! From a file to a [`Lab`]: the steps in their order.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::catalog::Catalog;
use crate::check::{Extent, check};
use crate::errors::{ConfigErrors, Diag};
use crate::file::LabFile;
use crate::merge::overlay;
use crate::model::{Lab, ProfileInfo};
use crate::nearest::nearest;
use crate::resolve::resolve;
use crate::source::Source;
use crate::syntax::{self, Tree};

impl Lab {
    /// Reads the `lab.toml` at `path`, with `profile` laid over it. Names of series, fragments, suites and image
    /// definitions must be those of files beside it.
    ///
    /// Every profile of the file is checked, whichever is chosen, so that none is found broken the day it is needed.
    pub fn load(path: &Path, profile: Option<&str>) -> Result<Lab, ConfigErrors> {
        let unreadable = |path: &Path, source| ConfigErrors::Unreadable { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(|e| unreadable(path, e))?;
        let root = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = fs::canonicalize(root).map_err(|e| unreadable(root, e))?;
        let catalog = Catalog::scan(&root).map_err(|(path, e)| unreadable(&path, e))?;
        let lab = Lab::parse_in(&text, &path.to_string_lossy(), profile, Some(&catalog))?;
        Ok(Lab { root, ..lab })
    }

    /// Reads a lab from `text`, which messages call `name`. Names of files are taken on trust, since there is no
    /// folder to look into; [`Lab::root`] is empty.
    pub fn parse(text: &str, name: &str, profile: Option<&str>) -> Result<Lab, ConfigErrors> {
        Lab::parse_in(text, name, profile, None)
    }

    /// [`Lab::parse`], with names of files checked against `catalog` if there is one.
    pub fn parse_in(
        text: &str,
        name: &str,
        profile: Option<&str>,
        catalog: Option<&Catalog>,
    ) -> Result<Lab, ConfigErrors> {
        // Editors on Windows put a byte-order mark there; columns count from behind it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Source { name, text };
        let placed = |diags| ConfigErrors::placed(diags, &source);
        let tree = syntax::parse(text).map_err(placed)?;
        let slips = check(&tree, Extent::Part);
        if !slips.is_empty() {
            return Err(placed(slips));
        }
        let (base, profiles) = split(tree);
        let infos: Vec<ProfileInfo> = profiles
            .iter()
            .map(|(name, p)| ProfileInfo { name: name.clone(), description: p.description.clone() })
            .collect();
        if let Some(wanted) = profile.filter(|p| !profiles.contains_key(*p)) {
            return Err(ConfigErrors::UnknownProfile {
                file: name.to_owned(),
                name: wanted.to_owned(),
                nearest: nearest(wanted, profiles.keys().map(String::as_str)).map(str::to_owned),
                allowed: profiles.into_keys().collect(),
            });
        }
        let with = |profile: Option<&str>| {
            let over = profile.map(|p| (p, &profiles[p].body));
            combine(&base, over, catalog)
        };
        let lab = with(profile).map_err(placed)?;
        let others = profiles.keys().filter(|p| Some(p.as_str()) != profile);
        let slips: Vec<Diag> = others.filter_map(|p| with(Some(p)).err()).flatten().collect();
        if !slips.is_empty() {
            return Err(placed(slips));
        }
        Ok(Lab { profile: profile.map(str::to_owned), profiles: infos, ..lab })
    }
}

struct Profile<'t> {
    description: String,
    body: DeTable<'t>,
}

/// Takes the profiles out of the file.
fn split(mut tree: Tree<'_>) -> (Tree<'_>, BTreeMap<String, Profile<'_>>) {
    let mut profiles = BTreeMap::new();
    if let Some(DeValue::Table(all)) = tree.get_mut().remove("profile").map(Spanned::into_inner) {
        for (name, body) in all {
            let DeValue::Table(mut body) = body.into_inner() else { continue };
            let description = body.remove("description").map(Spanned::into_inner);
            let description = description.as_ref().and_then(|d| d.as_str()).unwrap_or_default().to_owned();
            profiles.insert(name.into_inner().into_owned(), Profile { description, body });
        }
    }
    (tree, profiles)
}

/// The lab that the file and one profile make.
fn combine(base: &Tree<'_>, over: Option<(&str, &DeTable<'_>)>, catalog: Option<&Catalog>) -> Result<Lab, Vec<Diag>> {
    let mut tree = base.clone();
    if let Some((_, body)) = over {
        overlay(tree.get_mut(), body);
    }
    let slips = check(&tree, Extent::Whole);
    let result = if slips.is_empty() { decode(tree).and_then(|file| resolve(&file, catalog)) } else { Err(slips) };
    result.map_err(|slips| match over {
        Some((name, _)) => {
            slips.into_iter().map(|s| s.note(format!("with profile `{name}` laid over the file"))).collect()
        }
        None => slips,
    })
}

/// Into the file's types. The check has accepted the tree, so a failure here is one that the schema cannot express.
fn decode(tree: Tree<'_>) -> Result<LabFile, Vec<Diag>> {
    LabFile::deserialize(Deserializer::from(tree))
        .map_err(|error| vec![Diag::new(error.span().unwrap_or(0..0), error.message())])
}
