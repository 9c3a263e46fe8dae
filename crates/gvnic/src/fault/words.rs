//! Faults in words, as `lab.toml`, `lab fault --device` and suites say them: a kind, what belongs to it, and which occasions.
//!
//! ```text
//! drop [rx|tx]            reorder [rx|tx]          duplicate [rx|tx]        corrupt [rx|tx]
//! delay TIME [rx|tx]      miss-split               miss                     withhold-completion
//! link-flap TIME          device-reset             admin-timeout COMMAND    admin-error COMMAND STATUS
//! ```
//! and behind any of them `P%` (each occasion, with that probability), `after N` (the first N pass), `times N` or `once`. The
//! words behind the kind may stand in any order.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use thiserror::Error;

use super::{DELAY_MAX, Fault, FaultPlan, Trigger, Way};
use crate::abi::adminq::{Opcode, Status};
use crate::control::TICK;

/// Every kind, and what has to follow it.
const KINDS: [(&str, &str); 12] = [
    ("drop", ""),
    ("reorder", ""),
    ("duplicate", ""),
    ("corrupt", ""),
    ("delay", "TIME"),
    ("miss-split", ""),
    ("miss", ""),
    ("withhold-completion", ""),
    ("link-flap", "TIME"),
    ("device-reset", ""),
    ("admin-timeout", "COMMAND"),
    ("admin-error", "COMMAND STATUS"),
];
/// The command that stands for every command.
const ANY: &str = "any";

/// Words that are no fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is no fault of a NIC: {problem}")]
pub struct BadFault {
    /// The words.
    pub text: String,
    /// What is wrong with them.
    pub problem: String,
    /// The word that is not known, and those that could stand there.
    pub unknown: Option<(String, Vec<String>)>,
}

/// What was read behind the kind.
#[derive(Default)]
struct Said {
    way: Option<Way>,
    /// In microseconds.
    time: Option<u64>,
    command: Option<Option<Opcode>>,
    status: Option<Status>,
    probability: Option<f64>,
    after: Option<u64>,
    count: Option<u64>,
}

impl FromStr for Fault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Fault, BadFault> {
        let bad = |problem: String| BadFault { text: text.trim().into(), problem, unknown: None };
        let mut words = text.split_whitespace();
        let kind = words.next().ok_or_else(|| bad("it is empty".into()))?;
        let Some((_, needs)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            let kinds: Vec<String> = KINDS.iter().map(|(name, _)| (*name).to_string()).collect();
            let problem = format!("there is {}", kinds.join(", "));
            return Err(BadFault { unknown: Some((kind.into(), kinds)), ..bad(problem) });
        };
        let said = Said::read(words).map_err(|(problem, unknown)| BadFault { unknown, ..bad(problem) })?;
        said.fault(kind).map_err(|problem| {
            let form = if needs.is_empty() { String::new() } else { format!(" (`{kind} {needs}`)") };
            bad(format!("{problem}{form}"))
        })
    }
}

/// A problem, and the word that is not known if it is that.
type Problem = (String, Option<(String, Vec<String>)>);

impl Said {
    fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Said, Problem> {
        let mut said = Said::default();
        let plain = |problem: String| (problem, None);
        while let Some(word) = words.next() {
            let mut number = || {
                let next = words.next().unwrap_or_default();
                next.parse().map_err(|_| plain(format!("`{word}` wants a whole number behind it, not `{next}`")))
            };
            let twice = match word {
                "rx" => said.way.replace(Way::Rx).is_some(),
                "tx" => said.way.replace(Way::Tx).is_some(),
                "once" => said.count.replace(1).is_some(),
                "times" => said.count.replace(number()?).is_some(),
                "after" => said.after.replace(number()?).is_some(),
                ANY => said.command.replace(None).is_some(),
                _ => said.other(word)?,
            };
            if twice {
                return Err(plain(format!("what `{word}` says is said already")));
            }
        }
        Ok(said)
    }

