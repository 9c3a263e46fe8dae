//! The guests between tests: there, marked as in use, clean; rebooted when they are not.

use std::collections::{BTreeMap, BTreeSet};

use progress::Progress;

use super::context::{Context, Stop};
use super::one::Ending;
use super::{Runner, claim};
use crate::guests::Health;
use crate::results::Record;

impl Runner<'_> {
    /// Reboots every guest that was used and is not known to be clean.
    pub(super) fn reboot_dirty(
        &mut self,
        ending: &Ending,
        guests: &BTreeSet<String>,
        prepared: bool,
        record: &mut Record,
    ) {
        for guest in guests {
            let leaked = record.leaks.iter().filter(|leak| leak.guest == *guest).count();
            let reason = match (self.guests.health(guest), &ending.outcome) {
                (Health::Crashed(info), _) => format!("it crashed: {}", info.title),
                (Health::Hung { .. }, _) => "it no longer answers".into(),
                (Health::Down { reason }, _) => format!("it went down: {reason}"),
                (Health::Alive { .. }, Err(Stop::Cancelled)) => {
                    self.unclean.insert(guest.clone());
                    continue;
                }
                (Health::Alive { .. }, _) if !prepared || self.states.contains_key(guest) => continue,
                (Health::Alive { .. }, _) if leaked > 0 => format!("{} left something behind", record.test),
                (Health::Alive { .. }, Err(Stop::TimedOut | Stop::Hung(_))) => format!("{} hung", record.test),
                (Health::Alive { .. }, _) => "its state is not known".into(),
            };
            record.rebooted.push(format!("{guest}: {reason}"));
            if let Err(why) = self.reboot(guest, &reason) {
                record.notes.push(why);
            }
        }
    }

    /// Makes sure that every guest is there and carries this run's mark. A guest that could not be rebooted before is
    /// not tried again.
    pub(super) fn bring_up(&mut self, guests: &BTreeSet<String>, record: &mut Record) -> Result<(), String> {
        for guest in guests {
            if let Some(why) = self.lost.get(guest) {
                return Err(format!("guest `{guest}` was lost earlier: {why}"));
            }
            let mut reason = match self.guests.health(guest) {
                Health::Alive { .. } => None,
                Health::Crashed(info) => Some(format!("it had crashed: {}", info.title)),
                Health::Hung { .. } => Some("it did not answer".into()),
                Health::Down { reason } => Some(format!("it was down: {reason}")),
            };
            let roles = BTreeMap::from([(guest.clone(), guest.clone())]);
            let mut context = Context::new(self.guests, self.progress, roles, "");
            context.scale = self.options.time_scale;
            if reason.is_none() && !self.claimed.contains(guest) {
                let mark = claim::read(&mut context, guest).map_err(|stop| stop.to_string())?;
                reason = mark.map(|_| "an earlier run was broken off in it".into());
            }
            if let Some(reason) = reason {
                record.rebooted.push(format!("{guest}: {reason}"));
                self.reboot(guest, &reason)?;
            }
            if !self.claimed.contains(guest) {
                claim::set(&mut context, guest).map_err(|stop| stop.to_string())?;
                self.claimed.insert(guest.clone());
            }
        }
        Ok(())
    }

    /// Takes the run's mark off every guest but those that a test was interrupted in.
    pub(super) fn release(&mut self) {
        for guest in std::mem::take(&mut self.claimed) {
            if self.unclean.contains(&guest) || self.lost.contains_key(&guest) {
                continue;
            }
            let roles = BTreeMap::from([(guest.clone(), guest.clone())]);
            // An interrupted run still says goodbye.
            let calm = Progress::silent();
            let mut context = Context::new(self.guests, &calm, roles, "");
            if let Err(stop) = claim::clear(&mut context, &guest) {
                self.progress.warn(format!("guest `{guest}` will be rebooted by the next run: {stop}"));
            }
        }
    }

    fn reboot(&mut self, guest: &str, reason: &str) -> Result<(), String> {
        self.capabilities.forget(guest);
        self.states.remove(guest);
        self.claimed.remove(guest);
        self.progress.warn(format!("rebooting guest `{guest}`: {reason}"));
        self.guests.reboot(guest, reason).map_err(|error| {
            self.lost.insert(guest.into(), error.to_string());
            error.to_string()
        })
    }
}
