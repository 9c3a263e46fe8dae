//! What a gvnic of a running lab is told to do: to go wrong, to be reset, to lose its cable.

use std::str::FromStr;

use gvnic::fault::{BadFault, FaultPlan};
use serde::{Deserialize, Serialize};

/// An order to a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum DeviceOrder {
    /// Other faults in place of those it has. Their seed is the network's.
    Faults(FaultPlan),
    /// Have the driver reset it.
    Reset,
    /// Plug the cable in, or pull it.
    Link(bool),
}

/// In words: `reset`, `link-up`, `link-down`, `none`, or faults as `lab.toml` says them, with commas between.
impl FromStr for DeviceOrder {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<DeviceOrder, BadFault> {
        Ok(match text.trim() {
            "reset" => DeviceOrder::Reset,
            "link-up" => DeviceOrder::Link(true),
            "link-down" => DeviceOrder::Link(false),
            faults => DeviceOrder::Faults(FaultPlan::in_words(0, faults)?),
        })
    }
}

impl DeviceOrder {
    /// The line that tells the device, on a network of that seed.
    ///
    /// # Errors
    /// None in practice: there is nothing JSON cannot say.
    pub fn line(&self, seed: u64) -> serde_json::Result<String> {
        let request = match self {
            DeviceOrder::Faults(plan) => serde_json::json!({ "faults": FaultPlan { seed, ..plan.clone() } }),
            DeviceOrder::Reset => serde_json::json!("reset"),
            DeviceOrder::Link(up) => serde_json::json!({ "link": up }),
        };
        Ok(serde_json::to_string(&request)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_words_and_lines() {
        for (words, line) in [
            ("reset", "\"reset\"\n"),
            ("link-down", "{\"link\":false}\n"),
            (" link-up ", "{\"link\":true}\n"),
            ("none", "{\"faults\":{\"list\":[],\"seed\":7}}\n"),
        ] {
            let order: DeviceOrder = words.parse().expect(words);
            assert_eq!(order.line(7).expect("a line"), line);
        }
        let DeviceOrder::Faults(plan) = "drop 1%, link-flap 500ms once".parse().expect("faults") else {
            panic!("no faults");
        };
        assert_eq!(plan.list.len(), 2);
        assert!("rset".parse::<DeviceOrder>().expect_err("a slip").to_string().contains("no fault"));
    }
}
