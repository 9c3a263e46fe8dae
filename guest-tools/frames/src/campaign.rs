//! Sends corruptions of what live queue pairs send.
//!
//! Valid frames are taken from the netdev while it sends them, again and again: the queue pair that a frame names should
//! be alive when its corruptions arrive, and its packet sequence number near what the receiver expects. Corruptions are
//! sent in rounds; a round goes over all templates there are, a slice of each.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use frames::{Corruption, Key, Template, corruptions};

use crate::socket::PacketSocket;

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The netdev to send through; the one under test is at its other end.
    pub device: String,
    /// Frames to send, at least.
    pub count: u64,
    /// Frames in a second, at most; as many as the netdev takes, if there is none.
    pub rate: Option<NonZeroU32>,
    /// Goes on after so many frames until there is a file of this name.
    pub until: Option<PathBuf>,
    /// What decides values at random and the order.
    pub seed: u64,
    /// Only frames from these addresses are templates; all, if there are none.
    pub from: Vec<IpAddr>,
    /// Kinds of templates to see before the first frame is sent.
    pub kinds: usize,
    /// How long they may take to appear.
    pub patience: Duration,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Frames the netdev took.
    pub sent: u64,
    /// Frames it did not, such as those longer than its MTU.
    pub refused: u64,
    /// Frames that found no room and were sent again.
    pub repeated: u64,
    /// Corruptions by what they are about.
    pub classes: BTreeMap<&'static str, u64>,
    /// Templates by kind, with how many of their corruptions there are and how many were sent.
    pub templates: BTreeMap<Key, (usize, usize)>,
}

/// Corruptions of one template in a row, before the next one's turn.
const SLICE: usize = 64;
/// How often a frame is tried that finds no room.
const TRIES: u32 = 100;

/// A kind of frame: the newest one of it, and which corruptions are still to be sent.
struct Source {
    newest: Template,
    left: VecDeque<Corruption>,
    round: u64,
}

/// Carries a plan out.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let socket = PacketSocket::open(&plan.device).with_context(|| format!("packet socket on {}", plan.device))?;
    let mut campaign = Campaign { plan, socket, sources: BTreeMap::new(), outcome: Outcome::default() };
    campaign.wait()?;
    while !campaign.is_over() {
        let before = campaign.outcome.sent;
        let keys: Vec<Key> = campaign.sources.keys().copied().collect();
        for key in keys {
            campaign.watch()?;
            let (start, sent) = (Instant::now(), campaign.outcome.sent);
            campaign.slice(key)?;
            let least = plan.time_for(campaign.outcome.sent - sent);
            thread::sleep(least.saturating_sub(start.elapsed()));
        }
        if campaign.outcome.sent == before {
            bail!("{} takes no frames any more: {:?}", plan.device, campaign.outcome);
        }
    }
    Ok(campaign.outcome)
}

impl Plan {
    /// How long this many frames take at least.
    fn time_for(&self, frames: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(frames as f64 / f64::from(rate.get())))
    }
}

struct Campaign<'a> {
    plan: &'a Plan,
    socket: PacketSocket,
    sources: BTreeMap<Key, Source>,
    outcome: Outcome,
}

impl Campaign<'_> {
    /// Waits until the traffic has shown as many kinds of frames as are asked for.
    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.watch()?;
            if self.sources.len() >= self.plan.kinds {
                return Ok(());
            }
            if start.elapsed() > self.plan.patience {
                let seen: Vec<String> = self.sources.keys().map(ToString::to_string).collect();
                bail!(
                    "{} sent {} kinds of RoCEv2 frames in {:?} and not {}: {}",
                    self.plan.device,
                    seen.len(),
                    self.plan.patience,
                    self.plan.kinds,
                    seen.join(" ")
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes what passed meanwhile as the newest of its kind.
    fn watch(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        // So many that a flood of traffic cannot keep the campaign from its work.
        for _ in 0..256 {
            let read = self.socket.read(&mut buffer);
            let Some(frame) = read.with_context(|| format!("read from {}", self.plan.device))? else { break };
            let Ok(template) = Template::new(frame) else { continue };
            if !self.is_wanted(&template) {
                continue;
            }
            let seed = self.plan.seed;
            let source = self.sources.entry(template.key).or_insert_with(|| Source {
                newest: template.clone(),
                left: VecDeque::new(),
                round: seed,
            });
            source.newest = template;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let enough = self.plan.until.as_deref().is_none_or(Path::exists);
        enough && self.outcome.sent >= self.plan.count
    }

    fn is_wanted(&self, template: &Template) -> bool {
        let (source, _) = template.addresses();
        let is = |address: &IpAddr| match address {
            IpAddr::V4(address) => source == address.octets(),
            IpAddr::V6(address) => source == address.octets(),
        };
        self.plan.from.is_empty() || self.plan.from.iter().any(is)
    }

    /// Sends the next corruptions of a kind of frame, applied to its newest one.
    fn slice(&mut self, key: Key) -> Result<()> {
        let Some(source) = self.sources.get_mut(&key) else { return Ok(()) };
        let known = self.outcome.templates.entry(key).or_default();
        if source.left.is_empty() {
            source.left = corruptions(&source.newest, source.round).into();
            source.round = source.round.wrapping_add(1);
            known.0 = source.left.len();
        }
        let template = source.newest.clone();
        let now: Vec<Corruption> = source.left.drain(..SLICE.min(source.left.len())).collect();
        known.1 += now.len();
        for corruption in now {
            *self.outcome.classes.entry(corruption.class()).or_default() += 1;
            for frame in corruption.apply(&template) {
                self.send(&frame)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: &[u8]) -> Result<()> {
        for _ in 0..TRIES {
            let Err(error) = self.socket.send(frame) else {
                self.outcome.sent += 1;
                return Ok(());
            };
            match error.raw_os_error() {
                // Shorter than an Ethernet header, longer than the MTU.
                Some(libc::EINVAL | libc::EMSGSIZE) => {
                    self.outcome.refused += 1;
                    return Ok(());
                }
                Some(libc::ENOBUFS | libc::EAGAIN) => self.outcome.repeated += 1,
                _ if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(error).with_context(|| format!("send {} bytes to {}", frame.len(), self.plan.device)),
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("{} found no room for a frame in {TRIES} tries", self.plan.device)
    }
}
