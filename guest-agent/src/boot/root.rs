//! Puts the guest's root together and moves into it: the images on the guest's one disk, read-only erofs file systems laid
//! end to end, under a writable layer in memory. The first is the base (packages), what follows hides it (this kernel's
//! modules and our own programs).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};

use super::mounts;
use crate::kernel::uevent;
use crate::sys;

/// The disk's virtio-blk serial, for a guest that has other disks with images.
const DISK: &str = "lab";
/// Where it is put together, out of the way of the initramfs's own folders.
const STAGE: &str = "/lab";
/// The writable layer's memory, its two folders, and the root over all.
const MEMORY: &str = "/lab/rw";
const UPPER: &str = "/lab/rw/upper";
const WORK: &str = "/lab/rw/work";
const ROOT: &str = "/lab/root";
/// More images than this are no disk of a lab.
const LAYERS_MAX: usize = 16;

/// Mounts the images and the overlay of them.
pub fn assemble(deadline: Instant) -> Result<(), String> {
    let found = uevent::until(deadline, find_disk).map_err(|error| format!("waiting for the disk: {error}"))?;
    let disk = found.ok_or_else(|| format!("no virtio disk with the lab's images (disks: {})", list_disks()))?;
    let partitions = partition(&disk).map_err(|error| format!("reading {}: {error}", disk.display()))?;
    make(STAGE)?;
    let mut layers = Vec::new();
    for partition in partitions {
        let point = format!("{STAGE}/{}", layers.len());
        make(&point)?;
        mount_with(&partition, &point, "erofs", MountFlags::RDONLY, "")
            .map_err(|error| format!("mounting the erofs image on {}: {error}", partition.display()))?;
        layers.insert(0, point);
    }
    make(MEMORY)?;
    mount_with(Path::new("tmpfs"), MEMORY, "tmpfs", MountFlags::empty(), "mode=0755")
        .map_err(|error| format!("mounting the writable layer: {error}"))?;
    for folder in [UPPER, WORK, ROOT] {
        make(folder)?;
    }
    let layers = layers.join(":");
    let data = format!("lowerdir={layers},upperdir={UPPER},workdir={WORK},uuid=null");
    mount_with(Path::new("overlay"), ROOT, "overlay", MountFlags::empty(), &data)
        .map_err(|error| format!("mounting the overlay of {layers}: {error}"))
}

fn mount_with(source: &Path, point: &str, kind: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount(source, point, kind, flags, Some(options.as_c_str()))?)
}

/// Makes a partition of each image, so that each is a block device of its own: file systems on one and the same would be
/// taken for one.
fn partition(disk: &Path) -> io::Result<Vec<PathBuf>> {
    let device = File::open(disk)?;
    (1..)
        .zip(images(&device)?)
        .map(|(number, (start, length))| {
            sys::add_partition(&device, number, start, length)?;
            Ok(PathBuf::from(format!("{}{number}", disk.display())))
        })
        .collect()
}

/// Where the images on the disk begin, and how long they are, in bytes.
fn images(device: &File) -> io::Result<Vec<(u64, u64)>> {
    let mut images = Vec::new();
    let mut offset = 0;
    while images.len() < LAYERS_MAX {
        let mut superblock = [0; SUPERBLOCK_SIZE];
        let length = match device.read_exact_at(&mut superblock, offset + SUPERBLOCK_AT) {
            // The end of the disk.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read.map(|()| length(&superblock))?,
        };
        let Some(length) = length else { break };
        images.push((offset, length));
        offset += length;
    }
    if images.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no erofs image at its beginning"));
    }
    Ok(images)
}

// fs/erofs/erofs_fs.h: EROFS_SUPER_OFFSET, EROFS_SUPER_MAGIC_V1, struct erofs_super_block.
const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_SIZE: usize = 128;
const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS_AT: usize = 12;
const BLOCKS_AT: usize = 36;

