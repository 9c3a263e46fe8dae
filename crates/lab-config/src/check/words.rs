//! The schema in words: what a node allows, as sentences for people.

use serde_json::Value;

use crate::file::kind;
use crate::schema::resolve;

use super::place::Place;

/// The type a node wants: one of JSON schema's names.
pub(super) fn expected(node: &Value) -> &str {
    node["type"].as_str().unwrap_or(if node["oneOf"].is_array() { "string" } else { "object" })
}

/// What a node allows.
pub(super) fn allowed(root: &Value, node: &Value) -> String {
    let node = resolve(root, node);
    let choices = choices(node);
    match expected(node) {
        _ if !choices.is_empty() => choices.iter().map(|c| format!("\"{c}\"")).collect::<Vec<_>>().join(", "),
        "string" => {
            node["format"].as_str().and_then(kind).map_or("a string".into(), |k| format!("a string: {}", k.allowed))
        }
        "integer" => match (node["minimum"].as_i64(), node["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            (Some(least), None) => format!("a whole number from {least}"),
            _ => "a whole number".into(),
        },
        "boolean" => "true or false".into(),
        "array" => match expected(resolve(root, &node["items"])) {
            "object" => "an array of tables".into(),
            _ => format!("an array, each entry of which is {}", allowed(root, &node["items"])),
        },
        _ => match keys(node)[..] {
            [] => "one table for each name".into(),
            ref keys => format!("a table with the keys {}", keys.join(", ")),
        },
    }
}

/// The strings an enumeration allows; empty for any other node.
pub(super) fn choices(node: &Value) -> Vec<&str> {
    let of = |key: &str| node[key].as_array().into_iter().flatten();
    of("oneOf").filter_map(|c| c["const"].as_str()).chain(of("enum").filter_map(Value::as_str)).collect()
}

/// The keys of a table.
pub(super) fn keys(node: &Value) -> Vec<&str> {
    node["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

/// A table within another.
pub(super) struct Owner<'s> {
    key: &'s str,
    of_array: bool,
}

impl Owner<'_> {
    /// Its place, if `place` is that of the other.
    pub(super) fn of(&self, place: &Place) -> Place {
        let place = place.key(self.key);
        if self.of_array { place.entry() } else { place }
    }
}

/// The table within `node` that has the key `name`, if there is one: the usual slip of a key under the wrong header.
pub(super) fn owner<'s>(root: &'s Value, node: &'s Value, name: &str) -> Option<Owner<'s>> {
    node["properties"].as_object()?.iter().find_map(|(key, child)| {
        let child = resolve(root, child);
        let of_array = child["items"].is_object();
        let table = if of_array { resolve(root, &child["items"]) } else { child };
        table["properties"].get(name).map(|_| Owner { key, of_array })
    })
}

/// A TOML type with its article.
pub(super) fn a(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

/// `` `a`, `b` and `c` ``.
pub(super) fn enumerated(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}
