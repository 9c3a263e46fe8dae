//! What goes with a series into a mail: `cargo xtask kernel check --report`.
//!
//! In: what checking the series found, and the results that labs of this project have left on kernels that hold exactly
//! these patches. Out: plain text for a cover letter (base, patches, diffstat, what was checked, what was run and what
//! came of it) and the line for a Tested-by. Results on any other tree are nobody's evidence and left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use kernel::KernelArtifacts;
use kernel::dev::{CheckReport, FileStat, PatchReport, SeriesReport};
use suite::{Record, Report, Status};

use crate::paths;
use crate::plan::kernel_plan;

/// The newest results of one lab on one of the wanted trees.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The folder they are in.
    pub dir: PathBuf,
    /// The report, with the records of the wanted trees only.
    pub report: Report,
}

/// Trees of the kernels of `lab.toml` that are built with this series as it stands: tree id → kernel.
pub fn trees(
    lab: &lab_config::Lab,
    lock: &artifacts::Lock,
    cache: &artifacts::Cache,
    series: &str,
) -> BTreeMap<String, String> {
    let with = lab.kernels.values().filter(|kernel| kernel.series.iter().any(|name| name == series));
    with.filter_map(|kernel| {
        let key = kernel_plan(lab, &kernel.name, None, lock).ok()?.recipe().key();
        let built = KernelArtifacts::load(&cache.lookup(artifacts::Kind::Kernel, &key)?).ok()?;
        Some((built.tree_id, kernel.name.clone()))
    })
    .collect()
}

