//! What checking a series brought up.

use std::fmt::Write as _;

use serde::Serialize;

use super::diffstat::FileStat;

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchReport {
    /// Its file.
    pub file: String,
    /// Its subject.
    pub subject: String,
    /// What it changes.
    pub files: Vec<FileStat>,
    /// What `checkpatch --strict` said, a finding each.
    pub checkpatch: Vec<String>,
}

/// One series on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelReport {
    /// Source of the lock.
    pub source: String,
    /// Which form of it was used, with its hash.
    pub base: String,
    /// What went wrong while applying or building, a finding each.
    pub findings: Vec<String>,
    /// Whether every step was compiled too, with W=1.
    pub built: bool,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeriesReport {
    /// Its name.
    pub name: String,
    /// What concerns the series as a whole.
    pub findings: Vec<String>,
    /// Its patches.
    pub patches: Vec<PatchReport>,
    /// The kernels it was tried on.
    pub kernels: Vec<KernelReport>,
}

/// Everything that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The series.
    pub series: Vec<SeriesReport>,
}

impl CheckReport {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings() == 0
    }

    /// How much was found.
    pub fn findings(&self) -> usize {
        let series = |s: &SeriesReport| {
            s.findings.len()
                + s.patches.iter().map(|p| p.checkpatch.len()).sum::<usize>()
                + s.kernels.iter().map(|k| k.findings.len()).sum::<usize>()
        };
        self.series.iter().map(series).sum()
    }

    /// The report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::from("# Kernel series\n");
        for series in &self.series {
            let _ = writeln!(text, "\n## {}\n", series.name);
            list(&mut text, &series.findings);
            text.push_str("| Patch | Subject | checkpatch --strict |\n|---|---|---|\n");
            for patch in &series.patches {
                let said = if patch.checkpatch.is_empty() { "clean".into() } else { patch.checkpatch.join("<br>") };
                let _ = writeln!(text, "| {} | {} | {} |", cell(&patch.file), cell(&patch.subject), cell(&said));
            }
            for kernel in &series.kernels {
                let done = if kernel.built { "applies, every step compiles (W=1)" } else { "applies" };
                let verdict = if kernel.findings.is_empty() { done } else { "has findings" };
                let _ = writeln!(text, "\nOn {}: {verdict}.\n", kernel.source);
                list(&mut text, &kernel.findings);
            }
        }
        text
    }
}

fn list(text: &mut String, findings: &[String]) {
    for finding in findings {
        let _ = writeln!(text, "- {}", finding.replace('\n', "\n  "));
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_wherever_they_are() {
        let mut report = CheckReport {
            series: vec![SeriesReport {
                name: "rxe".into(),
                findings: vec![],
                patches: vec![PatchReport {
                    file: "0001-a.patch".into(),
                    subject: "a | b".into(),
                    files: vec![],
                    checkpatch: vec![],
                }],
                kernels: vec![KernelReport {
                    source: "linux-7.3.4".into(),
                    base: String::new(),
                    findings: vec![],
                    built: false,
                }],
            }],
        };
        assert!(report.is_clean());
        let text = report.to_markdown();
        assert!(
            text.contains("| 0001-a.patch | a \\| b | clean |") && text.contains("On linux-7.3.4: applies."),
            "{text}"
        );
        report.series[0].patches[0].checkpatch.push("WARNING: x".into());
        report.series[0].kernels[0].findings.push("does not apply".into());
        assert_eq!(report.findings(), 2);
        assert!(report.to_markdown().contains("has findings.\n\n- does not apply"));
    }
}