    /// Takes a word that is a value; whether there was one already.
    fn other(&mut self, word: &str) -> Result<bool, Problem> {
        if let Some(percent) = word.strip_suffix('%') {
            let share = percent.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
            let share = share.ok_or_else(|| (format!("`{word}` is no percentage from 0% to 100%"), None))?;
            return Ok(self.probability.replace(share / 100.0).is_some());
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let time = micros(word).ok_or_else(|| (format!("`{word}` is no time, such as 500us, 20ms or 1s"), None))?;
            return Ok(self.time.replace(time).is_some());
        }
        if let Some(command) = named(word) {
            return Ok(self.command.replace(Some(command)).is_some());
        }
        if let Some(status) = named(word) {
            return Ok(self.status.replace(status).is_some());
        }
        let words: Vec<String> = ["rx", "tx", "once", "times", "after", ANY].map(String::from).into();
        let commands = Opcode::ALL.iter().map(spelled);
        let known = words.into_iter().chain(commands).chain(Status::ALL.iter().map(spelled)).collect();
        Err((format!("`{word}` says nothing here"), Some((word.into(), known))))
    }

    /// The fault of that kind, if all of it was said and no more.
    fn fault(mut self, kind: &str) -> Result<Fault, String> {
        let when = Trigger {
            probability: self.probability.take().unwrap_or(1.0),
            after: self.after.take().unwrap_or(0),
            count: self.count.take(),
        };
        let way = self.way.take();
        let of_frames = matches!(kind, "drop" | "reorder" | "duplicate" | "corrupt" | "delay");
        if way.is_some() && !of_frames {
            return Err(format!("`{kind}` has no way, rx or tx"));
        }
        let way = way.unwrap_or_default();
        let fault = match kind {
            "drop" => Fault::Drop { way, when },
            "reorder" => Fault::Reorder { way, when },
            "duplicate" => Fault::Duplicate { way, when },
            "corrupt" => Fault::Corrupt { way, when },
            "delay" => {
                let micros = self.time.take().ok_or("it does not say for how long")?;
                if !(1..=DELAY_MAX).contains(&micros) {
                    return Err("a delay is 1us to 10s".into());
                }
                Fault::Delay { micros, way, when }
            }
            "miss-split" => Fault::MissSplit { when },
            "miss" => Fault::Miss { when },
            "withhold-completion" => Fault::WithholdCompletion { when },
            "link-flap" => {
                let micros = self.time.take().ok_or("it does not say for how long")?;
                let ticks = u32::try_from(u128::from(micros).div_ceil(TICK.as_micros()));
                Fault::LinkFlap { down: ticks.map_err(|_| "that is too long")?.max(1), when }
            }
            "device-reset" => Fault::DeviceReset { when },
            "admin-timeout" => Fault::AdminTimeout { opcode: self.command()?, when },
            _ => {
                let opcode = self.command()?;
                let status = self.status.take().ok_or("it does not say which error")?;
                Fault::AdminError { opcode, status, when }
            }
        };
        match self {
            Said { time: Some(_), .. } => Err(format!("`{kind}` takes no time")),
            Said { command: Some(_), .. } => Err(format!("`{kind}` is of no command")),
            Said { status: Some(_), .. } => Err(format!("`{kind}` has no status")),
            _ => Ok(fault),
        }
    }

    fn command(&mut self) -> Result<Option<Opcode>, String> {
        self.command.take().ok_or_else(|| format!("it does not say which command, or `{ANY}`"))
    }
}

/// The value whose serde name the word is.
fn named<T: DeserializeOwned>(word: &str) -> Option<T> {
    T::deserialize(StrDeserializer::<serde::de::value::Error>::new(word)).ok()
}

