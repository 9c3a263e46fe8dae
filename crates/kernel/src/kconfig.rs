//! Says why Kconfig may have refused an option: whether the tree has it at all, and what it depends on.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A phrase about `symbol` (`CONFIG_…`) in the tree at `source`; `None` if there is nothing to say.
pub fn hint(source: &Path, symbol: &str) -> Result<Option<String>> {
    let name = symbol.strip_prefix("CONFIG_").unwrap_or(symbol);
    let mut open = vec![source.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                open.push(path);
            } else if entry.file_name().to_string_lossy().starts_with("Kconfig")
                && let Some(found) = look(&path, source, name)?
            {
                return Ok(Some(found));
            }
        }
    }
    Ok(Some("this kernel has no such option".into()))
}

fn look(path: &PathBuf, source: &Path, name: &str) -> Result<Option<String>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !begins(line, name));
    let Some((number, _)) = lines.next() else { return Ok(None) };
    let own: Vec<&str> =
        lines.map(|(_, line)| line).take_while(|line| line.is_empty() || line.starts_with(['\t', ' '])).collect();
    let needs: Vec<&str> = own.iter().filter_map(|line| line.trim().strip_prefix("depends on ")).collect();
    let place = format!("{}:{}", path.strip_prefix(source).unwrap_or(path).display(), number + 1);
    Ok(Some(if needs.is_empty() {
        format!("see {place}")
    } else {
        format!("{place} depends on {}", needs.join(" && "))
    }))
}

fn begins(line: &str, name: &str) -> bool {
    let rest = line.strip_prefix("config ").or_else(|| line.strip_prefix("menuconfig "));
    rest.is_some_and(|rest| rest.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_where_they_are_declared() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("net/a")).unwrap();
        let text = "config A\n\tbool \"a\"\n\tdepends on NET && (B || C)\n\tdepends on INET\n\thelp\n\t  Text.\n\nconfig B\n\tbool\n";
        fs::write(dir.path().join("net/a/Kconfig"), text).unwrap();
        let say = |symbol| hint(dir.path(), symbol).unwrap().unwrap();
        assert_eq!(say("CONFIG_A"), "net/a/Kconfig:1 depends on NET && (B || C) && INET");
        assert_eq!(say("CONFIG_B"), "see net/a/Kconfig:8");
        assert_eq!(say("CONFIG_Z"), "this kernel has no such option");
    }
}
