//! Quantities with units: sizes of memory, lengths of time, shares.
//!
//! Whole numbers and one unit, so that what is written is exactly what is meant; a unit is never guessed.

use std::str::FromStr;
use std::time::Duration;

use crate::model::BadValue;
use crate::nearest::nearest;

use super::scalar::{Scalar, scalar};

/// A size of memory, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory(pub(crate) u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

/// A share, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Percent(pub(crate) f64);

scalar!(Memory);
scalar!(Period);
scalar!(Percent);

/// Splits `120s` into number and unit; the unit may be anything that is no digit.
fn quantity(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Reads `number` `unit`, where `units` says how many of the smallest unit each is worth.
fn measure<T: Scalar>(
    text: &str,
    what: &str,
    units: &[(&str, u64)],
    aliases: &[(&str, &str)],
) -> Result<u64, BadValue> {
    let (number, unit) = quantity(text);
    let meant = |unit: &str| {
        let folded = unit.to_lowercase();
        let alias = aliases.iter().find(|(wrong, _)| *wrong == folded).map(|(_, right)| *right);
        let right = alias.or_else(|| nearest(unit, units.iter().map(|(name, _)| *name)))?;
        (!number.is_empty()).then(|| format!("{number}{right}"))
    };
    if text.is_empty() {
        return Err(T::bad(format!("a {what} is empty"), None));
    }
    if number.is_empty() {
        return Err(T::bad(format!("{what} `{text}` does not begin with a whole number"), None));
    }
    if unit.is_empty() {
        return Err(T::bad(format!("{what} `{text}` has no unit"), T::from_number(number)));
    }
    if unit.starts_with('.') {
        return Err(T::bad(format!("{what} `{text}` is not a whole number of a unit"), None));
    }
    let Some((_, worth)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(T::bad(format!("{what} `{text}` has an unknown unit `{unit}`"), meant(unit)));
    };
    if text.contains(' ') {
        return Err(T::bad(format!("{what} `{text}` has a space in it"), Some(format!("{number}{unit}"))));
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(*worth))
        .ok_or_else(|| T::bad(format!("{what} `{text}` is too large to be one"), None))
}

impl Scalar for Memory {
    const FORMAT: &'static str = "memory-size";
    const PATTERN: &'static str = "^[0-9]+(MiB|GiB|TiB)$";
    const ALLOWED: &'static str = "a whole number with the unit MiB, GiB or TiB, for instance \"1536MiB\" or \"1GiB\"";

    fn from_number(number: &str) -> Option<String> {
        Some(format!("{number}MiB"))
    }
}

impl FromStr for Memory {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let aliases = [
            ("m", "MiB"),
            ("mb", "MiB"),
            ("mi", "MiB"),
            ("g", "GiB"),
            ("gb", "GiB"),
            ("gi", "GiB"),
            ("t", "TiB"),
            ("tb", "TiB"),
        ];
        measure::<Self>(text, "size", &[("MiB", 1), ("GiB", 1 << 10), ("TiB", 1 << 20)], &aliases).map(Memory)
    }
}

impl Scalar for Period {
    const FORMAT: &'static str = "duration";
    const PATTERN: &'static str = "^[0-9]+(us|ms|s|m|h)$";
    const ALLOWED: &'static str =
        "a whole number with the unit us, ms, s, m (minutes) or h, for instance \"120s\" or \"5ms\"";

    fn from_number(number: &str) -> Option<String> {
        Some(format!("{number}s"))
    }
}

impl FromStr for Period {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let units = [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
        let aliases = [
            ("sec", "s"),
            ("secs", "s"),
            ("second", "s"),
            ("seconds", "s"),
            ("min", "m"),
            ("mins", "m"),
            ("minute", "m"),
            ("minutes", "m"),
            ("msec", "ms"),
            ("µs", "us"),
            ("usec", "us"),
            ("hour", "h"),
            ("hours", "h"),
        ];
        measure::<Self>(text, "duration", &units, &aliases).map(|us| Period(Duration::from_micros(us)))
    }
}

impl Scalar for Percent {
    const FORMAT: &'static str = "percentage";
    const PATTERN: &'static str = "^[0-9]+(\\.[0-9]+)?%$";
    const ALLOWED: &'static str = "a percentage from \"0%\" to \"100%\", for instance \"0.5%\"";

    fn from_number(number: &str) -> Option<String> {
        Some(format!("{number}%"))
    }
}

impl FromStr for Percent {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let number = text.strip_suffix('%').unwrap_or(text);
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let value = number.parse::<f64>().ok().filter(|_| plain);
        let problem = match value {
            None => format!("`{text}` is not a percentage"),
            Some(_) if number == text => {
                return Err(Self::bad(format!("`{text}` has no percent sign"), Self::from_number(text)));
            }
            Some(v) if v > 100.0 => format!("`{text}` is more than 100%"),
            Some(v) => return Ok(Percent(v / 100.0)),
        };
        Err(Self::bad(problem, None))
    }
}
