//! Reads a binary package (`.deb`): a path comes in, its payload leaves as a stream of tar entries.
//!
//! A `.deb` is an ar archive of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)). Only the two tar members
//! matter here; they are decompressed while they are read, so that a caller can unpack, index or re-order them in one
//! pass and many packages can be read on many threads. No maintainer script is ever looked at.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The magic every ar archive starts with (ar(5)).
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
/// Bytes of one ar member header (ar(5)).
const AR_HEADER: usize = 60;
/// How much compressed data is read at once.
const READ_AHEAD: usize = 256 * 1024;

/// Why a package could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The file could not be opened or read.
    #[error("cannot read package {}", path.display())]
    Io {
        /// The package.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no `.deb`, or a damaged one.
    #[error("{} is no Debian package: {problem}; remove it from the cache so that it is fetched again", path.display())]
    Malformed {
        /// The package.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A tar stream out of a package.
pub type Members = tar::Archive<Box<dyn Read + Send>>;

/// Opens the files a package installs (`data.tar.*`).
pub fn data(path: &Path) -> Result<Members, DebError> {
    member(path, "data.tar").map(tar::Archive::new)
}

/// Opens a package's own description (`control.tar.*`): the control paragraph, checksums, maintainer scripts.
pub fn control(path: &Path) -> Result<Members, DebError> {
    member(path, "control.tar").map(tar::Archive::new)
}

/// Finds the ar member called `stem` or `stem.<compression>` and decompresses it while it is read.
fn member(path: &Path, stem: &str) -> Result<Box<dyn Read + Send>, DebError> {
    let io_error = |source| DebError::Io { path: path.to_owned(), source };
    let malformed = |problem: String| DebError::Malformed { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(io_error)?;
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic).map_err(|e| malformed(format!("no ar magic ({e})")))?;
    if &magic != AR_MAGIC {
        return Err(malformed("no ar magic".into()));
    }
    loop {
        let mut header = [0; AR_HEADER];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(malformed(format!("it holds no member {stem}.*")));
            }
            Err(e) => return Err(io_error(e)),
        }
        let (name, size) = parse_header(&header).ok_or_else(|| malformed("a member header is damaged".into()))?;
        if name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            let input = BufReader::with_capacity(READ_AHEAD, file.take(size));
            return decompress(&name, input).ok_or_else(|| malformed(format!("{name}: unknown compression")));
        }
        // Members start on even offsets.
        let skip = i64::try_from(size + (size & 1)).map_err(|_| malformed(format!("{name} has an absurd size")))?;
        file.seek(SeekFrom::Current(skip)).map_err(io_error)?;
    }
}

/// Name and size out of an ar header; `None` when it is not one.
fn parse_header(header: &[u8; AR_HEADER]) -> Option<(String, u64)> {
    if &header[58..] != b"`\n" {
        return None;
    }
    let name = std::str::from_utf8(&header[..16]).ok()?.trim_end().trim_end_matches('/').to_owned();
    let size = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
    Some((name, size))
}

/// Wraps `input` in the decompressor that `name`'s suffix asks for; `None` for one that deb(5) does not know.
fn decompress(name: &str, input: impl io::BufRead + Send + 'static) -> Option<Box<dyn Read + Send>> {
    match name.rsplit_once(".tar")?.1 {
        "" => Some(Box::new(input)),
        ".xz" => Some(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(input))),
        ".gz" => Some(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
        ".zst" => Some(Box::new(ruzstd::decoding::StreamingDecoder::new(input).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ar_member(out: &mut Vec<u8>, name: &str, content: &[u8]) {
        writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
        out.extend_from_slice(content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }

    fn tar_of(path: &str, content: &[u8]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content).unwrap();
        tar.into_inner().unwrap()
    }

    fn write_deb(members: &[(&str, Vec<u8>)]) -> tempfile::NamedTempFile {
        let mut out = AR_MAGIC.to_vec();
        for (name, content) in members {
            ar_member(&mut out, name, content);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&out).unwrap();
        file
    }

    fn xz(plain: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn first(mut members: Members) -> (String, String) {
        let mut entry = members.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    }

    #[test]
    fn both_tar_members_are_found_behind_odd_sizes() {
        let deb = write_deb(&[
            ("debian-binary", b"2.0".to_vec()),
            ("control.tar.xz", xz(&tar_of("control", b"Package: x\n"))),
            ("data.tar", tar_of("usr/bin/x", b"program")),
        ]);
        assert_eq!(first(control(deb.path()).unwrap()), ("control".into(), "Package: x\n".into()));
        assert_eq!(first(data(deb.path()).unwrap()), ("usr/bin/x".into(), "program".into()));
    }

    #[test]
    fn errors_name_the_package_and_the_fault() {
        let message = |deb: &tempfile::NamedTempFile| data(deb.path()).err().unwrap().to_string();
        let deb = write_deb(&[("debian-binary", b"2.0\n".to_vec())]);
        assert!(message(&deb).contains("holds no member data.tar"), "{}", message(&deb));
        let deb = write_deb(&[("data.tar.br", b"x".to_vec())]);
        assert!(message(&deb).contains("data.tar.br: unknown compression"), "{}", message(&deb));
        let mut deb = tempfile::NamedTempFile::new().unwrap();
        deb.write_all(b"<html>404</html>").unwrap();
        assert!(message(&deb).contains("no ar magic"), "{}", message(&deb));
        assert!(message(&deb).contains(&deb.path().display().to_string()));
    }
}
