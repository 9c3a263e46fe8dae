//! Finding the project and its labs from wherever the command was started.

use std::path::PathBuf;

use anyhow::{Result, bail};
use lab::client::Client;
use lab::config::Lab;
use lab::journal::{Found, find};
use lab::paths::LabPaths;

use crate::flags::{LabArgs, Which};

/// The project's root: the nearest folder upwards that holds a `lab.toml`.
pub fn project() -> Result<PathBuf> {
    let start = std::env::current_dir()?;
    for dir in start.ancestors() {
        if dir.join("lab.toml").is_file() {
            return Ok(dir.to_path_buf());
        }
    }
    bail!("there is no lab.toml in {} or above it", start.display())
}

/// The lab as its file, the profile and the command line make it.
pub fn load(args: &LabArgs) -> Result<Lab> {
    let mut lab = Lab::load(&project()?.join("lab.toml"), args.profile.as_deref())?;
    if let Some(kernel) = &args.kernel {
        lab = lab.with_kernel(kernel)?;
    }
    if let Some(name) = &args.name {
        lab.name.clone_from(name);
    }
    Ok(lab)
}

/// The folders of the lab that is meant.
pub fn paths(which: &Which) -> Result<LabPaths> {
    let project = project()?;
    let name = match &which.name {
        Some(name) => name.clone(),
        None => Lab::load(&project.join("lab.toml"), None)?.name,
    };
    LabPaths::new(&project, &name)
}

/// A client of a lab that runs.
pub fn client(which: &Which) -> Result<Client> {
    let paths = paths(which)?;
    match find(&paths)? {
        Found::Running(_) => Ok(Client::new(paths)),
        Found::Nothing => bail!("lab `{}` is not up; bring it up with `cargo xtask lab up`", paths.name),
        Found::Stale => bail!(
            "lab `{}` is not up: its supervisor was killed, and what it left is removed now; bring it up with `cargo xtask lab up`",
            paths.name
        ),
    }
}
