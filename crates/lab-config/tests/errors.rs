//! Every bad `lab.toml` of `tests/errors` against the exact message beside it.
//!
//! A case is `NAME.toml` and `NAME.stderr`; a first line `# profile: P` chooses a profile. The files such a lab may
//! name are those in `tests/project`. `UPDATE_EXPECTED=1` writes the messages anew; read them before committing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lab_config::{Catalog, ConfigErrors, Lab};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn stems(extension: &str) -> BTreeSet<String> {
    fs::read_dir(tests().join("errors"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn message(case: &str, catalog: &Catalog) -> Result<String, String> {
    let text = fs::read_to_string(tests().join("errors").join(case).with_extension("toml")).unwrap();
    let profile = text.lines().next().and_then(|line| line.strip_prefix("# profile: "));
    match Lab::parse_in(&text, "lab.toml", profile, Some(catalog)) {
        Ok(_) => Err(format!("{case}: accepted, though it is wrong")),
        Err(error) => {
            if let ConfigErrors::Invalid(errors) = &error {
                for e in errors {
                    let line = text.trim_start_matches('\u{feff}').lines().nth(e.line - 1).unwrap_or("");
                    assert_eq!(e.excerpt, line, "{case}: the excerpt is not line {}", e.line);
                    assert!(e.underline.contains('^'), "{case}: no caret");
                    assert!(e.column <= line.chars().count() + 1, "{case}: column {} is off the line", e.column);
                }
                assert!(!errors.is_empty(), "{case}: refused without a reason");
            }
            Ok(format!("{}\n", error.to_string().trim_end()))
        }
    }
}

#[test]
fn every_bad_lab_has_its_message() {
    let catalog = Catalog::scan(&tests().join("project")).unwrap();
    let cases = stems("toml");
    assert!(cases.len() >= 100, "only {} cases found", cases.len());
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for case in &cases {
        let expected_path = tests().join("errors").join(case).with_extension("stderr");
        let actual = match message(case, &catalog) {
            Ok(actual) => actual,
            Err(problem) => {
                wrong.push(problem);
                continue;
            }
        };
        if update {
            fs::write(&expected_path, &actual).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("{case}: expected\n{expected}\nbut it says\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn no_message_is_without_its_lab() {
    let orphans: Vec<String> = stems("stderr").difference(&stems("toml")).cloned().collect();
    assert!(orphans.is_empty(), "messages of no case: {orphans:?}");
}

#[test]
fn a_missing_file_is_named() {
    let error = Lab::load(Path::new("/nowhere/lab.toml"), None).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/lab.toml: "), "{error}");
}
