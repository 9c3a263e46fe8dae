//! A mark in every guest that a run uses, so that the next run knows when one was broken off.
//!
//! A run that is killed, or interrupted within a test, leaves namespaces, links and processes behind, and nobody to find
//! them. So a guest carries the run's mark from its first test on, and only an orderly end takes it away. A guest that
//! has one when a run begins is rebooted. The mark is in memory: a boot takes it along.

use std::time::Duration;

use protocol::{Event, FailureKind, Pull, Request};

use super::context::{Context, Stop};
use super::steps::push;

const MARK: &str = "/run/devmem-lab/tests-running";
const ANSWER: Duration = Duration::from_secs(10);

/// The mark that stands in the guest, if one does.
pub(super) fn read(context: &mut Context, role: &str) -> Result<Option<String>, Stop> {
    let mut text = Vec::new();
    context.allow(ANSWER);
    let found = context.pump(role, Request::Pull(Pull { path: MARK.into() }), None, |_, event| match event {
        Event::Output { bytes, .. } => {
            text.extend(bytes);
            Ok(None)
        }
        Event::Done => Ok(Some(true)),
        Event::Failed(failure) if failure.kind == FailureKind::NotFound => Ok(Some(false)),
        Event::Failed(failure) => Err(Stop::Infrastructure(format!("{MARK}: {}", failure.message))),
        _ => Ok(None),
    })?;
    let text = String::from_utf8_lossy(&text).trim().to_string();
    Ok(Some(text).filter(|text| found && !text.is_empty()))
}

/// Sets the mark.
pub(super) fn set(context: &mut Context, role: &str) -> Result<(), Stop> {
    write(context, role, "a test run uses this guest\n")
}

/// Takes it away.
pub(super) fn clear(context: &mut Context, role: &str) -> Result<(), Stop> {
    write(context, role, "")
}

fn write(context: &mut Context, role: &str, text: &str) -> Result<(), Stop> {
    context.allow(ANSWER);
    push(context, role, MARK, text.as_bytes(), 0o644, None)
}
