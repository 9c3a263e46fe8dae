//! Guests: which boot, on what.

use crate::errors::Diag;
use crate::file::{At, GuestTable, Name};
use crate::model::Guest;

use super::{Resolver, nics, text};

const DEFAULT_CPUS: u32 = 2;
const DEFAULT_MEMORY_MIB: u64 = 1024;
/// What kernel, initramfs and a test's processes need; the root file system is read from disk.
const LEAST_MEMORY_MIB: u64 = 256;
const MOST_MEMORY_MIB: u64 = 1 << 20;

/// The guests that boot. All guests of the file are checked, whether they boot or not.
pub(super) fn resolve(r: &mut Resolver<'_>) -> Vec<Guest> {
    let file = r.file;
    r.refers_to("image", &file.lab.image, &file.image);
    let nics = nics::resolve(r);
    let mut guests: Vec<Guest> = Vec::new();
    for ((name, table), nics) in file.guest.iter().zip(nics) {
        let image = reference(r, "image", &table.image, &file.lab.image);
        let kernel = reference(r, "kernel", &table.kernel, &file.lab.kernel);
        guests.push(Guest {
            name: text(name),
            image,
            kernel,
            own_kernel: table.kernel.is_some(),
            cpus: table.cpus.as_ref().map_or(DEFAULT_CPUS, |cpus| *cpus.get()),
            memory_mib: memory(r, name, table),
            cmdline: table.cmdline.iter().map(|p| p.get().0.clone()).collect(),
            nics,
        });
    }
    let Some(chosen) = &file.lab.guests else { return guests };
    let mut boots = Vec::new();
    for name in chosen.get() {
        if r.refers_to("guest", name, &file.guest) {
            boots.extend(guests.iter().find(|g| g.name == name.get().0).cloned());
        }
    }
    boots
}

fn reference(r: &mut Resolver<'_>, what: &str, own: &Option<At<Name>>, default: &At<Name>) -> String {
    let file = r.file;
    if let Some(name) = own {
        match what {
            "image" => r.refers_to(what, name, &file.image),
            _ => r.refers_to(what, name, &file.kernel),
        };
    }
    text(own.as_ref().unwrap_or(default))
}

fn memory(r: &mut Resolver<'_>, name: &At<Name>, table: &GuestTable) -> u64 {
    let Some(memory) = &table.memory else { return DEFAULT_MEMORY_MIB };
    let mib = memory.get().0;
    let problem = match mib {
        0 => format!("guest `{}` has no memory at all", name.get().0),
        _ if mib < LEAST_MEMORY_MIB => {
            format!("{mib}MiB of memory are too little for guest `{}` to boot", name.get().0)
        }
        _ if mib > MOST_MEMORY_MIB => format!("guest `{}` asks for more than a terabyte of memory", name.get().0),
        _ => return mib,
    };
    r.report(Diag::new(memory.span(), problem).allowed("from \"256MiB\" to \"1TiB\""));
    DEFAULT_MEMORY_MIB
}
