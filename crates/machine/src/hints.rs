//! What a boot's last words usually mean, and what to do.
//!
//! Pure text matching over the console and QEMU's own output: the first entry that fits wins, so causes stand before
//! their consequences.

use crate::boot::Hint;

/// A phrase of the kernel (or the agent) and what it means.
const CONSOLE: &[(&[&str], &str)] = &[
    (
        &[
            "junk within compressed archive",
            "Initramfs unpacking failed: invalid magic",
            "invalid magic at start of compressed archive",
        ],
        "the initramfs is damaged or compressed in a way this kernel was built without (CONFIG_RD_*); ours is an \
         uncompressed newc archive, so build the image again",
    ),
    (
        &[
            "Initramfs unpacking failed: write error",
            "System is deadlocked on memory",
            "Out of memory and no killable processes",
        ],
        "the guest has too little memory for its initramfs: raise `memory` of the guest",
    ),
    (
        &["VFS: Unable to mount root fs", "VFS: Cannot open root device"],
        "the kernel found no initramfs it could run /init from and then looked for a root disk: check that the plan has \
         an initrd and that the kernel has CONFIG_BLK_DEV_INITRD",
    ),
    (
        &["Failed to execute /init (error -8)"],
        "/init is not a program this kernel runs: it needs CONFIG_BINFMT_ELF and an x86-64 agent",
    ),
    (
        &["Failed to execute /init (error -2)"],
        "/init is missing from the initramfs, or is a dynamic program whose loader is missing: the agent must be static",
    ),
    (&["No working init found"], "the initramfs holds no /init the kernel can run"),
    (
        &["IO-APIC + timer doesn't work", "MP-BIOS bug: 8254 timer not connected"],
        "the emulated timer came too late on a busy host: the kernel parameter `no_timer_check` must be set",
    ),
    (
        &["cannot find valid erofs superblock", "erofs (device vda): unsupported", "erofs (device vdb): unsupported"],
        "the kernel could not read an image: see the erofs line above; build the image again if it is damaged",
    ),
    (
        &["Attempted to kill init!"],
        "the guest agent (process 1) ended: its last words are above; an exit code of 0x0000000b is a segmentation fault, \
         0x00000600 an abort",
    ),
];

/// A phrase of QEMU and what it means.
const QEMU: &[(&[&str], &str)] = &[
    (
        &["Cannot allocate memory", "cannot set up guest memory"],
        "the host has not enough memory for this guest: lower `memory`, or the number of guests",
    ),
    (
        &[
            "invalid kernel header",
            "linux kernel too old",
            "Error loading uncompressed kernel without PVH ELF Note",
            "could not load kernel",
        ],
        "the kernel image is not a bzImage QEMU can load",
    ),
    (
        &["Could not access KVM kernel module", "failed to initialize kvm"],
        "accelerator `auto` or `tcg` emulates where KVM is missing",
    ),
    (
        &["Failed to bind socket", "Address already in use", "Failed to find an available port"],
        "an address of this guest is taken, perhaps the gdb port: choose another",
    ),
    (
        &["error while loading shared libraries", "cannot open shared object file"],
        "QEMU was not started through its own loader and library path",
    ),
    (
        &["failed to find romfile", "could not load PC BIOS", "Could not find ROM image"],
        "QEMU found no firmware: its share directories must be given (-L)",
    ),
    (&["is not a valid device model name", "Device 'virtio"], "this QEMU lacks a device the guest needs"),
    (&["Could not open '"], "a disk image is missing or unreadable"),
];

/// What the console's end means.
pub(crate) fn console(text: &str) -> Hint {
    find(CONSOLE, text)
}

/// What QEMU's output means.
pub(crate) fn qemu(text: &str) -> Hint {
    find(QEMU, text)
}

/// Why no greeting came though nothing failed visibly, from what the console shows.
pub(crate) fn silence(console_text: &str) -> Hint {
    let known = console(console_text);
    if known.0.is_some() {
        return known;
    }
    let text = if console_text.trim().is_empty() {
        "the kernel wrote nothing: it may lack a serial console (CONFIG_SERIAL_8250_CONSOLE), not be an x86-64 bzImage, \
         or have stopped before its console; try the stock kernel, or `--gdb`"
    } else if console_text.contains("no virtio-serial port named") {
        "the kernel has no virtio console: CONFIG_VIRTIO_CONSOLE and CONFIG_VIRTIO_PCI must be built in or in the initramfs"
    } else if console_text.contains("Run /init as init process") {
        "the agent runs and does not reach its channel: the kernel probably has no virtio console (CONFIG_VIRTIO_CONSOLE, \
         CONFIG_VIRTIO_PCI), or its module is missing from the initramfs"
    } else {
        "the kernel was still booting: a slower host needs a longer boot-timeout; if its console stands still, it hangs"
    };
    Hint(Some(text.to_owned()))
}

fn find(table: &[(&[&str], &str)], text: &str) -> Hint {
    Hint(table.iter().find(|(phrases, _)| phrases.iter().any(|p| text.contains(p))).map(|(_, hint)| (*hint).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_come_before_consequences() {
        let text = "Initramfs unpacking failed: write error\nKernel panic - not syncing: VFS: Unable to mount root fs on \
                    unknown-block(0,0)";
        assert!(console(text).0.is_some_and(|h| h.contains("too little memory")));
    }

    #[test]
    fn silence_is_told_apart_by_how_far_the_kernel_came() {
        let hint = |text: &str| silence(text).0.unwrap_or_default();
        assert!(hint("").contains("wrote nothing"));
        assert!(hint("[    1.0] Run /init as init process").contains("virtio console"));
        assert!(hint("[    0.1] Linux version 7.3.4").contains("still booting"));
    }

    #[test]
    fn a_healthy_console_gives_no_hint() {
        assert_eq!(console("[    1.0] erofs (device vda): mounted with root inode @ nid 36."), Hint(None));
    }
}
