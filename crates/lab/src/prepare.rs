//! Makes what a plan says is missing, and turns the result into a [`Launch`].
//!
//! Three threads at most do the work: base images, the lab's own programs and kernels need nothing of each other, and
//! none of them keeps every processor busy all the time. Where they meet, in the kits, one waits for the other. The first that
//! fails stops the rest. A step that is cached costs one look; its inputs are not fetched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use image::{BuiltImage, Initramfs};
use kernel::BuiltKernel;
use lab_config::{Accelerator, Gdb, Lab};
use machine::{GdbStub, LaunchPlan, Nic, NicBackend, NicModel, QemuProgram};
use progress::Progress;
use suite::NicInfo;
use toolroot::Toolroot;

use crate::control::FaultSpec;
use crate::launch::{GuestLaunch, Launch, NetworkLaunch, PortLaunch};
use crate::paths::LabPaths;
use crate::plan::Plan;
use crate::workshop::Workshop;
use crate::{programs, provider};

/// Everything a boot needs, in the cache. Holding it keeps prune away.
#[derive(Debug)]
struct Artifacts {
    vm: Toolroot,
    bases: BTreeMap<String, BuiltImage>,
    kernels: BTreeMap<String, Booting>,
}

/// What one kernel boots with.
#[derive(Debug)]
struct Booting {
    kernel: BuiltKernel,
    kit: BuiltImage,
    initramfs: Initramfs,
}

/// Makes what is missing and says what to launch.
///
/// # Errors
/// With the step that failed; what was finished before it stays in the cache.
pub fn prepare(plan: &Plan, paths: &LabPaths, progress: &Progress) -> Result<Launch> {
    let mut launch = launch(plan, paths, &make(plan, progress)?)?;
    settle_accelerator(&mut launch, progress);
    Ok(launch)
}

/// Spares guests the attempt on a KVM that cannot even run a few instructions. The machine still tries a KVM that can:
/// only a kernel that boots on it proves it.
fn settle_accelerator(launch: &mut Launch, progress: &Progress) {
    if !launch.guests.iter().any(|g| g.plan.accelerator == machine::Accelerator::Auto) {
        return;
    }
    let kvm = host::kvm::probe();
    if kvm.level == host::kvm::KvmLevel::Runs {
        return;
    }
    let why = kvm.stopped_by.unwrap_or_else(|| "it is not there".into());
    progress.warn(format!("KVM cannot run a guest here ({why}); emulating with TCG"));
    for guest in &mut launch.guests {
        if guest.plan.accelerator == machine::Accelerator::Auto {
            guest.plan.accelerator = machine::Accelerator::Tcg;
        }
    }
}

/// Makes the images of a plan: what each is, and the image.
///
/// # Errors
/// With the step that failed.
pub fn images(plan: &Plan, progress: &Progress) -> Result<Vec<(String, BuiltImage)>> {
    let made = make(plan, progress)?;
    let bases = made.bases.into_iter().map(|(name, image)| (format!("base:{name}"), image));
    let kits = made.kernels.into_iter().map(|(name, booting)| (format!("kit:{name}"), booting.kit));
    Ok(bases.chain(kits).collect())
}

fn make(plan: &Plan, progress: &Progress) -> Result<Artifacts> {
    let together = progress.part();
    let workshop = Workshop::open(&plan.lab, &plan.lock, &plan.cache, plan.options.offline, &together)?;
    let vm = workshop.root("vm")?;
    let ctx = image::Ctx { cache: &plan.cache, fetcher: workshop.fetcher(), vm: &vm, progress: &together };
    let reason = Mutex::new(None);
    let (bases, booting) = std::thread::scope(|scope| {
        let bases = scope.spawn(|| stop_others(bases(plan, &ctx), &together, &reason));
        let programs = scope.spawn(|| stop_others(guest_programs(plan, &workshop, &together), &together, &reason));
        let kernels = workshop.with_kernel_ctx(|kernel_ctx| kernels(plan, kernel_ctx));
        let kernels = stop_others(kernels, &together, &reason);
        let programs = programs.join().expect("making the programs does not panic");
        let booting = kernels.zip(programs).map(|(kernels, ())| kits(plan, kernels, &ctx));
        let booting = booting.and_then(|booting| stop_others(booting, &together, &reason));
        (bases.join().expect("making the base images does not panic"), booting)
    });
    match (bases, booting, reason.into_inner().unwrap_or_else(PoisonError::into_inner)) {
        (Some(bases), Some(kernels), None) => Ok(Artifacts { vm, bases, kernels }),
        (_, _, reason) => Err(reason.unwrap_or_else(|| progress::Cancelled.into())),
    }
}

/// Keeps the first failure as the reason for all others, and stops what else is under way: nobody needs it.
fn stop_others<T>(result: Result<T>, together: &Progress, reason: &Mutex<Option<anyhow::Error>>) -> Option<T> {
    result
        .map_err(|error| {
            reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            together.cancel().cancel();
        })
        .ok()
}

fn bases(plan: &Plan, ctx: &image::Ctx<'_>) -> Result<BTreeMap<String, BuiltImage>> {
    plan.bases.iter().map(|(name, base)| Ok((name.clone(), image::build_base(base, ctx)?))).collect()
}

