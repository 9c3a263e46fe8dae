//! What goes wrong with a device, by plan: here the plan, and what of it strikes the control side; what strikes frames is in
//! [`mishap`](crate::mishap).
//!
//! Every fault counts the occasions it could have struck (a command it is meant for, a tick, a frame of its way, a packet's
//! completion) and draws once for each; the draw depends on the seed, the fault's place in the list and that count alone, so
//! a run can be repeated.

mod draws;
mod words;

use serde::{Deserialize, Serialize};

use crate::abi::adminq::{Opcode, Status};
use crate::config::BadConfig;

pub(crate) use draws::Draws;
pub use words::{BadFault, micros};

/// Faults in a plan at most.
pub const FAULTS_MAX: usize = 64;
/// Longest delay of a frame, in microseconds: those on the way are held in memory.
pub const DELAY_MAX: u64 = 10_000_000;

/// Faults, and the seed of their draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// The same seed and the same commands and frames give the same faults.
    pub seed: u64,
    /// The faults; of those that would strike a command together the first does, of those that would strike a frame each.
    pub list: Vec<Fault>,
}

/// One way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// A command is not run, and answered with an error.
    AdminError {
        /// Which commands; none given is every one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opcode: Option<Opcode>,
        /// The answer.
        status: Status,
        /// Which of them.
        when: Trigger,
    },
    /// A command is neither run nor answered, nor is any after it until the driver resets the device.
    AdminTimeout {
        /// Which commands; none given is every one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opcode: Option<Opcode>,
        /// Which of them.
        when: Trigger,
    },
    /// The link goes down for a while.
    LinkFlap {
        /// For how many ticks.
        down: u32,
        /// At which ticks.
        when: Trigger,
    },
    /// The device asks to be reset.
    DeviceReset {
        /// At which ticks.
        when: Trigger,
    },
    /// A frame is lost.
    Drop {
        /// Which frames.
        #[serde(default)]
        way: Way,
        /// Which of them.
        #[serde(default)]
        when: Trigger,
    },
    /// A frame falls behind the next three, or a millisecond.
    Reorder {
        /// Which frames.
        #[serde(default)]
        way: Way,
        /// Which of them.
        #[serde(default)]
        when: Trigger,
    },
    /// A frame comes twice.
    Duplicate {
        /// Which frames.
        #[serde(default)]
        way: Way,
        /// Which of them.
        #[serde(default)]
        when: Trigger,
    },
    /// One bit of a frame is flipped.
    Corrupt {
        /// Which frames.
        #[serde(default)]
        way: Way,
        /// Which of them.
        #[serde(default)]
        when: Trigger,
    },
    /// A frame comes later; others overtake it.
    Delay {
        /// By how much, in microseconds: 1 to 10,000,000.
        micros: u64,
        /// Which frames.
        #[serde(default)]
        way: Way,
        /// Which of them.
        #[serde(default)]
        when: Trigger,
    },
    /// The completion of a packet that was sent is never written.
    WithholdCompletion {
        /// Of which packets.
        #[serde(default)]
        when: Trigger,
    },
    /// A packet that was sent is completed as one of the slow path: a miss, then a re-injection.
    Miss {
        /// Which packets.
        #[serde(default)]
        when: Trigger,
    },
    /// The headers of a received frame stay where the payload is.
    MissSplit {
        /// Of which frames.
        #[serde(default)]
        when: Trigger,
    },
}

/// Which way a frame goes, as the driver sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// To the network.
    Tx,
    /// From the network.
    Rx,
    /// Either.
    #[default]
    Both,
}

impl Way {
    /// Whether frames that go `way` are meant.
    pub fn includes(self, way: Way) -> bool {
        self == Way::Both || self == way
    }
}

/// On which occasions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trigger {
    /// Probability at each, 0 to 1.
    pub probability: f64,
    /// Occasions that pass unharmed first.
    pub after: u64,
    /// How often at most; none given is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Default for Trigger {
    fn default() -> Self {
        Trigger { probability: 1.0, after: 0, count: None }
    }
}

impl Trigger {
    /// The next `count` occasions after the first `after`.
    pub fn times(after: u64, count: u64) -> Trigger {
        Trigger { probability: 1.0, after, count: Some(count) }
    }

