//! Chance, by plan.

use fabric::random::{mix, unit};

use super::{FaultPlan, Trigger};

/// The draws of a plan. Each fault has its own, so that one fault more changes none of the others.
#[derive(Debug, Default)]
pub(crate) struct Draws {
    seed: u64,
    /// For each fault: occasions so far, and how many of them it took.
    past: Vec<(u64, u64)>,
}

impl Draws {
    pub fn new(plan: &FaultPlan) -> Draws {
        Draws { seed: plan.seed, past: vec![(0, 0); plan.list.len()] }
    }

    /// Another occasion of the `n`-th fault: the draw, if it strikes. `stream` tells apart those who draw for the same fault.
    pub fn strike(&mut self, n: usize, stream: u8, when: Trigger) -> Option<u64> {
        let (seen, struck) = self.past.get_mut(n)?;
        let occasion = *seen;
        *seen += 1;
        let due = occasion >= when.after && when.count.is_none_or(|count| *struck < count);
        let draw = mix(mix(self.seed ^ mix((n as u64) << 8 | u64::from(stream))).wrapping_add(occasion));
        let strikes = due && unit(draw) < when.probability;
        *struck += u64::from(strikes);
        strikes.then_some(draw)
    }
}
