//! Mistakes in suite files, each beside the exact message it must give: `tests/data/mistakes/NAME.toml` and `.txt`.
//! After a deliberate change of a message, `UPDATE=1 cargo test -p suite --test mistakes` writes the new ones.

use std::fs;
use std::path::Path;

#[test]
fn every_mistake_has_its_message() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mistakes");
    let mut paths: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml"));
    paths.sort();
    assert!(paths.len() > 10);
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().into();
        let said = match suite::load_texts(&[(name, text)]) {
            Ok(loaded) => panic!("{} loads, as {} tests", path.display(), loaded.tests.len()),
            Err(error) => format!("{error}\n"),
        };
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        let due = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(said, due, "{}", path.display());
    }
}
