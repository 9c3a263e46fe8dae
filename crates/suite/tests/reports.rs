//! One report with every status, told in every form.

use suite::compare::{Better, Table, Verdict};
use suite::results::{Crash, Evidence, GuestUse, Hang, HangKind, Host, Leak, Subtest};
use suite::{CrashInfo, Metric, Provenance, Record, Report, Status, ktap, report};

fn record(test: &str, status: Status, message: &str) -> Record {
    Record {
        test: test.into(),
        iteration: 1,
        case: Default::default(),
        status,
        message: message.into(),
        missing: Vec::new(),
        started_ms: 1_795_360_380_000,
        duration_ms: 1234,
        guests: vec![GuestUse { role: "a".into(), guest: "a".into(), kernel: "stock".into() }],
        metrics: Vec::new(),
        evidence: Vec::new(),
        subtests: Vec::new(),
        artifacts: Vec::new(),
        crash: None,
        hang: None,
        leaks: Vec::new(),
        rebooted: Vec::new(),
        notes: Vec::new(),
    }
}

fn sample() -> Report {
    let mut pass = record("rdma/ib_send_lat-netkit", Status::Pass, "");
    pass.metrics = vec![
        Metric { name: "iterations".into(), unit: "count".into(), value: 500.0 },
        Metric { name: "t_avg".into(), unit: "usec".into(), value: 49.73 },
    ];
    pass.evidence = vec![Evidence { name: "client: ping data".into(), lines: vec!["a <b> & \"c\" \u{7}".into()] }];
    let mut parts = record("rdma/rxe_netns_names", Status::Pass, "");
    let part = |name: &str, status, message: &str| Subtest { name: name.into(), status, message: message.into() };
    parts.subtests = vec![part("same name #1", Status::Pass, ""), part("moved", Status::Skip, "old iproute2")];
    let mut skip = record("rdma/devmem", Status::Skip, "missing: nic.header-split (no NIC can)");
    skip.missing = vec!["nic.header-split".into()];
    let mut crash = record("rdma/oops", Status::Crash, "guest `a`: oops: NULL pointer in rxe_send");
    crash.crash = Some(Crash {
        guest: "a".into(),
        info: CrashInfo {
            kind: "oops".into(),
            title: "NULL pointer in rxe_send".into(),
            fingerprint: "oops:rxe_send/rxe_xmit_packet".into(),
            trace: "RIP: 0010:rxe_send+0x1/0x2\nCall Trace:\n rxe_xmit_packet+0x3/0x4".into(),
        },
    });
    crash.rebooted = vec!["a: it crashed: NULL pointer in rxe_send".into()];
    let mut timeout = record("rdma/hang", Status::Timeout, "time ran out while it only waited");
    timeout.hang = Some(Hang {
        kind: HangKind::Quiet,
        guest: "a".into(),
        step: "client".into(),
        quiet_ms: 9000,
        last_output: vec!["sending".into()],
        processes: vec!["812 rping -c: state D, 0.01 s of CPU time, in rdma_destroy_id".into()],
    });
    let mut leak = record("rdma/leak", Status::Fail, "left behind: netns new: left");
    leak.leaks = vec![Leak { guest: "a".into(), kind: "netns".into(), what: "new: left".into() }];
    let mut second = record("smoke/facts", Status::Pass, "");
    second.iteration = 2;
    Report {
        schema: suite::results::SCHEMA,
        complete: true,
        cancelled: false,
        started_ms: 1_795_360_380_000,
        duration_ms: 98_700,
        time_scale: 6.0,
        repeat: 2,
        provenance: Provenance {
            lab: "lab".into(),
            lock_sha256: "ab".repeat(32),
            kernel: "stock".into(),
            kernel_release: "7.3.4".into(),
            accelerator: "tcg".into(),
            host: Host { cpus: 2, ..Host::default() },
            ..Provenance::default()
        },
        guests: Vec::new(),
        records: vec![
            pass,
            parts,
            skip,
            record("rdma/tcx-egress-drop", Status::Xfail, "as known of kernel `stock`: NET_XMIT_DROP is fatal"),
            record("rdma/fixed", Status::Xpass, "it passed though"),
            crash,
            timeout,
            leak,
            record("smoke/lost", Status::Error, "guest `a`: channel lost"),
            second,
            record("smoke/never", Status::NotRun, ""),
        ],
        comparisons: vec![latency()],
        pair: None,
    }
}

