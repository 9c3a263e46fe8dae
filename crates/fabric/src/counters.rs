//! What a switch counts at each port.

/// Counters of one port, from the start of the switch on. Directions are the switch's: `rx` came from the guest, `tx` went to it.
/// Bytes are those of frames, without the lengths between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// The port's name.
    pub name: String,
    /// Whether a NIC is plugged in.
    pub connected: bool,
    /// How often one was.
    pub connects: u64,
    /// Frames from the guest.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames the guest's side took.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Bytes that wait for the guest's side now, those of delayed frames included.
    pub backlog_bytes: u64,
    /// Whether the guest's side takes nothing, so that frames to it are dropped.
    pub stalled: bool,
    /// Stations that turned up here and were behind another port before.
    pub moves: u64,
    /// Times the stream was cut because its bytes made no sense.
    pub protocol_errors: u64,
    /// Frames that went no further, by reason.
    pub drops: Drops,
}

/// Frames a port did not get or did not get rid of, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// To the port: lost by a fault's `loss`.
    pub loss: u64,
    /// To the port: cut off by a fault's `partition`.
    pub partition: u64,
    /// To the port: group or flooded frames that found its queue full.
    pub overflow: u64,
    /// To the port: it took nothing for too long.
    pub stalled: u64,
    /// To the port: larger than its MTU allows. From the port: the same.
    pub oversize: u64,
    /// To the port: on their way when the NIC was unplugged.
    pub unplugged: u64,
    /// From the port: no Ethernet header, or a group as the source.
    pub malformed: u64,
    /// From the port: for one station, whose port is not plugged in or the one it came from.
    pub unreachable: u64,
}

impl Drops {
    /// Each reason by name, in a fixed order.
    pub fn reasons(&self) -> [(&'static str, u64); 8] {
        [
            ("loss", self.loss),
            ("partition", self.partition),
            ("overflow", self.overflow),
            ("stalled", self.stalled),
            ("oversize", self.oversize),
            ("unplugged", self.unplugged),
            ("malformed", self.malformed),
            ("unreachable", self.unreachable),
        ]
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.reasons().iter().map(|(_, n)| n).sum()
    }
}
