//! What a link does to the frames on it.

use std::time::Duration;

use crate::error::FabricError;

/// Longest delay a link may have: every frame on the way is held in memory.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// Faults of the frames that go from one port to another. Probabilities are between 0 and 1, one draw a frame each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fault {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Time every frame is held.
    pub delay: Duration,
    /// The delay varies by up to this much either way; frames keep their order all the same.
    pub jitter: Duration,
    /// Probability that a frame overtakes those before it.
    pub reorder: f64,
    /// Probability that a frame arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a frame is flipped.
    pub corrupt: f64,
    /// Nothing gets through.
    pub partition: bool,
}

impl Fault {
    /// Whether frames pass untouched.
    pub fn is_none(&self) -> bool {
        *self == Fault::default()
    }

    /// Refuses what no link can do.
    ///
    /// # Errors
    /// [`FabricError::BadFault`] with the field, its value and what is allowed.
    pub fn check(&self) -> Result<(), FabricError> {
        let probabilities =
            [("loss", self.loss), ("reorder", self.reorder), ("duplicate", self.duplicate), ("corrupt", self.corrupt)];
        for (field, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(FabricError::BadFault {
                    field,
                    value: value.to_string(),
                    allowed: "a probability from 0 to 1".into(),
                });
            }
        }
        if self.delay > DELAY_MAX {
            let allowed = format!("at most {DELAY_MAX:?}");
            return Err(FabricError::BadFault { field: "delay", value: format!("{:?}", self.delay), allowed });
        }
        if self.jitter > self.delay {
            let allowed = format!("at most the delay, {:?}", self.delay);
            return Err(FabricError::BadFault { field: "jitter", value: format!("{:?}", self.jitter), allowed });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_faults_are_refused_by_field() {
        let ms = Duration::from_millis;
        let cases = [
            (Fault { loss: 1.5, ..Fault::default() }, "loss = 1.5: a probability from 0 to 1"),
            (Fault { corrupt: f64::NAN, ..Fault::default() }, "corrupt = NaN: a probability from 0 to 1"),
            (Fault { reorder: -0.1, ..Fault::default() }, "reorder = -0.1: a probability from 0 to 1"),
            (Fault { delay: ms(60_001), ..Fault::default() }, "delay = 60.001s: at most 60s"),
            (Fault { delay: ms(1), jitter: ms(2), ..Fault::default() }, "jitter = 2ms: at most the delay, 1ms"),
        ];
        for (fault, message) in cases {
            assert_eq!(fault.check().unwrap_err().to_string(), format!("no link can have {message}"));
        }
        Fault { loss: 1.0, delay: ms(2), jitter: ms(2), ..Fault::default() }.check().unwrap();
    }
}
