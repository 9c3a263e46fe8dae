//! The settings that decide whether an ordinary user may make user namespaces.
//!
//! They explain a refusal; whether it works is found out by making one, elsewhere.

use crate::Finding;
use crate::tree::Tree;

pub(crate) fn finding(tree: &Tree, is_root: bool) -> Finding {
    let name = "userns-settings";
    let (what, remedy) = if tree.number("proc/sys/user/max_user_namespaces").is_none() {
        ("the kernel has no user namespaces (CONFIG_USER_NS)", "use a kernel with CONFIG_USER_NS=y, or run as root")
    } else if tree.number("proc/sys/user/max_user_namespaces") == Some(0) {
        ("user.max_user_namespaces is 0", "sudo sysctl user.max_user_namespaces=15000")
    } else if tree.number("proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        // Debian's own patch.
        (
            "kernel.unprivileged_userns_clone is 0: only root may make them",
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        )
    } else if tree.number("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        // Ubuntu 23.10 and later: they can be made, but are good for nothing.
        (
            "AppArmor takes all rights from an ordinary user's namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    } else {
        return Finding::ok(name, "nothing forbids user namespaces");
    };
    if is_root && !what.contains("CONFIG_USER_NS") {
        return Finding::ok(name, format!("{what}; this does not bind root"));
    }
    Finding::limited(name, what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn settings_by_host() {
        let cases = [
            ("workstation", None),
            ("ubuntu", Some("sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0")),
            ("debian-hardened", Some("sudo sysctl kernel.unprivileged_userns_clone=1")),
            ("container", Some("sudo sysctl user.max_user_namespaces=15000")),
            ("cloud-guest", Some("use a kernel with CONFIG_USER_NS=y, or run as root")),
        ];
        for (sample, remedy) in cases {
            let found = finding(&Tree::sample(sample), false);
            assert_eq!(found.remedy.as_deref(), remedy, "{sample}");
            assert_eq!(found.status == Status::Ok, remedy.is_none(), "{sample}");
        }
        assert_eq!(finding(&Tree::sample("ubuntu"), true).status, Status::Ok);
        assert_eq!(finding(&Tree::sample("cloud-guest"), true).status, Status::Limited);
    }
}
