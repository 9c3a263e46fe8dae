//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use bench::Bench;
use lab::plan::Plan;
use progress::Progress;

use crate::flags::BenchArgs;
use crate::{lab as lab_command, state};

/// Measures and prints. A ratio beyond its bound is a result; only a benchmark that could not run is a failure.
pub fn run(args: &BenchArgs, progress: &Progress) -> Result<ExitCode> {
    let plan = Plan::make(state::load(&args.lab)?, lab_command::options(&args.lab, false), progress)?;
    let report = bench::run(&Bench { plan: &plan, rounds: args.rounds, progress }, &args.which)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", bench::table(&report));
    }
    Ok(ExitCode::from(u8::from(!report.failed.is_empty())))
}
