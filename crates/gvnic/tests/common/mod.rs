//! A guest without a machine: memory, interrupts, and a driver that says what gve says, in gve's order.
//!
//! Offsets and numbers are written out here and not taken from the crate, so that a wrong constant there does not agree with
//! itself.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]

mod driver;
mod memory;

pub use driver::{Driver, Ring, command};
pub use memory::{BASE, Raised, Ram, Wakes};

use std::sync::Arc;

use gvnic::bus::{Interrupts, Memory};
use gvnic::config::{Mac, PortConfig};
use gvnic::control::{Control, Datapath};

/// A device and what is around it.
pub struct Bench {
    pub control: Control,
    pub ram: Arc<Ram>,
    pub raised: Arc<Raised>,
    pub wakes: Arc<Wakes>,
}

/// A port with as many queues as there can be.
pub fn config() -> PortConfig {
    PortConfig { queue_pairs: 16, ..PortConfig::new(Mac([2, 0, 0, 0, 0, 0x42])) }
}

/// A device after power-on, with 8 MiB of guest memory.
pub fn bench(config: PortConfig) -> Bench {
    bench_with(config, 8 << 20)
}

/// The same with so many bytes of memory.
pub fn bench_with(config: PortConfig, memory: usize) -> Bench {
    let (ram, raised, wakes) = (Arc::new(Ram::new(memory)), Arc::new(Raised::default()), Arc::new(Wakes::default()));
    let control = Control::new(
        config,
        Arc::clone(&ram) as Arc<dyn Memory>,
        Arc::clone(&raised) as Arc<dyn Interrupts>,
        Arc::clone(&wakes) as Arc<dyn Datapath>,
    )
    .unwrap();
    Bench { control, ram, raised, wakes }
}
