//! The JSON schema of `lab.toml`, generated from the types in `file`.
//!
//! It serves two readers: editors (completion, hovers, red lines) and the project's own check, so what an editor
//! accepts and what the lab accepts cannot drift apart.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::file::LabFile;

/// The schema, in a form that is pretty-printed and ends in a newline, to be kept at `docs/lab.schema.json`.
pub fn json_schema() -> String {
    let mut text = serde_json::to_string_pretty(schema()).expect("a JSON value can always be printed");
    text.push('\n');
    text
}

/// The schema as a value.
pub(crate) fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<LabFile>().to_value();
        in_terms_of_toml(&mut schema);
        with_partial_profiles(&mut schema);
        schema
    });
    &SCHEMA
}

/// Follows a `$ref` to its definition.
pub(crate) fn resolve<'s>(root: &'s Value, node: &'s Value) -> &'s Value {
    let name = node["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/"));
    name.map_or(node, |name| &root["$defs"][name])
}

/// Takes out what is Rust's and not the file's: null (a key that may be left out is simply not there), the width of
/// integers, the line breaks of comments.
fn in_terms_of_toml(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(in_terms_of_toml),
        Value::Object(object) => {
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|t| t != "null");
                if let [only] = &mut types[..] {
                    let only = only.take();
                    object.insert("type".into(), only);
                }
            }
            if object.get("type").is_some_and(|t| t == "integer") {
                object.remove("format");
            }
            if let Some(Value::Array(variants)) = object.get_mut("anyOf") {
                variants.retain(|v| v["type"] != "null");
                if let [Value::Object(only)] = &mut variants[..] {
                    let only = std::mem::take(only);
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            object.values_mut().for_each(in_terms_of_toml);
        }
        _ => {}
    }
}

/// In a profile no key is required, since the rest of the file provides it; what stands in an array is complete even
/// there, since arrays replace. So every definition a profile reaches through tables gets a twin without `required`.
fn with_partial_profiles(schema: &mut Value) {
    let Some(definitions) = schema["$defs"].as_object_mut() else { return };
    let mut twins = Map::new();
    let mut todo = vec!["ProfileTable".to_owned()];
    while let Some(name) = todo.pop() {
        let twin_name = twin(&name);
        if twins.contains_key(&twin_name) {
            continue;
        }
        let mut definition = definitions[&name].clone();
        relax(&mut definition, definitions, &mut todo);
        twins.insert(twin_name, definition);
    }
    let profile = twins.remove(&twin("ProfileTable")).expect("made above");
    definitions.extend(twins);
    definitions.insert("ProfileTable".into(), profile);
}

fn twin(name: &str) -> String {
    format!("{name}InProfile")
}

fn relax(node: &mut Value, definitions: &Map<String, Value>, todo: &mut Vec<String>) {
    let Value::Object(object) = node else { return };
    object.remove("required");
    object.remove("minProperties");
    object.remove("default");
    for (key, value) in object.iter_mut() {
        match key.as_str() {
            "properties" | "patternProperties" => {
                value.as_object_mut().into_iter().flatten().for_each(|(_, v)| relax(v, definitions, todo));
            }
            "$ref" => {
                let name = value.as_str().and_then(|r| r.strip_prefix("#/$defs/")).unwrap_or_default().to_owned();
                if definitions[&name]["type"] == "object" {
                    *value = format!("#/$defs/{}", twin(&name)).into();
                    todo.push(name);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::kind;

    fn walk(node: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
        match node {
            Value::Array(items) => items.iter().for_each(|i| walk(i, visit)),
            Value::Object(object) => {
                visit(object);
                object.values().for_each(|v| walk(v, visit));
            }
            _ => {}
        }
    }

    #[test]
    fn every_string_format_has_its_parser() {
        let mut seen = 0;
        walk(schema(), &mut |object| {
            if let (Some("string"), Some(format)) =
                (object.get("type").and_then(Value::as_str), object.get("format").and_then(Value::as_str))
            {
                assert!(kind(format).is_some(), "no parser for format {format}");
                seen += 1;
            }
        });
        assert!(seen > 20, "the schema has lost its formats");
    }

    #[test]
    fn every_default_passes_its_own_parser() {
        let mut seen = 0;
        walk(schema(), &mut |object| {
            let (Some(Value::String(format)), Some(Value::String(default))) =
                (object.get("format"), object.get("default"))
            else {
                return;
            };
            (kind(format).unwrap().check)(default).unwrap();
            seen += 1;
        });
        assert!(seen > 5);
    }

    #[test]
    fn every_key_is_documented() {
        walk(schema(), &mut |object| {
            for (key, value) in object.get("properties").and_then(Value::as_object).into_iter().flatten() {
                assert!(value["description"].is_string(), "`{key}` has no description: {value}");
            }
        });
    }

    #[test]
    fn nothing_is_required_in_a_profile_but_within_arrays() {
        let definitions = &schema()["$defs"];
        assert!(definitions["ImageTable"]["required"].is_array());
        assert!(definitions["ImageTableInProfile"]["required"].is_null());
        assert!(definitions["NicTable"]["required"].is_array());
        assert!(definitions["NicTableInProfile"].is_null());
    }
}
