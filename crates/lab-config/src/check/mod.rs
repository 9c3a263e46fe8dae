//! Keys and values against the schema: everything that can be judged one value at a time.
//!
//! Walks the tree beside the schema and reports each slip where it stands: unknown keys, missing keys, wrong types,
//! values out of range, strings that break the rules of their format, things given twice. What needs more than one
//! value to judge (references, conflicts) is left to `resolve`.

mod place;
mod words;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::errors::Diag;
use crate::file::{Name, kind};
use crate::nearest::nearest;
use crate::schema;
use crate::source::Span;

use place::Place;

/// Whether keys may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A part of a lab, which a profile or the rest of the file completes. Tables may lack keys; those in arrays may
    /// not, since arrays never merge.
    Part,
    /// All of a lab.
    Whole,
}

/// Checks a whole file or what a merge made of it.
pub(crate) fn check(tree: &Spanned<DeTable<'_>>, extent: Extent) -> Vec<Diag> {
    let mut check = Check { root: schema::schema(), errors: Vec::new() };
    check.table(&Place::top(), check.root, tree.get_ref(), tree.span(), extent);
    check.errors
}

struct Check<'s> {
    root: &'s Value,
    errors: Vec<Diag>,
}

impl<'s> Check<'s> {
    fn value(&mut self, place: &Place, node: &'s Value, value: &Spanned<DeValue<'_>>, extent: Extent) {
        let node = schema::resolve(self.root, node);
        let span = value.span();
        match (value.get_ref(), words::expected(node)) {
            (DeValue::Table(table), "object") => self.table(place, node, table, span, extent),
            (DeValue::Array(items), "array") => self.array(place, node, items.iter(), span),
            (DeValue::String(text), "string") => self.string(place, node, text, span),
            (DeValue::Integer(number), "integer") => self.integer(place, node, number, span),
            (DeValue::Boolean(_), "boolean") => {}
            (found, _) => self.errors.push(
                Diag::new(span, format!("{place} is {}", words::a(found.type_str())))
                    .meant(self.meant_by(place, node, found))
                    .allowed(words::allowed(self.root, node)),
            ),
        }
    }

    fn table(&mut self, place: &Place, node: &'s Value, table: &DeTable<'_>, span: Span, extent: Extent) {
        let keys = &node["properties"];
        let named = node["patternProperties"].as_object().and_then(|p| p.values().next());
        for (key, value) in table {
            let name: &str = key.get_ref();
            if let Some(node) = keys.get(name) {
                self.value(&place.key(name), node, value, extent);
            } else if let Some(node) = named {
                match name.parse::<Name>() {
                    Ok(_) => self.value(&place.key(name), node, value, extent),
                    Err(bad) => {
                        self.errors.push(Diag::new(key.span(), bad.problem).meant(bad.meant).allowed(bad.allowed));
                    }
                }
            } else {
                self.unknown(place, node, name, key.span());
            }
        }
        if extent == Extent::Whole {
            if table.is_empty() && node["minProperties"].as_u64().is_some_and(|least| least > 0) {
                self.errors.push(
                    Diag::new(span.clone(), format!("{place} is empty"))
                        .allowed(format!("at least one {}", place.key("NAME").header())),
                );
            }
            self.missing(place, node, table, span);
        }
    }

    fn unknown(&mut self, place: &Place, node: &'s Value, name: &str, span: Span) {
        let keys = words::keys(node);
        let near = nearest(name, keys.iter().copied());
        let mut diag =
            Diag::new(span, format!("unknown key `{name}` {}", place.within())).meant(near).allowed(keys.join(", "));
        if let Some(owner) = words::owner(self.root, node, name).filter(|_| near.is_none()) {
            diag = diag.note(format!("`{name}` is a key of {}", owner.of(place).header()));
        }
        self.errors.push(diag);
    }

