//! `cargo xtask lab …`: up, test, status, down, why, doctor; the rest is in [`crate::inside`] and [`lease`].

mod lease;

use std::process::ExitCode;

use anyhow::Result;
use lab::config::Lab;
use lab::plan::{Options, Plan};
use lab::testing::Selection;
use progress::Progress;

use crate::flags::{Lab as Command, LabArgs, Which};
use crate::{inside, state, tables};

/// Dispatches a `lab` command.
pub fn run(command: Command, progress: &Progress) -> Result<ExitCode> {
    match command {
        Command::Up { lab, no_test, dry_run, gdb, json } => up(&lab, &Up { no_test, dry_run, gdb, json }, progress),
        Command::Test { filter, lab, list, repeat, compare, report, json } => {
            let selection = Selection { filter, repeat, report };
            match (list, compare.is_empty()) {
                (true, _) => list_tests(&lab, &selection, json),
                (false, true) => test(&lab, &selection, json, progress),
                (false, false) => compare_kernels(&lab, &compare, &selection, json, progress),
            }
        }
        Command::Status { lab, json } => status(&lab, json),
        Command::Down { lab, all } => down(&lab, all, progress),
        Command::Shell { guest, lab } => inside::shell(&lab, guest.as_deref()),
        Command::Exec { guest, lab, tty, command } => inside::exec(&lab, &guest, &command, tty),
        Command::Console { guest, lab, no_follow } => inside::console(&lab, guest.as_deref(), !no_follow, progress),
        Command::Logs { guest, lab, follow } => inside::logs(&lab, guest.as_deref(), follow, progress),
        Command::Cp { from, to, lab } => inside::cp(&lab, &from, &to, progress),
        Command::Fault { port, fault, device: false, lab } => inside::fault(&lab, &port, &fault),
        Command::Fault { port, fault: order, device: true, lab } => inside::order(&lab, &port, &order),
        Command::Capture { port, file, lab } => inside::capture(&lab, &port, &file, progress),
        Command::Lease(command) => lease::run(command, progress),
        Command::Doctor { json } => doctor(json),
        Command::Why { step, lab, json } => why(&lab, step.as_deref(), json),
    }
}

struct Up {
    no_test: bool,
    dry_run: bool,
    gdb: bool,
    json: bool,
}

/// What the command line says about planning.
pub fn options(args: &LabArgs, gdb: bool) -> Options {
    Options { offline: args.offline, locked: args.locked, kernel_tree: args.kernel_tree.clone(), gdb }
}

fn up(args: &LabArgs, up: &Up, progress: &Progress) -> Result<ExitCode> {
    let begun = std::time::Instant::now();
    let plan = Plan::make(state::load(args)?, options(args, up.gdb), progress)?;
    if up.dry_run {
        print!("{}", if up.json { plan.to_json()? } else { plan.to_text()? });
        return Ok(ExitCode::SUCCESS);
    }
    progress.info(plan.summary(begun.elapsed()));
    let client = lab::up::up(&plan, progress)?;
    if up.no_test {
        print!("{}", tables::status(&client.status()?));
        return Ok(ExitCode::SUCCESS);
    }
    run_tests(&client, &plan, &Selection::default(), false, progress)
}

fn test(args: &LabArgs, selection: &Selection, json: bool, progress: &Progress) -> Result<ExitCode> {
    let plan = Plan::make(lab_for(args, selection, progress)?, options(args, false), progress)?;
    let client = lab::up::up(&plan, progress)?;
    run_tests(&client, &plan, selection, json, progress)
}

/// `lab test --compare A,B`.
fn compare_kernels(
    args: &LabArgs,
    kernels: &[String],
    selection: &Selection,
    json: bool,
    progress: &Progress,
) -> Result<ExitCode> {
    let lab = lab_for(args, selection, progress)?;
    let compared = lab::compare::run(&lab, kernels, &options(args, false), selection, progress)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&compared.whole)?);
    } else {
        for side in &compared.sides {
            println!("{}", lab::suite::report::table(side, true));
        }
        print!("{}", lab::suite::report::pair(&compared.whole));
        eprintln!("results: {}", compared.dir.display());
    }
    Ok(ExitCode::from(compared.whole.exit_code()))
}

/// The lab that tests are run in. Tests that are for a profile get a lab of their own in that profile, so that the one
/// that is up stays as it is, unless the command line names a profile.
fn lab_for(args: &LabArgs, selection: &Selection, progress: &Progress) -> Result<Lab> {
    let lab = state::load(args)?;
    // A wrong filter is found before anything is built or booted.
    let tests = lab::testing::select(&lab, &selection.filter)?.tests;
    let Some(profile) = lab::testing::profile(&tests).filter(|profile| lab.profile.as_deref() != Some(*profile)) else {
        return Ok(lab);
    };
    if let Some(other) = &lab.profile {
        progress.warn(format!("these tests are for profile `{profile}`; in `{other}` they may have to be skipped"));
        return Ok(lab);
    }
    let name = args.name.clone().unwrap_or_else(|| format!("{}-{profile}", lab.name));
    progress.info(format!("these tests are for profile `{profile}`: they run in lab `{name}`"));
    state::load(&LabArgs { profile: Some(profile.into()), name: Some(name), ..args.clone() })
}

fn run_tests(
    client: &lab::client::Client,
    plan: &Plan,
    selection: &Selection,
    json: bool,
    progress: &Progress,
) -> Result<ExitCode> {
    let (report, dir) = lab::testing::run(client, plan, selection, progress)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", lab::suite::report::table(&report, true));
        eprintln!("results: {}", dir.display());
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn list_tests(args: &LabArgs, selection: &Selection, json: bool) -> Result<ExitCode> {
    let tests = lab::testing::select(&state::load(args)?, &selection.filter)?.tests;
    if json {
        let names: Vec<_> = tests.iter().map(lab::suite::Test::full_name).collect();
        println!("{}", serde_json::to_string_pretty(&names)?);
    } else {
        for test in &tests {
            println!("{:40} {}", test.full_name(), test.summary);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(which: &Which, json: bool) -> Result<ExitCode> {
    let status = state::client(which)?.status()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", tables::status(&status));
    }
    Ok(ExitCode::SUCCESS)
}

fn down(which: &Which, all: bool, progress: &Progress) -> Result<ExitCode> {
    let labs = if all { lab::paths::all(&state::project()?)? } else { vec![state::paths(which)?] };
    for paths in labs {
        let said = lab::up::down(&paths, progress)?;
        progress.info(format!("lab `{}`: {said}", paths.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn doctor(json: bool) -> Result<ExitCode> {
    let findings = lab::doctor::examine()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{}", tables::findings(&findings));
    }
    Ok(ExitCode::from(u8::from(findings.iter().any(lab::doctor::blocks))))
}

fn why(args: &LabArgs, step: Option<&str>, json: bool) -> Result<ExitCode> {
    let plan = Plan::make(state::load(args)?, options(args, false), &Progress::silent())?;
    let reasons = plan.why(step)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&reasons)?);
    } else {
        print!("{}", tables::reasons(&reasons));
    }
    Ok(ExitCode::SUCCESS)
}
