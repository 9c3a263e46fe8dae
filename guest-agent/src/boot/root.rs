//! Puts the guest's root together and moves into it: `base` (packages) and `kit` (this kernel's modules and our own
//! programs), both read-only erofs disks known by their virtio-blk serials, under a writable layer in memory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use crate::console::{self, Level};
use crate::kernel::uevent;

/// Serials of the disks, in the order of the overlay's layers: the first hides what the next holds.
const DISKS: [&str; 2] = ["kit", "base"];
/// Where it is put together, out of the way of the initramfs's own folders.
const STAGE: &str = "/lab";

/// Mounts the disks and the overlay of them.
pub fn assemble(deadline: Instant) -> Result<(), String> {
    for serial in DISKS {
        let found =
            uevent::until(deadline, || find_disk(serial)).map_err(|error| format!("waiting for disks: {error}"))?;
        let disk = found.ok_or_else(|| format!("no virtio disk with the serial {serial} (disks: {})", list_disks()))?;
        let point = format!("{STAGE}/{serial}");
        make(&point)?;
        mount(&disk, &point, "erofs", MountFlags::RDONLY, None)
            .map_err(|error| format!("mounting the disk {serial} ({}) as erofs: {error}", disk.display()))?;
    }
    let (memory, root) = (format!("{STAGE}/rw"), format!("{STAGE}/root"));
    make(&memory)?;
    mount("tmpfs", &memory, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
        .map_err(|error| format!("mounting the writable layer: {error}"))?;
    for folder in [&format!("{memory}/upper"), &format!("{memory}/work"), &root] {
        make(folder)?;
    }
    let layers = DISKS.map(|serial| format!("{STAGE}/{serial}")).join(":");
    let data = format!("lowerdir={layers},upperdir={memory}/upper,workdir={memory}/work");
    let data = std::ffi::CString::new(data).map_err(|error| error.to_string())?;
    mount("overlay", &root, "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|error| format!("mounting the overlay of {layers}: {error}"))
}

fn make(folder: &str) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("making {folder}: {error}"))
}

/// Moves into the new root and frees the memory of the old one.
pub fn switch() -> Result<(), String> {
    let root = format!("{STAGE}/root");
    for point in ["proc", "sys", "dev"] {
        make(&format!("{root}/{point}"))?;
        mount_move(format!("/{point}"), format!("{root}/{point}"))
            .map_err(|error| format!("moving /{point} into the image: {error}"))?;
    }
    // A running program's file stays until it ends, but its name and the modules can go.
    for path in ["/init", "/modules"] {
        let gone = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
        if let Err(error) =
            gone.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        {
            console::log(Level::Info, &format!("{path} of the initramfs keeps its memory: {error}"));
        }
    }
    // The initramfs cannot be unmounted, only covered (Documentation/filesystems/ramfs-rootfs-initramfs.rst).
    let entered = chdir(&root).and_then(|()| mount_move(".", "/")).and_then(|()| chroot(".")).and_then(|()| chdir("/"));
    entered.map_err(|error| format!("moving into the image: {error}"))
}

fn serials() -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
            Some((serial.trim_end().to_string(), PathBuf::from("/dev").join(entry.file_name())))
        })
        .collect()
}

fn find_disk(serial: &str) -> Option<PathBuf> {
    // The device's node comes a moment after its folder in sysfs.
    serials().into_iter().find(|(found, node)| found == serial && node.exists()).map(|(_, node)| node)
}

fn list_disks() -> String {
    let all: Vec<String> =
        serials().into_iter().map(|(serial, node)| format!("{} {serial:?}", node.display())).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
