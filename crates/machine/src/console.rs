//! Reading a console's log while QEMU writes it.
//!
//! The log only grows (QEMU appends over reboots), so an offset is a valid bookmark for as long as the machine lives.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most bytes one read returns, so that a guest that floods its console does not fill our memory.
const CHUNK: usize = 1 << 20;

/// A console's log.
#[derive(Debug, Clone)]
pub struct Console {
    path: PathBuf,
}

impl Console {
    /// The log at `path`; it need not exist yet.
    pub fn new(path: PathBuf) -> Console {
        Console { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes now; 0 before it exists.
    pub fn len(&self) -> io::Result<u64> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(meta.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Bytes from offset `from` on, at most a mebibyte, and the offset to ask for next.
    pub fn read_from(&self, from: u64) -> io::Result<(Vec<u8>, u64)> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), from)),
            Err(e) => return Err(e),
        };
        let have = file.metadata()?.len().saturating_sub(from);
        let want = usize::try_from(have).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = vec![0; want];
        let mut got = 0;
        while got < want {
            match file.read_at(&mut bytes[got..], from + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(got);
        Ok((bytes, from + got as u64))
    }

    /// The last `lines` non-empty lines written since offset `from`, as text.
    pub fn last_lines(&self, from: u64, lines: usize) -> io::Result<ConsoleTail> {
        let end = self.len()?;
        let start = from.max(end.saturating_sub(64 * 1024));
        let (bytes, _) = self.read_from(start)?;
        Ok(ConsoleTail::of(&bytes, lines))
    }
}

/// The end of a console, for errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsoleTail(pub Vec<String>);

impl ConsoleTail {
    /// The last `lines` non-empty lines of `bytes`. Control characters are dropped, so that a guest cannot draw on the
    /// terminal of whoever reads an error.
    pub fn of(bytes: &[u8], lines: usize) -> ConsoleTail {
        let text = String::from_utf8_lossy(bytes);
        let mut last: Vec<String> = text.lines().rev().map(clean).filter(|l| !l.is_empty()).take(lines).collect();
        last.reverse();
        ConsoleTail(last)
    }
}

impl std::fmt::Display for ConsoleTail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return write!(f, "\n  (the console is empty)");
        }
        self.0.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

/// Removes escape sequences (ECMA-48 CSI) and control characters.
pub(crate) fn clean(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if chars.next() == Some('[') {
                    // Parameters end with one byte from `@` to `~`.
                    let _ = chars.find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_growing_log_is_read_piece_by_piece() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let console = Console::new(dir.path().join("console.log"));
        assert_eq!(console.read_from(0).expect("no log yet"), (vec![], 0));
        let mut file = File::create(console.path()).expect("create");
        file.write_all(b"one\ntw").expect("write");
        assert_eq!(console.read_from(0).expect("read"), (b"one\ntw".to_vec(), 6));
        file.write_all(b"o\n").expect("write");
        assert_eq!(console.read_from(6).expect("read"), (b"o\n".to_vec(), 8));
        assert_eq!(console.read_from(100).expect("past the end"), (vec![], 100));
    }

    #[test]
    fn tails_are_clean_text() {
        let tail = ConsoleTail::of(b"a\r\n\r\n\x1b[31mred\x1b[0m\x07\nlast\xff", 2);
        assert_eq!(tail.0, ["red", "last\u{fffd}"]);
    }
}
