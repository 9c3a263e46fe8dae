//! The small labs the tests bring up, and suites whose tests end in every way a test can end.

/// One guest on the distribution's kernel: nothing to compile.
pub const ONE_STOCK_GUEST: &str = r#"
[lab]
name = "lab"
kernel = "stock"
image = "lab"
guests = ["a"]
suites = ["ends"]

[kernel.stock]
package = "7.3.4+deb13-amd64"

[image.lab]
definition = "images/lab.toml"

[guest.a]
memory = "768MiB"
"#;

/// As [`ONE_STOCK_GUEST`], with two emulated gVNICs on one network: the guest can talk to itself.
pub fn one_guest_with_gvnics() -> String {
    let nic = |n: u8| {
        format!("[[guest.a.nic]]\nnetwork = \"n\"\nmodel = \"gvnic\"\nqueues = 2\naddresses = [\"192.0.2.{n}/24\"]\n")
    };
    format!("{ONE_STOCK_GUEST}\n{}{}\n[network.n]\nmtu = 9000\n", nic(1), nic(2))
}

/// As [`ONE_STOCK_GUEST`], but the kernel never unpacks its initramfs: with no root file system it panics.
pub fn unbootable() -> String {
    format!("{ONE_STOCK_GUEST}cmdline = [\"initcall_blacklist=populate_rootfs\"]\n")
}

/// Tests that end in every way.
pub const ENDS: &str = r#"
[[test]]
name = "passes"
summary = "A command exits with 0"
steps = [{ exec = "true" }]

[[test]]
name = "fails"
summary = "A command exits with 3"
steps = [{ exec = "sh -c 'echo the reason is printed; exit 3'" }]

[[test]]
name = "panics"
summary = "The kernel is told to crash"
steps = [{ exec = "sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger'" }]

[[test]]
name = "after-the-panic"
summary = "The guest is back"
steps = [{ exec = "true" }]

[[test]]
name = "hangs"
summary = "A command never ends"
timeout = "2s"
steps = [{ exec = "sleep 100000" }]

[[test]]
name = "leaks"
summary = "A network namespace is left behind"
steps = [{ exec = "ip netns add left-behind" }]

[[test]]
name = "after-the-leak"
summary = "The guest is clean again"
steps = [{ exec = "sh -c 'test ! -e /run/netns/left-behind'" }]

[[test]]
name = "lacks-a-tool"
summary = "A tool is not in the image"
requires = ["tool:no-such-tool"]
steps = [{ exec = "no-such-tool" }]

[[test]]
name = "known-to-fail"
summary = "Fails where it is expected to"
expect = { stock = "fail" }
because = "the distribution's kernel is declared to fail this"
steps = [{ exec = "false" }]
"#;

/// One test that passes.
pub const PASSES: &str = r#"
[[test]]
name = "passes"
summary = "A command exits with 0"
steps = [{ exec = "true" }]
"#;
