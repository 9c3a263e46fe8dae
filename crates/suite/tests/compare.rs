//! Comparisons over the records of a real run: `rxe-latency` on the patched kernel, three of its rules.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use suite::compare::{Comparison, Table, beside, tables, text};
use suite::{Provenance, Record, Report, Status, Suites, report};

fn records() -> Vec<Record> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compare/records.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The comparisons of the project's own suite.
fn declared() -> Vec<Comparison> {
    static DECLARED: OnceLock<Vec<Comparison>> = OnceLock::new();
    let load = || {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites");
        suite::load(&dir).unwrap().comparisons.into_iter().filter(|one| one.suite == "rxe-latency").collect()
    };
    DECLARED.get_or_init(load).clone()
}

fn latency(records: &[Record]) -> Table {
    tables(&declared(), records).into_iter().find(|table| table.metric == "t_avg").unwrap()
}

/// Another round in which everything took `factor` times as long.
fn again(records: &[Record], iteration: u32, factor: f64) -> Vec<Record> {
    let mut round = records.to_vec();
    for record in &mut round {
        record.iteration = iteration;
        record.metrics.iter_mut().filter(|metric| metric.name == "t_avg").for_each(|metric| metric.value *= factor);
    }
    round
}

#[test]
fn a_real_run_becomes_its_table() {
    let said: String = tables(&declared(), &records()).iter().map(|table| text(table) + "\n").collect();
    let path = format!("{}/tests/data/compare/tables.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(&path).unwrap_or_default());
    let table = latency(&records());
    let (base, cell) = (table.cell("iptables-100", "3").unwrap(), table.cell("iptables-100", "2").unwrap());
    assert_eq!((base.value, base.gain), (89.22, None));
    assert!((cell.gain.unwrap() - 100.0 * (89.22 - 36.92) / 89.22).abs() < 1e-9);
}

#[test]
fn rounds_are_averaged_and_must_agree() {
    let rounds = [records(), again(&records(), 2, 1.02), again(&records(), 3, 1.04)].concat();
    let table = latency(&rounds);
    let cell = table.cell("none", "3").unwrap();
    assert_eq!(cell.rounds.len(), 3);
    assert!((cell.value - 38.5 * 1.02).abs() < 1e-9 && (cell.spread - 100.0 * 0.04 / 1.02).abs() < 1e-9);
    let spread = |table: &Table| table.bounds.iter().find(|one| one.bound.contains("rounds agree")).unwrap().clone();
    assert_eq!((spread(&table).checked, spread(&table).missed.len()), (9, 0));
    assert!(text(&table).contains("3 rounds agree within 3.9 %"), "{}", text(&table));

    let table = latency(&[records(), again(&records(), 2, 1.06)].concat());
    assert_eq!(spread(&table).missed.len(), 9, "{:?}", spread(&table));
    assert!(!table.holds());
    assert_eq!(spread(&latency(&records())).checked, 0, "one round agrees with nothing");
}

#[test]
fn what_was_not_measured_is_a_hole_and_what_failed_does_not_count() {
    let mut some = records();
    for record in some.iter_mut().filter(|record| record.case["layer"] == "2" && record.case["rules"] == "filter") {
        record.status = Status::Fail;
    }
    some.retain(|record| !(record.case["layer"] == "3" && record.case["rules"] == "none"));
    let table = latency(&some);
    assert_eq!(table.cell("filter", "2"), None);
    assert_eq!(table.cell("none", "2").unwrap().gain, None, "no baseline, no gain");
    let open = table.bounds.iter().find(|one| one.bound.starts_with("rules filter")).unwrap();
    assert_eq!((open.checked, open.missed.len()), (0, 0));
    assert!(text(&table).contains(&format!("open    {}", open.bound)));
    assert!(tables(&declared(), &[]).is_empty());
}

/// The report of one kernel.
fn side(kernel: &str, factor: f64) -> Report {
    let mut records = again(&records(), 1, factor);
    records.iter_mut().for_each(|record| record.guests[0].kernel = kernel.into());
    Report {
        schema: suite::results::SCHEMA,
        complete: true,
        cancelled: false,
        started_ms: 0,
        duration_ms: 1000,
        time_scale: 1.0,
        repeat: 1,
        provenance: Provenance { kernel: kernel.into(), ..Provenance::default() },
        guests: Vec::new(),
        comparisons: tables(&declared(), &records),
        records,
        pair: None,
    }
}

fn between(report: &Report) -> &Table {
    report.comparisons.iter().find(|table| table.columns_by == "kernel" && table.rows_by == "rules").unwrap()
}

#[test]
fn kernels_stand_side_by_side() {
    let whole = beside(&[side("baseline", 1.0), side("patched", 1.01)], &declared(), None).unwrap();
    let table = between(&whole);
    assert_eq!(
        (table.baseline.as_str(), table.columns.as_slice()),
        ("baseline", &["baseline".into(), "patched".into()][..])
    );
    assert!((table.cell("filter", "patched").unwrap().gain.unwrap() - 1.0).abs() < 1e-9);
    assert!(table.holds() && table.bounds[0].checked == 3, "{:?}", table.bounds);
    // Each kernel keeps its own table: layers of two kernels are never averaged.
    let own: Vec<&str> =
        whole.comparisons.iter().filter(|t| t.columns_by == "layer").map(|t| t.title.as_str()).collect();
    assert!(
        own.iter().any(|title| title.ends_with("(baseline)")) && own.iter().any(|title| title.ends_with("(patched)"))
    );
    // Every test is in a table, whether or not anybody declared one.
    let all = whole.comparisons.iter().find(|table| table.rows_by == "test").unwrap();
    assert_eq!(all.rows.len(), records().len());
    assert_eq!(whole.records.len(), 2 * records().len());
}

#[test]
fn a_dearer_kernel_fails_a_fair_pair_and_only_that() {
    let mut sides = [side("baseline", 1.0), side("patched", 1.03)];
    // Nothing else is missed.
    sides.iter_mut().for_each(|side| side.comparisons.clear());
    let whole = beside(&sides, &declared(), None).unwrap();
    assert_eq!(between(&whole).bounds[0].missed.len(), 3);
    assert_eq!(whole.exit_code(), 1);
    let unfair = beside(&sides, &declared(), Some("they are apples and oranges".into())).unwrap();
    assert!(between(&unfair).bounds.is_empty() && unfair.exit_code() == 0);
    assert!(report::pair(&unfair).contains("No fair pair: they are apples and oranges"));
}

#[test]
fn kernels_that_end_differently_are_named() {
    let mut sides = [side("baseline", 1.0), side("patched", 1.0)];
    sides[0].records[0].status = Status::Xfail;
    let whole = beside(&sides, &declared(), None).unwrap();
    let test = &sides[0].records[0].test;
    assert_eq!(whole.pair.as_ref().unwrap().unlike, [format!("{test}: xfail on baseline, pass on patched")]);
    assert!(report::pair(&whole).contains("xfail on baseline"));
}

const MATRIX: &str = r#"
[suite]
profile = "latency"
requires = ["deterministic"]

[[test]]
name = "{rules}-{layer}"
summary = "s"
requires = ["{needs}"]
matrix = [
    [{ rules = "none" }, { rules = "many" }],
    [{ layer = 3, needs = "" }, { layer = 2, needs = "sysctl:net.rxe.rxe_network_layer" }],
]
steps = [{ exec = "true" }]
"#;

#[test]
fn a_matrix_is_every_combination_in_the_order_of_its_lists() {
    let Suites { tests, .. } = suite::load_texts(&[(PathBuf::from("m.toml"), MATRIX.into())]).unwrap();
    let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    assert_eq!(names, ["none-3", "none-2", "many-3", "many-2"]);
    let needs = |n: usize| -> Vec<&str> { tests[n].requires.iter().map(|r| r.capability.as_str()).collect() };
    assert_eq!(needs(0), ["deterministic", "tool:true"], "a case may need nothing of its own");
    assert_eq!(needs(1), ["deterministic", "sysctl:net.rxe.rxe_network_layer", "tool:true"]);
    assert_eq!((tests[1].case["rules"].as_str(), tests[1].case["layer"].as_str()), ("none", "2"));
    assert!(tests.iter().all(|test| test.profile.as_deref() == Some("latency")));
}

/// What the lab promises in `docs/rxe-series.md` is what the suite bounds.
#[test]
fn the_projects_suite_bounds_what_it_claims() {
    let bounds = |title: &str| -> Vec<String> {
        let table = tables(&declared(), &[records(), again(&records(), 2, 1.0)].concat());
        let table = table.into_iter().find(|table| table.title.starts_with(title)).unwrap();
        table.bounds.into_iter().map(|verdict| verdict.bound).collect()
    };
    assert_eq!(
        bounds("ib_send_lat, RC, 2 B"),
        [
            "rules filter, layer 2: gain over layer 3 at least 10 %",
            "rules iptables-100, layer 2: gain over layer 3 at least 30 %",
            "everywhere: rounds agree within 5 %"
        ]
    );
}
