//! Writes a `newc` cpio archive, the format of an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Everything that could differ between two builds (inode numbers beyond a counter, times, owners) is fixed.

use std::io::{self, Write};

/// What an entry is, with its content.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File(&'a [u8]),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
}

/// The archive under construction.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    inode: u32,
    /// Bytes written so far; headers and contents start at multiples of four.
    at: u64,
}

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Writer { out, inode: 0, at: 0 }
    }

    /// Adds an entry of root's. `path` has no leading slash; parents come first, as the kernel makes none.
    pub fn append(&mut self, path: &str, mode: u32, entry: Entry<'_>) -> io::Result<()> {
        self.inode += 1;
        let inode = self.inode;
        let (kind, links, content, device) = match entry {
            Entry::Directory => (S_IFDIR, 2, &[][..], (0, 0)),
            Entry::File(content) => (S_IFREG, 1, content, (0, 0)),
            Entry::CharDevice(major, minor) => (S_IFCHR, 1, &[][..], (major, minor)),
        };
        self.raw(inode, kind | mode, links, path, content, device)
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.raw(0, 0, 1, TRAILER, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn raw(
        &mut self,
        inode: u32,
        mode: u32,
        links: u32,
        path: &str,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path}: over 4 GiB")))?;
        let name_size = u32::try_from(path.len() + 1)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path over 4 GiB"))?;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(header, "{field:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let missing = usize::try_from(self.at.next_multiple_of(4) - self.at).unwrap_or(0);
        self.put(&[0; 3][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        let mut cpio = Writer::new(Vec::new());
        cpio.append("dev", 0o755, Entry::Directory).unwrap();
        cpio.append("dev/console", 0o600, Entry::CharDevice(5, 1)).unwrap();
        cpio.append("init", 0o755, Entry::File(b"hello")).unwrap();
        let bytes = cpio.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let want = [
            "070701",
            "00000001",
            "000041ed",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000004",
            "00000000",
            "dev\0\0\0",
        ];
        assert!(text.starts_with(&want.concat()), "{text:?}");
        assert!(text.contains("0000000500000001"), "the device numbers");
        assert!(text.contains("init\0\0hello\0\0\x00070701"), "content starts and ends at multiples of four: {text:?}");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text:?}");
        assert_eq!(text.len() % 4, 0);
    }

    /// The archive as the system's own cpio sees it; the kernel reads the same format.
    #[test]
    fn another_program_reads_it() {
        let mut cpio = Writer::new(Vec::new());
        cpio.append("modules", 0o755, Entry::Directory).unwrap();
        cpio.append("modules/00-virtio.ko", 0o644, Entry::File(&[9; 4097])).unwrap();
        let bytes = cpio.finish().unwrap();
        let Ok(mut child) = std::process::Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return; // No cpio here; the bytes are checked above.
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(listing.contains("modules/00-virtio.ko") && listing.contains("4097"), "{listing}");
    }
}
