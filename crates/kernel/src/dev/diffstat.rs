//! How much a patch changes, file by file, as `git diff --stat` tells it.
//!
//! Lines are counted within the hunks alone, by the lengths their heads give: a patch from a mail goes on after its last
//! hunk, with a signature that looks like a removed line.

use serde::Serialize;

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileStat {
    /// The file, by its name after the patch; a removed one by its last.
    pub path: String,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// The files a patch changes, in its order.
pub fn diffstat(patch: &str) -> Vec<FileStat> {
    let mut stats: Vec<FileStat> = Vec::new();
    // Lines of the hunk that are still to come, before and after the change.
    let (mut old, mut new) = (0usize, 0usize);
    for line in patch.lines() {
        if old > 0 || new > 0 {
            let stat = stats.last_mut();
            match (line.as_bytes().first(), stat) {
                (Some(b'+'), Some(stat)) => {
                    stat.added += 1;
                    new = new.saturating_sub(1);
                }
                (Some(b'-'), Some(stat)) => {
                    stat.removed += 1;
                    old = old.saturating_sub(1);
                }
                // "\ No newline at end of file" is no line of the file.
                (Some(b'\\'), _) => {}
                _ => (old, new) = (old.saturating_sub(1), new.saturating_sub(1)),
            }
        } else if let Some((_, path)) = line.strip_prefix("diff --git a/").and_then(|rest| rest.split_once(" b/")) {
            stats.push(FileStat { path: path.into(), added: 0, removed: 0 });
        } else if let Some(lengths) = line.strip_prefix("@@ -").and_then(hunk) {
            (old, new) = lengths;
        }
    }
    stats
}

/// The lengths in `12,7 +12,9 @@ …`; one that is left out is 1.
fn hunk(head: &str) -> Option<(usize, usize)> {
    let (ranges, _) = head.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let length = |range: &str| match range.split_once(',') {
        Some((_, length)) => length.parse().ok(),
        None => Some(1),
    };
    Some((length(old)?, length(new)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `git format-patch` wrote above each patch is what is counted below it.
    #[test]
    fn patches_of_the_project_count_as_git_counted_them() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-patches/rxe");
        let mut seen = 0;
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().extension().is_none_or(|ext| ext != "patch") {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let said = text.lines().find(|line| line.contains(" changed, ")).unwrap();
            let number = |word: &str| -> usize {
                let part = said.split(", ").find(|part| part.contains(word));
                part.map_or(0, |part| part.trim().split(' ').next().unwrap().parse().unwrap())
            };
            let stats = diffstat(&text);
            let sum = |of: fn(&FileStat) -> usize| stats.iter().map(of).sum::<usize>();
            let ours = (stats.len(), sum(|s| s.added), sum(|s| s.removed));
            assert_eq!(
                ours,
                (number("changed"), number("insertion"), number("deletion")),
                "{}",
                entry.path().display()
            );
            seen += 1;
        }
        assert!(seen >= 2);
    }

    #[test]
    fn a_signature_is_no_change() {
        let patch = "diff --git a/a.c b/a.c\n--- a/a.c\n+++ b/a.c\n@@ -1 +1,2 @@\n-old\n\\ No newline at end of file\n\
                     +new\n+-- more\n-- \n2.47\n";
        assert_eq!(diffstat(patch), [FileStat { path: "a.c".into(), added: 2, removed: 1 }]);
        assert_eq!(diffstat("no patch\n+ at all\n"), []);
    }
}
