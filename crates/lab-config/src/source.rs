//! The text a lab was read from: byte offsets to line and column, and the lines to show.

use std::ops::Range;

/// A range of bytes of the text.
pub(crate) type Span = Range<usize>;

/// A named text.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    /// What to call it in messages: the path as the user gave it.
    pub(crate) name: &'t str,
    /// All of it.
    pub(crate) text: &'t str,
}

/// A place in the text, for people: both numbers count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Source<'_> {
    /// Where `offset` is.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let before = &self.text[..self.floor(offset)];
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        Position { line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
    }

    /// The line `offset` is on, without its end.
    pub(crate) fn line(&self, offset: usize) -> &str {
        let offset = self.floor(offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |n| n + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |n| offset + n);
        self.text[start..end].trim_end_matches('\r')
    }

    /// Blanks and carets that underline `span` below its line. Tabs stay tabs, so they line up in any terminal; a
    /// span of several lines is underlined to the end of its first.
    pub(crate) fn underline(&self, span: &Span) -> String {
        let line = self.line(span.start);
        let column = self.position(span.start).column - 1;
        let blanks = line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' });
        let end = self.floor(span.end).max(self.floor(span.start));
        let marked = self.text[self.floor(span.start)..end].lines().next().unwrap_or("").trim_end().chars().count();
        let room = line.chars().count().saturating_sub(column);
        blanks.chain(std::iter::repeat_n('^', marked.min(room).max(1))).collect()
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_tabs_stay() {
        let source = Source { name: "lab.toml", text: "a = 1\r\n\tgrüße = \"x\"\n" };
        let at = source.text.find('"').unwrap();
        assert_eq!(source.position(at), Position { line: 2, column: 10 });
        assert_eq!(source.line(at), "\tgrüße = \"x\"");
        assert_eq!(source.underline(&(at..at + 3)), "\t        ^^^");
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let source = Source { name: "lab.toml", text: "a = [" };
        assert_eq!(source.position(5), Position { line: 1, column: 6 });
        assert_eq!(source.underline(&(5..5)), "     ^");
    }

    #[test]
    fn a_span_of_several_lines_is_underlined_to_the_end_of_the_first() {
        let source = Source { name: "lab.toml", text: "x = [\n  1,\n]\n" };
        assert_eq!(source.underline(&(4..11)), "    ^");
    }
}
