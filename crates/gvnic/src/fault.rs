//! What goes wrong with the control side of a device, by plan.
//!
//! Every fault counts the occasions it could have struck (a command it is meant for, a tick) and draws once for each; the
//! draw depends on the seed, the fault's place in the list and that count alone, so a run can be repeated.

use serde::{Deserialize, Serialize};

use crate::abi::adminq::{Opcode, Status};
use crate::config::BadConfig;

/// Faults in a plan at most.
pub const FAULTS_MAX: usize = 64;

/// Faults, and the seed of their draws.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// The same seed and the same commands give the same faults.
    pub seed: u64,
    /// The faults; of those that would strike together the first does.
    pub list: Vec<Fault>,
}

/// One way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
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
    fn when(&self) -> Trigger {
        match self {
            Fault::AdminError { when, .. }
            | Fault::AdminTimeout { when, .. }
            | Fault::LinkFlap { when, .. }
            | Fault::DeviceReset { when } => *when,
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

/// A plan that is under way.
#[derive(Debug)]
pub(crate) struct Faults {
    plan: FaultPlan,
    /// For each fault: occasions so far, and how many of them it took.
    past: Vec<(u64, u64)>,
}

impl Faults {
    pub fn new(plan: FaultPlan) -> Faults {
        let past = vec![(0, 0); plan.list.len()];
        Faults { plan, past }
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
            // Each draws for its own occasions, so that one fault more changes none of the others.
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
        let (Some(fault), Some((seen, struck))) = (self.plan.list.get(n), self.past.get_mut(n)) else { return false };
        let when = fault.when();
        let occasion = *seen;
        *seen += 1;
        let due = occasion >= when.after && when.count.is_none_or(|count| *struck < count);
        let draw = mix(mix(self.plan.seed ^ mix(n as u64)).wrapping_add(occasion));
        let strikes = due && ((draw >> 11) as f64 / (1u64 << 53) as f64) < when.probability;
        *struck += u64::from(strikes);
        strikes
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a counter becomes a random number.
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
        assert!(check(vec![error(Trigger::default()); 65]).is_err());
        check(vec![error(Trigger::default())]).unwrap();
    }
}
