//! What is printed: a JSON object a line for each case, and one more that sums them up.

use serde_json::{Value, json};

/// The cases so far.
#[derive(Debug, Default)]
pub struct Report {
    cases: u64,
    failed: u64,
    mismatches: u64,
    bytes: u64,
}

impl Report {
    /// Prints a case; `facts` says what it was about and what came of it.
    pub fn case(&mut self, name: &str, good: bool, mismatches: u64, bytes: u64, mut facts: Value) {
        self.cases += 1;
        self.failed += u64::from(!good);
        self.mismatches += mismatches;
        self.bytes += bytes;
        facts["case"] = json!(name);
        facts["ok"] = json!(good);
        facts["mismatches"] = json!(mismatches);
        println!("{facts}");
    }

    /// Prints the sum; whether all was well.
    pub fn finish(&self) -> bool {
        let Report { cases, failed, mismatches, bytes } = self;
        println!(
            "{}",
            json!({ "summary": { "cases": cases, "failed": failed, "mismatches": mismatches, "bytes": bytes } })
        );
        // A run without cases has shown nothing.
        self.cases > 0 && self.failed == 0 && self.mismatches == 0
    }
}

/// The name of a completion's status (`enum ibv_wc_status`).
pub fn status_name(status: u32) -> String {
    match status {
        0 => "success".into(),
        1 => "local length error".into(),
        2 => "local QP operation error".into(),
        4 => "local protection error".into(),
        5 => "work request flushed".into(),
        9 => "remote invalid request error".into(),
        10 => "remote access error".into(),
        11 => "remote operation error".into(),
        12 => "transport retries exceeded".into(),
        13 => "receiver not ready".into(),
        u32::MAX => "EINVAL when posted".into(),
        other => format!("status {other}"),
    }
}
