//! A console line, freed of what printk puts before it.

use crate::console::clean;

/// A line of a console.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Seconds since the kernel started, when the line is the kernel's and timestamps are on.
    pub(super) time: Option<f64>,
    /// The text after timestamp and caller, with its leading spaces.
    pub(super) text: String,
}

impl Line {
    /// Takes `<level>`, `[   12.345678]` and `[  T123]`/`[    C0]` (CONFIG_PRINTK_CALLER) off.
    ///
    /// A program that wrote to the console without a newline leaves its text before the kernel's line; the timestamp
    /// shows where the kernel's part begins.
    pub(super) fn parse(raw: &str) -> Line {
        let raw = clean(raw);
        let mut from = 0;
        while let Some(at) = raw[from..].find('[').map(|at| from + at) {
            if let Some((time, rest)) = timestamp(&raw[at..]) {
                let text = caller(rest).unwrap_or(rest);
                let text = text.strip_prefix(' ').unwrap_or(text);
                return Line { time: Some(time), text: text.to_owned() };
            }
            from = at + 1;
        }
        Line { time: None, text: raw }
    }
}

/// `[   12.345678]` and what follows it.
fn timestamp(text: &str) -> Option<(f64, &str)> {
    let (inside, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = inside.trim_start().split_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    (digits(seconds) && digits(micros) && micros.len() == 6)
        .then(|| inside.trim_start().parse().ok())?
        .map(|t| (t, rest))
}

/// What follows `[  T123]`, `[    C0]`, or a space and one of those.
fn caller(text: &str) -> Option<&str> {
    let (inside, rest) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    let number = inside.trim_start().strip_prefix(['T', 'C'])?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_off() {
        let text = |raw: &str| Line::parse(raw).text;
        assert_eq!(text("[    1.234567] hello"), "hello");
        assert_eq!(text("[    1.234567]  dump_stack+0x1/0x2"), " dump_stack+0x1/0x2");
        assert_eq!(text("[    1.234567][  T123] hello"), "hello");
        assert_eq!(text("[    1.234567] [    C0] hello"), "hello");
        assert_eq!(text("<4>[    1.234567] hello\r"), "hello");
        assert_eq!(text("half a li[   12.345678] BUG: x"), "BUG: x");
        assert_eq!(text("[1.2] not a timestamp"), "[1.2] not a timestamp");
        assert_eq!(text("hello [world]"), "hello [world]");
        assert_eq!(Line::parse("[   12.345678] x").time, Some(12.345678));
        assert_eq!(Line::parse("no time").time, None);
    }
}
