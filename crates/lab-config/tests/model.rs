//! What a good `lab.toml` becomes.

use std::time::Duration;

use lab_config::{Accelerator, Gdb, KernelOrigin, Lab};

const LAB: &str = r#"
[lab]
kernel = "patched"
image = "lab"
suites = ["smoke"]

[kernel.patched]
source = "linux-7.3.4"
series = ["rxe"]
fragments = ["base", "net"]
debug-info = true

[kernel.baseline]
extends = "patched"
series = []

[kernel.stock]
package = "7.3.4+deb13-amd64"

[kernel.quick]
extends = "patched"
rebuild = "stock"

[image.lab]
definition = "images/lab.toml"

[network.fabric]
mtu = 9000
seed = 7
fault = { loss = "0.5%", delay = "2ms" }

[[network.fabric.link]]
from = "a"
to = "b"
fault = { partition = true }

[network.unused]

[guest.b]
kernel = "baseline"
memory = "1536MiB"
nic = [{ network = "fabric", mac = "52:54:00:00:00:02", addresses = ["192.168.77.2/24"] }]

[guest.a]
cmdline = ["slub_debug=P"]
[[guest.a.nic]]
network = "fabric"
addresses = ["192.168.77.1/24", "fd77::1/64"]
[[guest.a.nic]]
network = "fabric"
interface = "fast0"
mtu = 1500

[machine]
boot-timeout = "2m"

[mirrors]
debian = ["https://mirror.example.org/debian/"]

[profile.single.lab]
guests = ["a"]

[profile.latency]
description = "One guest that counts instructions"
lab.guests = ["a"]
guest.a.cpus = 1
guest.a.nic = [{ network = "fabric" }]
machine.icount = true
network.fabric.fault.loss = "0%"
"#;

