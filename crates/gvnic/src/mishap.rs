//! What goes wrong on the way of frames through a device: the datapath's part of a [`FaultPlan`].

use fabric::random::mix;

use crate::fault::{Draws, Fault, FaultPlan, Trigger, Way};

/// What a fault does to a frame or a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Drop,
    Reorder,
    Duplicate,
    Corrupt,
    /// By so many microseconds.
    Delay(u64),
    WithholdCompletion,
    Miss,
    MissSplit,
}

impl Kind {
    /// What a fault does, and to frames of which way; `None` when it does nothing to any.
    fn of(fault: &Fault) -> Option<(Kind, Way)> {
        Some(match *fault {
            Fault::Drop { way, .. } => (Kind::Drop, way),
            Fault::Reorder { way, .. } => (Kind::Reorder, way),
            Fault::Duplicate { way, .. } => (Kind::Duplicate, way),
            Fault::Corrupt { way, .. } => (Kind::Corrupt, way),
            Fault::Delay { micros, way, .. } => (Kind::Delay(micros), way),
            Fault::WithholdCompletion { .. } => (Kind::WithholdCompletion, Way::Tx),
            Fault::Miss { .. } => (Kind::Miss, Way::Tx),
            Fault::MissSplit { .. } => (Kind::MissSplit, Way::Rx),
            Fault::AdminError { .. } | Fault::AdminTimeout { .. } => return None,
            Fault::LinkFlap { .. } | Fault::DeviceReset { .. } => return None,
        })
    }
}

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub lost: bool,
    pub behind: bool,
    pub twice: bool,
    /// A number that chooses the bit.
    pub flip: Option<u64>,
    /// Microseconds.
    pub delay: u64,
}

/// A plan that is under way, for one direction.
#[derive(Debug, Default)]
pub(crate) struct Mishaps {
    /// By their place in the plan.
    list: Vec<(usize, Kind, Trigger)>,
    stream: u8,
    draws: Draws,
    /// Those that struck and have not been asked for.
    struck: u64,
}

impl Mishaps {
    /// Those of a plan that can strike frames of a way.
    pub fn new(plan: &FaultPlan, way: Way) -> Mishaps {
        let faults = plan.list.iter().enumerate();
        let mishaps = faults.filter_map(|(n, fault)| Some((n, Kind::of(fault)?, fault.when())));
        let list = mishaps.filter(|(_, (_, whose), _)| whose.includes(way)).map(|(n, (kind, _), when)| (n, kind, when));
        Mishaps { list: list.collect(), stream: way as u8, draws: Draws::new(plan), struck: 0 }
    }

    /// Whether nothing ever happens.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The fate of the next frame; `None` is to arrive as it is.
    pub fn frame(&mut self) -> Option<Fate> {
        let mut fate = Fate::default();
        for (n, kind, when) in &self.list {
            if matches!(kind, Kind::WithholdCompletion | Kind::Miss | Kind::MissSplit) {
                continue;
            }
            let Some(draw) = self.draws.strike(*n, self.stream, *when) else { continue };
            self.struck += 1;
            match *kind {
                Kind::Drop => fate.lost = true,
                Kind::Reorder => fate.behind = true,
                Kind::Duplicate => fate.twice = true,
                Kind::Corrupt => fate.flip = Some(mix(draw)),
                Kind::Delay(micros) => fate.delay = fate.delay.max(micros),
                Kind::WithholdCompletion | Kind::Miss | Kind::MissSplit => {}
            }
        }
        (fate != Fate::default()).then_some(fate)
    }

    /// Whether something other than a frame's fate strikes now.
    pub fn happens(&mut self, what: Kind) -> bool {
        let mut happens = false;
        for (n, _, when) in self.list.iter().filter(|(_, kind, _)| *kind == what) {
            if self.draws.strike(*n, self.stream, *when).is_some() {
                happens = true;
                self.struck += 1;
            }
        }
        happens
    }

    /// How often something struck since this was asked.
    pub fn take_struck(&mut self) -> u64 {
        std::mem::take(&mut self.struck)
    }
}
