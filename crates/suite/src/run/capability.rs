//! What the guests can do, asked once a boot.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use protocol::{Event, Probe, Request};

use super::context::{Context, Stop};
use crate::model::{DETERMINISTIC, Program, Requirement, Test};

/// Time for one round of probing; it may load modules.
const ANSWER: Duration = Duration::from_secs(30);

/// Capabilities that are there only once a module is, by their beginnings.
const WITH_MODULE: [(&str, &str); 1] = [("sysctl:net.rxe.", "rdma_rxe")];

/// Capabilities that only an attempt can tell, by the guest's program that makes it: kernel and provider must agree, and
/// neither says beforehand. It succeeds, or its last line says what is missing.
const BY_PROGRAM: [(&str, &[&str]); 1] = [("rxe-dmabuf", &["lab-verbs", "probe"])];

/// Answers so far, by guest and capability.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    known: BTreeMap<String, BTreeMap<String, Probe>>,
    /// Everything any selected test will ask for: asked in one go, since a question costs a round trip.
    wanted: BTreeSet<String>,
}

impl Capabilities {
    /// Prepares for the tests of a run.
    pub fn for_tests(tests: &[Test]) -> Self {
        let wanted = tests.iter().flat_map(|test| &test.requires).map(|r| r.capability.clone());
        let wanted = wanted.filter(|name| name != DETERMINISTIC).collect();
        Capabilities { known: BTreeMap::new(), wanted }
    }

    /// A guest was rebooted: what it said is void.
    pub fn forget(&mut self, guest: &str) {
        self.known.remove(guest);
    }

    /// The requirements that a test's guests do not meet, each with the agent's reason.
    pub fn missing(&mut self, context: &mut Context, test: &Test) -> Result<Vec<(String, String)>, Stop> {
        let mut missing = Vec::new();
        for role in &test.roles {
            let due = |r: &&Requirement| r.role.as_ref().is_none_or(|only| only == role);
            let due: Vec<&Requirement> = test.requires.iter().filter(due).collect();
            if due.is_empty() {
                continue;
            }
            let guest = context.guest(role)?;
            // Whoever runs the guest knows; the guest itself cannot tell.
            if due.iter().any(|r| r.capability == DETERMINISTIC) && !context.guest_info(role)?.deterministic {
                let why = "the guest's time is not the count of its instructions: boot it with machine.icount";
                missing.push((DETERMINISTIC.into(), why.into()));
            }
            let due: Vec<&Requirement> = due.into_iter().filter(|r| r.capability != DETERMINISTIC).collect();
            if due.is_empty() {
                continue;
            }
            if !self.known.contains_key(&guest) {
                let probes = self.probe(context, role)?;
                self.known.insert(guest.clone(), probes);
            }
            let probes = &self.known[&guest];
            for requirement in due {
                let name = &requirement.capability;
                let place = if test.roles.len() > 1 { format!("{guest}/") } else { String::new() };
                match probes.get(name) {
                    Some(probe) if probe.present => {}
                    Some(probe) => missing.push((format!("{place}{name}"), probe.detail.clone())),
                    None => missing.push((format!("{place}{name}"), "the agent did not answer about it".into())),
                }
            }
        }
        Ok(missing)
    }

    fn probe(&self, context: &mut Context, role: &str) -> Result<BTreeMap<String, Probe>, Stop> {
        let by_program: Vec<_> = BY_PROGRAM.iter().filter(|(name, _)| self.wanted.contains(*name)).collect();
        let attempted = |name: &&String| by_program.iter().any(|(known, _)| known == name);
        let names: Vec<String> = self.wanted.iter().filter(|name| !attempted(name)).cloned().collect();
        context.allow(ANSWER);
        for (beginning, module) in WITH_MODULE {
            if names.iter().any(|name| name.starts_with(beginning)) {
                let program = Program { argv: vec!["modprobe".into(), module.into()], ..Program::default() };
                // A guest without the module lacks the capability, and says so itself.
                match context.exec(&format!("load-{module}"), role, &program, None) {
                    Ok(_) | Err(Stop::Failed(_)) => {}
                    Err(stop) => return Err(stop),
                }
            }
        }
        let answers = context.pump(role, Request::Probe { names }, None, |_, event| match event {
            Event::Probed(probes) => Ok(Some(probes)),
            Event::Failed(failure) => Err(Stop::Infrastructure(format!("probing capabilities: {}", failure.message))),
            _ => Ok(None),
        })?;
        let mut known: BTreeMap<String, Probe> = answers.into_iter().map(|probe| (probe.name.clone(), probe)).collect();
        for (name, argv) in by_program {
            context.allow(ANSWER);
            known.insert((*name).into(), attempt(context, role, name, argv)?);
        }
        Ok(known)
    }
}

/// Whether the guest has what a program of its own tries.
fn attempt(context: &mut Context, role: &str, name: &str, argv: &[&str]) -> Result<Probe, Stop> {
    let program = Program { argv: argv.iter().map(|word| (*word).into()).collect(), ..Program::default() };
    let label = format!("probe-{name}");
    let (present, detail) = match context.exec(&label, role, &program, None) {
        Ok(exit) => {
            let stderr = context.outputs.get(&label).map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            let said = stderr.as_deref().and_then(|text| text.lines().last()).unwrap_or_default().to_owned();
            let detail = if said.is_empty() { format!("`{}` said nothing", argv.join(" ")) } else { said };
            (exit.success(), detail)
        }
        // A guest of another image has no such program.
        Err(Stop::Failed(why)) => (false, why),
        Err(stop) => return Err(stop),
    };
    Ok(Probe { name: name.into(), present, detail })
}
