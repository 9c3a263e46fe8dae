//! `lab-frames`: sends malformed RoCEv2 frames through a netdev, made from the frames that live queue pairs send there.
//!
//! What it did is printed as `name value` lines, for the test that runs it.

mod campaign;
mod socket;

use std::net::IpAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::campaign::{Outcome, Plan, run};

const USAGE: &str = "lab-frames --device NETDEV [--count N] [--until FILE] [--rate N] [--seed N] [--from ADDRESS]... [--kinds N] \
     [--patience SECONDS]";

fn main() -> ExitCode {
    let done = plan(std::env::args().skip(1)).and_then(|plan| run(&plan));
    match done {
        Ok(outcome) => {
            print!("{}", tell(&outcome));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab-frames: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn plan(mut words: impl Iterator<Item = String>) -> Result<Plan> {
    let mut plan = Plan {
        device: String::new(),
        count: 10_000,
        rate: None,
        until: None,
        seed: 1,
        from: Vec::new(),
        kinds: 1,
        patience: Duration::from_secs(30),
    };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} has no value; usage: {USAGE}"))?;
        match word.as_str() {
            "--device" => plan.device = value,
            "--count" => plan.count = number(&word, &value)?,
            "--rate" => plan.rate = Some(number(&word, &value)?),
            "--until" => plan.until = Some(value.into()),
            "--seed" => plan.seed = number(&word, &value)?,
            "--from" => plan.from.push(number::<IpAddr>(&word, &value)?),
            "--kinds" => plan.kinds = number(&word, &value)?,
            "--patience" => plan.patience = Duration::from_secs(number(&word, &value)?),
            _ => bail!("there is no {word}; usage: {USAGE}"),
        }
    }
    if plan.device.is_empty() {
        bail!("which netdev? usage: {USAGE}");
    }
    Ok(plan)
}

fn number<T: FromStr>(word: &str, value: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    value.parse().with_context(|| format!("{word} {value}"))
}

fn tell(outcome: &Outcome) -> String {
    let mut text = format!(
        "frames_sent {}\nframes_refused {}\nframes_repeated {}\ntemplates {}\n",
        outcome.sent,
        outcome.refused,
        outcome.repeated,
        outcome.templates.len()
    );
    // Lists that were sent to their ends: each corruption of these frames was under way at least once.
    let complete = outcome.templates.values().filter(|(all, sent)| sent >= all).count();
    text.push_str(&format!("templates_complete {complete}\n"));
    for (class, count) in &outcome.classes {
        text.push_str(&format!("corruptions_{class} {count}\n"));
    }
    for (key, (all, sent)) in &outcome.templates {
        text.push_str(&format!("# {key}: {all} corruptions, {sent} sent\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Plan> {
        plan(line.split_whitespace().map(String::from))
    }

    #[test]
    fn the_command_line() {
        let plan = of("--device nkl --count 5 --from 10.77.0.1 --from fd77::1").unwrap();
        assert_eq!((plan.device.as_str(), plan.count, plan.from.len()), ("nkl", 5, 2));
        assert_eq!((plan.rate, plan.until), (None, None));
        let plan = of("--device nkl --rate 500 --until /run/enough").unwrap();
        assert_eq!((plan.rate.map(|rate| rate.get()), plan.until), (Some(500), Some("/run/enough".into())));
        for (line, why) in [
            ("", "which netdev?"),
            ("--count x --device a", "--count x"),
            ("--rate 0 --device a", "--rate 0"),
            ("--device", "--device has no value"),
            ("--device a --size 3", "there is no --size"),
        ] {
            let error = format!("{:#}", of(line).unwrap_err());
            assert!(error.contains(why), "{error}");
        }
    }
}
