//! What a port is: what its device tells the driver it can do.
//!
//! In: a table of `lab.toml` (or anything else serde reads). Out: a checked [`PortConfig`]; an error names the field.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::abi::describe::{BUFFER_DEFAULT, BUFFER_MAX};
use crate::fault::FaultPlan;

/// Most queues of a direction.
pub const QUEUES_MAX: u16 = 16;
/// Smallest ring: the driver rings for RX buffers at every 32nd (`GVE_RX_BUF_THRESH_DQO`, gve_desc_dqo.h) and fills all
/// but one, so that a ring of 32 never gets any.
pub const RING_MIN: u16 = 64;
/// Largest ring.
pub const RING_MAX: u16 = 4096;
/// Most flow rules.
pub const FLOW_RULES_MAX: u32 = 4096;
/// Smallest MTU: `ETH_MIN_MTU`, below which the driver gives up (`gve_set_mtu`, gve_main.c).
pub const MTU_MIN: u16 = 68;
/// Largest MTU.
pub const MTU_MAX: u16 = 9000;

/// A port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortConfig {
    /// The station's address. There is no default.
    pub mac: Mac,
    /// Largest IP packet, in bytes: 68 to 9000. The driver starts with it.
    pub mtu: u16,
    /// Queues of each direction at most: 1 to 16.
    pub queue_pairs: u16,
    /// Queues of each direction in the beginning; 0 is all of them.
    pub queues_initial: u16,
    /// TX rings.
    pub tx_ring: RingSizes,
    /// RX rings.
    pub rx_ring: RingSizes,
    /// Largest RX buffer, in bytes: 2048 or 4096.
    pub rx_buffer: u16,
    /// Flow rules at most; 0 offers no steering.
    pub flow_rules: u32,
    /// Whether headers can be split off; device memory needs it.
    pub header_split: bool,
    /// Whether the driver can ask how frames are spread. Without, it remembers what it configured.
    pub rss_query: bool,
    /// Whether frames get receive timestamps.
    pub timestamps: bool,
    /// Speed that is reported, in Mbit/s.
    pub speed: u32,
    /// What goes wrong.
    pub faults: FaultPlan,
}

impl Default for PortConfig {
    fn default() -> Self {
        PortConfig {
            mac: Mac([0; 6]),
            mtu: MTU_MAX,
            queue_pairs: 4,
            queues_initial: 0,
            tx_ring: RingSizes::default(),
            rx_ring: RingSizes::default(),
            rx_buffer: BUFFER_MAX,
            flow_rules: 256,
            header_split: true,
            rss_query: true,
            timestamps: true,
            speed: 100_000,
            faults: FaultPlan::default(),
        }
    }
}

/// How many descriptors a ring may have: powers of two, 64 to 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingSizes {
    /// At least.
    pub min: u16,
    /// At most.
    pub max: u16,
    /// In the beginning.
    pub initial: u16,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes { min: RING_MIN, max: 1024, initial: 1024 }
    }
}

impl RingSizes {
    /// Whether a ring may have this many.
    pub fn allow(&self, size: u16) -> bool {
        size.is_power_of_two() && (self.min..=self.max).contains(&size)
    }
}

/// A field nobody could build a device with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no gVNIC can have {field} = {value}: {allowed}")]
pub struct BadConfig {
    /// Field of [`PortConfig`].
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it may be.
    pub allowed: &'static str,
}

impl PortConfig {
    /// A port of this address, the rest as by default.
    pub fn new(mac: Mac) -> PortConfig {
        PortConfig { mac, ..PortConfig::default() }
    }

    /// Refuses what cannot be.
    ///
    /// # Errors
    /// [`BadConfig`] with the first field that is wrong.
    pub fn check(&self) -> Result<(), BadConfig> {
        let rule = |holds: bool, field: &'static str, value: &dyn fmt::Display, allowed: &'static str| {
            if holds { Ok(()) } else { Err(BadConfig { field, value: value.to_string(), allowed }) }
        };
        rule(self.mac.is_station(), "mac", &self.mac, "an address of one station, like 02:00:00:00:00:01")?;
        rule((MTU_MIN..=MTU_MAX).contains(&self.mtu), "mtu", &self.mtu, "68 to 9000 bytes")?;
        rule((1..=QUEUES_MAX).contains(&self.queue_pairs), "queue_pairs", &self.queue_pairs, "1 to 16")?;
        let initial = self.queues_initial <= self.queue_pairs;
        rule(initial, "queues_initial", &self.queues_initial, "at most queue_pairs, or 0 for as many")?;
        for (field, ring) in [("tx_ring", self.tx_ring), ("rx_ring", self.rx_ring)] {
            let RingSizes { min, max, initial } = ring;
            let ordered = RING_MIN <= min && min <= initial && initial <= max && max <= RING_MAX;
            let powers = [min, max, initial].iter().all(|n| n.is_power_of_two());
            let value = format!("{min} to {max}, {initial} initially");
            rule(ordered && powers, field, &value, "powers of two with 64 <= min <= initial <= max <= 4096")?;
        }
        let buffer = [BUFFER_DEFAULT, BUFFER_MAX].contains(&self.rx_buffer);
        rule(buffer, "rx_buffer", &self.rx_buffer, "2048 or 4096 bytes")?;
        rule(self.flow_rules <= FLOW_RULES_MAX, "flow_rules", &self.flow_rules, "at most 4096")?;
        // The driver keeps it as a signed number that ethtool prints.
        rule((1..=0x7fff_ffff).contains(&self.speed), "speed", &self.speed, "1 to 2147483647 Mbit/s")?;
        self.faults.check()
    }

