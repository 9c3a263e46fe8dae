//! Why a step would be built: the difference between its recipe now and the one used last.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{Cache, Key, Kind, Recipe};

/// What [`Cache::why`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The result is in the cache; nothing would be built.
    Cached,
    /// The cache holds no result of this step.
    Never,
    /// These inputs differ from those of the result used last.
    Changed(Vec<Change>),
}

/// One input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The input's label.
    pub label: String,
    /// Its digest or value then; `None` if there was no such input.
    pub old: Option<String>,
    /// Its digest or value now; `None` if it is gone.
    pub new: Option<String>,
}

impl Cache {
    /// Compares `recipe` with the entry of the same step that was used last.
    pub fn why(&self, recipe: &Recipe) -> Result<Why> {
        let key = recipe.key();
        let mut latest: Option<(SystemTime, Recipe)> = None;
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_file()) {
            for (path, found) in self.entries(kind)? {
                if found == key {
                    return Ok(Why::Cached);
                }
                let Some(used) = last_used(&path) else { continue };
                // An entry another process prunes just now, or of a format of another version: not one to compare with.
                let Ok(old) = self.recipe(kind, &found) else { continue };
                if old.step == recipe.step && latest.as_ref().is_none_or(|(best, _)| used > *best) {
                    latest = Some((used, old));
                }
            }
        }
        Ok(latest.map_or(Why::Never, |(_, old)| Why::Changed(changes(&old, recipe))))
    }

    /// Every published entry of a kind.
    pub(crate) fn entries(&self, kind: Kind) -> Result<Vec<(std::path::PathBuf, Key)>> {
        use anyhow::Context;
        let dir = self.kind_dir(kind);
        let list = fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        Ok(list.flatten().filter_map(|e| Some((e.path(), e.file_name().to_str()?.parse().ok()?))).collect())
    }
}

/// When an entry was last used.
pub(crate) fn last_used(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok()
}

fn changes(old: &Recipe, new: &Recipe) -> Vec<Change> {
    let value =
        |recipe: &Recipe, label: &str| recipe.inputs.iter().find(|(l, _)| l == label).map(|(_, value)| value.clone());
    let mut found = Vec::new();
    for (label, now) in &new.inputs {
        let then = value(old, label);
        if then.as_ref() != Some(now) {
            found.push(Change { label: label.clone(), old: then, new: Some(now.clone()) });
        }
    }
    for (label, then) in &old.inputs {
        if value(new, label).is_none() {
            found.push(Change { label: label.clone(), old: Some(then.clone()), new: None });
        }
    }
    if found.is_empty() {
        let order = |r: &Recipe| r.inputs.iter().map(|(l, _)| l.as_str()).collect::<Vec<_>>().join(", ");
        found.push(Change { label: "order of inputs".into(), old: Some(order(old)), new: Some(order(new)) });
    }
    found
}
