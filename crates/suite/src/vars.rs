//! `{name}` in the strings of a suite file.
//!
//! Substitution happens twice. The loader fills in the variables of tests and set-ups and leaves `{nic.ROLE.FIELD}`
//! alone; the runner fills those in once it knows which guest plays which role. `{{` and `}}` are literal braces; they
//! survive the first pass and fall together in the second.

use std::collections::BTreeMap;

/// Fields of `{nic.ROLE.FIELD}`.
pub(crate) const NIC_FIELDS: [&str; 4] = ["device", "ipv4", "ipv6", "mac"];

/// Fills in what `lookup` knows. A name it answers `None` for is an error.
fn expand(
    text: &str,
    keep_escapes: bool,
    mut lookup: impl FnMut(&str) -> Result<Option<String>, String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with("{{") || tail.starts_with("}}") {
            out.push_str(if keep_escapes { &tail[..2] } else { &tail[..1] });
            rest = &tail[2..];
            continue;
        }
        if tail.starts_with('}') {
            return Err(format!("a lone `}}` in `{text}`: write `}}}}` for the character itself"));
        }
        let end = tail
            .find('}')
            .ok_or_else(|| format!("`{{` is never closed in `{text}`: write `{{{{` for the character itself"))?;
        let name = &tail[1..end];
        match lookup(name)? {
            Some(value) => out.push_str(&value),
            None => out.push_str(&tail[..=end]),
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether `nic.ROLE.FIELD` makes sense in a test with these roles.
fn nic(name: &str, roles: &[String]) -> Result<(), String> {
    let path = name.trim_start_matches("nic.");
    let (role, field) = path.split_once('.').unwrap_or((path, ""));
    if !roles.iter().any(|known| known == role) {
        return Err(format!("`{{{name}}}`: no guest `{role}` in this test (it has {})", roles.join(", ")));
    }
    if !NIC_FIELDS.contains(&field) {
        return Err(format!("`{{{name}}}`: a NIC has {}, not `{field}`", NIC_FIELDS.join(", ")));
    }
    Ok(())
}

/// The variables of one test.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    values: BTreeMap<String, String>,
    roles: Vec<String>,
    used: std::collections::BTreeSet<String>,
    uses_nic: bool,
}

impl Vars {
    /// Variables of a test whose steps may speak of `roles`.
    pub fn new(roles: Vec<String>) -> Self {
        Vars { roles, ..Vars::default() }
    }

    /// Sets a variable; a later value replaces an earlier one.
    pub fn set(&mut self, name: &str, value: String) {
        self.values.insert(name.into(), value);
    }

    /// Sets a variable unless it has a value.
    pub fn set_default(&mut self, name: &str, value: String) {
        self.values.entry(name.into()).or_insert(value);
    }

    /// First pass.
    pub fn fill(&mut self, text: &str) -> Result<String, String> {
        let Vars { values, roles, used, uses_nic } = self;
        expand(text, true, |name| {
            if name.starts_with("nic.") {
                *uses_nic = true;
                return nic(name, roles).map(|()| None);
            }
            used.insert(name.to_string());
            let Some(value) = values.get(name) else {
                let known = values.keys().map(String::as_str).collect::<Vec<_>>();
                let hint = crate::nearest::hint(name, &known);
                return Err(format!("unknown variable `{{{name}}}`{hint}; a literal brace is written twice"));
            };
            // A value may speak of NICs, not of other variables.
            let value = expand(value, true, |inner| {
                if !inner.starts_with("nic.") {
                    return Err(format!("the value of `{name}` holds `{{{inner}}}`: only `{{nic.…}}` may stand there"));
                }
                *uses_nic = true;
                nic(inner, roles).map(|()| None)
            })?;
            Ok(Some(value))
        })
    }

    /// Whether `{nic.…}` was seen.
    pub fn uses_nic(&self) -> bool {
        self.uses_nic
    }

    /// Whether a variable was asked for.
    pub fn was_used(&self, name: &str) -> bool {
        self.used.contains(name)
    }
}

/// Second pass: fills in `{nic.…}` from `values` (keys without braces) and undoes `{{` and `}}`.
pub(crate) fn fill_nics(text: &str, values: &BTreeMap<String, String>) -> Result<String, String> {
    expand(text, false, |name| match values.get(name) {
        Some(value) => Ok(Some(value.clone())),
        None => Err(format!("`{{{name}}}` has no value in this lab")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vars {
        let mut vars = Vars::new(vec!["a".into(), "b".into()]);
        vars.set("tool", "ib_send_lat".into());
        vars.set("json", "{{\"a\":1}}".into());
        vars.set("peer", "{nic.b.ipv4}".into());
        vars.set("nested", "{tool}".into());
        vars
    }

    #[test]
    fn two_passes() {
        let mut vars = vars();
        let nics = [("nic.a.ipv4", "10.0.0.1"), ("nic.b.ipv4", "10.0.0.2")];
        let nics = BTreeMap::from(nics.map(|(name, value)| (name.to_string(), value.to_string())));
        for (text, expected) in [
            ("{tool} {nic.a.ipv4}", "ib_send_lat 10.0.0.1"),
            ("awk '{{print $1}}'", "awk '{print $1}'"),
            ("echo {json}", "echo {\"a\":1}"),
            ("{peer}", "10.0.0.2"),
            ("plain", "plain"),
        ] {
            let first = vars.fill(text).unwrap();
            assert_eq!(fill_nics(&first, &nics).unwrap(), expected, "{text}");
        }
        assert!(vars.uses_nic() && vars.was_used("json") && !vars.was_used("absent"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("{toll}", "unknown variable `{toll}` (did you mean `tool`?); a literal brace is written twice"),
            ("{nic.c.ipv4}", "`{nic.c.ipv4}`: no guest `c` in this test (it has a, b)"),
            ("{nic.a.ip}", "`{nic.a.ip}`: a NIC has device, ipv4, ipv6, mac, not `ip`"),
            ("{nested}", "the value of `nested` holds `{tool}`: only `{nic.…}` may stand there"),
            ("{tool", "`{` is never closed in `{tool`: write `{{` for the character itself"),
            ("tool}", "a lone `}` in `tool}`: write `}}` for the character itself"),
        ] {
            assert_eq!(vars().fill(text).unwrap_err(), message);
        }
        assert_eq!(fill_nics("{nic.a.mac}", &BTreeMap::new()).unwrap_err(), "`{nic.a.mac}` has no value in this lab");
    }
}
