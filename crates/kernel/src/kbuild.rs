//! Which modules a set of changed files ends up in, read from kbuild's makefiles and a final `.config`.
//!
//! A binary kernel can take over a changed module, never changed built-in code: everything a series touches must
//! belong to modules, or be no part of the kernel at all. What does not fit is refused with its name and the reason.

use std::collections::{BTreeMap, BTreeSet};

/// Paths that are never compiled into a kernel.
const NOT_KERNEL: [&str; 6] = ["tools/", "Documentation/", "samples/", "LICENSES/", "MAINTAINERS", "CREDITS"];

/// What changed files come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Directories whose modules have to be rebuilt, with the modules' names.
    pub modules: BTreeMap<String, BTreeSet<String>>,
}

/// A changed file that cannot be taken over by rebuilding modules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is compiled into the kernel itself.
    #[error("{path} is built into the kernel ({why})")]
    BuiltIn {
        /// The file.
        path: String,
        /// The option or rule that makes it so.
        why: String,
    },
    /// It is not compiled at all in this configuration.
    #[error("{path} is not compiled in this kernel ({option} is not set)")]
    Off {
        /// The file.
        path: String,
        /// The option that would.
        option: String,
    },
    /// Other code, perhaps built in, is compiled with it.
    #[error("{path} is shared with code that is built into the kernel")]
    Shared {
        /// The file.
        path: String,
    },
    /// No makefile says what becomes of it.
    #[error("{path}: no makefile says which module it belongs to")]
    Unknown {
        /// The file.
        path: String,
    },
}

/// One object of a makefile: its name without suffix, and what switches it on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: String,
    condition: String,
}

/// What a directory's makefile says.
#[derive(Debug, Default)]
struct Rules {
    /// `obj-… += name.o`.
    targets: Vec<Target>,
    /// `name-y := part.o …`, by part.
    parts: BTreeMap<String, BTreeSet<String>>,
}

/// Sorts out `changed`. `makefile` gives the text of a directory's makefile in the patched tree, `option` the value of
/// an option in the kernel's configuration.
pub fn affected<'a>(
    changed: impl IntoIterator<Item = &'a str>,
    makefile: impl Fn(&str) -> Option<String>,
    option: impl Fn(&str) -> Option<String>,
) -> Result<Affected, Refused> {
    let mut affected = Affected::default();
    for path in changed {
        if NOT_KERNEL.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        let (dir, file) = path.rsplit_once('/').unwrap_or(("", path));
        let shared = ["include/", "arch/", "scripts/"].iter().any(|start| path.starts_with(start));
        if dir.is_empty() || shared || file.starts_with("Kconfig") {
            return Err(Refused::Shared { path: path.into() });
        }
        let unknown = || Refused::Unknown { path: path.into() };
        let rules = Rules::parse(&makefile(dir).ok_or_else(unknown)?);
        let owners = match file.rsplit_once('.') {
            Some((stem, "c" | "S" | "rs")) => rules.owners(stem),
            // A header or the makefile itself may reach every object of its directory.
            _ => rules.targets.clone(),
        };
        if owners.is_empty() {
            return Err(unknown());
        }
        for owner in owners {
            let why = match owner.condition.as_str() {
                "y" => Err("obj-y".to_string()),
                "m" => Ok(()),
                name => match option(name).as_deref() {
                    Some("m") => Ok(()),
                    Some(_) => Err(format!("{name}=y")),
                    None if file.ends_with(".c") => {
                        return Err(Refused::Off { path: path.into(), option: name.into() });
                    }
                    // A header is also for objects that are off.
                    None => continue,
                },
            };
            why.map_err(|why| Refused::BuiltIn { path: path.into(), why })?;
            affected.modules.entry(dir.into()).or_default().insert(owner.name);
        }
        if !affected.modules.contains_key(dir) {
            return Err(unknown());
        }
    }
    Ok(affected)
}