/// A table of which one bound holds, one is missed and one could not be checked.
fn latency() -> Table {
    let verdict = |bound: &str, checked, missed: &[&str]| Verdict {
        bound: bound.into(),
        checked,
        missed: missed.iter().map(ToString::to_string).collect(),
    };
    Table {
        title: "ib_send_lat".into(),
        suite: "rdma".into(),
        metric: "t_avg".into(),
        unit: "usec".into(),
        better: Better::Lower,
        rows_by: "rules".into(),
        columns_by: "layer".into(),
        baseline: "3".into(),
        columns: Vec::new(),
        rows: Vec::new(),
        bounds: vec![
            verdict("rules filter: at most 40 usec", 2, &[]),
            verdict("layer 2: gain over layer 3 at least 10 %", 2, &["rules none, layer 2: 4.0 %"]),
            verdict("everywhere: rounds agree within 5 %", 0, &[]),
        ],
    }
}

fn golden(file: &str, said: &str) {
    let path = format!("{}/tests/data/reports/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(&path).unwrap_or_default(), "{file}");
}

/// The forms as they stand; `UPDATE=1` writes them anew after a deliberate change.
#[test]
fn every_form() {
    golden("table.txt", &report::table(&sample(), true));
    golden("table-quiet.txt", &report::table(&sample(), false));
    golden("junit.xml", &report::junit(&sample()));
    golden("results.ktap", &report::ktap(&sample()));
}

#[test]
fn our_ktap_is_ktap() {
    let results = ktap::parse(&report::ktap(&sample()));
    assert_eq!(results.problems(), Vec::<String>::new());
    let told: Vec<(bool, Status)> = results.cases.iter().map(|case| (case.ok, case.status())).collect();
    assert_eq!(told[0], (true, Status::Pass));
    assert_eq!(results.cases[1].nested.as_ref().map(|nested| nested.cases.len()), Some(2));
    assert_eq!((told[2].1, told[3].1, told[4].1), (Status::Skip, Status::Xfail, Status::Xpass));
    assert!(told[5..9].iter().all(|(ok, _)| !ok));
}

/// Balanced elements, escaped text, no character XML forbids.
#[test]
fn our_junit_is_xml() {
    let xml = report::junit(&sample());
    assert!(!xml.contains('\u{7}'));
    let mut open = Vec::new();
    for tag in xml.split('<').skip(2).map(|rest| rest.split('>').next().unwrap()) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name.to_string())),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap().to_string()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(xml.contains("a &lt;b&gt; &amp; &quot;c&quot; ?"));
}

#[test]
fn exit_codes() {
    let only = |status: Status| {
        let records = vec![record("s/t", Status::Pass, ""), record("s/u", status, "")];
        Report { records, comparisons: Vec::new(), ..sample() }.exit_code()
    };
    for (status, code) in [
        (Status::Pass, 0),
        (Status::Skip, 0),
        (Status::Xfail, 0),
        (Status::Xpass, 0),
        (Status::Fail, 1),
        (Status::Crash, 1),
        (Status::Timeout, 1),
        (Status::Error, 125),
        (Status::DidNotFinish, 125),
        (Status::NotRun, 125),
    ] {
        assert_eq!(only(status), code, "{status:?}");
    }
    assert_eq!(Report { records: Vec::new(), comparisons: Vec::new(), ..sample() }.exit_code(), 125);
    let stopped = vec![record("s/t", Status::DidNotFinish, "interrupted")];
    assert_eq!(
        Report { records: stopped, comparisons: Vec::new(), cancelled: true, complete: false, ..sample() }.exit_code(),
        130
    );
}

#[test]
fn json_round_trip() {
    let text = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), sample());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["records"][5]["crash"]["fingerprint"], "oops:rxe_send/rxe_xmit_packet");
    assert_eq!(value["records"][8]["status"], "error");
}