/// The other way: `CreateRxQueue` as `create-rx-queue`.
fn spelled(value: &impl fmt::Debug) -> String {
    let mut word = String::new();
    for letter in format!("{value:?}").chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

/// Microseconds of `500us`, `20ms` or `1s`; `None` for anything else.
pub fn micros(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let worth = match &text[end..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(worth)
}

impl FaultPlan {
    /// A plan in words: faults with commas between them, or `none`.
    ///
    /// # Errors
    /// [`BadFault`] with the first one that is none, or when they are too many.
    pub fn in_words(seed: u64, text: &str) -> Result<FaultPlan, BadFault> {
        if text.trim() == "none" {
            return Ok(FaultPlan { seed, list: Vec::new() });
        }
        let list = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        let plan = FaultPlan { seed, list };
        plan.check().map_err(|error| BadFault { text: text.into(), problem: error.to_string(), unknown: None })?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_said_and_means_what_it_says() {
        let once = Trigger { count: Some(1), ..Trigger::default() };
        for (text, fault) in [
            ("drop 1%", Fault::Drop { way: Way::Both, when: Trigger::probability(0.01) }),
            ("drop rx 0.5% after 10", {
                Fault::Drop { way: Way::Rx, when: Trigger { probability: 0.005, after: 10, count: None } }
            }),
            ("reorder tx", Fault::Reorder { way: Way::Tx, when: Trigger::default() }),
            ("duplicate", Fault::Duplicate { way: Way::Both, when: Trigger::default() }),
            ("corrupt times 3 rx", Fault::Corrupt { way: Way::Rx, when: Trigger::times(0, 3) }),
            ("delay 2ms 10% tx", Fault::Delay { micros: 2000, way: Way::Tx, when: Trigger::probability(0.1) }),
            ("miss-split once", Fault::MissSplit { when: once }),
            ("miss", Fault::Miss { when: Trigger::default() }),
            ("withhold-completion once", Fault::WithholdCompletion { when: once }),
            ("link-flap 250ms once", Fault::LinkFlap { down: 3, when: once }),
            ("device-reset after 5 times 2", Fault::DeviceReset { when: Trigger::times(5, 2) }),
            ("admin-timeout any", Fault::AdminTimeout { opcode: None, when: Trigger::default() }),
            ("admin-error create-rx-queue internal-error once", {
                Fault::AdminError { opcode: Some(Opcode::CreateRxQueue), status: Status::InternalError, when: once }
            }),
        ] {
            assert_eq!(text.parse(), Ok(fault), "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_says_why() {
        for (text, why) in [
            ("", "it is empty"),
            ("dorp 1%", "there is drop, reorder"),
            ("drop 1", "`1` is no time"),
            ("drop 101%", "no percentage"),
            ("drop 1% 2%", "said already"),
            ("drop up", "`up` says nothing"),
            ("drop 5ms", "`drop` takes no time"),
            ("drop times", "whole number behind it"),
            ("delay 1%", "for how long (`delay TIME`)"),
            ("delay 11s", "1us to 10s"),
            ("device-reset rx", "has no way"),
            ("admin-timeout", "which command, or `any`"),
            ("admin-error any", "which error (`admin-error COMMAND STATUS`)"),
            ("link-flap 1s any", "`link-flap` is of no command"),
        ] {
            let error = text.parse::<Fault>().expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
        let unknown = "drop onec".parse::<Fault>().expect_err("a typo").unknown.expect("the word");
        assert!(unknown.0 == "onec" && unknown.1.contains(&"once".to_string()));
    }

    #[test]
    fn a_plan_is_a_list_of_them() {
        let plan = FaultPlan::in_words(7, "drop 1%, reorder rx 1%,duplicate 1%").expect("a plan");
        assert_eq!((plan.seed, plan.list.len()), (7, 3));
        assert_eq!(FaultPlan::in_words(7, "none"), Ok(FaultPlan { seed: 7, list: Vec::new() }));
        assert!(FaultPlan::in_words(7, "drop,").is_err());
    }

    #[test]
    fn every_command_and_status_has_its_word() {
        for opcode in Opcode::ALL {
            assert_eq!(named::<Opcode>(&spelled(opcode)), Some(*opcode));
        }
        for status in Status::ALL {
            assert_eq!(named::<Status>(&spelled(status)), Some(*status));
        }
    }
}
