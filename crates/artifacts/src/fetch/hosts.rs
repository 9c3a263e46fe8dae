//! What this run has learnt about hosts, so that a dead one costs its timeout once and not once a file.

use std::collections::HashMap;
use std::sync::Mutex;

/// Stalls after which a host is given up: one may be an accident.
const STALLS: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: Mutex<HashMap<String, State>>,
}

#[derive(Debug, Default, Clone)]
struct State {
    dead: Option<String>,
    stalls: u32,
}

impl Hosts {
    /// Why the host of `url` is not worth another attempt.
    pub(super) fn dead(&self, url: &str) -> Option<String> {
        self.with(url, |state| state.dead.clone())
    }

    /// The host could not be reached at all.
    pub(super) fn unreachable(&self, url: &str, why: &str) {
        self.with(url, |state| {
            state.dead.get_or_insert_with(|| why.to_string());
        });
    }

    /// The host let a transfer hang.
    pub(super) fn stalled(&self, url: &str) {
        self.with(url, |state| {
            state.stalls += 1;
            if state.stalls >= STALLS {
                state.dead = Some(format!("it stalled {} times", state.stalls));
            }
        });
    }

    fn with<T>(&self, url: &str, f: impl FnOnce(&mut State) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        f(known.entry(host(url).to_string()).or_default())
    }
}

/// `scheme://host:port` of an address: ports differ in what listens there.
fn host(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_dies_of_no_answer_at_once_and_of_stalls_slowly() {
        let hosts = Hosts::default();
        hosts.unreachable("http://a:80/x", "refused");
        assert_eq!(hosts.dead("http://a:80/other/file"), Some("refused".into()));
        assert_eq!(hosts.dead("http://a:81/x"), None);
        hosts.stalled("http://b/x");
        assert_eq!(hosts.dead("http://b"), None);
        hosts.stalled("http://b/y");
        assert!(hosts.dead("http://b/z").is_some());
    }
}
