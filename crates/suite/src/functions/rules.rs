//! `rules` and `rules-seen`: packet rules that no packet of the test matches, so that each walks past all of them.
//!
//! What a host's rules cost a packet is the walk, so the rules are of a kind that a firewall has many of and that has to
//! look at RoCE's own protocol: UDP by destination port. They stand in INPUT and in OUTPUT, are loaded in one go, and end
//! in a counter, by which `rules-seen` tells how many packets went past them all: `packets_filtered`.

use super::Call;
use crate::model::Program;
use crate::results::Metric;
use crate::run::Stop;

/// The first port that a rule drops; RoCE's is 4791 and perftest's 18515.
const FIRST_PORT: u64 = 20_000;
/// The most rules there are ports for.
const MOST: u64 = 40_000;
const CHAINS: [&str; 2] = ["INPUT", "OUTPUT"];

/// What rules are loaded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No table at all.
    None,
    /// The legacy `filter` table, with this many rules a chain.
    Iptables,
    /// The same after connection tracking, with one rule that accepts what is established.
    Conntrack,
    /// An nftables table.
    Nft,
    /// Policy routing rules.
    IpRule,
}

const KINDS: [(&str, Kind); 5] = [
    ("none", Kind::None),
    ("iptables", Kind::Iptables),
    ("conntrack", Kind::Conntrack),
    ("nft", Kind::Nft),
    ("ip-rule", Kind::IpRule),
];

fn kind(call: &Call) -> Result<Kind, Stop> {
    let name = call.arg("kind");
    let known = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    known.ok_or_else(|| {
        let list = KINDS.map(|(known, _)| known).join(", ");
        Stop::Infrastructure(format!("`kind = \"{name}\"`: allowed are {list}"))
    })
}

/// The loader and what it reads; nothing where there is nothing to load.
fn ruleset(kind: Kind, count: u64) -> Option<(&'static [&'static str], String)> {
    let ports = FIRST_PORT..FIRST_PORT + count;
    match kind {
        Kind::None => None,
        Kind::Iptables | Kind::Conntrack => {
            let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n");
            for chain in CHAINS {
                if kind == Kind::Conntrack {
                    text.push_str(&format!("-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"));
                }
                for port in ports.clone() {
                    text.push_str(&format!("-A {chain} -p udp -m udp --dport {port} -j DROP\n"));
                }
            }
            text.push_str("COMMIT\n");
            Some((&["iptables-legacy-restore"], text))
        }
        Kind::Nft => {
            let mut text = String::from("table ip lab {\n");
            for hook in CHAINS.map(str::to_lowercase) {
                text.push_str(&format!("chain {hook} {{\ntype filter hook {hook} priority filter; policy accept;\n"));
                for port in ports.clone() {
                    text.push_str(&format!("udp dport {port} drop\n"));
                }
                text.push_str("counter\n}\n");
            }
            text.push_str("}\n");
            Some((&["nft", "-f", "-"], text))
        }
        Kind::IpRule => {
            // Sources nobody has: 198.18.0.0/15 is set aside for benchmarks.
            let rule =
                |n: u64| format!("rule add pref {} from 198.18.{}.{} lookup main\n", 1000 + n, n / 250, n % 250 + 1);
            Some((&["ip", "-batch", "-"], (0..count).map(rule).collect()))
        }
    }
}

fn within(netns: &str, argv: &[&str], stdin: Option<&str>) -> Program {
    Program {
        argv: argv.iter().map(ToString::to_string).collect(),
        netns: (!netns.is_empty()).then(|| netns.into()),
        // Braces of the rules are no variables.
        stdin: stdin.map(|text| text.replace('{', "{{").replace('}', "}}")),
        ..Program::default()
    }
}

pub(super) fn load(call: &mut Call) -> Result<(), Stop> {
    let (kind, count) = (kind(call)?, call.number("count")?);
    if count > MOST {
        return Err(Stop::Infrastructure(format!("`count = {count}`: there are ports for {MOST} rules")));
    }
    let netns = call.arg("netns").to_string();
    match ruleset(kind, count) {
        Some((argv, text)) => call.must_run_program("load", &within(&netns, argv, Some(&text))).map(|_| ()),
        None => Ok(()),
    }
}

