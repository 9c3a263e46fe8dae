//! Draws progress events: bars on a terminal, one line an event elsewhere, JSON on request.
//!
//! In: the event stream of [`progress`]. Out: standard error, so that results on standard output stay clean. The last
//! lines of every step are kept, because when a step fails they are what a person wants to see.

use std::collections::{HashMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use progress::{Cancel, Event, Level, Outcome, Progress, Unit};

/// How many of a failed step's last lines are shown.
const TAIL: usize = 15;

/// What to draw with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Bars when standard error is a terminal, lines otherwise.
    Auto,
    /// One JSON object a line on standard error.
    Json,
    /// Warnings and failures only.
    Quiet,
}

/// A listener for the whole run.
pub fn progress(style: Style, cancel: Cancel) -> Progress {
    match style {
        Style::Json => Progress::new(cancel, |event| {
            if let Ok(line) = serde_json::to_string(&event) {
                let _ = writeln!(std::io::stderr().lock(), "{line}");
            }
        }),
        Style::Auto if std::io::stderr().is_terminal() => {
            let bars = Mutex::new(Bars::default());
            Progress::new(cancel, move |event| with(&bars, |b| b.show(event)))
        }
        Style::Auto | Style::Quiet => {
            let lines = Mutex::new(Lines { quiet: style == Style::Quiet, ..Lines::default() });
            Progress::new(cancel, move |event| with(&lines, |l| l.show(event)))
        }
    }
}

/// A listener that panicked must not take the work down with it.
fn with<T>(state: &Mutex<T>, f: impl FnOnce(&mut T)) {
    f(&mut state.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

/// `12.3 s`, `2 m 05 s`.
pub fn human_time(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 0.95 {
        format!("{:.0} ms", s * 1000.0)
    } else if s < 60.0 {
        format!("{s:.1} s")
    } else {
        format!("{} m {:02.0} s", d.as_secs() / 60, s % 60.0)
    }
}

#[derive(Default)]
struct Tails(HashMap<String, VecDeque<String>>);

impl Tails {
    fn push(&mut self, step: &str, line: &str) {
        let tail = self.0.entry(step.to_owned()).or_default();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }

    fn take(&mut self, step: &str) -> Vec<String> {
        self.0.remove(step).map(Vec::from).unwrap_or_default()
    }
}

#[derive(Default)]
struct Lines {
    quiet: bool,
    titles: HashMap<String, String>,
    tails: Tails,
}

impl Lines {
    fn show(&mut self, event: Event) {
        let mut err = std::io::stderr().lock();
        let _ = match event {
            Event::Started { step, title } => {
                let shown = if self.quiet { Ok(()) } else { writeln!(err, "  ... {title}") };
                self.titles.insert(step, title);
                shown
            }
            Event::Line { step, line } => {
                self.tails.push(&step, &line);
                Ok(())
            }
            Event::Finished { step, outcome, wall_us } => {
                let title = self.titles.remove(&step).unwrap_or(step.clone());
                let tail = self.tails.take(&step);
                let took = human_time(Duration::from_micros(wall_us));
                match outcome {
                    Outcome::Failed => {
                        for line in tail {
                            let _ = writeln!(err, "      | {line}");
                        }
                        writeln!(err, " FAIL {title} ({took})")
                    }
                    _ if self.quiet => Ok(()),
                    Outcome::Cached => writeln!(err, " have {title}"),
                    Outcome::Done => writeln!(err, "   ok {title} ({took})"),
                }
            }
            Event::Note { level: Level::Warning, text } => writeln!(err, " warn {text}"),
            Event::Note { text, .. } if !self.quiet => writeln!(err, " note {text}"),
            _ => Ok(()),
        };
    }
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    steps: HashMap<String, (ProgressBar, String)>,
    tails: Tails,
}

impl Bars {
    fn show(&mut self, event: Event) {
        match event {
            Event::Started { step, title } => {
                let bar = self.all.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}"));
                bar.set_prefix(title.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.steps.insert(step, (bar, title));
            }
            Event::Total { step, total, unit } => {
                if let Some((bar, _)) = self.steps.get(&step) {
                    bar.set_length(total);
                    bar.set_style(style(match unit {
                        Unit::Bytes => {
                            "{spinner} {prefix} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg:.dim}"
                        }
                        Unit::Items => "{spinner} {prefix} {bar:24} {pos}/{len} {elapsed} {wide_msg:.dim}",
                    }));
                }
            }
            Event::Advanced { step, done } => {
                if let Some((bar, _)) = self.steps.get(&step) {
                    bar.set_position(done);
                }
            }
            Event::Line { step, line } => {
                self.tails.push(&step, &line);
                if let Some((bar, _)) = self.steps.get(&step) {
                    bar.set_message(line);
                }
            }
            Event::Finished { step, outcome, wall_us } => {
                let tail = self.tails.take(&step);
                let Some((bar, title)) = self.steps.remove(&step) else { return };
                bar.finish_and_clear();
                self.all.remove(&bar);
                let took = human_time(Duration::from_micros(wall_us));
                let _ = match outcome {
                    Outcome::Cached => self.all.println(format!(" have {title}")),
                    Outcome::Done => self.all.println(format!("   ok {title} ({took})")),
                    Outcome::Failed => {
                        for line in tail {
                            let _ = self.all.println(format!("      | {line}"));
                        }
                        self.all.println(format!(" FAIL {title} ({took})"))
                    }
                };
            }
            Event::Note { level, text } => {
                let word = if level == Level::Warning { "warn" } else { "note" };
                let _ = self.all.println(format!(" {word} {text}"));
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
