//! Collecting reports while a console is written.
//!
//! A small state machine over lines: closed, or inside one report. A report ends at its own end mark, at the next
//! headline, or where its trace is over and the lines turn to something else. A panic that merely follows from the
//! report before it (`Fatal exception`, `panic_on_warn`) makes that one fatal instead of being a second crash.

use super::frame::{self, Frame};
use super::headline::{self, Headline, Mark};
use super::line::Line;
use super::{Crash, CrashKind};

/// Longest line kept while its newline has not come.
const LINE_MAX: usize = 64 * 1024;
/// Longest report, in lines: lockdep's chains are the longest real ones.
const REPORT_MAX: usize = 500;
/// Most reports kept of one boot; the first are the ones that matter.
const REPORTS_MAX: usize = 64;
/// How far behind a report a panic may come and still be its consequence, in lines.
const AFTERMATH: usize = 120;
/// Lines before a headline that may belong to it (`cut here`, then a message).
const PRELUDE: usize = 12;

/// Reads a console piece by piece and keeps the reports it finds.
#[derive(Debug, Clone, Default)]
pub struct Watcher {
    /// Bytes of a line whose end has not come.
    partial: Vec<u8>,
    /// Offset of the first byte of `partial`.
    offset: u64,
    /// A kernel line with a timestamp was seen, so lines without one are not the kernel's.
    timestamps: bool,
    prelude: Vec<String>,
    open: Option<Report>,
    closed: Vec<Report>,
    /// Lines since the last report was closed.
    since: usize,
}

#[derive(Debug, Clone)]
struct Report {
    head: Headline,
    headline: String,
    lines: Vec<String>,
    frames: Vec<Frame>,
    /// Addresses found on the stack (`?`): all there is when a running task's stack is dumped from outside.
    found: Vec<Frame>,
    /// A register dump's or a headline's own frame: where it happened.
    place: Option<Frame>,
    /// Frames or `Call Trace:` were seen.
    trace_seen: bool,
    /// `Call Trace:` was seen.
    called: bool,
    trace_over: bool,
    fatal: bool,
    complete: bool,
    times: u32,
    offset: u64,
}

impl Watcher {
    /// A watcher whose first byte is at `offset` of the console.
    pub fn at(offset: u64) -> Watcher {
        Watcher { offset, ..Watcher::default() }
    }