fn lab(profile: Option<&str>) -> Lab {
    Lab::parse(LAB, "lab.toml", profile).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn kernels_come_from_where_they_say_and_inherit_the_rest() {
    let lab = lab(None);
    let source = KernelOrigin::Source {
        source: "linux-7.3.4".into(),
        fragments: vec!["base".into(), "net".into()],
        debug_info: true,
        btf: false,
    };
    assert_eq!(lab.kernels["patched"].origin, source);
    assert_eq!(lab.kernels["baseline"].origin, source);
    assert_eq!(lab.kernels["patched"].series, ["rxe"]);
    assert!(lab.kernels["baseline"].series.is_empty());
    assert_eq!(lab.kernels["stock"].origin, KernelOrigin::Package { package: "7.3.4+deb13-amd64".into() });
    assert_eq!(lab.kernels["quick"].origin, KernelOrigin::Rebuild { of: "stock".into() });
    assert_eq!(lab.kernels["quick"].series, ["rxe"]);
}

#[test]
fn guests_have_every_value() {
    let lab = lab(None);
    let [a, b] = &lab.guests[..] else { panic!("{:?}", lab.guests) };
    assert_eq!((a.name.as_str(), a.kernel.as_str(), a.cpus, a.memory_mib), ("a", "patched", 2, 1024));
    assert_eq!((b.name.as_str(), b.kernel.as_str(), b.cpus, b.memory_mib), ("b", "baseline", 2, 1536));
    assert_eq!(a.cmdline, ["slub_debug=P"]);
    let [first, second] = &a.nics[..] else { panic!("{:?}", a.nics) };
    assert_eq!((first.interface.as_str(), first.mtu), ("eth0", 9000));
    assert_eq!((second.interface.as_str(), second.mtu), ("fast0", 1500));
    let addresses: Vec<String> = first.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.77.1/24", "fd77::1/64"]);
    assert_eq!(b.nics[0].mac.to_string(), "52:54:00:00:00:02");
    assert!(first.mac.to_string().starts_with("52:54:00:"));
    assert_ne!(first.mac, second.mac);
}

#[test]
fn a_generated_mac_stays_whatever_else_changes() {
    let all = lab(None);
    assert_eq!(lab(Some("single")).guests[0].nics[0].mac, all.guests[0].nics[0].mac);
    // Written down: results and captures of different days are compared by it.
    assert_eq!(all.guests[0].nics[0].mac.to_string(), "52:54:00:b4:20:5f");
}

#[test]
fn networks_carry_their_faults() {
    let fabric = &lab(None).networks["fabric"];
    assert_eq!((fabric.mtu, fabric.seed), (9000, 7));
    assert_eq!(fabric.fault.loss, 0.005);
    assert_eq!(fabric.fault.delay, Duration::from_millis(2));
    assert!(fabric.links[0].fault.partition);
    assert_eq!((fabric.links[0].from.as_str(), fabric.links[0].to.as_str()), ("a", "b"));
}

#[test]
fn machine_and_mirrors() {
    let lab = lab(None);
    assert_eq!(lab.machine.accelerator, Accelerator::Auto);
    assert_eq!(lab.machine.boot_timeout, Duration::from_secs(120));
    assert_eq!((lab.machine.gdb, lab.machine.icount, lab.machine.iommu), (Gdb::Off, false, false));
    assert_eq!(lab.mirrors.debian, ["https://mirror.example.org/debian"]);
}

#[test]
fn a_profile_merges_tables_and_replaces_arrays() {
    let lab = lab(Some("latency"));
    assert_eq!(lab.profile.as_deref(), Some("latency"));
    let [a] = &lab.guests[..] else { panic!("{:?}", lab.guests) };
    assert_eq!((a.cpus, a.memory_mib), (1, 1024));
    assert_eq!(a.cmdline, ["slub_debug=P"], "an array the profile does not name stays");
    assert_eq!(a.nics.len(), 1, "an array it names is replaced");
    assert!(a.nics[0].addresses.is_empty());
    assert_eq!(lab.machine.accelerator, Accelerator::Tcg, "only TCG counts instructions");
    let fabric = &lab.networks["fabric"];
    assert_eq!((fabric.fault.loss, fabric.fault.delay), (0.0, Duration::from_millis(2)));
    assert!(fabric.links.is_empty(), "a link of a guest that does not boot is none");
}

#[test]
fn profiles_are_listed_with_their_purpose() {
    let profiles = lab(None).profiles;
    let listed: Vec<(&str, &str)> = profiles.iter().map(|p| (p.name.as_str(), p.description.as_str())).collect();
    assert_eq!(listed, [("latency", "One guest that counts instructions"), ("single", "")]);
}

#[test]
fn with_kernel_moves_the_guests_that_name_no_kernel() {
    let quick = lab(None).with_kernel("quick").unwrap();
    assert_eq!(quick.guest("a").unwrap().kernel, "quick");
    assert_eq!(quick.guest("b").unwrap().kernel, "baseline", "b names its kernel itself");
    let used: Vec<&str> = quick.kernels_in_use().iter().map(|k| k.name.as_str()).collect();
    assert_eq!(used, ["baseline", "stock", "quick"], "a rebuild needs its package");
    let error = lab(None).with_kernel("quik").unwrap_err().to_string();
    assert_eq!(error, "no kernel `quik` in lab.toml; there is baseline, patched, quick, stock (did you mean `quick`?)");
}

#[test]
fn the_hash_is_of_what_runs_and_nothing_else() {
    let hash = |text: &str| Lab::parse(text, "lab.toml", None).unwrap().config_hash();
    let same = hash(LAB);
    assert_eq!(same.len(), 64);
    assert_eq!(same, hash(&LAB.replace("memory = \"1536MiB\"", "memory   = \"1536MiB\" # spacing and comments")));
    assert_eq!(same, hash(&LAB.replace("[network.unused]", "[network.spare]")), "no guest is on it");
    assert_eq!(same, hash(&LAB.replace("mirror.example.org", "mirror.example.net")), "bytes are pinned by the lock");
    assert_ne!(same, hash(&LAB.replace("1536MiB", "2GiB")));
    assert_ne!(same, hash(&LAB.replace("loss = \"0.5%\"", "loss = \"0.6%\"")));
    assert_ne!(same, hash(&LAB.replace("suites = [\"smoke\"]", "suites = []")));
    assert_ne!(same, lab(None).with_kernel("stock").unwrap().config_hash());
    let moved = LAB.replacen("kernel = \"patched\"", "kernel = \"stock\"", 1);
    assert_eq!(lab(None).with_kernel("stock").unwrap().config_hash(), hash(&moved));
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_mistake() {
    let text = format!("\u{feff}{}", LAB.replace('\n', "\r\n"));
    assert_eq!(Lab::parse(&text, "lab.toml", None).unwrap().config_hash(), lab(None).config_hash());
}

/// Whatever is half typed gets an answer that can be shown: no panic, and every error has its line.
#[test]
fn damaged_files_are_refused_or_read_but_never_crash() {
    let damage = ["", "\"", "[", "]", "{", "}", "=", ".", "\n", "é", "'", "#", "-"];
    let places: Vec<usize> = LAB.char_indices().map(|(at, _)| at).collect();
    let mut refused = 0;
    for (n, at) in places.iter().enumerate().step_by(2) {
        let with = damage[n / 2 % damage.len()];
        let replaced = format!("{}{with}{}", &LAB[..*at], &LAB[at + 1..]);
        for text in [&replaced[..], &LAB[..*at]] {
            if let Err(error) = Lab::parse(text, "lab.toml", None) {
                refused += 1;
                assert!(error.to_string().starts_with("lab.toml:"), "{error}");
            }
        }
    }
    assert!(refused > 500, "only {refused} of the damaged files were refused");
}