impl Rules {
    fn parse(text: &str) -> Self {
        let mut rules = Rules::default();
        for line in text.replace("\\\n", " ").lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((left, right)) = line.split_once('=') else { continue };
            let left = left.trim_end_matches(['+', ':', '?']).trim();
            let objects = || right.split_whitespace().filter_map(|word| word.strip_suffix(".o")).map(str::to_string);
            if let Some(condition) = left.strip_prefix("obj-") {
                let condition = plain(condition);
                rules.targets.extend(objects().map(|name| Target { name, condition: condition.clone() }));
            } else if let Some((name, _)) = left.rsplit_once("-objs").filter(|(_, rest)| rest.is_empty()) {
                objects().for_each(|part| rules.add(part, name));
            } else if let Some((name, condition)) = left.rsplit_once('-')
                && (condition == "y" || condition == "m" || condition.starts_with("$("))
            {
                objects().for_each(|part| rules.add(part, name));
            }
        }
        rules
    }

    fn add(&mut self, part: String, whole: &str) {
        self.parts.entry(part).or_default().insert(whole.into());
    }

    /// The targets that an object ends up in.
    fn owners(&self, object: &str) -> Vec<Target> {
        let mut names = BTreeSet::from([object.to_string()]);
        names.extend(self.parts.get(object).into_iter().flatten().cloned());
        self.targets.iter().filter(|target| names.contains(&target.name)).cloned().collect()
    }
}

/// `CONFIG_X` of `$(CONFIG_X)`, or the condition as it stands.
fn plain(condition: &str) -> String {
    condition.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(condition).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str = "# comment\nobj-$(CONFIG_RDMA_RXE) += rdma_rxe.o\nrdma_rxe-y := \\\n\trxe.o \\\n\trxe_net.o\n\
                            rdma_rxe-$(CONFIG_ODP) += rxe_odp.o\nccflags-y += -DX=1\n";
    const MIXED: &str = "obj-y += core.o\nobj-$(CONFIG_NETKIT) += netkit.o\nobj-$(CONFIG_DUMMY) += dummy.o\n\
                         obj-$(CONFIG_ODD) += odd.o\n";

    fn ask(paths: &[&str]) -> Result<Affected, Refused> {
        affected(
            paths.iter().copied(),
            |dir| match dir {
                "drivers/infiniband/sw/rxe" => Some(MAKEFILE.into()),
                "drivers/net" => Some(MIXED.into()),
                _ => None,
            },
            |option| match option {
                "CONFIG_RDMA_RXE" | "CONFIG_DUMMY" => Some("m".into()),
                "CONFIG_NETKIT" => Some("y".into()),
                _ => None,
            },
        )
    }

    #[test]
    fn files_of_modules_are_found_through_their_parts() {
        let rxe = Affected { modules: [("drivers/infiniband/sw/rxe".into(), ["rdma_rxe".into()].into())].into() };
        for file in ["rxe_net.c", "rxe_odp.c", "rxe_loc.h", "Makefile"] {
            let path = format!("drivers/infiniband/sw/rxe/{file}");
            assert_eq!(ask(&[&path, "tools/testing/selftests/rdma/Makefile"]).as_ref(), Ok(&rxe), "{file}");
        }
        assert_eq!(ask(&["drivers/net/dummy.c"]).unwrap().modules["drivers/net"], ["dummy".into()].into());
        assert_eq!(ask(&["Documentation/x.rst"]), Ok(Affected::default()));
    }

    #[test]
    fn what_a_module_cannot_carry_is_refused_by_name() {
        for (path, said) in [
            ("drivers/net/core.c", "drivers/net/core.c is built into the kernel (obj-y)"),
            ("drivers/net/netkit.c", "drivers/net/netkit.c is built into the kernel (CONFIG_NETKIT=y)"),
            ("drivers/net/odd.c", "drivers/net/odd.c is not compiled in this kernel (CONFIG_ODD is not set)"),
            ("drivers/net/x.h", "drivers/net/x.h is built into the kernel (obj-y)"),
            ("include/rdma/ib_verbs.h", "include/rdma/ib_verbs.h is shared with code"),
            ("drivers/infiniband/sw/rxe/Kconfig", "is shared with code"),
            ("Makefile", "Makefile is shared with code"),
            ("drivers/infiniband/sw/rxe/stray.c", "no makefile says which module"),
            ("net/core/dev.c", "no makefile says which module"),
        ] {
            let refused = ask(&[path]).unwrap_err().to_string();
            assert!(refused.contains(said), "{path}: {refused}");
        }
    }
}
