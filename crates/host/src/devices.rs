//! Devices of the host that some labs use: tap interfaces and the IOMMU.

use std::fs::OpenOptions;
use std::io;

use crate::Finding;
use crate::tree::Tree;

/// `/dev/net/tun`: only for guests on the host's own network.
pub(crate) fn tun(tree: &Tree) -> Finding {
    let name = "tun";
    let only = "guests reach each other without it; only taps on the host's network need it";
    // Opening makes no interface; that takes a TUNSETIFF.
    match OpenOptions::new().read(true).write(true).open(tree.path("dev/net/tun")) {
        Ok(_) => Finding::ok(name, "/dev/net/tun opens"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Finding::limited(
            name,
            format!("/dev/net/tun is not there; {only}"),
            "sudo modprobe tun (in a container: pass it /dev/net/tun)",
        ),
        Err(e) => {
            let remedy = "sudo chmod 0666 /dev/net/tun, the mode udev gives it";
            Finding::limited(name, format!("/dev/net/tun does not open: {e}; {only}"), remedy)
        }
    }
}

/// IOMMU groups: PCI devices are passed to guests by group.
pub(crate) fn iommu(tree: &Tree) -> Finding {
    let name = "iommu";
    let groups = tree.names("sys/kernel/iommu_groups");
    let devices: usize =
        groups.iter().map(|group| tree.names(format!("sys/kernel/iommu_groups/{group}/devices")).len()).sum();
    if !groups.is_empty() {
        return Finding::ok(
            name,
            format!("{} groups with {devices} devices: PCI devices can be passed to guests", groups.len()),
        );
    }
    let without = "emulated devices work, PCI devices cannot be passed to guests";
    let flags = tree.cpu_flags();
    let has = |flag: &str| flags.split_whitespace().any(|f| f == flag);
    let vendor = tree.read("proc/cpuinfo").unwrap_or_default();
    let intel = vendor.contains("GenuineIntel");
    // The firmware's tables say whether there is one at all: DMAR is Intel's, IVRS is AMD's (ACPI).
    let tables = tree.names("sys/firmware/acpi/tables");
    let (detail, remedy) = if tables.iter().any(|t| t == "DMAR" || t == "IVRS") {
        (
            "the firmware has one, the kernel does not use it",
            if intel {
                "boot with intel_iommu=on on the kernel's command line"
            } else {
                "boot with amd_iommu=on (and not amd_iommu=off) on the kernel's command line"
            },
        )
    } else if has("hypervisor") {
        (
            "none: this host is itself a guest",
            "give the guest a virtual IOMMU (QEMU: -device intel-iommu), or use a real machine",
        )
    } else {
        ("none", if intel { "switch on VT-d in the firmware" } else { "switch on the IOMMU (AMD-Vi) in the firmware" })
    };
    Finding::limited(name, format!("{detail}; {without}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn iommu_by_host() {
        let cases = [
            ("workstation", Status::Ok, "3 groups with 4 devices", None),
            (
                "cloud-guest",
                Status::Limited,
                "none: this host is itself a guest",
                Some("give the guest a virtual IOMMU"),
            ),
            ("iommu-off-intel", Status::Limited, "the firmware has one", Some("boot with intel_iommu=on")),
            ("iommu-off-amd", Status::Limited, "the firmware has one", Some("boot with amd_iommu=on")),
            ("container", Status::Limited, "none; emulated", Some("switch on the IOMMU (AMD-Vi)")),
        ];
        for (sample, status, detail, remedy) in cases {
            let found = iommu(&Tree::sample(sample));
            assert_eq!(found.status, status, "{sample}");
            assert!(found.detail.starts_with(detail), "{sample}: {}", found.detail);
            match remedy {
                Some(remedy) => assert!(found.remedy.as_ref().unwrap().starts_with(remedy), "{sample}: {found:?}"),
                None => assert_eq!(found.remedy, None),
            }
        }
    }

    #[test]
    fn tun_is_wanted_but_not_needed() {
        assert_eq!(tun(&Tree::sample("container")).status, Status::Limited);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/net")).unwrap();
        std::fs::write(dir.path().join("dev/net/tun"), "").unwrap();
        assert_eq!(tun(&Tree::at(dir.path())).status, Status::Ok);
    }
}
