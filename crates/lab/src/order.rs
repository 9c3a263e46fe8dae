//! What `lab fault` says, in words: what goes wrong on the link to a port, and what a gvnic is told to do (to go wrong, to be reset,
//! to lose its cable).

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use gvnic::fault::{FaultPlan, micros};
use serde::{Deserialize, Serialize};

use crate::control::FaultSpec;

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
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<DeviceOrder> {
        Ok(match text.trim() {
            "reset" => DeviceOrder::Reset,
            "link-up" => DeviceOrder::Link(true),
            "link-down" => DeviceOrder::Link(false),
            faults => DeviceOrder::Faults(FaultPlan::in_words(0, faults).context(
                "an order to a NIC is `reset`, `link-up`, `link-down`, `none`, or faults with commas between them",
            )?),
        })
    }
}

/// In words: `loss=0.01,delay=2ms`; `none` heals, `partition` cuts.
impl FromStr for FaultSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<FaultSpec> {
        let mut fault = FaultSpec::default();
        if text == "none" {
            return Ok(fault);
        }
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let probability = || match value.parse::<f64>() {
                Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
                _ => bail!("`{key}` takes a probability from 0 to 1, not `{value}`"),
            };
            let time = || micros(value).with_context(|| format!("`{value}` is no time; write 500us, 2ms or 1s"));
            match key {
                "loss" => fault.loss = probability()?,
                "reorder" => fault.reorder = probability()?,
                "duplicate" => fault.duplicate = probability()?,
                "corrupt" => fault.corrupt = probability()?,
                "delay" => fault.delay_us = time()?,
                "jitter" => fault.jitter_us = time()?,
                "partition" if value.is_empty() => fault.partition = true,
                _ => bail!(
                    "unknown fault `{part}`; there is loss=P, delay=T, jitter=T, reorder=P, duplicate=P, corrupt=P, partition, none"
                ),
            }
        }
        Ok(fault)
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
        let slip = format!("{:#}", "rset".parse::<DeviceOrder>().expect_err("a slip"));
        assert!(slip.contains("`reset`") && slip.contains("`rset` is no fault"), "{slip}");
    }

    #[test]
    fn faults_of_links_are_read() {
        let fault: FaultSpec = "loss=0.25,delay=2ms,jitter=500us,partition".parse().unwrap();
        assert_eq!(
            fault,
            FaultSpec { loss: 0.25, delay_us: 2000, jitter_us: 500, partition: true, ..FaultSpec::default() }
        );
        assert_eq!("none".parse::<FaultSpec>().unwrap(), FaultSpec::default());
        for (bad, why) in [
            ("loss=2", "probability"),
            ("delay=2", "no time"),
            ("speed=1", "unknown fault"),
            ("partition=1", "unknown fault"),
        ] {
            assert!(bad.parse::<FaultSpec>().unwrap_err().to_string().contains(why), "{bad}");
        }
    }
}
