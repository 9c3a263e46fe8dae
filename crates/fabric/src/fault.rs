//! What a link does to the frames on it, and which frame it hits.
//!
//! A link is one direction between two ports. The fate of its n-th frame depends on the seed, the two ports' names and n
//! alone: neither traffic elsewhere nor timing changes it, and raising one probability leaves the draws of the others as
//! they were. A new fault starts the count afresh, so a run can be repeated from the change on.

use std::time::{Duration, Instant};

use crate::error::FabricError;
use crate::random::mix;

/// Longest delay a link may have: every frame on the way is held in memory.
pub const DELAY_MAX: Duration = Duration::from_secs(60);

/// How long a frame steps aside for others on a link without delay, where there is nothing to overtake.
const STEP_ASIDE: Duration = Duration::from_millis(1);

/// Faults of the frames that go from one port to another. Probabilities are between 0 and 1, one draw a frame each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fault {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Time every frame is held.
    pub delay: Duration,
    /// The delay varies by up to this much either way; frames keep their order all the same.
    pub jitter: Duration,
    /// Probability that a frame changes places: it skips the delay, or, where there is none, waits 1 ms for others.
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

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It passes as it is, now.
    Clear,
    /// Lost by `loss`.
    Lost,
    /// Lost by `partition`.
    Cut,
    /// It passes, but not as it was.
    Altered {
        /// When it arrives; `None` is now.
        due: Option<Instant>,
        /// The bit that is flipped, counted from the first byte's lowest.
        flip: Option<usize>,
        /// Whether it arrives twice.
        twice: bool,
    },
}

/// One direction between two ports.
#[derive(Debug)]
pub(crate) struct Link {
    fault: Fault,
    clear: bool,
    seed: u64,
    frames: u64,
    /// When the last frame that keeps its order arrives.
    last_due: Option<Instant>,
}

/// Each kind of draw has its own number, so that none depends on which others are made.
#[derive(Clone, Copy)]
enum Draw {
    Loss,
    Jitter,
    Reorder,
    Duplicate,
    Corrupt,
    Bit,
}

impl Link {
    /// A sound link.
    pub fn new(seed: u64, from: &str, to: &str) -> Self {
        Link { fault: Fault::default(), clear: true, seed: link_seed(seed, from, to), frames: 0, last_due: None }
    }

    /// Its fault.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Gives it a fault and starts its draws from the beginning.
    pub fn set(&mut self, fault: Fault) {
        self.fault = fault;
        self.clear = fault.is_none();
        self.frames = 0;
    }

    /// Whether frames neither get through now nor will.
    pub fn is_cut(&self) -> bool {
        self.fault.partition
    }

    /// Forgets when frames on their way arrive, since there are none any more.
    pub fn emptied(&mut self) {
        self.last_due = None;
    }

    /// The fate of the next frame, of `len` bytes, that is sent `now`.
    pub fn fate(&mut self, now: Instant, len: usize) -> Fate {
        let overdue = self.last_due.is_none_or(|due| due <= now);
        if self.clear && overdue {
            return Fate::Clear;
        }
        if self.fault.partition {
            return Fate::Cut;
        }
        let frame = self.frames;
        self.frames += 1;
        if self.happens(frame, Draw::Loss, self.fault.loss) {
            return Fate::Lost;
        }
        let flip = (self.happens(frame, Draw::Corrupt, self.fault.corrupt) && len > 0).then(|| {
            let bits = len as u64 * 8;
            usize::try_from(self.draw(frame, Draw::Bit) % bits).unwrap_or_default()
        });
        let twice = self.happens(frame, Draw::Duplicate, self.fault.duplicate);
        let due = if self.happens(frame, Draw::Reorder, self.fault.reorder) {
            // Its place among the others is what changes: it neither waits for them nor do they wait for it.
            self.fault.delay.is_zero().then(|| now + STEP_ASIDE)
        } else {
            let arrival = now + self.delay(frame);
            let due = self.last_due.map_or(arrival, |last| last.max(arrival));
            self.last_due = Some(due);
            (due > now).then_some(due)
        };
        if due.is_none() && flip.is_none() && !twice { Fate::Clear } else { Fate::Altered { due, flip, twice } }
    }

    fn delay(&self, frame: u64) -> Duration {
        let (delay, jitter) = (self.fault.delay, self.fault.jitter);
        if jitter.is_zero() {
            return delay;
        }
        // The jitter is never larger than the delay.
        delay - jitter + (2 * jitter).mul_f64(self.unit(frame, Draw::Jitter))
    }

    fn happens(&self, frame: u64, what: Draw, probability: f64) -> bool {
        probability > 0.0 && self.unit(frame, what) < probability
    }

