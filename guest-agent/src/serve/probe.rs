//! Capabilities by name: whether the guest has what a test needs, and why or why not.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use protocol::Probe;

use super::launch::PATH;
use crate::kernel::links;
use crate::sys;

/// Says why it is there, or why it is not.
type Answer = Result<String, String>;

/// Answers for each name, in order.
pub fn probe(names: &[String]) -> Vec<Probe> {
    names
        .iter()
        .map(|name| {
            let answer = one(name);
            let present = answer.is_ok();
            Probe { name: name.clone(), present, detail: answer.unwrap_or_else(|why| why) }
        })
        .collect()
}

fn one(name: &str) -> Answer {
    match name.split_once(':') {
        Some(("tool", tool)) => find_tool(tool),
        Some(("module", module)) => find_module(module),
        Some(("config", symbol)) => find_config(symbol),
        Some(("file", path)) => find_file(path),
        Some(("sysctl", name)) => find_file(&format!("/proc/sys/{}", name.replace('.', "/"))),
        Some((kind, _)) => Err(format!("{kind} is no kind of capability (known: tool, module, config, file, sysctl)")),
        None => composed(name),
    }
}

fn composed(name: &str) -> Answer {
    match name {
        "rxe" => find_module("rdma_rxe"),
        "netkit" => link_kind("netkit"),
        "devmem" | "devmem-rx" => devmem().and_then(|_| find_file("/dev/udmabuf")),
        "udmabuf" => find_file("/dev/udmabuf"),
        "dma-heap" => find_file("/dev/dma_heap/system"),
        "tun" => find_file("/dev/net/tun"),
        "iommu" => iommu_groups(),
        "nic.header-split" => super::nic::header_split(),
        "nic.queue-lease" => super::nic::queue_lease(),
        _ => Err(format!("{name} is no capability this agent knows")),
    }
}

fn find_file(path: &str) -> Answer {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(path.to_string()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Looks a program up as exec does.
pub fn find_tool(name: &str) -> Answer {
    let usable =
        |path: &Path| fs::metadata(path).is_ok_and(|info| info.is_file() && info.permissions().mode() & 0o111 != 0);
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![name.into()]
    } else {
        PATH.split(':').map(|folder| Path::new(folder).join(name)).collect()
    };
    match candidates.into_iter().find(|path| usable(path)) {
        Some(path) => Ok(path.display().to_string()),
        None => Err(format!("no program {name} in {PATH}")),
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Loaded, built in, or there for modprobe.
fn find_module(name: &str) -> Answer {
    // The kernel says `_` where file names may say `-`.
    let plain = name.replace('-', "_");
    let folder = format!("/lib/modules/{}", release());
    if Path::new(&format!("/sys/module/{plain}/initstate")).exists() {
        return Ok("loaded".into());
    }
    let is_it = |line: &str| {
        let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        file.split(".ko").next().is_some_and(|stem| stem.replace('-', "_") == plain)
    };
    for (list, meaning) in [("modules.builtin", "built in"), ("modules.dep", "can be loaded")] {
        let text = fs::read_to_string(format!("{folder}/{list}")).unwrap_or_default();
        if let Some(line) = text.lines().find(|line| is_it(line)) {
            return Ok(format!("{meaning}: {}", line.split(':').next().unwrap_or_default()));
        }
    }
    Err(format!("module {name} is neither loaded nor built in nor in {folder}"))
}

/// The configuration of the running kernel, from the kit or from the kernel itself.
fn find_config(symbol: &str) -> Answer {
    let symbol = symbol.strip_prefix("CONFIG_").unwrap_or(symbol);
    let release = release();
    let places = [format!("/lib/modules/{release}/config"), format!("/boot/config-{release}")];
    let Some((place, text)) = places.iter().find_map(|place| Some((place, fs::read_to_string(place).ok()?))) else {
        return Err(format!("the kernel's configuration is not in the guest (looked for {})", places.join(", ")));
    };
    let prefix = format!("CONFIG_{symbol}=");
    match text.lines().find_map(|line| line.strip_prefix(&prefix)) {
        Some(value) => Ok(format!("{prefix}{value}")),
        None => Err(format!("CONFIG_{symbol} is not set in {place}")),
    }
}

/// Whether the kernel can bind dma-bufs to queues. Asking its configuration is quick; its symbol table, which takes
/// seconds under emulation, is asked only where the configuration is not at hand, and once.
fn devmem() -> Answer {
    const FUNCTION: &str = "net_devmem_bind_dmabuf";
    static SYMBOL: OnceLock<Answer> = OnceLock::new();
    let symbol = || {
        let text = fs::read_to_string("/proc/kallsyms").map_err(|error| format!("/proc/kallsyms: {error}"))?;
        let found = text.lines().any(|line| line.split_ascii_whitespace().nth(2) == Some(FUNCTION));
        if found {
            Ok(format!("the kernel has {FUNCTION}"))
        } else {
            Err(format!("the kernel has no function {FUNCTION}"))
        }
    };
    find_config("NET_DEVMEM").or_else(|_| SYMBOL.get_or_init(symbol).clone())
}

/// Makes an interface of the kind where nobody sees it: in a namespace that goes with its thread.
fn link_kind(kind: &str) -> Answer {
    let made = thread::scope(|scope| {
        let attempt = || -> io::Result<()> {
            sys::fresh_netns()?;
            links::create("probe0", kind)
        };
        let thread = thread::Builder::new().name("probe".into()).spawn_scoped(scope, attempt)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    });
    match made {
        Ok(()) => Ok(format!("an interface of kind {kind} can be made")),
        Err(error) => Err(format!("making an interface of kind {kind}: {error}")),
    }
}

fn iommu_groups() -> Answer {
    let groups = fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    if groups > 0 { Ok(format!("{groups} IOMMU groups")) } else { Err("the guest has no IOMMU groups".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(name: &str) -> Probe {
        probe(&[name.to_string()]).remove(0)
    }

    #[test]
    fn what_is_there_says_where_and_what_is_not_says_why() {
        let shell = present("tool:sh");
        assert!(shell.present && shell.detail.ends_with("/sh"), "{shell:?}");
        let none = present("tool:no-such-program");
        assert!(!none.present && none.detail.contains("no-such-program"), "{none:?}");
        assert!(present("sysctl:kernel.ostype").present);
        assert!(!present("file:/no/such/file").present);
        let module = present("module:no-such-module");
        assert!(!module.present && module.detail.contains("/lib/modules/"), "{module:?}");
    }

    #[test]
    fn a_name_nobody_knows_is_absent_and_says_so() {
        assert!(present("flux-capacitor").detail.contains("flux-capacitor"));
        assert!(present("flux:capacitor").detail.contains("known: tool"));
    }
}
