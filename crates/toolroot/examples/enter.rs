//! Runs a command inside a package root of this checkout's `lab.lock`, unpacking that first if need be:
//! `cargo run -p toolroot --example enter -- build gcc --version`. The current directory is bound, writable.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use artifacts::{Cache, Fetcher, Lock, Mirrors};
use progress::{Cancel, Event, Progress};
use toolroot::{FixUps, Toolroot};

fn main() -> Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let name = args.next().context("which root of lab.lock?")?;
    let program = args.next().unwrap_or_else(|| "bash".into());
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");

    let progress = Progress::new(Cancel::default(), |event| {
        if let Event::Finished { step, outcome, wall_us } = event {
            eprintln!("{step}: {outcome:?} in {} ms", wall_us / 1000);
        }
    });
    let begun = Instant::now();
    let cache = Cache::open()?;
    let lock = Lock::load(&project.join("lab.lock"))?;
    let fixups = FixUps::load(&project.join("images/toolroot.toml"))?;
    let fetcher = Fetcher::new(&cache, Mirrors::discover(Path::new("/"), &lock), false, &progress);
    let root = Toolroot::materialize(&cache, &lock, &name, &fetcher, &fixups, &progress)?;
    eprintln!("{} after {:?}", root.dir().display(), begun.elapsed());

    let cwd = std::env::current_dir()?;
    let sandbox = root.sandbox(program).args(args).cwd(&cwd).bind_rw(&cwd, &cwd).keep_session();
    let status = sandbox.stdin(std::process::Stdio::inherit()).status()?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255)))
}