    /// Takes the next bytes, wherever they end.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(1);
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > LINE_MAX {
            self.end_line(0);
        }
    }

    /// The console has ended: what is open is all there will be.
    pub fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.end_line(0);
        }
        self.close();
    }

    /// Every report so far, in order; the last may be incomplete.
    pub fn crashes(&self) -> Vec<Crash> {
        self.closed.iter().chain(self.open.as_ref().filter(|r| r.real())).map(Report::crash).collect()
    }

    fn end_line(&mut self, newline: u64) {
        let raw = std::mem::take(&mut self.partial);
        let offset = self.offset;
        self.offset += raw.len() as u64 + newline;
        let line = Line::parse(&String::from_utf8_lossy(&raw));
        self.timestamps |= line.time.is_some();
        let kernel = line.time.is_some() || !self.timestamps;
        self.line(&line.text, kernel, offset);
    }

    fn line(&mut self, text: &str, kernel: bool, offset: u64) {
        self.since += 1;
        let head = if kernel { headline::classify(text) } else { None };
        if let Some(head) = head
            && !self.absorb(text, head)
        {
            let prelude = std::mem::take(&mut self.prelude);
            self.close();
            self.begin(prelude, text, head, offset);
            return;
        }
        let open = self.open.as_mut().map(|report| report.take(text, kernel));
        if open == Some(true) {
            self.close();
        }
        if open != Some(false) && kernel {
            self.remember(text);
        }
    }

    /// A headline that belongs to the report at hand: the die message after a fault's address, the panic that follows
    /// from a report. Returns whether it was one; the line itself is then taken as a line of the report.
    fn absorb(&mut self, text: &str, head: Headline) -> bool {
        if let Some(reason) = headline::panic_reason(text) {
            let late = self.open.is_none() && self.since > AFTERMATH;
            let causes = |r: &Report| !r.fatal && headline::panic_follows(reason, r.head.kind);
            if self.open.is_none() && !late {
                self.open = self.closed.pop_if(|r| causes(r));
            }
            let Some(report) = self.open.as_mut().filter(|r| causes(r)) else { return false };
            report.fatal = true;
            report.complete = false;
            report.trace_over = true;
            return true;
        }
        let Some(report) = &self.open else { return false };
        let dying = head.kind == CrashKind::Oops && text.contains(" [#");
        // The address of a fault, then the die message; BUG(), then the die message; but a second fault is a new report.
        let died = report.lines.iter().any(|l| l.contains(" [#"));
        dying && !died && matches!(report.head.kind, CrashKind::Oops | CrashKind::Bug)
    }

    fn begin(&mut self, prelude: Vec<String>, text: &str, head: Headline, offset: u64) {
        let mut lines = prelude;
        lines.push(text.to_owned());
        self.open = Some(Report {
            head,
            headline: text.trim().to_owned(),
            lines,
            frames: Vec::new(),
            found: Vec::new(),
            place: Frame::find(text),
            trace_seen: false,
            called: false,
            trace_over: false,
            fatal: head.kind == CrashKind::Panic,
            complete: head.single,
            times: 1,
            offset,
        });
        if head.single {
            self.close();
        }
    }

    fn close(&mut self) {
        self.prelude.clear();
        if let Some(mut report) = self.open.take()
            && report.real()
        {
            report.complete = true;
            self.since = 0;
            // The same report again and again says nothing new.
            let again = self.closed.iter().position(|r| !report.fatal && r.fingerprint() == report.fingerprint());
            match again {
                Some(first) => self.closed[first].times += 1,
                None if self.closed.len() < REPORTS_MAX => self.closed.push(report),
                None => {}
            }
        }
    }

    /// Keeps the lines from `cut here` on, until a headline takes them or they turn out to be nothing.
    fn remember(&mut self, text: &str) {
        if headline::mark(text) == Mark::CutHere {
            self.prelude.clear();
        } else if self.prelude.is_empty() {
            return;
        }
        if self.prelude.len() < PRELUDE {
            self.prelude.push(text.to_owned());
        } else {
            self.prelude.clear();
        }
    }
}

impl Report {
    fn real(&self) -> bool {
        !self.head.needs_trace || self.trace_seen
    }

    /// Takes a line; `true` when the report is over.
    fn take(&mut self, text: &str, kernel: bool) -> bool {
        if !kernel {
            return false;
        }
        let mark = headline::mark(text);
        let ours = headline::continues(text) || mark == Mark::End || text.contains("Kernel panic");
        let over = self.trace_over && !self.marked_end() && !ours;
        if over || mark == Mark::CutHere || self.lines.len() >= REPORT_MAX {
            self.complete = true;
            return true;
        }
        self.lines.push(text.to_owned());
        self.read(text);
        let ends = match mark {
            Mark::End => true,
            // The rule above the headline came before it; the one below a lockdep headline comes before the trace.
            Mark::Rule => self.trace_seen,
            Mark::TraceEnd => {
                self.trace_over = true;
                false
            }
            // With panic=-1 the machine is gone before the end mark.
            Mark::Other | Mark::CutHere => {
                self.fatal && (text.starts_with("Kernel Offset:") || text.starts_with("Rebooting in "))
            }
        };
        if ends {
            self.complete = true;
        }
        // A panic may still end with its mark after the offset line; it is complete all the same.
        ends && matches!(mark, Mark::End | Mark::Rule)
    }

    /// Kinds whose reports end with a mark of their own.
    fn marked_end(&self) -> bool {
        use CrashKind::*;
        matches!(self.head.kind, Oops | Bug | Warning | Kasan | Kfence | Kcsan | Ubsan)
            && !self.fatal
            && !self.head.needs_trace
    }