/// Makes the lab's own programs, in guests and beside them.
fn guest_programs(plan: &Plan, workshop: &Workshop<'_>, progress: &Progress) -> Result<()> {
    let to_do = |id: &str| plan.to_do().any(|step| step.id == id);
    for program in programs::TOOLS.iter().chain([&programs::AGENT, &programs::GVNIC]) {
        if to_do(program.id) {
            program.build(plan, &workshop.root("build")?, progress)?;
        }
    }
    if to_do(provider::ID) {
        provider::build(plan, workshop, progress)?;
    }
    Ok(())
}

fn kernels(plan: &Plan, ctx: &kernel::Ctx<'_>) -> Result<BTreeMap<String, BuiltKernel>> {
    plan.kernels.iter().map(|(name, kernel)| Ok((name.clone(), kernel::build(kernel, ctx)?))).collect()
}

/// Joins kernels and programs to what each kernel boots with.
fn kits(
    plan: &Plan,
    kernels: BTreeMap<String, BuiltKernel>,
    ctx: &image::Ctx<'_>,
) -> Result<BTreeMap<String, Booting>> {
    let mut booting = BTreeMap::new();
    for (name, kernel) in kernels {
        let kit = image::build_kit(&plan.kits[&name], &kernel.artifacts, ctx)?;
        let initramfs = image::build_initramfs(&plan.initramfs[&name], &kernel.artifacts, ctx.cache, ctx.progress)?;
        booting.insert(name, Booting { kernel, kit, initramfs });
    }
    Ok(booting)
}

/// Where a launch's files are: made, or not made yet and named for a preview.
enum Resolved<'a> {
    Made(&'a Artifacts),
    Preview(&'a Plan),
}

impl Resolved<'_> {
    fn qemu(&self) -> Result<QemuProgram> {
        let vm_dir = match self {
            Resolved::Made(artifacts) => artifacts.vm.dir().to_path_buf(),
            Resolved::Preview(plan) => plan.content("root:vm"),
        };
        let share = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"].map(|d| vm_dir.join(d)).to_vec();
        let argv_prefix = match self {
            Resolved::Made(artifacts) => artifacts.vm.loader_argv("qemu-system-x86_64")?,
            // Not unpacked yet: the name stands for what it will be.
            Resolved::Preview(plan) => match Toolroot::foreign("vm", &vm_dir, plan.lock.hash()) {
                Ok(root) => root.loader_argv("qemu-system-x86_64")?,
                Err(_) => vec![vm_dir.join("usr/bin/qemu-system-x86_64").into()],
            },
        };
        Ok(QemuProgram { argv_prefix, share_dirs: share })
    }

    fn base(&self, image: &str) -> PathBuf {
        match self {
            Resolved::Made(artifacts) => artifacts.bases[image].path.clone(),
            Resolved::Preview(plan) => plan.content(&format!("base:{image}")).join("base.erofs"),
        }
    }

    fn kernel(&self, name: &str) -> (PathBuf, PathBuf, PathBuf) {
        match self {
            Resolved::Made(artifacts) => {
                let booting = &artifacts.kernels[name];
                (booting.kernel.artifacts.image.clone(), booting.kit.path.clone(), booting.initramfs.path.clone())
            }
            Resolved::Preview(plan) => (
                plan.content(&format!("kernel:{name}")).join("bzImage"),
                plan.content(&format!("kit:{name}")).join("kit.erofs"),
                plan.content(&format!("initramfs:{name}")).join("initramfs.cpio"),
            ),
        }
    }
}

/// The command lines that a launch would have, whether or not anything of it exists yet.
///
/// # Errors
/// When the lab's folders cannot be named.
pub fn preview(plan: &Plan, paths: &LabPaths) -> Result<Vec<LaunchPlan>> {
    let resolved = Resolved::Preview(plan);
    plan.lab.guests.iter().map(|guest| launch_plan(plan, guest, paths, &resolved)).collect()
}

fn launch(plan: &Plan, paths: &LabPaths, artifacts: &Artifacts) -> Result<Launch> {
    let resolved = Resolved::Made(artifacts);
    // Of the root with the compilers, which is there whenever something was built here.
    let addr2line = Toolroot::foreign("build", &plan.content("root:build"), plan.lock.hash())
        .and_then(|root| Ok(root.loader_argv("addr2line")?))
        .unwrap_or_default();
    let mut guests = Vec::new();
    for guest in &plan.lab.guests {
        let kernel = &artifacts.kernels[&guest.kernel].kernel.artifacts;
        let launch_plan = launch_plan(plan, guest, paths, &resolved)?;
        launch_plan.check().with_context(|| format!("guest `{}` of lab.toml cannot be launched", guest.name))?;
        guests.push(GuestLaunch {
            plan: launch_plan,
            kernel: guest.kernel.clone(),
            kernel_release: kernel.release.clone(),
            kernel_tree: kernel.tree_id.clone(),
            kernel_dir: kernel.dir.clone(),
            addr2line: addr2line.clone(),
            nics: guest.nics.iter().map(nic_info).collect(),
            mtus: guest.nics.iter().map(|n| n.mtu).collect(),
        });
    }
    Ok(Launch {
        name: paths.name.clone(),
        project: paths.project.clone(),
        boot_timeout: plan.lab.machine.boot_timeout,
        guests,
        networks: networks(&plan.lab, paths),
    })
}

