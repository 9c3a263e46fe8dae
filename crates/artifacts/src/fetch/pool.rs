//! Several downloads at a time.
//!
//! Workers take items off a queue and send what became of them; the caller's thread turns their byte counts into
//! progress events, watches for Ctrl-C and collects results.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use progress::{Progress, Step};

use super::error::FetchError;
use super::item::{self, Item, NoItem, Shared};
use crate::Key;

/// How often progress is told; bars need no more.
const TICK: Duration = Duration::from_millis(100);
/// How long to wait for workers after a stop: those that hang in the network are left behind.
const PATIENCE: Duration = Duration::from_secs(2);

struct Work {
    shared: Arc<Shared>,
    queue: Mutex<VecDeque<Item>>,
    stop: AtomicBool,
    progress: Progress,
    bytes: AtomicU64,
}

type Outcome = (Key, Result<PathBuf, NoItem>);

/// Downloads `items`; what could not be had from anywhere is gathered into one error, after everything else was
/// brought. A full disk or Ctrl-C ends it at once.
pub(super) fn run(
    shared: &Arc<Shared>,
    mut items: Vec<Item>,
    parallel: usize,
    step: &Step,
    progress: &Progress,
) -> Result<Vec<(Key, PathBuf)>, FetchError> {
    // The largest first, or it would run alone at the end.
    items.sort_by_key(|item| std::cmp::Reverse(item.size));
    let all = items.clone();
    let work = Arc::new(Work {
        shared: Arc::clone(shared),
        queue: Mutex::new(items.into()),
        stop: AtomicBool::new(false),
        progress: progress.clone(),
        bytes: AtomicU64::new(0),
    });
    let (sender, receiver) = mpsc::channel();
    let mut workers = Vec::new();
    for n in 0..parallel.clamp(1, all.len().max(1)) {
        let (work, sender) = (Arc::clone(&work), sender.clone());
        let worker = thread::Builder::new().name(format!("fetch-{n}")).spawn(move || work.run(&sender));
        match worker {
            Ok(worker) => workers.push(worker),
            Err(_) if n > 0 => break,
            Err(e) => return Err(FetchError::Local(anyhow::Error::new(e).context("cannot start a download thread"))),
        }
    }
    drop(sender);
    let outcome = collect(&work, &receiver, step);
    work.stop.store(true, Ordering::SeqCst);
    let patience = if outcome.is_err() { PATIENCE } else { Duration::from_secs(60) };
    wait(workers, patience);
    step.inc(work.bytes.swap(0, Ordering::Relaxed));
    if let Err(FetchError::NoSpace { .. }) = outcome {
        // Half-made files would keep the disk full for the next attempt and for everybody else.
        all.iter().for_each(|item| item::discard(&shared.cache, item));
    }
    outcome
}

fn collect(work: &Work, receiver: &mpsc::Receiver<Outcome>, step: &Step) -> Result<Vec<(Key, PathBuf)>, FetchError> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    loop {
        let received = receiver.recv_timeout(TICK);
        match work.bytes.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => step.inc(bytes),
        }
        match received {
            Ok((key, Ok(path))) => found.push((key, path)),
            Ok((_, Err(NoItem::Failed(failure)))) => failures.push(failure),
            Ok((_, Err(NoItem::Fatal(error)))) => return Err(error),
            Err(RecvTimeoutError::Timeout) => work.progress.check_cancelled()?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if failures.is_empty() {
        return Ok(found);
    }
    failures.sort_by(|a: &super::Failure, b| a.what.cmp(&b.what));
    Err(FetchError::Failed { failures })
}

fn wait(workers: Vec<JoinHandle<()>>, patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until && !workers.iter().all(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(5));
    }
}

impl Work {
    fn run(&self, sender: &Sender<Outcome>) {
        let go_on = || !self.stop.load(Ordering::Relaxed) && !self.progress.cancel().is_cancelled();
        let advance = |bytes| {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        while go_on() {
            let next = self.queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
            let Some(item) = next else { return };
            let outcome = item::fetch(&self.shared, &item, &advance, &go_on);
            if sender.send((item.key, outcome)).is_err() {
                return;
            }
        }
    }
}
