//! The same tests on several kernels in one go: `lab test --compare A,B`.
//!
//! One lab after the other, each of its own and fresh: nothing of what ran on one kernel is left when the next one boots,
//! memory is needed once, and guests that count instructions have the host to themselves. The first kernel is what the
//! others are held against. A pair is fair when its kernels differ in their series alone; another one is measured too, with
//! a warning that says what else differs, and no bound between kernels is held against it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lab_config::{Kernel, KernelOrigin, Lab};
use progress::Progress;
use suite::Report;

use crate::paths::LabPaths;
use crate::plan::{Options, Plan};
use crate::testing::{self, Selection};
use crate::up;

/// What a comparison came to.
#[derive(Debug)]
pub struct Compared {
    /// Each kernel's own report, in the order asked for.
    pub sides: Vec<Report>,
    /// All of them in one, with the tables between kernels.
    pub whole: Report,
    /// The folder it was written to; each kernel's own reports are in a folder of the kernel's name below it.
    pub dir: PathBuf,
}

/// Runs the tests on each kernel.
///
/// # Errors
/// When a kernel is unknown, or a lab fails; a test that fails is in the report.
pub fn run(
    lab: &Lab,
    kernels: &[String],
    options: &Options,
    selection: &Selection,
    progress: &Progress,
) -> Result<Compared> {
    let unfair = check(lab, kernels)?;
    if let Some(why) = &unfair {
        progress.warn(format!("no fair pair: {why}"));
    }
    let suites = testing::select(lab, &selection.filter)?;
    // Every plan is made before anything runs: what is wrong with the last kernel shows at once.
    let plans = kernels
        .iter()
        .map(|kernel| {
            let mut own = lab.clone().with_kernel(kernel)?;
            own.name = format!("{}-{kernel}", lab.name);
            Plan::make(own, options.clone(), progress)
        })
        .collect::<Result<Vec<Plan>>>()?;
    let dir = testing::results_dir(&LabPaths::new(&lab.root, &lab.name)?)?;
    let mut sides = Vec::new();
    for (kernel, plan) in kernels.iter().zip(&plans) {
        let paths = LabPaths::new(&plan.lab.root, &plan.lab.name)?;
        let client = up::up(plan, progress).with_context(|| format!("kernel `{kernel}`"))?;
        let report = testing::run_into(&client, plan, &suites, selection, dir.join(kernel), progress);
        up::down(&paths, progress)?;
        let report = report.with_context(|| format!("kernel `{kernel}`"))?;
        let ended = report.cancelled;
        sides.push(report);
        if ended {
            break;
        }
    }
    let whole = suite::compare::beside(&sides, &suites.comparisons, unfair).context("no kernel was tested")?;
    suite::report::write_all(&whole, &dir)?;
    if let Some(copy) = &selection.report {
        suite::report::write_all(&whole, copy)?;
    }
    Ok(Compared { sides, whole, dir })
}

/// Whether the kernels can be compared at all; what makes the comparison unfair, if anything does.
fn check(lab: &Lab, kernels: &[String]) -> Result<Option<String>> {
    let [first, rest @ ..] = kernels else { bail!("--compare needs kernels of lab.toml: --compare baseline,patched") };
    if rest.is_empty() {
        bail!("--compare needs two kernels or more, the one that others are held against first");
    }
    for (n, name) in kernels.iter().enumerate() {
        lab.clone().with_kernel(name)?;
        if kernels[..n].contains(name) {
            bail!("--compare names kernel `{name}` twice");
        }
    }
    if let Some(pinned) = lab.guests.iter().find(|guest| guest.own_kernel) {
        bail!("guest `{}` has a kernel of its own, `{}`: it would run on both sides", pinned.name, pinned.kernel);
    }
    let why = rest.iter().find_map(|other| unfair(&lab.kernels[first], &lab.kernels[other]));
    Ok(why)
}

/// What differs besides the series.
fn unfair(a: &Kernel, b: &Kernel) -> Option<String> {
    use KernelOrigin::{Package, Rebuild, Source};
    let between = format!("`{}` and `{}`", a.name, b.name);
    match (&a.origin, &b.origin) {
        (Source { source: from, .. }, Source { source: to, .. }) if from != to => {
            Some(format!("{between} are {from} and {to}, two kernels and not one with and without a series"))
        }
        (Source { .. }, Source { .. }) if a.origin != b.origin => {
            Some(format!("{between} are configured differently (fragments, debug-info or btf)"))
        }
        (Source { .. }, Source { .. }) => None,
        (Package { .. }, Rebuild { of }) if *of == a.name => None,
        (Rebuild { of }, Package { .. }) if *of == b.name => None,
        (Rebuild { of: one }, Rebuild { of: other }) if one == other => None,
        (Source { .. }, _) | (_, Source { .. }) => Some(format!(
            "of {between} one has the lean configuration of lab.toml and the other the distribution's, which is \
             measured along"
        )),
        _ => Some(format!("{between} are two builds of the distribution")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> Lab {
        let project = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Lab::load(&project.join("lab.toml"), None).unwrap()
    }

    fn of(kernels: &[&str]) -> Result<Option<String>> {
        check(&lab(), &kernels.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_pairs_of_the_project_are_fair_and_others_say_why_not() {
        for pair in [["baseline", "patched"], ["patched", "baseline"], ["stock", "quick"], ["quick", "stock"]] {
            assert_eq!(of(&pair).unwrap(), None, "{pair:?}");
        }
        for pair in [["stock", "patched"], ["baseline", "quick"]] {
            let why = of(&pair).unwrap().unwrap();
            assert!(why.contains("lean configuration") && why.contains(pair[0]) && why.contains(pair[1]), "{why}");
        }
        let mut lab = lab();
        let KernelOrigin::Source { debug_info, .. } = &mut lab.kernels.get_mut("patched").unwrap().origin else {
            panic!("patched is built from source")
        };
        *debug_info = true;
        let why = check(&lab, &["baseline".into(), "patched".into()]).unwrap().unwrap();
        assert!(why.contains("configured differently"), "{why}");
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for (kernels, expected) in [
            (vec!["patched"], "two kernels or more"),
            (vec![], "needs kernels"),
            (vec!["patched", "patched"], "twice"),
            (vec!["patched", "pached"], "pached"),
        ] {
            let error = format!("{:#}", of(&kernels).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