/// For each lab of the project, its newest results on any of the trees.
///
/// # Errors
/// When the folder of labs cannot be read.
pub fn evidence(project: &Path, trees: &BTreeMap<String, String>) -> Result<Vec<Evidence>> {
    let mut found = Vec::new();
    for lab in paths::all(project)? {
        let mut dirs: Vec<PathBuf> =
            std::fs::read_dir(lab.results()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        // They are named by their time; `latest` is one of them.
        dirs.retain(|dir| dir.file_name().is_some_and(|name| name != "latest"));
        dirs.sort();
        let newest = dirs.into_iter().rev().find_map(|dir| {
            let report = of_trees(suite::report::read(&dir).ok()?, trees)?;
            Some(Evidence { dir, report })
        });
        found.extend(newest);
    }
    Ok(found)
}

/// The report with only what ran on the trees; nothing when nothing did.
fn of_trees(mut report: Report, trees: &BTreeMap<String, String>) -> Option<Report> {
    let kernels: Vec<String> = report
        .guests
        .iter()
        .filter(|guest| trees.contains_key(&guest.kernel_tree))
        .map(|guest| guest.kernel.clone())
        .collect();
    let ran = |status: Status| !matches!(status, Status::NotRun | Status::DidNotFinish);
    report.records.retain(|record| {
        ran(record.status)
            && !record.guests.is_empty()
            && record.guests.iter().all(|used| kernels.contains(&used.kernel))
    });
    (!report.records.is_empty()).then_some(report)
}

/// The text.
pub fn text(checked: &CheckReport, evidence: &BTreeMap<String, Vec<Evidence>>) -> String {
    let mut out = String::new();
    for series in &checked.series {
        let none = Vec::new();
        head(&mut out, series);
        checks(&mut out, series);
        tests(&mut out, series, evidence.get(&series.name).unwrap_or(&none));
    }
    out
}

fn head(out: &mut String, series: &SeriesReport) {
    for kernel in &series.kernels {
        let _ = writeln!(out, "Base: {}", kernel.base);
    }
    out.push('\n');
    for (n, patch) in series.patches.iter().enumerate() {
        let _ = writeln!(out, "  {:>2}/{}  {}", n + 1, series.patches.len(), patch.subject);
    }
    out.push('\n');
    let sums = summed(&series.patches);
    let width = sums.iter().map(|stat| stat.path.len()).max().unwrap_or(0);
    for FileStat { path, added, removed } in &sums {
        let _ = writeln!(out, " {path:<width$} | {:>4} (+{added} -{removed})", added + removed);
    }
    let (added, removed) = sums.iter().fold((0, 0), |(a, r), stat| (a + stat.added, r + stat.removed));
    let _ = writeln!(out, " {} files changed, {added} insertions(+), {removed} deletions(-)\n", sums.len());
}

/// The patches' changes by file, in the order of names as git has it.
fn summed(patches: &[PatchReport]) -> Vec<FileStat> {
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for stat in patches.iter().flat_map(|patch| &patch.files) {
        let sum = files.entry(&stat.path).or_default();
        *sum = (sum.0 + stat.added, sum.1 + stat.removed);
    }
    let stat = |(path, (added, removed)): (&str, (usize, usize))| FileStat { path: path.into(), added, removed };
    files.into_iter().map(stat).collect()
}

fn checks(out: &mut String, series: &SeriesReport) {
    out.push_str("Checked:\n");
    let findings: Vec<String> = series
        .patches
        .iter()
        .flat_map(|patch| patch.checkpatch.iter().map(|found| format!("{}: {found}", patch.file)))
        .chain(series.findings.clone())
        .collect();
    let verdict = if findings.is_empty() { "clean" } else { "see below" };
    let _ = writeln!(out, "- checkpatch.pl --strict on each of {} patches: {verdict}", series.patches.len());
    list(out, &findings);
    for kernel in &series.kernels {
        let what = match (kernel.findings.is_empty(), kernel.built) {
            (true, true) => "every patch applies; every step builds (bzImage, modules), with no new warning of W=1",
            (true, false) => "every patch applies; not built",
            (false, _) => "see below",
        };
        let _ = writeln!(out, "- {}: {what}", kernel.source);
        list(out, &kernel.findings);
    }
    out.push('\n');
}

fn list(out: &mut String, findings: &[String]) {
    for finding in findings {
        let _ = writeln!(out, "    {}", finding.replace('\n', "\n    "));
    }
}

fn tests(out: &mut String, series: &SeriesReport, evidence: &[Evidence]) {
    if evidence.is_empty() {
        let _ = writeln!(
            out,
            "Tested: nothing. No lab of this project has results on a kernel with exactly these patches;\n\
             `cargo xtask lab up` and `cargo xtask lab test rxe.latency` make some.\n"
        );
        return;
    }
    let mut all: Vec<&Record> = Vec::new();
    for one in evidence {
        let what = &one.report.provenance;
        let tree: Vec<&str> = one.report.guests.iter().map(|guest| guest.kernel_tree.as_str()).collect();
        let _ = writeln!(
            out,
            "Tested on {} ({}, tree {}), QEMU with {}{}, {} ({}):",
            what.kernel_release,
            what.kernel,
            tree.first().map_or("", |tree| &tree[..tree.len().min(12)]),
            what.accelerator,
            if one.report.guests.iter().all(|guest| guest.deterministic) {
                ", instructions counted as time"
            } else {
                ""
            },
            if one.report.repeat > 1 { format!("{} rounds", one.report.repeat) } else { "one round".into() },
            one.dir.file_name().unwrap_or_default().display(),
        );
        for record in one.report.records.iter().filter(|record| record.iteration == 1) {
            let said = if record.status == Status::Pass { String::new() } else { format!("  {}", record.message) };
            let _ = writeln!(out, "  {:<6} {}{said}", record.status.word(), record.test);
        }
        for table in &one.report.comparisons {
            let _ = write!(out, "\n{}", suite::compare::text(table));
        }
        out.push('\n');
        all.extend(&one.report.records);
    }
    let count = |status: Status| all.iter().filter(|record| record.status == status).count();
    let totals: Vec<String> = Status::ALL
        .into_iter()
        .filter(|status| count(*status) > 0)
        .map(|status| format!("{} {}", count(status), status.word()))
        .collect();
    let first = &evidence[0].report.provenance;
    let _ = writeln!(
        out,
        "Tested-by: Your Name <you@example.org> # {}, QEMU/{}: {}",
        first.kernel_release,
        first.accelerator,
        totals.join(", ")
    );
    let _ = writeln!(out, "(series {}; put your name there if you ran it yourself)\n", series.name);
}

/// As [`text`], with the evidence that is there for each series that was checked.
///
/// # Errors
/// When results cannot be looked for.
pub fn report(checked: &CheckReport, plan: (&lab_config::Lab, &artifacts::Lock, &artifacts::Cache)) -> Result<String> {
    let (lab, lock, cache) = plan;
    let mut found = BTreeMap::new();
    for series in &checked.series {
        found.insert(series.name.clone(), evidence(&lab.root, &trees(lab, lock, cache, &series.name))?);
    }
    Ok(text(checked, &found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::dev::KernelReport;
    use suite::results::GuestUse;
    use suite::{GuestInfo, Provenance};

    fn record(test: &str, status: &str, kernel: &str) -> Record {
        let json = serde_json::json!({
            "test": test, "iteration": 1, "status": status, "message": "", "started_ms": 0, "duration_ms": 1,
            "guests": [GuestUse { role: "a".into(), guest: "a".into(), kernel: kernel.into() }],
        });
        serde_json::from_value(json).unwrap()
    }

    fn run(tree: &str, records: Vec<Record>) -> Report {
        let guest = |kernel: &str, tree: &str| GuestInfo {
            name: "a".into(),
            kernel: kernel.into(),
            kernel_tree: tree.into(),
            ..GuestInfo::default()
        };
        Report {
            schema: suite::results::SCHEMA,
            complete: true,
            cancelled: false,
            started_ms: 0,
            duration_ms: 1,
            time_scale: 1.0,
            repeat: 1,
            provenance: Provenance {
                kernel: "patched".into(),
                kernel_release: "7.3.4-lab".into(),
                accelerator: "tcg".into(),
                ..Provenance::default()
            },
            guests: vec![guest("patched", tree), guest("baseline", "another tree")],
            records,
            comparisons: Vec::new(),
            pair: None,
        }
    }

    fn checked() -> CheckReport {
        let file = |path: &str, added, removed| FileStat { path: path.into(), added, removed };
        let patch = |n: usize, files| PatchReport {
            file: format!("000{n}-x.patch"),
            subject: format!("RDMA/rxe: Change {n}"),
            files,
            checkpatch: Vec::new(),
        };
        let patches = vec![patch(1, vec![file("b.c", 3, 1)]), patch(2, vec![file("b.c", 1, 0), file("a.h", 2, 2)])];
        let kernels = vec![KernelReport {
            source: "linux-7.3.4".into(),
            base: "linux-7.3.4 kernel.org sha256:1234".into(),
            findings: Vec::new(),
            built: true,
        }];
        CheckReport { series: vec![SeriesReport { name: "rxe".into(), findings: Vec::new(), patches, kernels }] }
    }

    /// A project with results: an old run on the tree, a newer one on both kernels, the newest on another tree.
    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let results = dir.path().join("target/lab/lab/results");
        let both = vec![record("rdma/a", "pass", "patched"), record("rdma/b", "fail", "baseline")];
        for (time, report) in [
            ("20260101T000000Z", run("tree", vec![record("rdma/old", "pass", "patched")])),
            ("20260102T000000Z", run("tree", both)),
            ("20260103T000000Z", run("newer tree", vec![record("rdma/newer", "pass", "patched")])),
        ] {
            suite::report::write_all(&report, &results.join(time)).unwrap();
        }
        dir
    }

    fn wanted(tree: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(tree.to_string(), "patched".to_string())])
    }

    #[test]
    fn only_results_on_this_very_tree_are_evidence() {
        let project = project();
        let found = evidence(project.path(), &wanted("tree")).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].dir.ends_with("20260102T000000Z"), "the newest of them: {}", found[0].dir.display());
        let tests: Vec<&str> = found[0].report.records.iter().map(|record| record.test.as_str()).collect();
        assert_eq!(tests, ["rdma/a"], "what ran on the other kernel says nothing about this one");
        assert!(evidence(project.path(), &wanted("no such tree")).unwrap().is_empty());
    }

    #[test]
    fn a_mail_says_what_it_stands_on() {
        let project = project();
        let found = evidence(project.path(), &wanted("tree")).unwrap();
        let said = text(&checked(), &BTreeMap::from([("rxe".to_string(), found)]));
        for due in [
            "Base: linux-7.3.4 kernel.org sha256:1234\n",
            "   1/2  RDMA/rxe: Change 1\n   2/2  RDMA/rxe: Change 2\n",
            " a.h |    4 (+2 -2)\n b.c |    5 (+4 -1)\n 2 files changed, 6 insertions(+), 3 deletions(-)\n",
            "--strict on each of 2 patches: clean\n",
            "every step builds",
            "QEMU with tcg, one round (20260102T000000Z):\n  pass   rdma/a\n",
            "# 7.3.4-lab, QEMU/tcg: 1 pass\n",
        ] {
            assert!(said.contains(due), "`{due}` is not in:\n{said}");
        }
    }

    #[test]
    fn what_was_not_done_is_not_claimed() {
        let mut checked = checked();
        checked.series[0].kernels[0].built = false;
        checked.series[0].patches[0].checkpatch.push("WARNING: line over 100 columns".into());
        let said = text(&checked, &BTreeMap::new());
        assert!(said.contains("every patch applies; not built"), "{said}");
        assert!(said.contains("2 patches: see below\n    0001-x.patch: WARNING"), "{said}");
        assert!(said.contains("Tested: nothing.") && !said.contains("Tested-by"), "{said}");
    }
}
