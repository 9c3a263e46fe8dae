//! Where in the tree a value stands, in the words of the file.

use std::fmt;

/// A path of keys from the top.
#[derive(Debug, Clone)]
pub(super) struct Place(Vec<Step>);

#[derive(Debug, Clone)]
struct Step {
    key: String,
    /// The path goes on into an entry of the array that this key holds.
    entry: bool,
}

impl Place {
    /// The file itself.
    pub(super) fn top() -> Self {
        Place(Vec::new())
    }

    /// The value of `key` in this table.
    pub(super) fn key(&self, key: &str) -> Place {
        let mut steps = self.0.clone();
        steps.push(Step { key: key.to_owned(), entry: false });
        Place(steps)
    }

    /// An entry of this array.
    pub(super) fn entry(&self) -> Place {
        let mut steps = self.0.clone();
        if let Some(last) = steps.last_mut() {
            last.entry = true;
        }
        Place(steps)
    }

    /// The place as that of a table: `in [guest.a]`, `in [[guest.a.nic]]`, `at the top level`.
    pub(super) fn within(&self) -> String {
        within(&self.0)
    }

    /// How the table here is headed.
    pub(super) fn header(&self) -> String {
        header(&self.0)
    }
}

/// The place as that of a value: `` `cpus` in [guest.a] ``, `` an entry of `series` in [kernel.patched] ``.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((last, table)) = self.0.split_last() else { return f.write_str("the file") };
        let entry = if last.entry { "an entry of " } else { "" };
        write!(f, "{entry}`{}` {}", last.key, within(table))
    }
}

fn within(steps: &[Step]) -> String {
    if steps.is_empty() { "at the top level".into() } else { format!("in {}", header(steps)) }
}

fn header(steps: &[Step]) -> String {
    let path = steps.iter().map(|s| s.key.as_str()).collect::<Vec<_>>().join(".");
    if steps.last().is_some_and(|s| s.entry) { format!("[[{path}]]") } else { format!("[{path}]") }
}