fn launch_plan(plan: &Plan, guest: &lab_config::Guest, paths: &LabPaths, resolved: &Resolved) -> Result<LaunchPlan> {
    let machine = &plan.lab.machine;
    let (kernel, kit, initramfs) = resolved.kernel(&guest.kernel);
    let mut launch =
        LaunchPlan::new(&guest.name, resolved.qemu()?, kernel, paths.runtime.clone(), paths.logs().join(&guest.name));
    launch.cpus = guest.cpus;
    launch.memory_mib = guest.memory_mib;
    launch.initrd = Some(initramfs);
    launch.cmdline.clone_from(&guest.cmdline);
    launch.layers = vec![resolved.base(&guest.image), kit];
    for (n, nic) in guest.nics.iter().enumerate() {
        let mtu =
            u16::try_from(nic.mtu).with_context(|| format!("guest `{}`: MTU {} is too large", guest.name, nic.mtu))?;
        let cable = port_socket(paths, &guest.name, n);
        let (model, backend) = match nic.model {
            lab_config::NicModel::Virtio => (NicModel::Virtio, NicBackend::Stream { socket: cable }),
            lab_config::NicModel::Igb => (NicModel::Igb, NicBackend::Stream { socket: cable }),
            lab_config::NicModel::Gvnic => {
                let program = gvnic(plan, &launch, nic, n, &cable)?;
                (NicModel::VfioUser, NicBackend::Process { program })
            }
        };
        launch.nics.push(Nic { model, mac: nic.mac.0, backend, mtu });
    }
    launch.accelerator = match machine.accelerator {
        Accelerator::Auto => machine::Accelerator::Auto,
        Accelerator::Kvm => machine::Accelerator::Kvm,
        Accelerator::Tcg => machine::Accelerator::Tcg,
    };
    let gdb = if plan.options.gdb && machine.gdb == Gdb::Off { Gdb::Listen } else { machine.gdb };
    launch.gdb = (gdb != Gdb::Off).then(|| GdbStub { listen: None, hold: gdb == Gdb::Wait });
    launch.icount = machine.icount;
    launch.iommu = machine.iommu;
    launch.verdict_dir = Some(plan.cache.root().join("accelerators"));
    // Any number but 0; sessions of one guest count up from it.
    launch.nonce = 1;
    Ok(launch)
}

/// The command line of the process behind a gvnic.
fn gvnic(plan: &Plan, launch: &LaunchPlan, nic: &lab_config::Nic, index: usize, cable: &Path) -> Result<Vec<OsString>> {
    let program = plan.content(programs::GVNIC.id).join(programs::GVNIC.name);
    let mut words = vec![program.into_os_string()];
    let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
    option("--socket", launch.device_socket(index).into());
    option("--control", launch.device_control(index).into());
    option("--switch", cable.into());
    option("--mac", nic.mac.to_string().into());
    option("--mtu", nic.mtu.to_string().into());
    option("--queues", nic.queues.to_string().into());
    if !nic.faults.list.is_empty() {
        option("--faults", serde_json::to_string(&nic.faults).context("cannot write a NIC's faults down")?.into());
    }
    Ok(words)
}

fn nic_info(nic: &lab_config::Nic) -> NicInfo {
    NicInfo {
        network: nic.network.clone(),
        device: nic.interface.clone(),
        mac: nic.mac.to_string(),
        addresses: nic.addresses.iter().map(ToString::to_string).collect(),
    }
}

fn port_socket(paths: &LabPaths, guest: &str, n: usize) -> PathBuf {
    paths.runtime.join(format!("{guest}.{n}.net"))
}

fn networks(lab: &Lab, paths: &LabPaths) -> Vec<NetworkLaunch> {
    let mut networks = Vec::new();
    for network in lab.networks.values() {
        let mut ports = Vec::new();
        for guest in &lab.guests {
            for (n, nic) in guest.nics.iter().enumerate() {
                if nic.network == network.name {
                    let name = format!("{}.{n}", guest.name);
                    ports.push(PortLaunch {
                        name,
                        guest: guest.name.clone(),
                        socket: port_socket(paths, &guest.name, n),
                    });
                }
            }
        }
        if ports.is_empty() {
            continue;
        }
        let mut faults = Vec::new();
        for from in &ports {
            for to in ports.iter().filter(|to| to.name != from.name) {
                let link = network.links.iter().find(|l| l.from == from.guest && l.to == to.guest);
                let fault = link.map_or(&network.fault, |l| &l.fault);
                if !fault.is_none() {
                    faults.push((from.name.clone(), to.name.clone(), FaultSpec::from_config(fault)));
                }
            }
        }
        networks.push(NetworkLaunch {
            name: network.name.clone(),
            mtu: network.mtu,
            seed: network.seed,
            ports,
            faults,
        });
    }
    networks
}
