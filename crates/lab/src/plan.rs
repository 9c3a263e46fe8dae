//! From `lab.toml` and `lab.lock` to steps: what is to be made, what is there already, and why.
//!
//! In: a resolved model and the lock. Out: a [`Plan`], which is data. Making it reads files of the project and stats the
//! cache; it fetches, builds and starts nothing, so it takes milliseconds and can be printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use artifacts::{Cache, Change, Key, Kind, Lock, Recipe, Why};
use image::{BasePlan, Definition, Extra, InitramfsPlan, KitPlan};
use kernel::{KernelPlan, KernelRequest, Origin, SELFTESTS, UserTree};
use lab_config::{KernelOrigin, Lab};
use progress::Progress;
use serde::Serialize;

use crate::paths::LabPaths;
use crate::workshop::{self, Workshop};
use crate::{prepare, programs, provider};

/// What the command line adds to `lab.toml`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Use only what is in the cache.
    pub offline: bool,
    /// Refuse whatever `lab.lock` does not pin (a kernel tree of the user's own).
    pub locked: bool,
    /// Build source kernels from this tree as it stands.
    pub kernel_tree: Option<PathBuf>,
    /// Open a gdb stub for each guest.
    pub gdb: bool,
}

/// One step: something that is in the cache or has to be made.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// `kernel:patched`, `base:lab`, …
    pub id: String,
    /// A phrase for people.
    pub title: String,
    /// The part of the cache it is in.
    #[serde(skip)]
    pub kind: Kind,
    /// Its inputs.
    pub recipe: Recipe,
    /// Hash of the inputs.
    pub key: Key,
    /// Whether it is in the cache.
    pub cached: bool,
    /// Whether it has to be there for the boot, or for a step that has to be made.
    pub needed: bool,
}

/// Everything that brings a lab up.
#[derive(Debug)]
pub struct Plan {
    /// The lab.
    pub lab: Lab,
    /// The lock.
    pub lock: Lock,
    /// The cache.
    pub cache: Cache,
    /// What the command line said.
    pub options: Options,
    /// The kernels the guests boot, by name.
    pub kernels: BTreeMap<String, KernelPlan>,
    /// The base images the guests boot, by name.
    pub bases: BTreeMap<String, BasePlan>,
    /// What is laid over them, by kernel.
    pub kits: BTreeMap<String, KitPlan>,
    /// What the kernels boot with, by kernel.
    pub initramfs: BTreeMap<String, InitramfsPlan>,
    /// The steps in the order in which they can be made.
    pub steps: Vec<Step>,
}

/// Why a step would be made, for `lab why`.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// The step.
    pub step: String,
    /// Its key.
    pub key: Key,
    /// What the cache says.
    pub why: Why,
    /// Whether anything needs it.
    pub needed: bool,
}

impl Reason {
    /// One sentence.
    pub fn sentence(&self) -> &'static str {
        match (&self.why, self.needed) {
            (Why::Cached, _) => "is in the cache",
            (_, false) => "is not in the cache, and nothing needs it",
            (Why::Never, _) => "was never made here",
            (Why::Changed(_), _) => "has to be made again, since its inputs changed:",
        }
    }

    /// The inputs that changed.
    pub fn changes(&self) -> &[Change] {
        match &self.why {
            Why::Changed(changes) => changes,
            _ => &[],
        }
    }
}

impl Plan {
    /// Plans a lab.
    ///
    /// # Errors
    /// When a file of the project is wrong or missing.
    pub fn make(lab: Lab, options: Options, progress: &Progress) -> Result<Self> {
        let lock = Lock::load(&lab.root.join("lab.lock"))?;
        let cache = Cache::open()?.with_progress(progress);
        let tree = match &options.kernel_tree {
            Some(_) if options.locked => {
                bail!("--locked and --kernel-tree contradict each other: lab.lock cannot pin a tree of yours")
            }
            // git is the toolroot's, so looking at a tree may fetch that first: the one effect of planning.
            Some(dir) => Some(UserTree::scan(
                dir,
                &Workshop::open(&lab, &lock, &cache, options.offline, progress)?.root("build")?,
            )?),
            None => None,
        };
        let mut kernels = BTreeMap::new();
        let mut bases = BTreeMap::new();
        for guest in &lab.guests {
            if !kernels.contains_key(&guest.kernel) {
                kernels.insert(guest.kernel.clone(), kernel_plan(&lab, &guest.kernel, tree.as_ref(), &lock)?);
            }
            if !bases.contains_key(&guest.image) {
                let definition = Definition::load(&lab.root.join(&lab.images[&guest.image].definition))?;
                bases.insert(guest.image.clone(), image::base_plan(&guest.image, definition, &lock)?);
            }
        }
        let mut plan = Plan {
            lab,
            lock,
            cache,
            options,
            kernels,
            bases,
            kits: BTreeMap::new(),
            initramfs: BTreeMap::new(),
            steps: Vec::new(),
        };
        plan.find_steps()?;
        plan.mark_needed();
        Ok(plan)
    }

