//! The base image: packages of the lock, pruned, fixed up, with bytecode; the same for every kernel.
//!
//! [`BasePlan`] is pure data made from definition and lock; [`build_base`] looks its key up in the cache or does the
//! work: packages stream into a tree, the tree gets its fix-ups and bytecode, and leaves as a tar into `mkfs.erofs`.

use anyhow::{Context as _, Result};
use artifacts::{Deb, Key, Kind, Lock, Recipe, sha256_bytes};

use crate::built::{self, BuiltImage, Ctx};
use crate::definition::Definition;
use crate::manifest::Manifest;
use crate::payload::{self, Package};
use crate::{fixups, python};

/// Raised whenever the same inputs would give another image.
const FORMAT: u32 = 1;
/// The image's file name.
pub const FILE: &str = "base.erofs";
/// Packages of root `vm` whose code decides the bytes of an image.
const WRITERS: [&str; 6] = ["erofs-utils", "libdeflate0", "liblz4-1", "liblzma5", "libzstd1", "zlib1g"];

/// What a base image is made of.
#[derive(Debug, Clone)]
pub struct BasePlan {
    /// Name of the image in `lab.toml`.
    pub name: String,
    /// Its definition.
    pub definition: Definition,
    /// Its packages, sorted by name.
    pub debs: Vec<Deb>,
    recipe: Recipe,
}

/// Plans the image `name` (of `lab.toml`) from its definition and the lock. Nothing is touched.
pub fn base_plan(name: &str, definition: Definition, lock: &Lock) -> Result<BasePlan> {
    let blame = || format!("image {name}");
    let root = lock.root(&definition.root).with_context(blame)?;
    let writers = writers(lock).with_context(blame)?;
    let text = serde_json::to_vec(&definition).with_context(blame)?;
    let mut recipe = Recipe::new(&format!("image:{name}"))
        .value("format", FORMAT)
        .key_of("definition", &sha256_bytes(&text))
        .value("mkfs", &writers);
    for deb in &root.debs {
        recipe = recipe.key_of(&deb.id(), &deb.sha256);
    }
    let debs = root.debs.iter().map(|deb| (*deb).clone()).collect();
    Ok(BasePlan { name: name.to_owned(), definition, debs, recipe })
}

/// Stands for the programs that write images, in the keys of images.
pub(crate) fn writers(lock: &Lock) -> Result<String> {
    let debs = lock.root("vm")?.debs;
    let chosen: Vec<String> = debs.iter().filter(|deb| WRITERS.contains(&deb.name.as_str())).map(|d| d.id()).collect();
    Ok(chosen.join(" "))
}

impl BasePlan {
    /// The recipe, for [`artifacts::Cache::why`].
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The key of the image.
    pub fn key(&self) -> Key {
        self.recipe.key()
    }
}

/// Has the base image in the cache: looks it up, or fetches its packages and builds it.
pub fn build_base(plan: &BasePlan, ctx: &Ctx<'_>) -> Result<BuiltImage> {
    let built = ctx.cache.with_progress(ctx.progress).get_or_build(Kind::Image, &plan.recipe, |dir| {
        let debs: Vec<&Deb> = plan.debs.iter().collect();
        let paths = ctx.fetcher.labelled(&plan.definition.root).debs(&debs)?;
        let packages: Vec<Package> = plan
            .debs
            .iter()
            .zip(paths)
            .map(|(deb, path)| Package { name: deb.name.clone(), version: deb.version.clone(), path })
            .collect();
        fill(&plan.name, &plan.definition, &packages, dir, ctx)
    })?;
    if built.cached {
        ctx.progress.step(format!("image:{}", plan.name), format!("base image {}", plan.name)).cached();
    }
    BuiltImage::open(built)
}

/// Makes the base image of `packages` in the empty directory `dir`.
fn fill(name: &str, definition: &Definition, packages: &[Package], dir: &std::path::Path, ctx: &Ctx<'_>) -> Result<()> {
    let step = ctx.progress.step(format!("image:{name}"), format!("unpack packages for image {name}"));
    let mut payload = payload::unpack(packages, &definition.prune, &step)?;
    let origin = std::sync::Arc::from(fixups::ORIGIN);
    payload.tree.settle(&origin)?;
    fixups::apply(definition, &mut payload.tree)?;
    step.done();

    python::compile(name, &definition.python, &mut payload.tree, ctx.cache, ctx.progress)?;
    let manifest = Manifest::of(&payload.tree, packages, &payload.pruned);
    built::publish(&payload.tree, &definition.filesystem, &manifest, dir, FILE, ctx)
}