/// Bytes of the image with this superblock; `None` if it is none.
fn length(superblock: &[u8; SUPERBLOCK_SIZE]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?));
    let blocks = u64::from(word(BLOCKS_AT)?);
    let bits = superblock[BLOCK_BITS_AT];
    (word(0)? == MAGIC && (9..=16).contains(&bits) && blocks > 0).then(|| blocks << bits)
}

/// Makes a folder whose parent is there.
fn make(folder: &str) -> Result<(), String> {
    match mkdir(folder, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(format!("making {folder}: {error}")),
    }
}

/// Moves into the new root. The old one is only covered: it cannot be unmounted
/// (Documentation/filesystems/ramfs-rootfs-initramfs.rst), and the little it holds is this program. What was mounted in
/// it is covered with it.
pub fn switch() -> Result<(), String> {
    let entered = chdir(ROOT).and_then(|()| mount_move(".", "/")).and_then(|()| chroot(".")).and_then(|()| chdir("/"));
    entered.map_err(|error| format!("moving into the image: {error}"))
}

/// The lab's disk: the one virtio disk that begins with an image, or, where somebody attached more of those, the one with
/// the lab's serial. The serial is looked at only then: sysfs and a question to the device would be a tenth of a boot's
/// time over the bare kernel's.
fn find_disk() -> Option<PathBuf> {
    let images: Vec<PathBuf> = disks().into_iter().filter(|disk| begins_with_image(disk)).collect();
    match images.as_slice() {
        [one] => Some(one.clone()),
        _ => images.into_iter().find(|disk| serial(disk).as_deref() == Some(DISK)),
    }
}

/// The nodes of virtio disks (drivers/block/virtio_blk.c names them so), up to the first gap.
fn disks() -> Vec<PathBuf> {
    let exists = |node: &PathBuf| rustix::fs::open(node, OFlags::PATH, Mode::empty()).is_ok();
    ('a'..='z').map(|letter| PathBuf::from(format!("/dev/vd{letter}"))).take_while(exists).collect()
}

fn begins_with_image(disk: &Path) -> bool {
    let mut superblock = [0; SUPERBLOCK_SIZE];
    let read = File::open(disk).and_then(|device| device.read_exact_at(&mut superblock, SUPERBLOCK_AT));
    read.is_ok() && length(&superblock).is_some()
}

fn serial(disk: &Path) -> Option<String> {
    mounts::sysfs(&mut Vec::new());
    let text = fs::read_to_string(Path::new("/sys/block").join(disk.file_name()?).join("serial")).ok()?;
    Some(text.trim_end().to_string())
}

fn list_disks() -> String {
    let all = disks().into_iter().map(|disk| format!("{} {:?}", disk.display(), serial(&disk).unwrap_or_default()));
    let all: Vec<String> = all.collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(blocks: u32) -> Vec<u8> {
        let mut image = vec![0; (blocks as usize) << 12];
        image[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        image[1024 + BLOCK_BITS_AT] = 12;
        image[1024 + BLOCKS_AT..1024 + BLOCKS_AT + 4].copy_from_slice(&blocks.to_le_bytes());
        image
    }

    #[test]
    fn images_are_found_end_to_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = dir.path().join("disk");
        let begin = |content: &[u8]| {
            fs::write(&disk, content).expect("written");
            images(&File::open(&disk).expect("opened"))
        };
        assert_eq!(begin(&[image(3), image(1)].concat()).expect("two"), [(0, 3 << 12), (3 << 12, 1 << 12)]);
        assert_eq!(begin(&image(2)).expect("one"), [(0, 2 << 12)]);
        // Padding at the end of a disk is no image.
        assert_eq!(begin(&[image(2), vec![0; 4096]].concat()).expect("one"), [(0, 2 << 12)]);
        assert!(begin(&[0; 8192]).is_err());
        assert!(begin(&[]).is_err());
    }
}
