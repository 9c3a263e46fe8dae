//! From how a test's steps ended to its status and one line of explanation.

use super::context::Stop;
use super::one::Ending;
use crate::model::{Expected, Test};
use crate::results::{HangKind, Record, Status};

/// From how the steps ended to a status and a line of explanation.
pub(super) fn conclude(test: &Test, ending: &Ending, record: &mut Record) {
    let at = |why: &str| {
        let place = if ending.step.is_empty() { String::new() } else { format!("step `{}`", ending.step) };
        match (place.is_empty(), why.starts_with(&format!("`{}`", ending.step))) {
            (true, _) | (_, true) => why.to_string(),
            _ => format!("{place}: {why}"),
        }
    };
    (record.status, record.message) = match &ending.outcome {
        Ok(()) => (Status::Pass, String::new()),
        Err(Stop::Failed(why)) => (Status::Fail, at(why)),
        Err(Stop::Skipped(why)) => (Status::Skip, why.clone()),
        Err(Stop::Xfailed(why)) => (Status::Xfail, at(why)),
        Err(Stop::Xpassed(why)) => (Status::Xpass, at(why)),
        Err(stop @ Stop::Crashed(_)) => (Status::Crash, at(&stop.to_string())),
        Err(Stop::TimedOut) => (Status::Timeout, at(&time_ran_out(record))),
        Err(Stop::Hung(why)) => (Status::Timeout, at(why)),
        Err(Stop::Infrastructure(why)) => (Status::Error, at(why)),
        Err(stop @ Stop::Cancelled) => (Status::DidNotFinish, stop.to_string()),
    };
    if let Err(Stop::Crashed(crash)) = &ending.outcome {
        record.crash = Some(crash.clone());
    }
    if let Err(Stop::Skipped(why)) = &ending.outcome
        && record.missing.is_empty()
    {
        record.missing = vec![why.split(": ").next().unwrap_or(why).to_string()];
    }
    expectation(test, ending, record);
    if matches!(record.status, Status::Pass | Status::Xpass) && !record.leaks.is_empty() {
        let list: Vec<String> = record.leaks.iter().map(|leak| format!("{} {}", leak.kind, leak.what)).collect();
        record.status = Status::Fail;
        record.message = format!("left behind: {}", list.join(", "));
    }
}

fn time_ran_out(record: &Record) -> String {
    let Some(hang) = &record.hang else { return "time ran out".into() };
    let seconds = hang.quiet_ms as f64 / 1000.0;
    let last = hang.last_output.last().map(|line| format!("; last output: {line}")).unwrap_or_default();
    match hang.kind {
        HangKind::Guest => format!("time ran out and guest `{}` does not answer{last}", hang.guest),
        HangKind::Busy => format!("time ran out while it was busy, {seconds:.0} s after its last output{last}"),
        HangKind::Quiet => format!("time ran out while it only waited, {seconds:.0} s after its last output{last}"),
    }
}

/// Applies what is known of the kernels in use.
fn expectation(test: &Test, ending: &Ending, record: &mut Record) {
    let expected = record.guests.iter().find_map(|used| Some((&used.kernel, test.expect.get(&used.kernel)?)));
    let Some((kernel, expected)) = expected else { return };
    let status = match expected {
        Expected::Fail => Status::Fail,
        Expected::Timeout => Status::Timeout,
        Expected::Crash => Status::Crash,
    };
    let right_place = match &test.expect_at {
        Some(at) => ending.step == *at,
        None => ending.in_body,
    };
    if record.status == status && right_place {
        record.status = Status::Xfail;
        record.message = format!("as known of kernel `{kernel}`: {} ({})", test.because, record.message);
    } else if record.status == Status::Pass {
        record.status = if test.strict { Status::Fail } else { Status::Xpass };
        record.message =
            format!("it passed though kernel `{kernel}` is expected to {}: {}", status.word(), test.because);
    }
}
