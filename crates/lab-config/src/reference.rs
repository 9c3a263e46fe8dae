//! The reference of `lab.toml` for people, printed from the schema, so that no key is without its line.

use std::fmt::Write as _;

use serde_json::Value;

use crate::file::kinds;
use crate::schema::{resolve, schema};

/// The tables at the top level, in the order in which a reader wants them; `profile` takes any of them.
const ORDER: [&str; 7] = ["lab", "kernel", "image", "guest", "network", "machine", "mirrors"];

/// A section of Markdown: a table of keys for each table of the file, then the kinds of values.
pub fn reference_markdown() -> String {
    let root = schema();
    let mut out = String::new();
    let mut told = Vec::new();
    for name in ORDER {
        let node = resolve(root, &root["properties"][name]);
        match node["patternProperties"].as_object().and_then(|p| p.values().next()) {
            Some(entry) => table(&mut out, &mut told, root, &format!("[{name}.NAME]"), resolve(root, entry)),
            None => table(&mut out, &mut told, root, &format!("[{name}]"), node),
        }
    }
    out.push_str("### Kinds of values\n\n| Kind | Written as |\n|---|---|\n");
    for kind in kinds() {
        let _ = writeln!(out, "| {} | {} |", kind.format.replace('-', " "), kind.allowed);
    }
    out
}

/// Describes a table and those within it. `told` lists the tables described so far with their headers.
fn table<'s>(out: &mut String, told: &mut Vec<(&'s Value, String)>, root: &'s Value, header: &str, node: &'s Value) {
    if let Some((_, other)) = told.iter().find(|(table, _)| *table == node) {
        let _ = writeln!(out, "### `{header}`\n\nAs `{other}`.\n");
        return;
    }
    told.push((node, header.to_owned()));
    let path = header.trim_matches(['[', ']']);
    let about = node["description"].as_str().unwrap_or_default();
    let _ = writeln!(out, "### `{header}`\n\n{about}\n\n| Key | Value | Default | Meaning |\n|---|---|---|---|");
    let mut inner = Vec::new();
    for (key, property) in node["properties"].as_object().into_iter().flatten() {
        let value = resolve(root, property);
        let items = resolve(root, &value["items"]);
        if items["properties"].is_object() {
            inner.push((format!("[[{path}.{key}]]"), items));
        } else if value["properties"].is_object() {
            inner.push((format!("[{path}.{key}]"), value));
        }
        let required = node["required"].as_array().is_some_and(|r| r.iter().any(|k| k == key));
        let default = match (&property["default"], required) {
            (_, true) => "must be given".to_owned(),
            (Value::Null, _) => String::new(),
            (Value::Array(a), _) if a.is_empty() => String::new(),
            (Value::Object(_), _) => String::new(),
            (default, _) => format!("`{default}`"),
        };
        let meaning = property["description"].as_str().unwrap_or_default();
        let _ = writeln!(out, "| `{key}` | {} | {default} | {meaning} |", kind_of(root, value));
    }
    out.push('\n');
    for (header, node) in inner {
        table(out, told, root, &header, node);
    }
}

fn kind_of(root: &Value, node: &Value) -> String {
    if let Some(choices) = node["oneOf"].as_array() {
        let choices = choices.iter().filter_map(|c| c["const"].as_str());
        return choices.map(|c| format!("`\"{c}\"`")).collect::<Vec<_>>().join(", ");
    }
    match node["type"].as_str().unwrap_or_default() {
        "array" if resolve(root, &node["items"])["properties"].is_object() => "tables, see below".into(),
        "array" => format!("array of: {}", kind_of(root, resolve(root, &node["items"]))),
        "object" => "table, see below".into(),
        "integer" => match (node["minimum"].as_i64(), node["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "whole number".into(),
        },
        "boolean" => "`true`, `false`".into(),
        _ => node["format"].as_str().unwrap_or("text").replace('-', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_file_is_described() {
        let all: Vec<&String> =
            schema()["properties"].as_object().unwrap().keys().filter(|k| *k != "profile").collect();
        assert_eq!(all.len(), ORDER.len());
        assert!(all.iter().all(|name| ORDER.contains(&name.as_str())));
    }
}
