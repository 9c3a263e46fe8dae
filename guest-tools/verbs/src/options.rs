//! The command line: a command, then `--name value` pairs. What is not known is refused by name.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// The pairs behind the command.
#[derive(Debug)]
pub struct Options {
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads them; `known` are the names there may be.
    pub fn parse(words: &[String], known: &[&str]) -> Result<Options> {
        let mut values = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--").filter(|name| known.contains(name)) else {
                bail!("`{word}` is no option here; there are --{}", known.join(", --"));
            };
            let value = words.next().with_context(|| format!("--{name} needs a value"))?;
            if values.insert(name.to_owned(), value.clone()).is_some() {
                bail!("--{name} is given twice");
            }
        }
        Ok(Options { values })
    }

    /// A value.
    pub fn one<T: FromStr>(&self, name: &str, default: Option<&str>) -> Result<T>
    where
        T::Err: Into<anyhow::Error>,
    {
        let text =
            self.values.get(name).map(String::as_str).or(default).with_context(|| format!("--{name} is needed"))?;
        text.parse().map_err(Into::into).with_context(|| format!("--{name} {text}"))
    }

    /// Values separated by commas.
    pub fn list<T: FromStr>(&self, name: &str, default: &str) -> Result<Vec<T>>
    where
        T::Err: Into<anyhow::Error>,
    {
        let text = self.values.get(name).map_or(default, String::as_str);
        let parse = |word: &str| word.parse().map_err(Into::into).with_context(|| format!("--{name} {word}"));
        text.split(',').map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn pairs_are_read_and_mistakes_named() {
        let options = Options::parse(&words("--size 1,8 --count 3"), &["size", "count", "other"]).unwrap();
        assert_eq!(options.list::<usize>("size", "9").unwrap(), [1, 8]);
        assert_eq!(options.one::<u64>("count", None).unwrap(), 3);
        assert_eq!(options.one::<u64>("other", Some("4")).unwrap(), 4);
        for (line, why) in
            [("--sice 1", "`--sice` is no option"), ("--size", "needs a value"), ("--size 1 --size 2", "twice")]
        {
            let error = Options::parse(&words(line), &["size"]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = format!("{:#}", options.one::<u64>("size", None).unwrap_err());
        assert!(error.contains("--size 1,8"), "{error}");
    }
}
