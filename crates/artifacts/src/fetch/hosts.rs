//! What this run has learnt about hosts, so that a dead one costs its timeout once and not once a file.

use std::collections::HashMap;
use std::sync::Mutex;

use super::error::Refusal;

/// Failures in a row after which a host that lets transfers hang is given up: one may be an accident.
const STALLS: u32 = 2;
/// The same for a host that answers, but with errors of its own.
const ERRORS: u32 = 6;

#[derive(Debug, Default)]
pub(super) struct Hosts {
    known: Mutex<HashMap<String, State>>,
}

#[derive(Debug, Default, Clone)]
struct State {
    dead: Option<String>,
    stalls: u32,
    errors: u32,
}

impl Hosts {
    /// Why the host of `url` is not worth another attempt.
    pub(super) fn dead(&self, url: &str) -> Option<String> {
        self.with(url, |state| state.dead.clone())
    }

    /// The host served a file, so earlier failures were accidents.
    pub(super) fn served(&self, url: &str) {
        self.with(url, |state| *state = State::default());
    }

    /// What a failed attempt says about the host. A file it lacks or has wrong says nothing.
    pub(super) fn refused(&self, url: &str, refusal: &Refusal) {
        self.with(url, |state| {
            let given_up = match refusal {
                Refusal::Dns | Refusal::Connect(_) => true,
                Refusal::Stalled(_) => {
                    state.stalls += 1;
                    state.stalls >= STALLS
                }
                Refusal::Other(_) | Refusal::Status(_) | Refusal::Truncated(0) => {
                    state.errors += 1;
                    state.errors >= ERRORS
                }
                _ => false,
            };
            if given_up {
                state.dead.get_or_insert_with(|| refusal.to_string());
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
    fn a_host_dies_of_no_answer_at_once_and_of_errors_slowly() {
        let hosts = Hosts::default();
        hosts.refused("http://a:80/x", &Refusal::Connect("refused".into()));
        assert_eq!(hosts.dead("http://a:80/other/file"), Some("no connection: refused".into()));
        assert_eq!(hosts.dead("http://a:81/x"), None);
        for (refusal, limit) in [(Refusal::Stalled(30), STALLS), (Refusal::Status(502), ERRORS)] {
            let url = format!("http://b{limit}/x");
            for _ in 1..limit {
                hosts.refused(&url, &refusal);
            }
            assert_eq!(hosts.dead(&url), None);
            hosts.refused(&url, &refusal);
            assert!(hosts.dead(&url).is_some());
        }
    }

    #[test]
    fn missing_and_wrong_files_are_not_the_hosts_death() {
        let hosts = Hosts::default();
        for _ in 0..100 {
            hosts.refused("http://a/x", &Refusal::NotFound);
            hosts.refused("http://a/x", &Refusal::WrongSize(1));
            hosts.refused("http://a/x", &Refusal::Stalled(1));
            hosts.served("http://a/y");
        }
        assert_eq!(hosts.dead("http://a/z"), None);
    }
}
