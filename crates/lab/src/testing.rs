//! Tests on a running lab: which, with what provenance, into which folder.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use kernel::KernelArtifacts;
use lab_config::Lab;
use progress::Progress;
use suite::results::Host;
use suite::{GuestInfo, Guests as _, Provenance, Report, RunOptions, Suites, Test};

use crate::client::{Client, LabGuests};
use crate::paths::LabPaths;
use crate::plan::Plan;

/// What a test run is asked for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Parts of names; none means the suites of `lab.toml`.
    pub filter: Vec<String>,
    /// Rounds over the tests; 0 counts as 1.
    pub repeat: u32,
    /// A folder that gets the reports as well.
    pub report: Option<PathBuf>,
}

/// The tests that a selection means, with every comparison of their suites.
///
/// # Errors
/// When a suite is wrong, or a filter fits nothing.
pub fn select(lab: &Lab, filter: &[String]) -> Result<Suites> {
    let Suites { tests, comparisons } = suite::load(&lab.root.join("suites"))?;
    let tests = if filter.is_empty() { suite::suites(&tests, &lab.suites)? } else { suite::select(&tests, filter)? };
    Ok(Suites { tests, comparisons })
}

/// The profile that every one of the tests is for, if there is one.
pub fn profile(tests: &[Test]) -> Option<&str> {
    let first = tests.first()?.profile.as_deref()?;
    tests.iter().all(|test| test.profile.as_deref() == Some(first)).then_some(first)
}

/// Runs the tests; returns the report and the folder it was written to.
///
/// # Errors
/// When the lab fails; a test that fails is in the report.
pub fn run(client: &Client, plan: &Plan, selection: &Selection, progress: &Progress) -> Result<(Report, PathBuf)> {
    let suites = select(&plan.lab, &selection.filter)?;
    let dir = results_dir(client.paths())?;
    let report = run_into(client, plan, &suites, selection, dir.clone(), progress)?;
    if let Some(copy) = &selection.report {
        suite::report::write_all(&report, copy)?;
    }
    Ok((report, dir))
}

/// Runs the tests; the results go into `dir`.
pub(crate) fn run_into(
    client: &Client,
    plan: &Plan,
    suites: &Suites,
    selection: &Selection,
    dir: PathBuf,
    progress: &Progress,
) -> Result<Report> {
    let guests = LabGuests::new(client.clone())?;
    let provenance = provenance(plan, &guests.guests());
    let options = RunOptions {
        report_dir: dir,
        repeat: selection.repeat.max(1),
        comparisons: suites.comparisons.clone(),
        time_scale: suite::time_scale(&provenance.accelerator),
        provenance,
    };
    Ok(suite::run(&suites.tests, &guests, &options, progress)?)
}

/// Everything that is needed to do it again. Where guests differ, the first one's kernel is named here; each record says
/// which guests it used.
fn provenance(plan: &Plan, guests: &[GuestInfo]) -> Provenance {
    let first = guests.first().cloned().unwrap_or_default();
    let kernel_dir = plan.content(&format!("kernel:{}", first.kernel));
    let kernel = KernelArtifacts::load(&kernel_dir).ok();
    let base = plan.lab.guests.first().map(|g| plan.content(&format!("base:{}", g.image)).join("base.erofs"));
    Provenance {
        lab: plan.lab.name.clone(),
        lock_sha256: plan.lock.hash().to_string(),
        config_sha256: plan.lab.config_hash(),
        kernel: first.kernel,
        kernel_release: first.kernel_release,
        kernel_tree: first.kernel_tree,
        kernel_source: kernel.as_ref().map(|k| k.source_used.clone()).unwrap_or_default(),
        series: kernel.map(|k| k.series).unwrap_or_default(),
        image_sha256: base
            .and_then(|file| artifacts::sha256_file(&file).ok())
            .map(|hash| hash.to_string())
            .unwrap_or_default(),
        accelerator: first.accelerator,
        tool: env!("CARGO_PKG_VERSION").into(),
        host: this_host(),
    }
}

fn this_host() -> Host {
    let field = |file: &str, key: &str| -> Option<String> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory_kib = field("/proc/meminfo", "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
    Host {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpu: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_mib: memory_kib.unwrap_or_default() / 1024,
    }
}

/// A fresh folder, named by the time, with `latest` pointing at it.
pub(crate) fn results_dir(paths: &LabPaths) -> Result<PathBuf> {
    let results = paths.results();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let stamp = utc(seconds);
    for n in 0..100 {
        let name = if n == 0 { stamp.clone() } else { format!("{stamp}-{n}") };
        let dir = results.join(&name);
        std::fs::create_dir_all(&results).with_context(|| format!("cannot create {}", results.display()))?;
        match std::fs::create_dir(&dir) {
            Ok(()) => {
                let latest = results.join("latest");
                let _ = std::fs::remove_file(&latest);
                let _ = std::os::unix::fs::symlink(&name, &latest);
                return Ok(dir);
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("cannot create {}", dir.display())),
        }
    }
    bail!("{} has a hundred results of this second", results.display())
}

/// `20261122T151300Z`, by the civil-from-days algorithm of the proleptic Gregorian calendar.
fn utc(seconds: u64) -> String {
    let days = seconds / 86_400;
    let rest = seconds % 86_400;
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_795_360_380), "20261122T151300Z");
    }
}
