//! Laying a profile over the rest of the file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Lays `over` on `base`: tables merge key by key, everything else (arrays too) replaces what was there. Keys and
/// values keep the spans of the text they came from.
pub(crate) fn overlay<'t>(base: &mut DeTable<'t>, over: &DeTable<'t>) {
    for (key, value) in over {
        let name: &str = key.get_ref();
        if let DeValue::Table(over) = value.get_ref()
            && let Some(DeValue::Table(base)) = base.get_mut(name).map(Spanned::get_mut)
        {
            overlay(base, over);
            continue;
        }
        // The key's own span changes hands too, which an insert over an equal key would not do.
        base.remove(name);
        base.insert(key.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_merge_and_arrays_replace() {
        let text = "[p]\nx = [1]\n[p.t]\na = 1\n[b]\nx = [2, 3]\n[b.t]\na = 0\nz = 9\n";
        let tree = DeTable::parse(text).unwrap();
        let table = |name: &str| tree.get_ref()[name].get_ref().as_table().unwrap();
        let mut merged = table("b").clone();
        overlay(&mut merged, table("p"));
        assert_eq!(merged["x"].get_ref().as_array().unwrap().len(), 1);
        let t = merged["t"].get_ref().as_table().unwrap();
        assert_eq!(t["a"].get_ref().as_integer().unwrap().as_str(), "1");
        assert_eq!(t["z"].get_ref().as_integer().unwrap().as_str(), "9");
        assert_eq!(t["a"].span().start, text.find("a = 1").unwrap() + 4);
    }
}
