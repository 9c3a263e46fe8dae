//! `cargo xtask`: parses the command line and calls the library crates.

mod build;
mod ci;
mod flags;
mod inside;
mod kernel;
mod lab;
mod measure;
mod state;
mod tables;
mod terminal;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use clap::Parser;
use flags::{Cli, Command};
use progress::{Cancel, Progress};

/// Exit status of a run that was interrupted: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let style = match (cli.json_progress, cli.quiet) {
        (true, _) => terminal::Style::Json,
        (false, true) => terminal::Style::Quiet,
        (false, false) => terminal::Style::Auto,
    };
    let cancel = Cancel::default();
    let progress = terminal::progress(style, cancel.clone());
    match dispatch(cli.command, &progress) {
        Ok(code) => code,
        Err(e) if cancel.is_cancelled() => {
            eprintln!("interrupted ({e:#})");
            ExitCode::from(INTERRUPTED)
        }
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(exit_code(&e))
        }
    }
}

/// A failure to do what was asked is 125, so that `git bisect run` skips the commit instead of blaming it.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<::lab::config::ConfigErrors>().is_some() { 2 } else { 125 }
}

fn dispatch(command: Command, progress: &Progress) -> Result<ExitCode> {
    if let Command::Supervisor { launch } = &command {
        return ::lab::supervisor::run(launch).map(|()| ExitCode::SUCCESS);
    }
    // `exec` and `shell` hand signals on to the guest; everything else stops at the first Ctrl-C and dies at the second.
    if !command.hands_signals_on() {
        interruptible(progress.cancel())?;
    }
    match command {
        Command::Lab(command) => lab::run(*command, progress),
        Command::Kernel(command) => kernel::run(command, progress),
        Command::Image(command) => build::image(command, progress),
        Command::Lock(args) => build::lock(&args, progress),
        Command::Cache(command) => build::cache(&command),
        Command::Schema { write } => build::schema(write),
        Command::Bench(args) => measure::run(&args, progress),
        Command::Ci(args) => ci::run(&args, progress),
        Command::Supervisor { .. } => unreachable!("dispatched above"),
    }
}

fn interruptible(cancel: &Cancel) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Armed by the first signal, this one ends the process at the second.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), cancel.flag())
            .and_then(|_| signal_hook::flag::register(signal, cancel.flag()))
            .context("cannot watch for signals")?;
    }
    cancel.flag().store(false, Ordering::SeqCst);
    Ok(())
}
