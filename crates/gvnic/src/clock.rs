//! The clock of a device: nanoseconds since it was made, the same for timestamps of frames and for the driver's questions.

use std::time::Instant;

/// A clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at 1 ns: the driver takes an unread clock for 0.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Nanoseconds since then. A completion carries the lower 32 bits; the driver, which asks for all of them every 250 ms,
    /// supplies the rest (`gve_rx_get_hwtstamp`, gve_rx_dqo.c).
    pub fn nanoseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }
}
