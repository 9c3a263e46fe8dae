//! Files kept from a test: what its programs printed, what it pulled, what the consoles said meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::context::Context;
use crate::guests::Guests;
use crate::model::Test;
use crate::results::Artifact;

/// Writes everything under `tests/NAME/` of the report directory. Empty outputs leave no file.
pub(super) fn keep(
    report_dir: &Path,
    test: &Test,
    iteration: u32,
    context: &mut Context,
    guests: &dyn Guests,
    consoles: &BTreeMap<String, u64>,
) -> Result<Vec<Artifact>, String> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (label, output) in context.finish() {
        if output.dropped > 0 {
            context.notes.push(format!("`{label}` printed {} bytes more than are kept", output.dropped));
        }
        files.push((format!("{label}.stdout"), output.stdout));
        files.push((format!("{label}.stderr"), output.stderr));
    }
    files.append(&mut context.files);
    for (guest, from) in consoles {
        match guests.console(guest, *from) {
            Ok((bytes, _)) => files.push((format!("console-{guest}.log"), bytes)),
            Err(why) => context.notes.push(why.to_string()),
        }
    }
    let round = if iteration > 1 { format!(".{iteration}") } else { String::new() };
    let folder = format!("tests/{}.{}{round}", test.suite, test.name);
    let mut artifacts = Vec::new();
    for (name, content) in files.into_iter().filter(|(_, content)| !content.is_empty()) {
        let path = format!("{folder}/{name}");
        let full = report_dir.join(&path);
        let written = fs::create_dir_all(report_dir.join(&folder)).and_then(|()| fs::write(&full, &content));
        written.map_err(|error| format!("{}: {error}", full.display()))?;
        artifacts.push(Artifact { name, path, bytes: content.len() as u64 });
    }
    Ok(artifacts)
}