    /// Any occasion, with a probability.
    pub fn probability(probability: f64) -> Trigger {
        Trigger { probability, ..Trigger::default() }
    }
}

impl Fault {
    pub(crate) fn when(&self) -> Trigger {
        match self {
            Fault::AdminError { when, .. }
            | Fault::AdminTimeout { when, .. }
            | Fault::LinkFlap { when, .. }
            | Fault::DeviceReset { when }
            | Fault::Drop { when, .. }
            | Fault::Reorder { when, .. }
            | Fault::Duplicate { when, .. }
            | Fault::Corrupt { when, .. }
            | Fault::Delay { when, .. }
            | Fault::WithholdCompletion { when }
            | Fault::Miss { when }
            | Fault::MissSplit { when } => *when,
        }
    }
}

impl FaultPlan {
    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`BadConfig`] with the fault's field.
    pub fn check(&self) -> Result<(), BadConfig> {
        let bad = |field, value: String, allowed| Err(BadConfig { field, value, allowed });
        if self.list.len() > FAULTS_MAX {
            return bad("faults", format!("a list of {}", self.list.len()), "at most 64 faults");
        }
        for fault in &self.list {
            let probability = fault.when().probability;
            if !(0.0..=1.0).contains(&probability) {
                return bad("faults.when.probability", probability.to_string(), "0 to 1");
            }
            if matches!(fault, Fault::LinkFlap { down: 0, .. }) {
                return bad("faults.down", "0".into(), "at least one tick");
            }
            if let Fault::Delay { micros, .. } = fault
                && !(1..=DELAY_MAX).contains(micros)
            {
                return bad("faults.micros", micros.to_string(), "1 to 10000000 microseconds");
            }
        }
        Ok(())
    }
}

/// What becomes of a command that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminFault {
    Error(Status),
    Timeout,
}

/// What happens at a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TickFaults {
    /// Ticks the link goes down for.
    pub flap: Option<u32>,
    /// Whether the device asks to be reset.
    pub reset: bool,
}

/// A plan that is under way, for the control side.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: FaultPlan,
    draws: Draws,
}

impl Faults {
    pub fn new(plan: FaultPlan) -> Faults {
        Faults { draws: Draws::new(&plan), plan }
    }

    /// Whether a command is hit.
    pub fn command(&mut self, opcode: Option<Opcode>) -> Option<AdminFault> {
        let mut hit = None;
        for n in 0..self.plan.list.len() {
            let (wanted, outcome) = match self.plan.list.get(n) {
                Some(Fault::AdminError { opcode, status, .. }) => (*opcode, AdminFault::Error(*status)),
                Some(Fault::AdminTimeout { opcode, .. }) => (*opcode, AdminFault::Timeout),
                _ => continue,
            };
            if (wanted.is_none() || wanted == opcode) && self.strikes(n) {
                hit = hit.or(Some(outcome));
            }
        }
        hit
    }

    /// What happens at a tick.
    pub fn tick(&mut self) -> TickFaults {
        let mut faults = TickFaults::default();
        for n in 0..self.plan.list.len() {
            match self.plan.list.get(n).copied() {
                Some(Fault::LinkFlap { down, .. }) if self.strikes(n) => faults.flap = faults.flap.or(Some(down)),
                Some(Fault::DeviceReset { .. }) if self.strikes(n) => faults.reset = true,
                _ => {}
            }
        }
        faults
    }

