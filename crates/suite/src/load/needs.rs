//! What a test requires of its guests: what it says, and what follows from its steps.
//!
//! A program that is missing must read as "not here" and never as a result, so every program a step runs, every
//! selftest and every tool of a function is a requirement without anybody writing it down.

use crate::functions;
use crate::model::{Action, DETERMINISTIC, Requirement, Step};
use crate::nearest::hint;

/// Kinds of capability that carry an argument, and those that have a name of their own: the agent knows them, but for
/// [`DETERMINISTIC`], which is about the machine, and `rxe-dmabuf`, which a program in the guest tries.
const KINDS: [&str; 5] = ["tool", "module", "config", "file", "sysctl"];
const NAMES: [&str; 12] = [
    DETERMINISTIC,
    "rxe",
    "rxe-dmabuf",
    "netkit",
    "devmem",
    "devmem-rx",
    "udmabuf",
    "dma-heap",
    "tun",
    "iommu",
    "nic.header-split",
    "nic.queue-lease",
];

/// `CAPABILITY`, or `ROLE/CAPABILITY` when only one guest must have it.
pub(super) fn declared(text: &str, roles: &[String]) -> Result<Requirement, String> {
    let (role, capability) = match text.split_once('/').filter(|(role, _)| roles.iter().any(|known| known == role)) {
        Some((role, capability)) => (Some(role.to_string()), capability),
        None => (None, text),
    };
    match capability.split_once(':') {
        Some((kind, name)) if KINDS.contains(&kind) && !name.is_empty() => {}
        Some((kind, _)) => {
            return Err(format!("`requires`: `{kind}:` is no kind of capability{}", hint(kind, &KINDS)));
        }
        None if NAMES.contains(&capability) => {}
        None => return Err(format!("`requires`: no capability `{capability}`{}", hint(capability, &NAMES))),
    }
    Ok(Requirement { capability: capability.into(), role })
}

/// What a step cannot do without, in the role it runs in.
pub(super) fn implied(step: &Step) -> Vec<Requirement> {
    let mut names = Vec::new();
    match &step.action {
        Action::Exec(program, _) | Action::Spawn(program) | Action::Kselftest(program) => {
            let kind = if program.argv[0].contains('/') { "file" } else { "tool" };
            names.push(format!("{kind}:{}", program.argv[0]));
            names.extend(program.netns.iter().map(|_| "tool:ip".to_string()));
        }
        Action::Call { function, .. } => {
            let tools = functions::find(function).map_or(&[][..], |function| function.tools);
            names.extend(tools.iter().map(|tool| format!("tool:{tool}")));
        }
        _ => {}
    }
    // What only the running lab can fill in cannot be asked for by name.
    names.retain(|name| !name.contains('{'));
    names.into_iter().map(|capability| Requirement { capability, role: Some(step.role.clone()) }).collect()
}