    fn find_steps(&mut self) -> Result<()> {
        let project = self.lab.root.clone();
        let vm = self.root_step("vm", "QEMU and image tools", &project)?;
        let build = self.root_step("build", "compilers and build tools", &project)?;
        let program = |program: &programs::Program| -> Result<Step> {
            let recipe = program.recipe(&project, &build.key)?;
            Ok(self.step(program.id, program.title.into(), Kind::Bin, recipe))
        };
        let agent = program(&programs::AGENT)?;
        let tools = programs::TOOLS.iter().map(program).collect::<Result<Vec<_>>>()?;
        let gvnic = self.lab.has_gvnic().then(|| program(&programs::GVNIC)).transpose()?;
        let agent_file = self.content_of(&agent).join(programs::AGENT.name);
        let recipe = provider::recipe(&project, &self.lock, &build.key)?;
        let provider = self.step(provider::ID, "RXE's provider for libibverbs".into(), Kind::Bin, recipe);
        let mut extras = vec![self.extra(provider::INSIDE, &provider, provider::LIBRARY)];
        let tools_of = programs::TOOLS.iter().zip(&tools);
        extras.extend(tools_of.map(|(tool, step)| self.extra(&tool.inside(), step, tool.name)));
        let agent_key = agent.key.clone();
        let mut steps = vec![vm, build, agent];
        steps.extend(tools);
        steps.push(provider);
        steps.extend(gvnic);
        for (name, base) in &self.bases {
            steps.push(self.step(
                &format!("base:{name}"),
                format!("base image {name}"),
                Kind::Image,
                base.recipe().clone(),
            ));
        }
        // Every image of the lab is written alike; the kit follows the first.
        let filesystem =
            self.bases.values().next().map(|b| b.definition.filesystem.clone()).context("the lab has no image")?;
        let (mut kits, mut initramfs) = (BTreeMap::new(), BTreeMap::new());
        for (name, plan) in &self.kernels {
            let kernel = self.step(&format!("kernel:{name}"), plan.summary(), Kind::Kernel, plan.recipe());
            let kit = image::kit_plan(name, &kernel.key, &extras, &filesystem, &self.lock)?;
            let initrd = image::initramfs_plan(name, &kernel.key, &agent_file, &agent_key);
            steps.push(kernel);
            steps.push(self.step(
                &format!("kit:{name}"),
                format!("modules and selftests of {name}, guest programs"),
                Kind::Image,
                kit.recipe().clone(),
            ));
            steps.push(self.step(
                &format!("initramfs:{name}"),
                format!("initramfs of {name}"),
                Kind::Image,
                initrd.recipe().clone(),
            ));
            kits.insert(name.clone(), kit);
            initramfs.insert(name.clone(), initrd);
        }
        (self.steps, self.kits, self.initramfs) = (steps, kits, initramfs);
        Ok(())
    }

    fn root_step(&self, root: &str, what: &str, project: &Path) -> Result<Step> {
        let recipe = toolroot::Toolroot::plan(&self.lock, root, &workshop::fix_ups(project)?)?;
        Ok(self.step(&format!("root:{root}"), what.into(), Kind::Root, recipe))
    }

    /// A file of a step's result, made or not, as part of a kit.
    fn extra(&self, inside: &str, step: &Step, file: &str) -> Extra {
        let source = self.content_of(step).join(file);
        Extra { inside: inside.into(), source, mode: 0o755, digest: step.key.clone() }
    }

    fn step(&self, id: &str, title: String, kind: Kind, recipe: Recipe) -> Step {
        let key = recipe.key();
        let cached = self.cache.lookup(kind, &key).is_some();
        Step { id: id.into(), title, kind, recipe, key, cached, needed: false }
    }

    /// What boots is needed; so is what something needs that has to be made.
    fn mark_needed(&mut self) {
        let to_do = |steps: &[Step], prefix: &str| steps.iter().any(|s| s.id.starts_with(prefix) && !s.cached);
        let steps = &self.steps;
        let (agent, kit) = (to_do(steps, "initramfs:"), to_do(steps, "kit:"));
        let in_kit = |id: &str| id == provider::ID || programs::TOOLS.iter().any(|tool| tool.id == id);
        let build = to_do(steps, "kernel:")
            || (agent && to_do(steps, programs::AGENT.id))
            || to_do(steps, programs::GVNIC.id)
            || (kit && steps.iter().any(|step| in_kit(&step.id) && !step.cached));
        for step in &mut self.steps {
            step.needed = match step.id.as_str() {
                "root:build" => build,
                id if id == programs::AGENT.id => agent,
                id if in_kit(id) => kit,
                _ => true,
            };
        }
    }