    fn strikes(&mut self, n: usize) -> bool {
        self.plan.list.get(n).is_some_and(|fault| self.draws.strike(n, 0, fault.when()).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(when: Trigger) -> Fault {
        Fault::AdminError { opcode: Some(Opcode::CreateRxQueue), status: Status::InternalError, when }
    }

    fn plan(list: Vec<Fault>) -> Faults {
        Faults::new(FaultPlan { seed: 3, list })
    }

    #[test]
    fn counts_are_of_the_commands_meant() {
        let mut faults = plan(vec![error(Trigger::times(2, 1))]);
        let create = Some(Opcode::CreateRxQueue);
        let hits: Vec<bool> = [create, None, Some(Opcode::QueryRss), create, create, create, create]
            .into_iter()
            .map(|opcode| faults.command(opcode).is_some())
            .collect();
        assert_eq!(hits, [false, false, false, false, true, false, false]);
    }

    #[test]
    fn draws_depend_on_the_fault_and_the_occasion_alone() {
        let half = error(Trigger::probability(0.5));
        let create = Some(Opcode::CreateRxQueue);
        let draws = |mut faults: Faults| (0..200).map(|_| faults.command(create)).collect::<Vec<_>>();
        let first = draws(plan(vec![half]));
        let hits = first.iter().flatten().count();
        assert!((60..140).contains(&hits), "{hits} of 200");
        assert_eq!(first, draws(plan(vec![half, Fault::DeviceReset { when: Trigger::default() }])));
        let behind = draws(plan(vec![half, Fault::AdminTimeout { opcode: None, when: Trigger::probability(0.2) }]));
        let errors = |draws: &[Option<AdminFault>]| {
            draws.iter().map(|d| matches!(d, Some(AdminFault::Error(_)))).collect::<Vec<_>>()
        };
        assert_eq!(errors(&first), errors(&behind), "a fault behind it takes none of its own");
        assert!(behind.contains(&Some(AdminFault::Timeout)));
        assert_ne!(first, draws(Faults::new(FaultPlan { seed: 4, list: vec![half] })), "another seed");
    }

    #[test]
    fn ticks_flap_the_link_and_ask_for_resets() {
        let mut faults = plan(vec![
            Fault::LinkFlap { down: 3, when: Trigger::times(1, 1) },
            Fault::DeviceReset { when: Trigger::times(2, 1) },
        ]);
        let ticks: Vec<_> = (0..4).map(|_| faults.tick()).map(|t| (t.flap, t.reset)).collect();
        assert_eq!(ticks, [(None, false), (Some(3), false), (None, true), (None, false)]);
    }

    #[test]
    fn impossible_faults_are_refused() {
        let check = |list| FaultPlan { seed: 0, list }.check().map_err(|e| e.to_string());
        assert_eq!(
            check(vec![error(Trigger::probability(1.5))]).unwrap_err(),
            "no gVNIC can have faults.when.probability = 1.5: 0 to 1"
        );
        assert!(check(vec![error(Trigger::probability(f64::NAN))]).is_err());
        assert_eq!(
            check(vec![Fault::LinkFlap { down: 0, when: Trigger::default() }]).unwrap_err(),
            "no gVNIC can have faults.down = 0: at least one tick"
        );
        let delay = |micros| check(vec![Fault::Delay { micros, way: Way::Rx, when: Trigger::default() }]);
        assert_eq!(delay(0).unwrap_err(), "no gVNIC can have faults.micros = 0: 1 to 10000000 microseconds");
        assert!(delay(DELAY_MAX + 1).is_err());
        delay(DELAY_MAX).unwrap();
        assert!(check(vec![error(Trigger::default()); 65]).is_err());
        check(vec![error(Trigger::default())]).unwrap();
    }

    #[test]
    fn one_document_has_faults_of_both_sides() {
        let text = r#"{"seed": 1, "list": [
            {"kind": "drop", "when": {"probability": 0.01}},
            {"kind": "delay", "micros": 5, "way": "rx", "when": {"after": 1, "count": 2}},
            {"kind": "miss-split"},
            {"kind": "link-flap", "down": 3, "when": {"count": 1}},
            {"kind": "admin-error", "opcode": "create-rx-queue", "status": "internal-error", "when": {}}]}"#;
        let plan: FaultPlan = serde_json::from_str(text).unwrap();
        let list = vec![
            Fault::Drop { way: Way::Both, when: Trigger::probability(0.01) },
            Fault::Delay { micros: 5, way: Way::Rx, when: Trigger::times(1, 2) },
            Fault::MissSplit { when: Trigger::default() },
            Fault::LinkFlap { down: 3, when: Trigger::times(0, 1) },
            error(Trigger::default()),
        ];
        assert_eq!(plan, FaultPlan { seed: 1, list });
        let again = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<FaultPlan>(&again).unwrap(), plan);
        for wrong in [r#"{"kind": "drop", "opcode": "query-rss"}"#, r#"{"kind": "flood"}"#, r#"{"kind": "delay"}"#] {
            assert!(serde_json::from_str::<Fault>(wrong).is_err(), "{wrong}");
        }
    }
}
