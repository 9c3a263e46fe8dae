//! One test from its pre-written record to its final one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use protocol::Snapshot;

use super::artifacts;
use super::binding::{self, Binding};
use super::clean::{self, Scope};
use super::context::{Context, Stop};
use super::{Runner, hang, now_ms, steps, verdict};
use crate::guests::Health;
use crate::model::{Action, Block, Test};
use crate::results::{Crash, GuestUse, HangKind, Leak, Record, Status};

/// Time for all cleanup steps of a test, before the time scale.
const CLEANUP: Duration = Duration::from_secs(30);
/// Time for what the runner itself asks of the guests, before the time scale.
const HOUSEKEEPING: Duration = Duration::from_secs(120);

/// How the steps ended, and where.
pub(super) struct Ending {
    pub outcome: Result<(), Stop>,
    /// Label of the step that ended the test early; empty when none did.
    pub step: String,
    /// Whether it got as far as the test's own steps. A crash that shows only afterwards is theirs: a console says it when it can.
    pub in_body: bool,
    /// The role it ran in.
    pub role: String,
}

impl Ending {
    fn early(outcome: Stop) -> Self {
        Ending { outcome: Err(outcome), step: String::new(), in_body: false, role: String::new() }
    }
}

impl Runner<'_> {
    /// The record of a test that has not begun, or did not finish.
    pub(super) fn blank(&self, test: &Test, iteration: u32, status: Status) -> Record {
        Record {
            test: test.full_name(),
            iteration,
            case: test.case.clone(),
            status,
            message: String::new(),
            missing: Vec::new(),
            started_ms: now_ms(),
            duration_ms: 0,
            guests: Vec::new(),
            metrics: Vec::new(),
            evidence: Vec::new(),
            subtests: Vec::new(),
            artifacts: Vec::new(),
            crash: None,
            hang: None,
            leaks: Vec::new(),
            rebooted: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Runs a test. `record` is the one that was written before; what is returned replaces it.
    pub(super) fn one(&mut self, test: &Test, mut record: Record) -> Record {
        let begun = Instant::now();
        match binding::bind(test, &self.infos) {
            Ok(binding) => self.bound(test, binding, &mut record),
            Err(missing) => {
                record.status = Status::Skip;
                record.message = format!("missing: {missing}");
                record.missing = vec![missing];
            }
        }
        record.duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        record
    }

    fn bound(&mut self, test: &Test, binding: Binding, record: &mut Record) {
        let uses = test.roles.iter().map(|role| {
            let guest = binding.roles[role].clone();
            let kernel = self.infos.iter().find(|info| info.name == guest).map(|info| info.kernel.clone());
            GuestUse { role: role.clone(), guest, kernel: kernel.unwrap_or_default() }
        });
        record.guests = uses.collect();
        let guests: BTreeSet<String> = binding.roles.values().cloned().collect();
        if let Err(why) = self.bring_up(&guests, record) {
            record.status = Status::Error;
            record.message = why;
            return;
        }
        let consoles: BTreeMap<String, u64> = guests
            .iter()
            .filter_map(|guest| Some((guest.clone(), self.guests.console(guest, u64::MAX).ok()?.1)))
            .collect();
        let scope = format!("{}.{}.{}", test.suite, test.name, record.iteration);
        let mut context = Context::new(self.guests, self.progress, binding.roles.clone(), &scope);
        context.infos.clone_from(&self.infos);
        context.nics = binding.nics;
        context.scale = self.options.time_scale;

        let (ending, before) = match self.prepare(&mut context, test, record) {
            Ok(before) => (run_steps(&mut context, test), before),
            Err(stop) => (Ending::early(stop), BTreeMap::new()),
        };
        let prepared = !before.is_empty();
        let ending = self.after(&mut context, test, ending, &before, record);
        verdict::conclude(test, &ending, record);
        record.metrics = std::mem::take(&mut context.metrics);
        record.evidence = std::mem::take(&mut context.evidence);
        record.subtests = std::mem::take(&mut context.subtests);
        record.notes.append(&mut context.notes);
        let kept =
            artifacts::keep(&self.options.report_dir, test, record.iteration, &mut context, self.guests, &consoles);
        match kept {
            Ok(artifacts) => record.artifacts = artifacts,
            Err(why) => record.notes.push(format!("artefacts could not be kept: {why}")),
        }
        self.reboot_dirty(&ending, &guests, prepared, record);
    }

    /// Capabilities, then the state to compare with later.
    fn prepare(
        &mut self,
        context: &mut Context,
        test: &Test,
        record: &mut Record,
    ) -> Result<BTreeMap<String, Snapshot>, Stop> {
        let missing = self.capabilities.missing(context, test)?;
        if !missing.is_empty() {
            record.missing = missing.iter().map(|(name, _)| name.clone()).collect();
            let list: Vec<String> = missing.iter().map(|(name, detail)| with_detail(name, detail)).collect();
            return Err(Stop::Skipped(format!("missing: {}", list.join(", "))));
        }
        context.allow(HOUSEKEEPING);
        let mut before = BTreeMap::new();
        for role in test.roles.iter() {
            let guest = context.guest(role)?;
            // The state after one test is the state before the next.
            let known = self.states.remove(&guest);
            let state = known.map_or_else(|| clean::snapshot(context, role), Ok)?;
            before.insert(role.clone(), state);
        }
        Ok(before)
    }

    /// Cleanup, leak check, last look at the guests. The ending may become a worse one.
    fn after(
        &mut self,
        context: &mut Context,
        test: &Test,
        mut ending: Ending,
        before: &BTreeMap<String, Snapshot>,
        record: &mut Record,
    ) -> Ending {
        look_at_hang(context, test, &ending, record);
        if before.is_empty() || !can_go_on(&ending, record) {
            return ending;
        }
        context.allow(HOUSEKEEPING);
        let mut tidied = "";
        let housekeeping = test.roles.iter().try_for_each(|role| {
            tidied = role;
            context.drop_programs(role);
            let guest = context.guest(role)?;
            // What was spawned died with its stream; whatever is left escaped the test.
            let stuck = match clean::end_scope(context, role)? {
                Scope::Ended(killed) => {
                    let note = |process| format!("guest `{guest}`: killed a process the test left running: {process}");
                    record.notes.extend(killed.into_iter().map(note));
                    None
                }
                Scope::Stuck(what) => Some(Leak { guest: guest.clone(), kind: "process".into(), what }),
            };
            let (mut leaks, state) = clean::leaks(context, role, &before[role], &test.leaves)?;
            leaks.extend(stuck);
            if leaks.is_empty() {
                self.states.insert(guest, state);
            }
            record.leaks.append(&mut leaks);
            Ok(())
        });
        match (housekeeping, &ending.outcome) {
            (Ok(()), _) => {}
            // What the test itself came to weighs more than trouble in tidying up after it, unless all was well.
            (Err(stop), Ok(()) | Err(Stop::Skipped(_) | Stop::Xfailed(_) | Stop::Xpassed(_))) => {
                // The last step may have stopped the guest and still have been heard to end.
                ending = Ending { role: tidied.into(), ..Ending::early(stop) };
                look_at_hang(context, test, &ending, record);
            }
            (Err(stop @ (Stop::Crashed(_) | Stop::Cancelled)), _) => ending = Ending::early(stop),
            (Err(stop), _) => record.notes.push(format!("tidying up: {stop}")),
        }
        for guest in context.roles.values() {
            if let Health::Crashed(info) = self.guests.health(guest) {
                ending.outcome = Err(Stop::Crashed(Crash { guest: guest.clone(), info }));
            }
        }
        ending
    }
}

/// Describes what hangs, if that is how the test ended.
fn look_at_hang(context: &mut Context, test: &Test, ending: &Ending, record: &mut Record) {
    let Err(stop @ (Stop::TimedOut | Stop::Hung(_))) = &ending.outcome else { return };
    let role = if ending.role.is_empty() { test.roles[0].clone() } else { ending.role.clone() };
    record.hang = Some(hang::look(context, &role, &ending.step, *stop == Stop::TimedOut));
}

/// The name and the agent's detail, which may begin with the name's own argument.
fn with_detail(name: &str, detail: &str) -> String {
    let argument = name.split_once(':').map_or(name, |(_, argument)| argument);
    let detail = detail.strip_prefix(argument).map_or(detail, |rest| rest.trim_start_matches([':', ' ']));
    if detail.is_empty() { name.into() } else { format!("{name} ({detail})") }
}

fn run_steps(context: &mut Context, test: &Test) -> Ending {
    let parses = test.setups.iter().chain([&test.body]).flat_map(|block| &block.steps);
    let prefix = parses.filter(|step| matches!(step.action, Action::Parse { .. })).count() > 1;
    let mut ending = Ending { outcome: Ok(()), step: String::new(), in_body: false, role: String::new() };
    context.allow(test.timeout);
    context.last_output = Instant::now();
    let mut begun: Vec<&Block> = Vec::new();
    'blocks: for block in test.setups.iter().chain([&test.body]) {
        begun.push(block);
        ending.in_body = block.name.is_empty();
        for step in &block.steps {
            if let Err(stop) = steps::run(context, step, prefix) {
                ending.outcome = Err(stop);
                ending.step.clone_from(&step.label);
                ending.role.clone_from(&step.role);
                break 'blocks;
            }
        }
    }
    // A guest that is gone, or a test that hangs, is looked at and rebooted; there is nothing to tidy up in it.
    if matches!(
        ending.outcome,
        Err(Stop::Crashed(_) | Stop::Hung(_) | Stop::TimedOut | Stop::Infrastructure(_) | Stop::Cancelled)
    ) {
        return ending;
    }
    let whole = ending.outcome.is_ok();
    context.allow(CLEANUP);
    let worse = |context: &mut Context, stop: Stop, step: &str, role: &str| {
        if let Err(first) = &ending.outcome {
            context.notes.push(format!("before that, step `{}`: {first}", ending.step));
        }
        let in_body = ending.in_body && matches!(stop, Stop::Crashed(_));
        Ending { outcome: Err(stop), step: step.into(), in_body, role: role.into() }
    };
    // Nothing is undone with a failed test's programs still at work in it: they want the processors, and hold what is to go.
    for role in test.roles.iter().filter(|_| !whole) {
        context.drop_programs(role);
        if let Err(stop) = clean::end_scope(context, role) {
            return worse(context, stop, "end of the test's programs", role);
        }
    }
    for step in begun.iter().rev().flat_map(|block| &block.cleanup) {
        match steps::run(context, step, prefix) {
            Ok(()) => {}
            // After a failure half the set-up is not there to be undone: what matters is what the leak check finds.
            Err(Stop::Failed(_)) if !whole => {}
            Err(Stop::Failed(why)) => context.notes.push(format!("cleanup `{}`: {why}", step.label)),
            Err(stop) => return worse(context, stop, &step.label, &step.role),
        }
    }
    ending
}

/// Whether the guests still answer, so that looking for leaks makes sense.
fn can_go_on(ending: &Ending, record: &Record) -> bool {
    match &ending.outcome {
        Ok(()) | Err(Stop::Failed(_) | Stop::Skipped(_) | Stop::Xfailed(_) | Stop::Xpassed(_)) => true,
        Err(Stop::TimedOut) => record.hang.as_ref().is_some_and(|hang| hang.kind != HangKind::Guest),
        Err(Stop::Crashed(_) | Stop::Hung(_) | Stop::Infrastructure(_) | Stop::Cancelled) => false,
    }
}