    fn missing(&mut self, place: &Place, node: &'s Value, table: &DeTable<'_>, span: Span) {
        let required = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let missing: Vec<&str> = required.filter(|key| !table.contains_key(*key)).collect();
        if missing.is_empty() {
            return;
        }
        let mut diag = Diag::new(span, format!("no {} {}", words::enumerated(&missing), place.within()));
        for key in missing {
            let property = &node["properties"][key];
            let about = property["description"].as_str().unwrap_or_default();
            diag = diag.note(format!("`{key}`: {about}"));
        }
        self.errors.push(diag);
    }

    fn array<'v, 'i: 'v>(
        &mut self,
        place: &Place,
        node: &'s Value,
        items: impl ExactSizeIterator<Item = &'v Spanned<DeValue<'i>>>,
        span: Span,
    ) {
        let count = items.len() as u64;
        if let Some(least) = node["minItems"].as_u64().filter(|&least| count < least) {
            let problem = if count == 0 { "is empty".to_owned() } else { format!("has {count} entries") };
            let allowed = format!("at least {least} {}", if least == 1 { "entry" } else { "entries" });
            self.errors.push(Diag::new(span.clone(), format!("{place} {problem}")).allowed(allowed));
        }
        if let Some(most) = node["maxItems"].as_u64().filter(|&most| count > most) {
            let allowed = format!("at most {most} entries");
            self.errors.push(Diag::new(span, format!("{place} has {count} entries")).allowed(allowed));
        }
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for item in items {
            self.value(&place.entry(), &node["items"], item, Extent::Whole);
            if node["uniqueItems"] != Value::Bool(true) {
                continue;
            }
            let Some(text) = item.get_ref().as_str() else { continue };
            match seen.iter().find(|(other, _)| *other == text) {
                Some((_, first)) => self.errors.push(
                    Diag::new(item.span(), format!("`{text}` is given twice in {place}"))
                        .place("first given at", first.clone()),
                ),
                None => seen.push((text, item.span())),
            }
        }
    }

    fn string(&mut self, place: &Place, node: &Value, text: &str, span: Span) {
        let choices = words::choices(node);
        if !choices.is_empty() {
            if !choices.contains(&text) {
                self.errors.push(
                    Diag::new(span, format!("{place} is `{text}`"))
                        .meant(nearest(text, choices.iter().copied()))
                        .allowed(choices.join(", ")),
                );
            }
            return;
        }
        let Some(kind) = node["format"].as_str().and_then(kind) else { return };
        if let Err(bad) = (kind.check)(text) {
            self.errors
                .push(Diag::new(span, format!("{place}: {}", bad.problem)).meant(bad.meant).allowed(bad.allowed));
        }
    }

    fn integer(&mut self, place: &Place, node: &Value, number: &toml::de::DeInteger<'_>, span: Span) {
        let value = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
        let bound = |key: &str| node[key].as_i64().map(i128::from);
        let low = bound("minimum").is_some_and(|least| value < least);
        let high = value > bound("maximum").unwrap_or(i64::MAX.into());
        if low || high {
            let diag = Diag::new(span, format!("{place} is {number}"));
            self.errors.push(diag.allowed(words::allowed(self.root, node)));
        }
    }

    /// What a value of the wrong type probably meant.
    fn meant_by(&self, place: &Place, node: &Value, found: &DeValue<'_>) -> Option<String> {
        match (found, words::expected(node)) {
            (DeValue::Integer(number), "string") => {
                let kind = node["format"].as_str().and_then(kind)?;
                (kind.from_number)(number.as_str()).map(|text| format!("\"{text}\""))
            }
            (DeValue::String(text), "integer") => text.parse::<i64>().ok().map(|n| n.to_string()),
            (DeValue::String(text), "boolean") => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" => Some("true".into()),
                "false" | "no" | "off" => Some("false".into()),
                _ => None,
            },
            (DeValue::Table(_), "array") => {
                let item = schema::resolve(self.root, &node["items"]);
                (words::expected(item) == "object").then(|| place.entry().header())
            }
            (DeValue::String(text), "array") => {
                let item = schema::resolve(self.root, &node["items"]);
                (words::expected(item) == "string").then(|| format!("[\"{text}\"]"))
            }
            _ => None,
        }
    }
}
