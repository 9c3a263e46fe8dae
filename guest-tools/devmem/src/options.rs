//! The command line: a command, then `--name value` pairs and `--name` alone. What is not known is refused by name.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// What is behind the command.
#[derive(Debug)]
pub struct Options {
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads it; `known` are the names that take a value, `alone` those that do not.
    ///
    /// # Errors
    /// Names what is unknown, incomplete or there twice.
    pub fn parse(words: &[String], known: &[&str], alone: &[&str]) -> Result<Options> {
        let mut values = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| known.contains(name) || alone.contains(name));
            let Some(name) = name else {
                bail!("`{word}` is no option here; there are --{}", [known, alone].concat().join(", --"));
            };
            let value = match alone.contains(&name) {
                true => String::new(),
                false => words.next().with_context(|| format!("--{name} needs a value"))?.clone(),
            };
            if values.insert(name.to_owned(), value).is_some() {
                bail!("--{name} is given twice");
            }
        }
        Ok(Options { values })
    }

    /// Whether it is there.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A value that has to be there, unless it has a default.
    ///
    /// # Errors
    /// When it is missing or wrong.
    pub fn one<T: FromStr>(&self, name: &str, default: Option<&str>) -> Result<T>
    where
        T::Err: Into<anyhow::Error>,
    {
        let text = self.values.get(name).map(String::as_str).or(default);
        read(name, text.with_context(|| format!("--{name} is needed"))?)
    }

    /// A value that may be there.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn maybe<T: FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: Into<anyhow::Error>,
    {
        self.values.get(name).map(|text| read(name, text)).transpose()
    }
}

fn read<T: FromStr>(name: &str, text: &str) -> Result<T>
where
    T::Err: Into<anyhow::Error>,
{
    text.parse().map_err(Into::into).with_context(|| format!("--{name} {text}"))
}

/// A number of bytes: `4096`, `64K`, `256M`, `10G` (powers of 1024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (digits, shift) = match text.char_indices().next_back() {
            Some((at, 'K' | 'k')) => (&text[..at], 10),
            Some((at, 'M' | 'm')) => (&text[..at], 20),
            Some((at, 'G' | 'g')) => (&text[..at], 30),
            _ => (text, 0),
        };
        let number: u64 = digits.parse().context("a number of bytes, with K, M or G behind it if you like")?;
        number.checked_mul(1 << shift).map(Bytes).context("more bytes than there are numbers")
    }
}

/// Queues: `1,2`, `12-15`, `1,12-15`; sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues(pub Vec<u32>);

impl FromStr for Queues {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut queues = Vec::new();
        for part in text.split(',') {
            let number = |word: &str| {
                word.parse::<u32>().with_context(|| format!("`{part}` is no queue and no range of queues"))
            };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first || last - first >= 1024 {
                bail!("`{part}` is no range of queues");
            }
            queues.extend(first..=last);
        }
        queues.sort_unstable();
        queues.dedup();
        Ok(Queues(queues))
    }
}

/// A percentage with two decimals at most, kept as hundredths so that 100 means all and not nearly all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

impl Percent {
    /// Whether `part` is at least that much of `whole`. Of nothing, nothing is enough.
    pub fn reached(self, part: u64, whole: u64) -> bool {
        whole > 0 && u128::from(part) * 10_000 >= u128::from(self.0) * u128::from(whole)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl FromStr for Percent {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let number = |digits: &str| digits.parse::<u32>().context("a percentage is a number such as 99.5");
        let hundredths = match decimals.len() {
            1 => number(decimals)? * 10,
            2 => number(decimals)?,
            _ => bail!("a percentage has two decimals at most"),
        };
        match number(whole)? {
            100 if hundredths == 0 => Ok(Percent(10_000)),
            whole @ 0..100 => Ok(Percent(whole * 100 + hundredths)),
            _ => bail!("a percentage is between 0 and 100"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn pairs_and_lone_words_are_read_and_mistakes_named() {
        let options = Options::parse(&words("--port 5 --json"), &["port", "count"], &["json", "plain"]).unwrap();
        assert_eq!(
            (options.one::<u16>("port", None).unwrap(), options.has("json"), options.has("plain")),
            (5, true, false)
        );
        assert_eq!(options.one::<u64>("count", Some("4")).unwrap(), 4);
        assert_eq!(options.maybe::<u64>("count").unwrap(), None);
        for (line, why) in [
            ("--prot 1", "`--prot` is no option here; there are --port, --json"),
            ("--port", "--port needs a value"),
            ("--port 1 --port 2", "--port is given twice"),
            ("--json --json", "--json is given twice"),
            ("5", "`5` is no option"),
        ] {
            let error = Options::parse(&words(line), &["port"], &["json"]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = format!(
            "{:#}",
            Options::parse(&words("--port x"), &["port"], &[]).unwrap().one::<u16>("port", None).unwrap_err()
        );
        assert!(error.contains("--port x"), "{error}");
        assert!(format!("{:#}", options.one::<u16>("count", None).unwrap_err()).contains("--count is needed"));
    }

    #[test]
    fn bytes_have_suffixes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65_536), ("256m", 268_435_456), ("10G", 10_737_418_240)]
        {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes));
        }
        for wrong in ["", "K", "1T", "-1", "1.5G", "99999999999G"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn queues_are_lists_and_ranges() {
        for (text, queues) in [("1", vec![1]), ("12-15", vec![12, 13, 14, 15]), ("5,1-2,1", vec![1, 2, 5])] {
            assert_eq!(text.parse::<Queues>().unwrap(), Queues(queues));
        }
        for wrong in ["", "1,", "2-1", "a", "1-", "0-4294967295"] {
            assert!(wrong.parse::<Queues>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hundred_percent_is_every_byte() {
        let all: Percent = "100".parse().unwrap();
        assert!(all.reached(1 << 40, 1 << 40) && !all.reached((1 << 40) - 1, 1 << 40) && !all.reached(0, 0));
        let half: Percent = "49.5".parse().unwrap();
        assert!(half.reached(495, 1000) && !half.reached(494, 1000));
        assert_eq!(
            ("99.05".parse::<Percent>().unwrap().to_string(), half.to_string()),
            ("99.05".into(), "49.50".into())
        );
        for wrong in ["", "101", "100.01", "-1", "1.234", "x", "1."] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
    }
}
