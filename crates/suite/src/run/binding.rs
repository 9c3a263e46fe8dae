//! Which guest plays which role of a test, and what `{nic.ROLE.FIELD}` means then.

use std::collections::BTreeMap;

use crate::guests::{GuestInfo, NicInfo};
use crate::model::Test;

/// Roles and NIC values of one test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Binding {
    /// Role → guest.
    pub roles: BTreeMap<String, String>,
    /// `nic.ROLE.FIELD` → value.
    pub nics: BTreeMap<String, String>,
}

/// Binds a test's roles to guests: a guest of the role's name if there is one, else the first that is free. `Err`
/// names what the lab lacks.
pub(super) fn bind(test: &Test, guests: &[GuestInfo]) -> Result<Binding, String> {
    let mut binding = Binding::default();
    for role in &test.roles {
        if guests.iter().any(|guest| guest.name == *role) {
            binding.roles.insert(role.clone(), role.clone());
        }
    }
    for role in &test.roles {
        if binding.roles.contains_key(role) {
            continue;
        }
        let free = guests.iter().find(|guest| !binding.roles.values().any(|used| *used == guest.name));
        let Some(free) = free else {
            return Err(format!("guests:{} (the lab has {})", test.roles.len(), guests.len()));
        };
        binding.roles.insert(role.clone(), free.name.clone());
    }
    if test.needs_network {
        let of = |role: &String| guests.iter().find(|guest| guest.name == binding.roles[role]);
        let bound: Vec<(&String, &GuestInfo)> = test.roles.iter().filter_map(|role| Some((role, of(role)?))).collect();
        binding.nics = nics(&bound)?;
    }
    Ok(binding)
}

fn nics(bound: &[(&String, &GuestInfo)]) -> Result<BTreeMap<String, String>, String> {
    let on = |guest: &GuestInfo, network: &str| guest.nics.iter().find(|nic| nic.network == network).cloned();
    let first = bound.first().map(|(_, guest)| guest.nics.as_slice()).unwrap_or_default();
    let shared = first.iter().find(|nic| bound.iter().all(|(_, guest)| on(guest, &nic.network).is_some()));
    let Some(shared) = shared else {
        let names: Vec<&str> = bound.iter().map(|(_, guest)| guest.name.as_str()).collect();
        return Err(format!("network:shared (guests {} have no network in common)", names.join(", ")));
    };
    let mut values = BTreeMap::new();
    for (role, guest) in bound {
        let Some(nic) = on(guest, &shared.network) else { continue };
        for (field, value) in fields(&nic) {
            values.insert(format!("nic.{role}.{field}"), value);
        }
    }
    Ok(values)
}

/// The fields of [`crate::vars::NIC_FIELDS`]; an address family the NIC has no address of is left out.
fn fields(nic: &NicInfo) -> Vec<(&'static str, String)> {
    let bare = |address: &String| address.split('/').next().unwrap_or_default().to_string();
    let family = |v6: bool| nic.addresses.iter().find(|a| a.contains(':') == v6).map(bare);
    let mut list = vec![("device", nic.device.clone()), ("mac", nic.mac.clone())];
    list.extend(family(false).map(|address| ("ipv4", address)));
    list.extend(family(true).map(|address| ("ipv6", address)));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(name: &str, network: &str, address: &str) -> GuestInfo {
        let nic = NicInfo {
            network: network.into(),
            device: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec![address.into(), "fd77::1/64".into()],
        };
        GuestInfo { name: name.into(), nics: vec![nic], ..GuestInfo::default() }
    }

    fn test(roles: &[&str]) -> Test {
        let text = "[[test]]\nname = \"t\"\nsummary = \"t\"\nsteps = [{ exec = \"true\" }]\n";
        let mut test = crate::load_texts(&[("s.toml".into(), text.into())]).unwrap().tests.remove(0);
        test.roles = roles.iter().map(ToString::to_string).collect();
        test.needs_network = true;
        test
    }

    #[test]
    fn names_win_and_the_rest_fills_up() {
        let guests = [guest("x", "lan", "10.0.0.1/24"), guest("a", "lan", "10.0.0.2/24")];
        let binding = bind(&test(&["a", "b"]), &guests).unwrap();
        assert_eq!(binding.roles, [("a".into(), "a".into()), ("b".into(), "x".into())].into());
        assert_eq!(binding.nics["nic.a.ipv4"], "10.0.0.2");
        assert_eq!(binding.nics["nic.b.ipv6"], "fd77::1");
        assert_eq!(binding.nics["nic.b.device"], "eth0");
    }

    #[test]
    fn what_the_lab_lacks() {
        let one = [guest("a", "lan", "10.0.0.1/24")];
        assert_eq!(bind(&test(&["a", "b"]), &one).unwrap_err(), "guests:2 (the lab has 1)");
        let apart = [guest("a", "lan", "10.0.0.1/24"), guest("b", "wan", "10.0.1.1/24")];
        let missing = bind(&test(&["a", "b"]), &apart).unwrap_err();
        assert_eq!(missing, "network:shared (guests a, b have no network in common)");
    }
}
