//! One file to fetch: through its candidates in order until the cache has it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::blocking::Client;

use super::error::{Attempt, Failure, FetchError, Refusal};
use super::hosts::Hosts;
use super::transfer::{self, Ended, Wanted, transfer};
use crate::flock::{FileLock, Mode};
use crate::{Cache, Key, Kind, space};

/// Attempts in a row at an address that breaks off but gets further each time.
const RESUMES: u32 = 4;
/// A pause before what failed in passing (5xx, stall, broken connection) is tried once more.
const PAUSE: Duration = Duration::from_secs(1);

/// What to fetch.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub what: String,
    pub kind: Kind,
    pub key: Key,
    pub size: u64,
    pub urls: Vec<String>,
}

/// What all downloads of a fetcher share.
pub(super) struct Shared {
    pub cache: Cache,
    pub client: Client,
    pub hosts: Hosts,
    pub stall: Duration,
}

/// Why an item is not there.
#[derive(Debug)]
pub(super) enum NoItem {
    /// No address would do; other items may fare better.
    Failed(Failure),
    /// Nothing will do any better.
    Fatal(FetchError),
}

/// Brings one item into the cache and returns its path. `advance` is told of bytes that are new, `go_on` whether to.
pub(super) fn fetch(
    shared: &Shared,
    item: &Item,
    advance: &dyn Fn(u64),
    go_on: &dyn Fn() -> bool,
) -> Result<PathBuf, NoItem> {
    let local = |e: anyhow::Error| match e.downcast::<progress::Cancelled>() {
        Ok(cancelled) => NoItem::Fatal(cancelled.into()),
        Err(e) => NoItem::Fatal(FetchError::Local(e)),
    };
    let cache = &shared.cache;
    let counted = AtomicU64::new(0);
    // A restart counts bytes again that were counted already; a bar that runs backwards helps nobody.
    let seen = |bytes: u64| {
        let before = counted.fetch_max(bytes, Ordering::Relaxed);
        advance(bytes.saturating_sub(before));
        go_on()
    };
    let mut lock = FileLock::take(&cache.lock_path(item.kind, &item.key), Mode::Exclusive, &item.what, &cache.progress)
        .map_err(local)?;
    if let Some(path) = cache.lookup(item.kind, &item.key) {
        // Another process was quicker.
        seen(item.size);
        return Ok(path);
    }
    lock.sign().map_err(local)?;
    let part = cache.part(item.kind, &item.key);
    let mut attempts = Vec::new();
    for round in 0..2 {
        for url in &item.urls {
            // The second round is for what may have been an accident.
            if round > 0
                && !attempts.iter().rev().find(|a: &&Attempt| a.url == *url).is_some_and(|a| passing(&a.refusal))
            {
                continue;
            }
            if let Some(why) = shared.hosts.dead(url) {
                attempts.push(Attempt { url: url.clone(), refusal: Refusal::DeadHost(why) });
                continue;
            }
            match from_url(shared, item, &part, url, &seen)? {
                Ok(()) => {
                    shared.hosts.served(url);
                    return publish(cache, item, &part).map_err(local);
                }
                Err(refusal) => {
                    shared.hosts.refused(url, &refusal);
                    attempts.push(Attempt { url: url.clone(), refusal });
                }
            }
        }
        if round == 0 && !(attempts.iter().any(|a| passing(&a.refusal)) && pause(go_on)) {
            break;
        }
    }
    remove_if_empty(&part);
    if !go_on() {
        return Err(NoItem::Fatal(progress::Cancelled.into()));
    }
    let failure = Failure { what: item.what.clone(), size: item.size, sha256: item.key.clone(), attempts };
    Err(NoItem::Failed(failure))
}

/// One address, again as long as each broken connection brought something. The outer error ends everything.
fn from_url(
    shared: &Shared,
    item: &Item,
    part: &PathBuf,
    url: &str,
    seen: &dyn Fn(u64) -> bool,
) -> Result<Result<(), Refusal>, NoItem> {
    let wanted = Wanted { url, size: item.size, sha256: &item.key, part, stall: shared.stall };
    let mut furthest = 0;
    let mut left = RESUMES;
    loop {
        let (refusal, resumed) = match transfer(&shared.client, &wanted, seen) {
            Ok(()) => return Ok(Ok(())),
            Err(Ended::Refused { refusal, resumed }) => (refusal, resumed),
            Err(Ended::Stopped) => return Err(NoItem::Fatal(progress::Cancelled.into())),
            Err(Ended::Write(error)) => return Err(unwritable(item, part, error)),
        };
        let spoilt = matches!(refusal, Refusal::WrongHash(_) | Refusal::WrongSize(_)) || resumed;
        if spoilt {
            // Whose bytes were bad cannot be told when several attempts made the file; begin with none.
            remove(part);
        }
        let again = match refusal {
            Refusal::Truncated(bytes) if bytes > furthest => {
                furthest = bytes;
                true
            }
            _ => resumed,
        };
        left -= 1;
        if !again || left == 0 {
            return Ok(Err(refusal));
        }
    }
}

/// Whether a refusal may have been an accident.
fn passing(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Status(status) => *status >= 500 || *status == 429,
        Refusal::Stalled(_) | Refusal::Truncated(_) | Refusal::Other(_) => true,
        _ => false,
    }
}

fn pause(go_on: &dyn Fn() -> bool) -> bool {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        if !go_on() {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    true
}

fn publish(cache: &Cache, item: &Item, part: &PathBuf) -> anyhow::Result<PathBuf> {
    fs::set_permissions(part, Permissions::from_mode(0o444))
        .with_context(|| format!("cannot seal {}", part.display()))?;
    cache.publish(part, item.kind, &item.key)?;
    cache.lookup(item.kind, &item.key).with_context(|| format!("{} vanished from the cache", item.what))
}

fn unwritable(item: &Item, part: &PathBuf, error: io::Error) -> NoItem {
    if !transfer::is_full(&error) {
        let error = anyhow::Error::new(error).context(format!("{}: cannot write {}", item.what, part.display()));
        return NoItem::Fatal(FetchError::Local(error));
    }
    // First ask how much room there is, then give back what this file took.
    let text = format!("{}: {}", item.what, space::no_space(part, Some(item.size)));
    remove(part);
    NoItem::Fatal(FetchError::NoSpace { path: part.clone(), needed: item.size, text })
}

fn remove(part: &PathBuf) {
    // If it cannot go, the next attempt finds it and its hash tells.
    let _ = fs::remove_file(part);
}

fn remove_if_empty(part: &PathBuf) {
    if fs::metadata(part).is_ok_and(|meta| meta.len() == 0) {
        remove(part);
    }
}

/// Removes what there is of an item that did not arrive, unless somebody is at work on it.
pub(super) fn discard(cache: &Cache, item: &Item) {
    if let Ok(Some(_lock)) = FileLock::try_take(&cache.lock_path(item.kind, &item.key), Mode::Exclusive) {
        remove(&cache.part(item.kind, &item.key));
    }
}
