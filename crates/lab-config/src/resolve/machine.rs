//! How guests are run.

use std::time::Duration;

use crate::errors::Diag;
use crate::file::At;
use crate::model::{Accelerator, Gdb, Guest, Machine};

use super::Resolver;

const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn resolve(r: &mut Resolver<'_>, guests: &[Guest]) -> Machine {
    let table = &r.file.machine;
    let boot_timeout = table.boot_timeout.as_ref().map_or(DEFAULT_BOOT_TIMEOUT, |t| t.get().0);
    if let Some(given) = &table.boot_timeout
        && !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&boot_timeout)
    {
        let problem = "no guest boots in less than a second, and none should take more than an hour";
        r.report(Diag::new(given.span(), problem).allowed("from \"1s\" to \"1h\""));
    }
    let accelerator = table.accelerator.as_ref().map_or(Accelerator::Auto, |a| *a.get());
    let icount = table.icount.as_ref().filter(|i| *i.get());
    if let Some(icount) = icount {
        deterministic(r, icount, accelerator, guests);
    }
    Machine {
        accelerator: if icount.is_some() { Accelerator::Tcg } else { accelerator },
        boot_timeout,
        gdb: table.gdb.as_ref().map_or(Gdb::Off, |g| *g.get()),
        icount: icount.is_some(),
        iommu: table.iommu.as_ref().is_some_and(|iommu| *iommu.get()),
    }
}

/// What counting instructions takes: it is TCG's, it serialises CPUs, and it means nothing between guests.
fn deterministic(r: &mut Resolver<'_>, icount: &At<bool>, accelerator: Accelerator, guests: &[Guest]) {
    let file = r.file;
    if let Some(given) = file.machine.accelerator.as_ref().filter(|_| accelerator == Accelerator::Kvm) {
        let diag = Diag::new(icount.span(), "KVM cannot count instructions");
        r.report(diag.allowed("with the accelerators auto and tcg").place("the accelerator is set at", given.span()));
    }
    if guests.len() > 1 {
        let names: Vec<&str> = guests.iter().map(|g| g.name.as_str()).collect();
        let problem =
            format!("{} guests ({}) would count instructions, each for itself", guests.len(), names.join(", "));
        let diag = Diag::new(icount.span(), problem).allowed("with one guest");
        r.report(diag.note("choose the guest that boots with `guests` in [lab]"));
    } else if let Some(guest) = guests.iter().find(|g| g.cpus > 1) {
        let problem =
            format!("guest `{}` has {} CPUs, whose instructions cannot be counted together", guest.name, guest.cpus);
        let diag = Diag::new(icount.span(), problem).allowed("with one CPU");
        let cpus = file.guest.iter().find(|(n, _)| n.get().0 == guest.name).and_then(|(_, t)| t.cpus.as_ref());
        r.report(match cpus {
            Some(cpus) => diag.place("its CPUs are set at", cpus.span()),
            None => diag.note(format!("set `cpus = 1` in [guest.{}]", guest.name)),
        });
    }
}