    /// Looks for the place and the frames.
    fn read(&mut self, text: &str) {
        let line = text.trim();
        if line.starts_with("RIP: ") && self.place.is_none() && !self.called {
            self.place = Frame::find(line);
        }
        if line.starts_with("Call Trace") {
            self.trace_seen = true;
            self.called = true;
        }
        // Lockdep first shows where each lock of the chain was taken; the trace proper comes after.
        let early = self.head.kind == CrashKind::Lockdep && !self.called;
        // Below an interrupt's own frames is whoever happened to be interrupted.
        self.trace_over |= line == "</TASK>" || (line == "</IRQ>" && self.frames.iter().any(Frame::meaningful));
        if self.trace_over || early {
            return;
        }
        match Frame::of_trace_line(text) {
            Some(frame) => {
                self.trace_seen = true;
                self.frames.push(frame);
            }
            // `Allocated by task 12:` starts another trace; a blank line or a register dump ends the first.
            // An exception's registers stand between the frames of its handler and those of what it interrupted.
            None if line.starts_with("RIP: 0010:") && self.called => self.frames.extend(Frame::find(line)),
            None if headline::register(line) => {}
            None if line.starts_with("? ") => self.found.extend(Frame::find(line)),
            None if !self.frames.is_empty() && !line.starts_with(['<', '[']) => self.trace_over = true,
            None => {}
        }
    }

    /// The frames that tell this crash from others, innermost first.
    fn telling(&self) -> Vec<Frame> {
        let mut all: Vec<Frame> = self.place.iter().filter(|f| f.meaningful()).cloned().collect();
        let trace = if self.frames.is_empty() { frame::interrupted(&self.found) } else { &self.frames };
        // Everything above the place in the trace is what reported it.
        let below = all.first().and_then(|p| trace.iter().position(|f| f.function == p.function));
        let rest = &trace[below.map_or(0, |at| at + 1)..];
        all.extend(rest.iter().filter(|f| f.meaningful()).cloned());
        all
    }

    fn fingerprint(&self) -> String {
        let frames = frame::fingerprint(&self.telling());
        let tail = if frames.is_empty() { slug(&self.headline) } else { frames };
        format!("{}:{tail}", self.head.kind)
    }

    /// What the author of a `WARN()` wrote: the line between `cut here` and the headline, or the one after it
    /// (kernel/panic.c, `__warn()` with and without its arguments).
    fn message(&self) -> Option<&str> {
        if self.head.kind != CrashKind::Warning {
            return None;
        }
        let head = self.lines.iter().position(|l| l.trim() == self.headline)?;
        let before = head.checked_sub(1).map(|at| self.lines[at].trim());
        let after = self.lines.get(head + 1).map(|l| l.trim());
        let after = after.filter(|l| !["Modules linked in:", "CPU:", "RIP:"].iter().any(|p| l.starts_with(p)));
        before.filter(|l| headline::mark(l) != Mark::CutHere).or(after).filter(|l| !l.is_empty())
    }

    fn crash(&self) -> Crash {
        let frames = self.telling();
        let place = frames.first().filter(|f| !self.headline.contains(&f.function));
        let place = place.map(|f| format!(" in {}", f.base_name())).unwrap_or_default();
        let said = self.message().map(|m| format!(": {m}")).unwrap_or_default();
        let headline = self.headline.trim_end_matches(['.', ':']);
        let title = format!("{headline}{place}{said}");
        Crash {
            kind: self.head.kind,
            title,
            fingerprint: self.fingerprint(),
            frames,
            trace: self.lines.join("\n"),
            fatal: self.fatal,
            complete: self.complete,
            times: self.times,
            offset: self.offset,
        }
    }
}

/// A headline without what changes from run to run: numbers, addresses, punctuation.
fn slug(headline: &str) -> String {
    let words = headline.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let stable = words.filter(|w| !w.is_empty() && !w.starts_with(|c: char| c.is_ascii_digit()));
    let stable = stable.filter(|w| !(w.len() >= 8 && w.bytes().all(|b| b.is_ascii_hexdigit())));
    stable.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}
