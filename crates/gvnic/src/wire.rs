//! The seam between a device and the network: frames out of TX queues go into a [`Wire`], frames for RX queues come out of
//! a [`Port`].

use crate::frame::Headers;

/// A frame on its way.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its bytes, without a check sequence.
    pub bytes: &'a [u8],
    /// What is known about it.
    pub known: Option<Known>,
}

/// What a device knows about a frame it has made, so that another that gets it directly need not find out again. Whoever
/// changes the bytes forgets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Where its headers are.
    pub headers: Headers,
    /// Whether the device filled in its checksums.
    pub sums: bool,
}

impl<'a> Frame<'a> {
    /// A frame nobody knows anything about.
    pub fn new(bytes: &'a [u8]) -> Frame<'a> {
        Frame { bytes, known: None }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It is on its way.
    Taken,
    /// It was dropped, by a fault.
    Lost,
    /// It was dropped: the link is down.
    Unplugged,
    /// There is no room now: it is to be offered again.
    Full,
}

/// Where frames go.
pub trait Wire {
    /// Takes a frame, or says that it cannot now. The bytes are the sender's again afterwards.
    fn send(&mut self, frame: Frame<'_>) -> Sent;
}

/// Both directions: a cable to a switch. No call waits.
pub trait Port: Wire {
    /// The next frame for the device, without taking it; the same until it is taken.
    fn peek(&mut self) -> Option<Frame<'_>>;
    /// Removes the frame that [`Port::peek`] has shown.
    fn take(&mut self);
    /// Passes on what was collected; called once a burst.
    fn flush(&mut self) {}
}
