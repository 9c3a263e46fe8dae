//! The result of a run in the forms people and programs want: table, `results.json`, JUnit XML, KTAP.
//!
//! All are pure functions of a [`Report`]; [`write_all`] puts the files side by side in the report directory.

mod bound;
mod junit;
mod ktap;
mod table;

use std::fs;
use std::io;
use std::path::Path;

use crate::results::Report;
use crate::run::{JOURNAL, JournalError, replace};

pub use junit::junit;
pub use ktap::ktap;
pub use table::{headline, line, pair, table};

/// The machine-readable report.
pub const RESULTS: &str = "results.json";
/// For CI systems.
pub const JUNIT: &str = "junit.xml";
/// For kernel people's tools.
pub const KTAP: &str = "results.ktap";

/// Writes every report of a run into a directory, which is made if missing.
pub fn write_all(report: &Report, dir: &Path) -> Result<(), JournalError> {
    fs::create_dir_all(dir).map_err(|source| JournalError { path: dir.to_path_buf(), source })?;
    let path = dir.join(RESULTS);
    let json = serde_json::to_vec_pretty(report).map_err(|e| JournalError { path: path.clone(), source: e.into() })?;
    replace(&path, &json)?;
    replace(&dir.join(JUNIT), junit(report).as_bytes())?;
    replace(&dir.join(KTAP), ktap(report).as_bytes())
}

/// Reads a report back; the one of a run that died comes from its journal and is not complete.
pub fn read(dir: &Path) -> Result<Report, JournalError> {
    let path = dir.join(RESULTS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| JournalError { path, source: e.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => crate::run::recover(dir),
        Err(source) => Err(JournalError { path, source }),
    }
}

/// Takes away what an earlier run has left in the directory, and nothing else.
pub(crate) fn remove_old(dir: &Path) -> Result<(), JournalError> {
    let gone = |result: io::Result<()>, path: &Path| match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(JournalError { path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    };
    for name in [RESULTS, JUNIT, KTAP, JOURNAL] {
        let path = dir.join(name);
        gone(fs::remove_file(&path), &path)?;
    }
    let tests = dir.join("tests");
    gone(fs::remove_dir_all(&tests), &tests)
}
