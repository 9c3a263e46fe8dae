//! The guest's one disk: file system images laid end to end.
//!
//! A second disk would be a second PCI function to find, set up and wait for, which is the larger part of a boot's time
//! over the kernel's own. QEMU joins files without copying them through a VMDK descriptor, a small text that names the
//! extents a disk is made of (QEMU's block/vmdk.c, `vmdk_parse_extents`). The agent finds where an image ends and the next
//! begins from each one's own superblock.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The virtio-blk serial by which the agent tells the disk from others that begin with an image, too.
pub(crate) const SERIAL: &str = "lab";
/// Bytes of a sector; an extent is a whole number of them.
const SECTOR: u64 = 512;
/// Bytes a path may have in a descriptor (QEMU reads it into an array of 512).
pub(crate) const PATH_MAX: usize = 511;

/// Whether a path can stand in a descriptor: it is quoted there, without any way to write a quote.
pub(crate) fn can_be_named(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.len() <= PATH_MAX && path.is_absolute() && !bytes.iter().any(|byte| matches!(byte, b'"' | b'\n' | b'\r'))
}

/// The descriptor of images with their sizes in bytes, in the order in which they lie on the disk; `Err` has the index of
/// an image that does not end at the end of a sector.
pub(crate) fn descriptor<'a>(images: impl IntoIterator<Item = (&'a Path, u64)>) -> Result<Vec<u8>, usize> {
    let mut text = b"# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
        createType=\"twoGbMaxExtentFlat\"\n\n# Extent description\n"
        .to_vec();
    for (index, (path, size)) in images.into_iter().enumerate() {
        if size == 0 || size % SECTOR != 0 {
            return Err(index);
        }
        // `RW` is the only kind QEMU reads; the disk as a whole is attached read-only.
        text.extend_from_slice(format!("RW {} FLAT \"", size / SECTOR).as_bytes());
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.extend_from_slice(b"\" 0\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_follow_each_other_in_sectors() {
        let images = [(Path::new("/c/base.erofs"), 8192), (Path::new("/c/a b/kit.erofs"), 4096)];
        let text = String::from_utf8(descriptor(images).expect("whole sectors")).expect("text");
        let extents: Vec<&str> = text.lines().filter(|line| line.starts_with("RW")).collect();
        assert_eq!(extents, ["RW 16 FLAT \"/c/base.erofs\" 0", "RW 8 FLAT \"/c/a b/kit.erofs\" 0"]);
        assert_eq!(descriptor([(Path::new("/a"), 512), (Path::new("/b"), 513)]), Err(1));
        assert_eq!(descriptor([(Path::new("/a"), 0)]), Err(0));
    }

    #[test]
    fn names_that_would_end_the_quotes_are_told() {
        assert!(can_be_named(Path::new("/c/it's, fine")));
        for bad in ["/c/\"", "/c/a\nb", "relative"] {
            assert!(!can_be_named(Path::new(bad)), "{bad:?}");
        }
        assert!(!can_be_named(Path::new(&format!("/{}", "x".repeat(PATH_MAX)))));
    }
}