    /// Uniform in [0, 1).
    fn unit(&self, frame: u64, what: Draw) -> f64 {
        (self.draw(frame, what) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn draw(&self, frame: u64, what: Draw) -> u64 {
        mix(mix(self.seed.wrapping_add(frame)).wrapping_add(what as u64))
    }
}

/// FNV-1a (RFC 9923) over the seed and both names: links of one switch draw independently.
fn link_seed(seed: u64, from: &str, to: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(from.bytes()).chain([0xff]).chain(to.bytes());
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(fault: Fault) -> Link {
        let mut link = Link::new(7, "a.0", "b.0");
        link.set(fault);
        link
    }

    #[test]
    fn impossible_faults_are_refused_by_field() {
        let cases = [
            (Fault { loss: 1.5, ..Fault::default() }, "loss = 1.5: a probability from 0 to 1"),
            (Fault { corrupt: f64::NAN, ..Fault::default() }, "corrupt = NaN: a probability from 0 to 1"),
            (Fault { reorder: -0.1, ..Fault::default() }, "reorder = -0.1: a probability from 0 to 1"),
            (Fault { delay: 60_001 * MS, ..Fault::default() }, "delay = 60.001s: at most 60s"),
            (Fault { delay: MS, jitter: 2 * MS, ..Fault::default() }, "jitter = 2ms: at most the delay, 1ms"),
        ];
        for (fault, message) in cases {
            assert_eq!(fault.check().unwrap_err().to_string(), format!("no link can have {message}"));
        }
        Fault { loss: 1.0, delay: 2 * MS, jitter: 2 * MS, ..Fault::default() }.check().unwrap();
    }

    #[test]
    fn draws_depend_on_the_link_and_the_frame_alone() {
        let now = Instant::now();
        let half = Fault { loss: 0.5, ..Fault::default() };
        let fates = |link: &mut Link| (0..64).map(|_| link.fate(now, 100) == Fate::Lost).collect::<Vec<_>>();
        let first = fates(&mut link(half));
        assert_eq!(first, fates(&mut link(half)));
        assert_eq!(
            first,
            fates(&mut link(Fault { duplicate: 0.5, corrupt: 0.3, ..half })),
            "other draws change nothing"
        );
        let mut back = Link::new(7, "b.0", "a.0");
        back.set(half);
        assert_ne!(first, fates(&mut back), "the way back is another link");
        let mut other = Link::new(8, "a.0", "b.0");
        other.set(half);
        assert_ne!(first, fates(&mut other), "another seed");
        back.set(half);
        let again = fates(&mut back);
        back.set(half);
        assert_eq!(again, fates(&mut back), "a change starts afresh");
    }

    #[test]
    fn probabilities_are_what_they_say() {
        let now = Instant::now();
        let mut link = link(Fault { loss: 0.1, duplicate: 0.25, corrupt: 0.5, ..Fault::default() });
        let (mut lost, mut twice, mut flipped) = (0, 0, 0);
        for _ in 0..100_000 {
            match link.fate(now, 100) {
                Fate::Lost => lost += 1,
                Fate::Altered { flip, twice: double, due } => {
                    assert_eq!(due, None);
                    assert!(flip.is_none_or(|bit| bit < 800));
                    twice += u32::from(double);
                    flipped += u32::from(flip.is_some());
                }
                Fate::Clear => {}
                Fate::Cut => panic!("no partition was asked for"),
            }
        }
        // Five standard deviations of the binomial distribution.
        assert!((9_500..10_500).contains(&lost), "{lost}");
        assert!((21_750..23_250).contains(&twice), "{twice} of the 90 % that arrive");
        assert!((44_200..45_800).contains(&flipped), "{flipped} of the 90 % that arrive");
    }

    #[test]
    fn jitter_keeps_the_order_and_the_bounds() {
        let start = Instant::now();
        let mut link = link(Fault { delay: 10 * MS, jitter: 5 * MS, ..Fault::default() });
        let mut last = start;
        for n in 0..1000u32 {
            let now = start + n * MS;
            let Fate::Altered { due: Some(due), .. } = link.fate(now, 60) else { panic!("frame {n} was not delayed") };
            assert!(due >= last && due <= now + 15 * MS && due >= now + 5 * MS);
            last = due;
        }
    }

    #[test]
    fn a_healed_link_does_not_let_frames_overtake_those_on_the_way() {
        let now = Instant::now();
        let mut link = link(Fault { delay: 10 * MS, ..Fault::default() });
        let held = link.fate(now, 60);
        assert_eq!(held, Fate::Altered { due: Some(now + 10 * MS), flip: None, twice: false });
        link.set(Fault::default());
        assert_eq!(link.fate(now + MS, 60), held);
        assert_eq!(link.fate(now + 10 * MS, 60), Fate::Clear);
    }

    #[test]
    fn reordered_frames_skip_the_delay_or_step_aside() {
        let now = Instant::now();
        let always = Fault { reorder: 1.0, ..Fault::default() };
        assert_eq!(link(Fault { delay: 10 * MS, ..always }).fate(now, 60), Fate::Clear);
        assert_eq!(link(always).fate(now, 60), Fate::Altered { due: Some(now + STEP_ASIDE), flip: None, twice: false });
    }
}
