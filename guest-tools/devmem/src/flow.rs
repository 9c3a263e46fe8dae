//! Where the bytes of a stream come from and where they go: patterns, files, the standard streams.

use std::fs::File;
use std::io::{self, Read, Write};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use crate::options::Bytes;
use crate::pattern::{Pattern, Wrong};

/// A source or a sink, as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Bytes that follow from their place.
    Pattern(Pattern),
    /// A file.
    File(String),
    /// Standard input or output.
    Standard,
    /// Nowhere.
    Discard,
}

impl FromStr for Name {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            _ if text == "-" => Ok(Name::Standard),
            _ if text == "discard" => Ok(Name::Discard),
            Some(("file", path)) if !path.is_empty() => Ok(Name::File(path.into())),
            Some(("pattern" | "ncdevmem", _)) => Ok(Name::Pattern(text.parse()?)),
            _ => bail!("there are pattern:SEED, ncdevmem:PERIOD, file:PATH, -, and for what is received discard"),
        }
    }
}

/// Where sent bytes come from.
pub struct Source {
    from: From,
    place: u64,
    /// Bytes still to come; without it, until the end.
    left: Option<u64>,
}

enum From {
    Pattern(Pattern),
    Reader(Box<dyn Read>),
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// When there is no such file, or a pattern without an end.
    pub fn open(name: &Name, bytes: Option<Bytes>) -> Result<Source> {
        let from = match name {
            Name::Pattern(_) if bytes.is_none() => bail!("a pattern has no end: how much of it? --bytes 1G"),
            Name::Pattern(pattern) => From::Pattern(pattern.clone()),
            Name::File(path) => {
                From::Reader(Box::new(File::open(path).with_context(|| format!("cannot read {path}"))?))
            }
            Name::Standard => From::Reader(Box::new(io::stdin())),
            Name::Discard => bail!("nothing can be sent from `discard`"),
        };
        Ok(Source { from, place: 0, left: bytes.map(|Bytes(bytes)| bytes) })
    }

    /// Fills `out`, or less of it at the end; returns how much.
    ///
    /// # Errors
    /// When reading fails, or ends before as many bytes as were asked for.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<usize> {
        let most = self.left.map_or(out.len(), |left| out.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let mut filled = 0;
        match &mut self.from {
            From::Pattern(pattern) => {
                pattern.fill(self.place, &mut out[..most]);
                filled = most;
            }
            From::Reader(reader) => {
                while filled < most {
                    match reader.read(&mut out[filled..most]) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error).context("cannot read what is to be sent"),
                    }
                }
                if let Some(left) = self.left.filter(|_| filled < most) {
                    bail!("what is to be sent ends {} bytes before --bytes", left - filled as u64);
                }
            }
        }
        self.place += filled as u64;
        self.left = self.left.map(|left| left - filled as u64);
        Ok(filled)
    }
}

/// Where received bytes go.
pub struct Sink {
    to: To,
    place: u64,
    wrong: Wrong,
}

enum To {
    Pattern(Pattern),
    Writer(Box<dyn Write>),
    Discard,
}

impl Sink {
    /// Opens it.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(name: &Name) -> Result<Sink> {
        let to = match name {
            Name::Pattern(pattern) => To::Pattern(pattern.clone()),
            Name::File(path) => {
                To::Writer(Box::new(File::create(path).with_context(|| format!("cannot write {path}"))?))
            }
            Name::Standard => To::Writer(Box::new(io::stdout())),
            Name::Discard => To::Discard,
        };
        Ok(Sink { to, place: 0, wrong: Wrong::default() })
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// When writing fails.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.to {
            To::Pattern(pattern) => {
                let wrong = pattern.compare(self.place, bytes);
                self.wrong.bytes += wrong.bytes;
                self.wrong.first = self.wrong.first.or(wrong.first);
            }
            To::Writer(writer) => writer.write_all(bytes).context("cannot write what was received")?,
            To::Discard => {}
        }
        self.place += bytes.len() as u64;
        Ok(())
    }

    /// What a comparison found, if there was one.
    ///
    /// # Errors
    /// When what was written does not get to where it goes.
    pub fn finish(&mut self) -> Result<Option<Wrong>> {
        match &mut self.to {
            To::Pattern(_) => Ok(Some(self.wrong)),
            To::Writer(writer) => writer.flush().context("cannot write what was received").map(|()| None),
            To::Discard => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_arrives_whole_however_it_is_cut() {
        let mut source = Source::open(&name("pattern:9"), Some(Bytes(10_001))).unwrap();
        let mut sink = Sink::open(&name("pattern:9")).unwrap();
        let mut total = 0;
        for length in [1, 4096, 1448, 0, 77, 100_000, 5] {
            let mut bytes = vec![0; length];
            let filled = source.fill(&mut bytes).unwrap();
            sink.take(&bytes[..filled]).unwrap();
            total += filled;
        }
        assert_eq!((total, sink.finish().unwrap()), (10_001, Some(Wrong::default())));
    }

    #[test]
    fn a_piece_that_is_lost_is_found_where_it_is_missing() {
        let mut bytes = vec![0; 8192];
        Source::open(&name("pattern:9"), Some(Bytes(8192))).unwrap().fill(&mut bytes).unwrap();
        let mut sink = Sink::open(&name("pattern:9")).unwrap();
        sink.take(&bytes[..4096]).unwrap();
        sink.take(&bytes[5544..]).unwrap();
        let wrong = sink.finish().unwrap().unwrap();
        assert_eq!((wrong.first, wrong.bytes > 2600), (Some(4096), true));
    }

    #[test]
    fn files_come_and_go_and_a_short_one_is_an_error() {
        let path = std::env::temp_dir().join(format!("lab-devmem-{}", std::process::id()));
        let file = format!("file:{}", path.display());
        let mut sink = Sink::open(&name(&file)).unwrap();
        sink.take(b"abc").unwrap();
        sink.take(b"defg").unwrap();
        assert_eq!(sink.finish().unwrap(), None);
        let mut out = [0; 16];
        assert_eq!(Source::open(&name(&file), None).unwrap().fill(&mut out).unwrap(), 7);
        assert_eq!(&out[..7], b"abcdefg");
        assert_eq!(Source::open(&name(&file), Some(Bytes(3))).unwrap().fill(&mut out).unwrap(), 3);
        let error = Source::open(&name(&file), Some(Bytes(9))).unwrap().fill(&mut out).unwrap_err().to_string();
        assert!(error.contains("ends 2 bytes before"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(
            (name("-"), name("discard"), name("file:a:b")),
            (Name::Standard, Name::Discard, Name::File("a:b".into()))
        );
        for wrong in ["", "file:", "x", "pattern:a"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
        assert!(Source::open(&name("pattern:1"), None).is_err() && Source::open(&name("discard"), None).is_err());
    }
}