pub(super) fn seen(call: &mut Call) -> Result<(), Stop> {
    let netns = call.arg("netns").to_string();
    let packets = match kind(call)? {
        // Neither counts.
        Kind::None | Kind::IpRule => return Ok(()),
        Kind::Iptables | Kind::Conntrack => {
            let argv = ["iptables-legacy", "-t", "filter", "-nvxL"];
            policy_packets(&call.must_run_program("counters", &within(&netns, &argv, None))?)?
        }
        Kind::Nft => {
            let argv = ["nft", "--json", "list", "table", "ip", "lab"];
            counted_packets(&call.must_run_program("counters", &within(&netns, &argv, None))?)?
        }
    };
    let metric = Metric { name: "packets_filtered".into(), unit: "count".into(), value: packets as f64 };
    call.context.metrics.push(metric);
    Ok(())
}

/// What went past all rules of INPUT and OUTPUT and met the policy: `Chain INPUT (policy ACCEPT 613 packets, …)`.
fn policy_packets(listed: &str) -> Result<u64, Stop> {
    let of = |chain: &str| -> Option<u64> {
        let line = listed.lines().find(|line| line.starts_with(&format!("Chain {chain} (policy ")))?;
        line.split_whitespace().nth(4)?.parse().ok()
    };
    CHAINS
        .iter()
        .map(|chain| of(chain))
        .sum::<Option<u64>>()
        .ok_or_else(|| Stop::Failed(format!("iptables lists no policy counters of {}: {listed}", CHAINS.join(" and "))))
}

/// The sum of all counters of `nft --json list table`.
fn counted_packets(listed: &str) -> Result<u64, Stop> {
    let value: serde_json::Value = serde_json::from_str(listed).unwrap_or_default();
    let rules = value["nftables"].as_array().into_iter().flatten().filter_map(|item| item["rule"]["expr"].as_array());
    let counters: Vec<u64> =
        rules.flatten().filter_map(|expression| expression["counter"]["packets"].as_u64()).collect();
    match counters.len() {
        2 => Ok(counters.iter().sum()),
        n => Err(Stop::Failed(format!("nft lists {n} counters where the rules have 2"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(file: &str) -> String {
        std::fs::read_to_string(format!("tests/data/rules/{file}")).unwrap()
    }

    #[test]
    fn every_rule_stands_in_both_directions() {
        let (argv, text) = ruleset(Kind::Iptables, 100).unwrap();
        assert_eq!(argv, ["iptables-legacy-restore"]);
        for chain in CHAINS {
            assert_eq!(text.lines().filter(|line| line.starts_with(&format!("-A {chain} -p udp"))).count(), 100);
        }
        assert!(text.ends_with("COMMIT\n") && !text.contains("4791"));
        let (_, text) = ruleset(Kind::Nft, 100).unwrap();
        assert_eq!(text.matches("drop").count(), 200);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        let (_, text) = ruleset(Kind::IpRule, 200).unwrap();
        let rules: std::collections::BTreeSet<&str> = text.lines().collect();
        assert_eq!(rules.len(), 200);
        assert!(ruleset(Kind::Conntrack, 0).unwrap().1.contains("conntrack"));
        assert_eq!(ruleset(Kind::Iptables, 0).unwrap().1.lines().count(), 5, "an empty table is a table");
        assert_eq!(ruleset(Kind::None, 5), None);
    }

    #[test]
    fn counters_of_real_listings() {
        assert_eq!(policy_packets(&sample("iptables-list.txt")).unwrap(), 613 + 615);
        assert!(policy_packets("iptables: No chain/target/match by that name.").is_err());
        assert_eq!(counted_packets(&sample("nft-list.json")).unwrap(), 613 + 615);
        assert!(counted_packets("{}").is_err() && counted_packets("Error: No such file").is_err());
    }
}
