//! Records on disk as a run goes: nothing that happened is lost when the run dies, and nothing that did not happen
//! reads as a pass.
//!
//! `journal.jsonl` holds one [`Record`] a line. Before a test starts, its record is appended with the status
//! `did-not-finish` and synced; when it ends, the real record is appended and synced. The last line for a test and
//! iteration counts, so whatever kills the run leaves the truth behind. [`recover`] turns it into a report.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use crate::results::{Record, Report};

/// File name of the journal in the report directory.
pub const JOURNAL: &str = "journal.jsonl";

/// A journal could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A journal being written.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Starts a new journal; one of an earlier run is replaced. The first line is the report without records.
    pub fn create(dir: &Path, head: &Report) -> Result<Journal, JournalError> {
        let path = dir.join(JOURNAL);
        let wrap = |source| JournalError { path: path.clone(), source };
        let file = File::create(&path).map_err(wrap)?;
        let mut journal = Journal { path: path.clone(), file };
        journal.line(&serde_json::to_vec(head).map_err(|e| wrap(e.into()))?)?;
        // The name itself must survive too.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(wrap)?;
        Ok(journal)
    }

    /// Appends a record and waits until it is on disk.
    pub fn record(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = serde_json::to_vec(record);
        let line = line.map_err(|e| JournalError { path: self.path.clone(), source: e.into() })?;
        self.line(&line)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let mut bytes = line.to_vec();
        bytes.push(b'\n');
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|source| JournalError { path: self.path.clone(), source })
    }
}

/// What a run that died has left: its report, incomplete, with a record for each test that was begun.
pub fn recover(dir: &Path) -> Result<Report, JournalError> {
    let path = dir.join(JOURNAL);
    let wrap = |source| JournalError { path: path.clone(), source };
    let mut lines = BufReader::new(File::open(&path).map_err(wrap)?).lines();
    let head = lines.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())).map_err(wrap)?;
    let mut report: Report = serde_json::from_str(&head).map_err(|e| wrap(e.into()))?;
    let mut index: HashMap<(String, u32), usize> = HashMap::new();
    for line in lines {
        // The last line may be cut short by the death that this is about.
        let Ok(record) = serde_json::from_str::<Record>(&line.map_err(wrap)?) else { break };
        let key = (record.test.clone(), record.iteration);
        match index.get(&key) {
            Some(&at) => report.records[at] = record,
            None => {
                index.insert(key, report.records.len());
                report.records.push(record);
            }
        }
    }
    Ok(report)
}

/// Writes a file so that it is either the old one or the new one, whatever happens.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let temporary = path.with_extension("partial");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // Best effort: the error that matters is the one above.
        let _ = fs::remove_file(&temporary);
        JournalError { path: path.to_path_buf(), source }
    })
}
