//! Bringing a lab up and taking it down.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use progress::Progress;

use crate::client::Client;
use crate::journal::{Found, find, take_down};
use crate::launch::Launch;
use crate::paths::LabPaths;
use crate::plan::Plan;
use crate::{exclusive, prepare, supervisor};

/// How long guests have to power off in order before they are killed.
const POWER_OFF: Duration = Duration::from_secs(20);

/// Only one command at a time changes a lab.
fn exclusive(paths: &LabPaths, progress: &Progress) -> Result<File> {
    paths.create()?;
    let waiting = format!("waiting for another command that is changing lab `{}`", paths.name);
    exclusive::hold(&paths.lock_file(), &waiting, progress)
}

/// Builds what is missing, boots what does not run yet, and returns once every guest's agent answers.
///
/// A lab that already runs exactly this is used as it is; guests of it that crashed are rebooted. On any failure, and on
/// Ctrl-C, what this call started is taken down.
///
/// # Errors
/// With the step that failed.
pub fn up(plan: &Plan, progress: &Progress) -> Result<Client> {
    let paths = LabPaths::new(&plan.lab.root, &plan.lab.name)?;
    let _exclusive = exclusive(&paths, progress)?;
    // What killed builders left would otherwise stay until somebody prunes.
    plan.cache.sweep()?;
    let launch = prepare::prepare(plan, &paths, progress)?;
    let client = Client::new(paths.clone());
    match find(&paths)? {
        Found::Running(journal) if journal.launch_id == launch.id()? => {
            if revive(&client, progress).is_ok() {
                return Ok(client);
            }
            progress.warn(format!("lab `{}` runs but does not answer properly; it is brought up anew", paths.name));
            take_down(&paths, &journal, POWER_OFF)?;
        }
        Found::Running(journal) => {
            progress.info(format!("lab `{}` runs something else; it is taken down first", paths.name));
            take_down(&paths, &journal, POWER_OFF)?;
        }
        Found::Stale => progress.info(format!("removed what the killed supervisor of lab `{}` left", paths.name)),
        Found::Nothing => {}
    }
    boot(&launch, &paths, &client, progress)?;
    Ok(client)
}

fn boot(launch: &Launch, paths: &LabPaths, client: &Client, progress: &Progress) -> Result<()> {
    paths.create()?;
    launch.save(&paths.launch())?;
    supervisor::start(paths)?;
    let ready = client.wait_ready(progress);
    if ready.is_err()
        && let Found::Running(journal) = find(paths)?
    {
        take_down(paths, &journal, POWER_OFF).context("the lab did not come up and could not be taken down either")?;
    }
    ready
}

/// Reboots the guests of a running lab that are not ready.
fn revive(client: &Client, progress: &Progress) -> Result<()> {
    client.wait_ready(&Progress::silent()).or_else(|_| {
        for guest in client.status()?.guests {
            if guest.state != "ready" {
                progress.info(format!("guest `{}` is {}: {}", guest.name, guest.state, guest.detail));
                client.reboot(&guest.name, &format!("it was {}", guest.state))?;
            }
        }
        Ok(())
    })
}

/// Takes a lab down; returns a phrase for people.
///
/// # Errors
/// When its supervisor cannot be ended.
pub fn down(paths: &LabPaths, progress: &Progress) -> Result<&'static str> {
    if !paths.state.exists() {
        bail!("there is no lab `{}` here", paths.name);
    }
    let _exclusive = exclusive(paths, progress)?;
    Ok(match find(paths)? {
        Found::Running(journal) => {
            take_down(paths, &journal, POWER_OFF)?;
            "down"
        }
        Found::Stale => "its supervisor had been killed; what it left is removed",
        Found::Nothing => {
            crate::journal::clean(paths)?;
            "was not up"
        }
    })
}
