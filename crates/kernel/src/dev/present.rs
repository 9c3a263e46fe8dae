//! Finds the sign by which a tree is known to have a patch: a line the patch adds and the file did not have.

use crate::series::Present;

/// Picks the most telling line that `patch` adds; `before` gives a file's text without the patch.
///
/// `None` if it adds no line that says enough: then a person has to write the sign.
pub fn sign(patch: &str, before: impl Fn(&str) -> Option<String>) -> Option<Present> {
    let mut best: Option<(usize, Present)> = None;
    let mut file = String::new();
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("+++ b/") {
            file = path.to_string();
            continue;
        }
        let Some(added) = line.strip_prefix('+').filter(|_| !file.is_empty() && !line.starts_with("+++")) else {
            continue;
        };
        let text = added.trim();
        let weight = weight(&file, text);
        if weight > best.as_ref().map_or(0, |(weight, _)| *weight) && !before(&file).is_some_and(|b| b.contains(text)) {
            best = Some((weight, Present { file: file.clone(), contains: text.into() }));
        }
    }
    best.map(|(_, present)| present)
}

/// How much a line tells: identifiers count, comments and brackets do not, code of the kernel comes before its tests.
fn weight(file: &str, text: &str) -> usize {
    let comment = ["/*", "*", "//", "#"].iter().any(|start| text.starts_with(start)) && !text.starts_with("#include");
    let letters = text.chars().filter(|c| c.is_alphanumeric() || *c == '_').count();
    if comment || letters < 8 {
        return 0;
    }
    if file.starts_with("tools/") || file.starts_with("Documentation/") {
        letters.min(60)
    } else {
        letters.min(60) + 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "diff --git a/d/a.c b/d/a.c\n--- a/d/a.c\n+++ b/d/a.c\n@@ -1 +1,4 @@\n-\treturn err;\n+\t/* A very \
                         long comment that tells a lot but is prose. */\n+\treturn net_xmit_eval(err);\n+\tint err;\n+}\n\
                         diff --git a/tools/t.sh b/tools/t.sh\n--- /dev/null\n+++ b/tools/t.sh\n@@ -0,0 +1 @@\n+echo \
                         something much longer than any line of the code itself\n-- \n2.47\n";

    #[test]
    fn code_that_was_not_there_before_is_the_sign() {
        let found = sign(PATCH, |_| Some("return err;".into())).unwrap();
        assert_eq!(found, Present { file: "d/a.c".into(), contains: "return net_xmit_eval(err);".into() });
    }

    #[test]
    fn a_line_the_file_had_is_no_sign() {
        let found = sign(PATCH, |file| (file == "d/a.c").then(|| "\treturn net_xmit_eval(err);\n".into())).unwrap();
        assert_eq!(found.file, "tools/t.sh");
        assert_eq!(sign("+++ b/a.c\n+}\n+\n+x = 1;\n", |_| None), None);
    }
}
