//! A port, for people and for tests: what the driver set up, and what was counted.

use serde::Serialize;

use crate::abi::adminq::DriverInfo;
use crate::config::Mac;
use crate::device::Device;
use crate::queues::{RxSetup, TxSetup};
use crate::shared::Shared;
use crate::stats::{ControlCount, LedgerCount, RxCount, TxCount};

/// A port at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortStatus {
    /// Its address.
    pub mac: Mac,
    /// Whether a driver uses it.
    pub running: bool,
    /// Whether the link is up.
    pub link: bool,
    /// Whether the device asks to be reset.
    pub reset_requested: bool,
    /// Whether a fault withholds the answer to a command.
    pub stalled: bool,
    /// The driver's version; empty while there was none.
    pub driver: String,
    /// The system it runs on; empty while it did not say.
    pub system: String,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Flow rules there are.
    pub flow_rules: usize,
    /// Largest number of flow rules.
    pub flow_rules_max: u32,
    /// Every TX queue there can be.
    pub tx: Vec<TxStatus>,
    /// Every RX queue there can be.
    pub rx: Vec<RxStatus>,
    /// What the control side did.
    pub control: ControlCount,
}

/// A TX queue at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TxStatus {
    /// As the driver created it, if it is there.
    pub setup: Option<TxSetup>,
    /// Its frames.
    pub frames: TxCount,
    /// Its descriptors.
    pub descriptors: LedgerCount,
}

/// An RX queue at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RxStatus {
    /// As the driver created it, if it is there.
    pub setup: Option<RxSetup>,
    /// Its frames.
    pub frames: RxCount,
    /// Its buffers.
    pub buffers: LedgerCount,
}

/// Text the guest wrote, up to the first byte that is none.
fn text(bytes: &[u8]) -> String {
    bytes.iter().take_while(|b| b.is_ascii_graphic() || **b == b' ').map(|b| char::from(*b)).collect()
}

fn system(driver: &DriverInfo) -> String {
    let name = if driver.os_type == 1 { "Linux" } else { "unknown system" };
    format!("{name} {}", text(&driver.os_release)).trim_end().to_owned()
}

impl PortStatus {
    pub(crate) fn of(device: &Device, shared: &Shared) -> PortStatus {
        let (stats, pairs) = (shared.stats(), device.config.queue_pairs);
        let setup_tx = |id| device.queues.tx(id).map(|queue| *queue.setup());
        let setup_rx = |id| device.queues.rx(id).map(|queue| *queue.setup());
        let tx = stats.tx_counts(pairs).into_iter().zip(0..);
        let rx = stats.rx_counts(pairs).into_iter().zip(0..);
        PortStatus {
            mac: device.config.mac,
            running: device.registers.is_running(),
            link: shared.link_up(),
            reset_requested: device.registers.reset_requested,
            stalled: device.stalled,
            driver: device.registers.version(),
            system: device.driver.as_ref().map(system).unwrap_or_default(),
            mtu: device.mtu,
            flow_rules: device.rules.len(),
            flow_rules_max: device.rules.capacity(),
            tx: tx.map(|((frames, descriptors), id)| TxStatus { setup: setup_tx(id), frames, descriptors }).collect(),
            rx: rx.map(|((frames, buffers), id)| RxStatus { setup: setup_rx(id), frames, buffers }).collect(),
            control: stats.control.count(),
        }
    }
}
