//! What a run has to show: figures as text or as one JSON object, and what of them is not as it was asked for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::options::Percent;
use crate::pattern::Wrong;

/// What was received.
#[derive(Debug, Clone, Default)]
pub struct Reception {
    /// Bytes that arrived in the bound dma-buf.
    pub devmem: u64,
    /// Bytes of frames for the dma-buf that were copied out of the kernel's memory (`SCM_DEVMEM_LINEAR`).
    pub linear: u64,
    /// Bytes that came by queues without a dma-buf.
    pub ordinary: u64,
    /// Pieces of the dma-buf they came in.
    pub fragments: u64,
    /// From the connection to its end.
    pub time: Duration,
    /// What a comparison found, if there was one.
    pub wrong: Option<Wrong>,
    /// The dma-buf's memory.
    pub memory: Option<String>,
}

/// What a reception must be to be good.
#[derive(Debug, Clone, Copy, Default)]
pub struct Required {
    /// At least so much of it in device memory.
    pub devmem: Option<Percent>,
    /// So many bytes.
    pub bytes: Option<u64>,
}

/// What was sent.
#[derive(Debug, Clone, Default)]
pub struct Sending {
    /// Bytes.
    pub bytes: u64,
    /// Calls of sendmsg.
    pub messages: u64,
    /// Those that the kernel reported to be done with.
    pub completions: u64,
    /// Those of them whose bytes were copied after all.
    pub copied: u64,
    /// From the connection until the last byte was acknowledged; without device memory until it was handed over.
    pub time: Duration,
    /// The dma-buf's memory.
    pub memory: Option<String>,
}

/// Gbit/s.
fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64().max(1e-9) / 1e9
}

impl Reception {
    /// All bytes.
    pub fn total(&self) -> u64 {
        self.devmem + self.linear + self.ordinary
    }

    /// Hundredths of a percent in device memory, rounded down: 100.00 is every byte.
    fn hundredths(&self) -> u64 {
        (u128::from(self.devmem) * 10_000 / u128::from(self.total().max(1))) as u64
    }

    /// What is not as it has to be, in sentences.
    pub fn faults(&self, required: Required) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(wrong) = self.wrong.filter(|wrong| wrong.bytes > 0) {
            faults.push(format!(
                "{} bytes are not those of the pattern, the first at {}",
                wrong.bytes,
                wrong.first.unwrap_or(0)
            ));
        }
        if let Some(bytes) = required.bytes.filter(|bytes| *bytes != self.total()) {
            faults.push(format!("{} bytes arrived where {bytes} were to", self.total()));
        }
        if let Some(percent) = required.devmem.filter(|percent| !percent.reached(self.devmem, self.total())) {
            faults.push(format!("less than {percent} % of the bytes are in device memory"));
        }
        faults
    }

    /// For people.
    pub fn text(&self) -> String {
        let h = self.hundredths();
        let mut text = format!(
            "received {} bytes in {:.3} s, {:.3} Gbit/s\ndevmem {} bytes in {} fragments, linear {} bytes, ordinary {} bytes\n",
            self.total(),
            self.time.as_secs_f64(),
            rate(self.total(), self.time),
            self.devmem,
            self.fragments,
            self.linear,
            self.ordinary
        );
        if let Some(wrong) = self.wrong {
            text.push_str(&format!("compared {} bytes, {} wrong\n", self.total(), wrong.bytes));
        }
        text.push_str(&format!("{}.{:02} % devmem\n", h / 100, h % 100));
        text
    }

    /// For programs.
    pub fn json(&self, faults: &[String]) -> Value {
        let mut value = json!({
            "received_bytes": self.total(),
            "devmem_bytes": self.devmem,
            "linear_bytes": self.linear,
            "ordinary_bytes": self.ordinary,
            "fragments": self.fragments,
            "devmem_percent": self.hundredths() as f64 / 100.0,
            "received_seconds": self.time.as_secs_f64(),
            "received_gbit_per_second": rate(self.total(), self.time),
            "memory": self.memory,
            "faults": faults,
        });
        if let Some(wrong) = self.wrong {
            value["compared_bytes"] = json!(self.total());
            value["wrong_bytes"] = json!(wrong.bytes);
            value["first_wrong"] = json!(wrong.first);
        }
        value
    }
}

impl Sending {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "sent {} bytes in {:.3} s, {:.3} Gbit/s\n",
            self.bytes,
            self.time.as_secs_f64(),
            rate(self.bytes, self.time)
        );
        if self.memory.is_some() {
            text.push_str(&format!(
                "{} messages, {} completed, {} of them copied\n",
                self.messages, self.completions, self.copied
            ));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let mut value = json!({
            "sent_bytes": self.bytes,
            "sent_seconds": self.time.as_secs_f64(),
            "sent_gbit_per_second": rate(self.bytes, self.time),
            "memory": self.memory,
        });
        if self.memory.is_some() {
            value["messages"] = json!(self.messages);
            value["completions"] = json!(self.completions);
            value["copied_completions"] = json!(self.copied);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception(devmem: u64, linear: u64, ordinary: u64) -> Reception {
        Reception { devmem, linear, ordinary, time: Duration::from_secs(2), ..Reception::default() }
    }

    #[test]
    fn nearly_all_is_not_a_hundred_percent() {
        for (reception, text) in [
            (reception(1 << 30, 0, 0), "\n100.00 % devmem\n"),
            (reception((1 << 30) - 1, 1, 0), "\n99.99 % devmem\n"),
            (reception(1, 0, 2), "\n33.33 % devmem\n"),
            (reception(0, 0, 0), "\n0.00 % devmem\n"),
        ] {
            assert!(reception.text().ends_with(text), "{}", reception.text());
        }
    }

    #[test]
    fn the_figures() {
        let mut reception = reception(250_000_000, 0, 0);
        reception.fragments = 172_652;
        reception.wrong = Some(Wrong::default());
        assert_eq!(
            reception.text(),
            "received 250000000 bytes in 2.000 s, 1.000 Gbit/s\n\
             devmem 250000000 bytes in 172652 fragments, linear 0 bytes, ordinary 0 bytes\n\
             compared 250000000 bytes, 0 wrong\n100.00 % devmem\n"
        );
        let json = reception.json(&[]);
        assert_eq!((&json["devmem_percent"], &json["received_gbit_per_second"]), (&json!(100.0), &json!(1.0)));
        let sending = Sending {
            bytes: 8,
            messages: 3,
            completions: 3,
            copied: 1,
            memory: Some("heap".into()),
            time: Duration::from_secs(1),
        };
        assert!(sending.text().ends_with("\n3 messages, 3 completed, 1 of them copied\n"));
        assert_eq!(sending.json()["copied_completions"], 1);
    }

    #[test]
    fn every_fault_is_named() {
        let mut reception = reception(9_999, 0, 1);
        reception.wrong = Some(Wrong { bytes: 3, first: Some(77) });
        let required = Required { devmem: Some("100".parse().unwrap()), bytes: Some(10_001) };
        let faults = reception.faults(required).join("\n");
        for text in [
            "3 bytes are not those of the pattern, the first at 77",
            "10000 bytes arrived where 10001",
            "less than 100.00 %",
        ] {
            assert!(faults.contains(text), "{faults}");
        }
        let good = Required { devmem: Some("99.99".parse().unwrap()), bytes: Some(10_000) };
        reception.wrong = Some(Wrong::default());
        assert_eq!(reception.faults(good), [""; 0]);
    }
}
