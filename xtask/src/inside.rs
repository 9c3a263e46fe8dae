//! Commands that look into a running lab: exec, shell, console, logs, cp, fault, capture.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::control::{FaultSpec, LabStatus};
use progress::Progress;

use crate::flags::Which;
use crate::state;

/// Runs one command; its exit code is ours.
pub fn exec(which: &Which, guest: &str, command: &[String], tty: bool) -> Result<ExitCode> {
    let client = state::client(which)?;
    let exit = lab::interact::run(&client, guest, command, tty)?;
    Ok(code(exit.shell_code()))
}

/// A login shell on a terminal, or a script from standard input.
pub fn shell(which: &Which, guest: Option<&str>) -> Result<ExitCode> {
    use std::io::IsTerminal;
    let client = state::client(which)?;
    let guest = pick(&client.status()?, guest)?;
    let argv = ["bash".to_owned(), "-l".to_owned()];
    let exit = lab::interact::run(&client, &guest, &argv, std::io::stdin().is_terminal())?;
    Ok(code(exit.shell_code()))
}

fn code(shell_code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(shell_code).unwrap_or(255))
}

/// The guest that was named, or the first.
pub fn pick(status: &LabStatus, guest: Option<&str>) -> Result<String> {
    let names: Vec<&str> = status.guests.iter().map(|g| g.name.as_str()).collect();
    match guest {
        None => names.first().map(|n| (*n).to_owned()).context("the lab has no guests"),
        Some(name) if names.contains(&name) => Ok(name.to_owned()),
        Some(name) => bail!("lab `{}` has no guest `{name}`; it has {}", status.name, names.join(", ")),
    }
}

/// Prints a guest's console from its beginning and goes on until Ctrl-C.
pub fn console(which: &Which, guest: Option<&str>, follow: bool, progress: &Progress) -> Result<ExitCode> {
    let client = state::client(which)?;
    let status = client.status()?;
    let name = pick(&status, guest)?;
    let guest = status.guests.iter().find(|g| g.name == name).context("the guest went away")?;
    show(std::slice::from_ref(&guest.console), follow, progress)
}

/// Prints the lab's logs; works on a lab that is down too.
pub fn logs(which: &Which, guest: Option<&str>, follow: bool, progress: &Progress) -> Result<ExitCode> {
    let paths = state::paths(which)?;
    let mut files = Vec::new();
    collect(&paths.logs(), &mut files);
    files.sort();
    if let Some(guest) = guest {
        files.retain(|f| f.parent().and_then(Path::file_name).is_some_and(|n| n == guest));
    }
    if files.is_empty() {
        bail!("no logs in {}", paths.logs().display());
    }
    show(&files, follow, progress)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "log") {
            files.push(path);
        }
    }
}

fn show(files: &[PathBuf], follow: bool, progress: &Progress) -> Result<ExitCode> {
    let mut offsets = vec![0u64; files.len()];
    let mut out = std::io::stdout().lock();
    loop {
        for (path, offset) in files.iter().zip(&mut offsets) {
            let Ok(mut file) = File::open(path) else { continue };
            file.seek(SeekFrom::Start(*offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                continue;
            }
            if files.len() > 1 {
                writeln!(out, "==> {} <==", path.display())?;
            }
            out.write_all(&bytes)?;
            *offset += bytes.len() as u64;
        }
        out.flush()?;
        if !follow || progress.cancel().is_cancelled() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Copies a file to or from a guest.
pub fn cp(which: &Which, from: &str, to: &str, progress: &Progress) -> Result<ExitCode> {
    let client = state::client(which)?;
    let remote =
        |text: &str| text.split_once(':').map(|(g, p)| (g.to_owned(), p.to_owned())).filter(|(g, _)| !g.contains('/'));
    match (remote(from), remote(to)) {
        (None, Some((guest, path))) => lab::copy::push(&client, &guest, Path::new(from), &path, progress)?,
        (Some((guest, path)), None) => lab::copy::pull(&client, &guest, &path, Path::new(to), progress)?,
        _ => bail!("exactly one side must be GUEST:PATH, for instance `cargo xtask lab cp core.dump a:/tmp/`"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes a port's fault while the lab runs.
pub fn fault(which: &Which, port: &str, fault: &str) -> Result<ExitCode> {
    let fault: FaultSpec = fault.parse()?;
    state::client(which)?.fault(port, fault)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells a gvnic what to do while the lab runs.
pub fn order(which: &Which, port: &str, order: &str) -> Result<ExitCode> {
    state::client(which)?.device(port, order.parse()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Captures a port until Ctrl-C.
pub fn capture(which: &Which, port: &str, file: &Path, progress: &Progress) -> Result<ExitCode> {
    let file = std::path::absolute(file)?;
    let running = state::client(which)?.capture(port, file.clone())?;
    progress.info(format!("capturing {port} to {}; Ctrl-C ends it", file.display()));
    while !progress.cancel().is_cancelled() {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(running);
    Ok(ExitCode::SUCCESS)
}
