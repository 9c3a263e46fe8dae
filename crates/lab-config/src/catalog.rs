//! What lies beside `lab.toml` and can be named in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names of the project's files that a lab refers to, each list in name order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Folders of `kernel-patches/` that hold a `series.toml`.
    pub series: Vec<String>,
    /// `templates/kernel/NAME.config`.
    pub fragments: Vec<String>,
    /// `suites/NAME.toml`.
    pub suites: Vec<String>,
    /// `images/NAME.toml` that say which packages they hold (`root = …`), as paths relative to the project.
    pub definitions: Vec<String>,
}

impl Catalog {
    /// Lists what is in the project at `root`. A folder that is not there holds nothing; one that cannot be read is
    /// an error with its path.
    pub fn scan(root: &Path) -> Result<Catalog, (PathBuf, io::Error)> {
        let series_root = root.join("kernel-patches");
        let is_series = |name: &String| series_root.join(name).join("series.toml").is_file();
        let stems = |folder: &str, suffix: &str| {
            let names = names(&root.join(folder))?;
            Ok(names.iter().filter_map(|n| n.strip_suffix(suffix)).map(str::to_owned).collect::<Vec<_>>())
        };
        Ok(Catalog {
            series: names(&series_root)?.into_iter().filter(is_series).collect(),
            fragments: stems("templates/kernel", ".config")?,
            suites: stems("suites", ".toml")?,
            definitions: stems("images", ".toml")?
                .iter()
                .map(|stem| format!("images/{stem}.toml"))
                .filter(|path| is_definition(&root.join(path)))
                .collect(),
        })
    }
}

/// Beside image definitions lie the package roots and the toolroot's fix-ups. A file that cannot be read or is no TOML
/// passes: whoever reads all of it has more to say about that.
fn is_definition(path: &Path) -> bool {
    let table = fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_none_or(|table| table.get("root").is_some_and(toml::Value::is_str))
}

fn names(folder: &Path) -> Result<Vec<String>, (PathBuf, io::Error)> {
    let blame = |error| (folder.to_owned(), error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(blame(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no UTF-8 cannot be written in TOML either.
        names.extend(entry.map_err(blame)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