    /// Queues of each direction in the beginning.
    pub fn initial_queues(&self) -> u16 {
        if self.queues_initial == 0 { self.queue_pairs } else { self.queues_initial }
    }

    /// MSI-X vectors: one a queue and one for management (`gve_set_num_ntfy_blks`, gve_adminq.c).
    pub fn vectors(&self) -> u16 {
        2 * self.queue_pairs + 1
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no Ethernet address: six bytes like 02:00:00:00:00:01")]
pub struct BadMac(String);

impl Mac {
    /// Whether it is that of one station.
    pub fn is_station(&self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(|| BadMac(text.chars().take(64).collect()))?;
        }
        if parts.next().is_some() { Err(BadMac(text.chars().take(64).collect())) } else { Ok(Mac(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Mac, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> PortConfig {
        PortConfig::new(Mac([2, 0, 0, 0, 0, 1]))
    }

    #[test]
    fn every_bad_field_has_its_message() {
        let ring = |min, max, initial| RingSizes { min, max, initial };
        let rings = "powers of two with 64 <= min <= initial <= max <= 4096";
        let cases = [
            (
                PortConfig::default(),
                "mac = 00:00:00:00:00:00: an address of one station, like 02:00:00:00:00:01".into(),
            ),
            (
                PortConfig { mac: Mac([1, 0, 0, 0, 0, 1]), ..good() },
                "mac = 01:00:00:00:00:01: an address of one station, like 02:00:00:00:00:01".into(),
            ),
            (PortConfig { mtu: 67, ..good() }, "mtu = 67: 68 to 9000 bytes".into()),
            (PortConfig { mtu: 9001, ..good() }, "mtu = 9001: 68 to 9000 bytes".into()),
            (PortConfig { queue_pairs: 0, ..good() }, "queue_pairs = 0: 1 to 16".into()),
            (PortConfig { queue_pairs: 17, ..good() }, "queue_pairs = 17: 1 to 16".into()),
            (
                PortConfig { queues_initial: 5, ..good() },
                "queues_initial = 5: at most queue_pairs, or 0 for as many".into(),
            ),
            (
                PortConfig { tx_ring: ring(32, 1024, 512), ..good() },
                format!("tx_ring = 32 to 1024, 512 initially: {rings}"),
            ),
            (
                PortConfig { rx_ring: ring(64, 1000, 512), ..good() },
                format!("rx_ring = 64 to 1000, 512 initially: {rings}"),
            ),
            (
                PortConfig { rx_ring: ring(64, 512, 1024), ..good() },
                format!("rx_ring = 64 to 512, 1024 initially: {rings}"),
            ),
            (
                PortConfig { rx_ring: ring(64, 8192, 1024), ..good() },
                format!("rx_ring = 64 to 8192, 1024 initially: {rings}"),
            ),
            (PortConfig { rx_buffer: 1024, ..good() }, "rx_buffer = 1024: 2048 or 4096 bytes".into()),
            (PortConfig { flow_rules: 4097, ..good() }, "flow_rules = 4097: at most 4096".into()),
            (PortConfig { speed: 0, ..good() }, "speed = 0: 1 to 2147483647 Mbit/s".into()),
        ];
        for (config, message) in cases {
            assert_eq!(config.check().unwrap_err().to_string(), format!("no gVNIC can have {message}"));
        }
        good().check().unwrap();
        PortConfig { queue_pairs: 16, flow_rules: 0, mtu: 68, rx_buffer: 2048, ..good() }.check().unwrap();
    }

    #[test]
    fn a_config_is_read_as_it_is_written() {
        let config: PortConfig = serde_json::from_str(
            r#"{"mac": "02:1a:E0:00:00:42", "queue_pairs": 16, "rx_ring": {"max": 2048},
                "faults": {"seed": 7, "list": [{"kind": "device-reset", "when": {"probability": 0.5}}]}}"#,
        )
        .unwrap();
        assert_eq!(config.mac, Mac([2, 0x1a, 0xe0, 0, 0, 0x42]));
        assert_eq!((config.vectors(), config.initial_queues()), (33, 16));
        assert_eq!(config.rx_ring, RingSizes { min: 64, max: 2048, initial: 1024 });
        config.check().unwrap();
        let again: PortConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        let unknown = serde_json::from_str::<PortConfig>(r#"{"queue_pair": 4}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `queue_pair`"), "{unknown}");
    }

    #[test]
    fn what_is_no_address_is_said() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "2:0:0:0:0:1", "02-00-00-00-00-01", "+2:00:00:00:00:01"]
        {
            let error = text.parse::<Mac>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is no Ethernet address: six bytes like 02:00:00:00:00:01"));
        }
    }
}