    /// A step by its name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn find(&self, id: &str) -> Result<&Step> {
        self.steps.iter().find(|s| s.id == id).with_context(|| {
            let names: Vec<&str> = self.steps.iter().map(|s| s.id.as_str()).collect();
            format!("there is no step `{id}`; there are {}", names.join(", "))
        })
    }

    /// Where a step's result is or will be.
    pub(crate) fn content(&self, id: &str) -> PathBuf {
        self.find(id).map_or_else(|_| PathBuf::from(id), |step| self.content_of(step))
    }

    fn content_of(&self, step: &Step) -> PathBuf {
        let path = || self.cache.root().join(step.kind.dir()).join(step.key.as_str()).join("content");
        self.cache.lookup(step.kind, &step.key).unwrap_or_else(path)
    }

    /// Steps that have to be made.
    pub fn to_do(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| s.needed && !s.cached)
    }

    /// One line: how much there is to do, and how long it took to find out.
    pub fn summary(&self, took: Duration) -> String {
        let to_do: Vec<&str> = self.to_do().map(|s| s.id.as_str()).collect();
        let done = if to_do.is_empty() { "nothing to build".into() } else { format!("to make: {}", to_do.join(", ")) };
        format!("planned {} steps in {} ms; {done}", self.steps.len(), took.as_millis())
    }

    /// Why steps would be made; all of them, or the one named.
    ///
    /// # Errors
    /// When there is no step of that name or the cache cannot be read.
    pub fn why(&self, step: Option<&str>) -> Result<Vec<Reason>> {
        let steps: Vec<&Step> = match step {
            Some(id) => vec![self.find(id)?],
            None => self.steps.iter().collect(),
        };
        steps
            .into_iter()
            .map(|s| {
                Ok(Reason { step: s.id.clone(), key: s.key.clone(), why: self.cache.why(&s.recipe)?, needed: s.needed })
            })
            .collect()
    }

    /// The plan for people, with the exact QEMU command lines.
    ///
    /// # Errors
    /// When the lab's folders cannot be named.
    pub fn to_text(&self) -> Result<String> {
        let mut out = format!(
            "lab `{}`{}\n\n",
            self.lab.name,
            self.lab.profile.as_ref().map_or(String::new(), |p| format!(", profile `{p}`"))
        );
        for step in &self.steps {
            let state = match (step.cached, step.needed) {
                (true, _) => "cached",
                (false, true) => "to do",
                (false, false) => "not needed",
            };
            let _ = writeln!(out, "{:<10} {:<22} {}  {}", state, step.id, step.key.short(), step.title);
        }
        for guest in prepare::preview(self, &LabPaths::new(&self.lab.root, &self.lab.name)?)? {
            let _ = writeln!(out, "\n# guest {}\n{}", guest.name, guest.shell_line());
        }
        Ok(out)
    }

    /// The plan for programs.
    ///
    /// # Errors
    /// When the lab's folders cannot be named.
    pub fn to_json(&self) -> Result<String> {
        let guests = prepare::preview(self, &LabPaths::new(&self.lab.root, &self.lab.name)?)?;
        let lines: BTreeMap<String, String> = guests.iter().map(|g| (g.name.clone(), g.shell_line())).collect();
        let json = serde_json::json!({ "lab": self.lab.name, "profile": self.lab.profile, "config": self.lab.config_hash(), "lock": self.lock.hash(), "steps": self.steps, "qemu": lines });
        Ok(serde_json::to_string_pretty(&json)? + "\n")
    }
}

/// Plans a kernel of `lab.toml`; with a tree of the user's own, kernels from source are built from that instead.
///
/// # Errors
/// When its series, fragments or lock entries are wrong or missing.
pub fn kernel_plan(lab: &Lab, name: &str, tree: Option<&UserTree>, lock: &Lock) -> Result<KernelPlan> {
    Ok(kernel::plan(&kernel_request(lab, name, tree)?, &lab.root, lock)?)
}

/// What `lab.toml` says about a kernel, as the builder wants it.
///
/// # Errors
/// When there is no such kernel.
pub fn kernel_request(lab: &Lab, name: &str, tree: Option<&UserTree>) -> Result<KernelRequest> {
    let declared = lab.kernels.get(name).with_context(|| {
        let names: Vec<&str> = lab.kernels.keys().map(String::as_str).collect();
        format!("no kernel `{name}` in lab.toml; there is {}", names.join(", "))
    })?;
    let mut request = KernelRequest {
        name: name.to_owned(),
        origin: Origin::Package(String::new()),
        series: declared.series.clone(),
        fragments: Vec::new(),
        debug_info: false,
        btf: false,
        selftests: SELFTESTS.map(str::to_owned).to_vec(),
    };
    match &declared.origin {
        KernelOrigin::Source { source, fragments, debug_info, btf } => {
            request.origin = match tree {
                Some(tree) => Origin::Tree(Box::new(tree.clone())),
                None => Origin::Source(source.clone()),
            };
            request.fragments.clone_from(fragments);
            request.debug_info = *debug_info;
            request.btf = *btf;
        }
        KernelOrigin::Package { package } => request.origin = Origin::Package(package.clone()),
        KernelOrigin::Rebuild { of } => match &lab.kernels[of].origin {
            KernelOrigin::Package { package } => request.origin = Origin::Rebuild(package.clone()),
            _ => bail!("kernel `{name}` rebuilds modules of `{of}`, which is not a package"),
        },
    }
    Ok(request)
}
