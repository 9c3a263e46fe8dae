//! Parsers over real outputs: perftest 25.01, rdma-core 56.1 and iperf 3.18 in a guest under TCG.

use suite::parsers::{self, Parsed};

fn data(path: &str) -> String {
    let path = format!("{}/tests/data/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn value(parsed: &Parsed, name: &str) -> (f64, String) {
    let names: Vec<&str> = parsed.metrics.iter().map(|m| m.name.as_str()).collect();
    let found = parsed.metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}"));
    (found.value, found.unit.clone())
}

#[test]
fn latency_tables() {
    for tool in ["ib_send_lat", "ib_write_lat", "ib_read_lat", "ib_atomic_lat"] {
        let parsed = parsers::parse("perftest", &data(&format!("perftest/{tool}.client.txt"))).unwrap();
        let names: Vec<&str> = parsed.metrics.iter().map(|m| m.name.as_str()).collect();
        let due = ["bytes", "iterations", "t_min", "t_max", "t_typical", "t_avg", "t_stdev", "p99", "p99.9"];
        assert_eq!(names, due, "{tool}");
        assert_eq!(value(&parsed, "iterations"), (200.0, "count".into()), "{tool}");
        assert_eq!(value(&parsed, "t_avg").1, "usec", "{tool}");
        assert!(value(&parsed, "t_min").0 <= value(&parsed, "t_avg").0, "{tool}");
        assert_eq!(parsed.evidence[0].lines.len(), 2, "{tool}");
    }
    let parsed = parsers::parse("perftest", &data("perftest/ib_send_lat.client.txt")).unwrap();
    assert_eq!(value(&parsed, "t_avg").0, 1388.04);
    assert_eq!(value(&parsed, "p99.9").0, 14849.42);
}

#[test]
fn bandwidth_tables() {
    for tool in ["ib_send_bw", "ib_write_bw", "ib_read_bw"] {
        let parsed = parsers::parse("perftest", &data(&format!("perftest/{tool}.client.txt"))).unwrap();
        let names: Vec<&str> = parsed.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["bytes", "iterations", "bw_peak", "bw_average", "msg_rate"], "{tool}");
        assert_eq!(value(&parsed, "bw_average").1, "MiB/sec", "{tool}");
        assert_eq!(value(&parsed, "bytes").0, 65536.0, "{tool}");
    }
    let gbits = parsers::parse("perftest", &data("perftest/ib_send_bw.gbits.txt")).unwrap();
    assert_eq!(value(&gbits, "bw_average").1, "Gb/sec");
    let server = parsers::parse("perftest", &data("perftest/ib_send_bw.server.txt")).unwrap();
    assert_eq!(value(&server, "bw_average"), (15.54, "MiB/sec".into()));
}

#[test]
fn other_shapes_of_the_table() {
    let sizes = parsers::parse("perftest", &data("perftest/ib_send_lat.all-sizes.txt")).unwrap();
    assert_eq!(value(&sizes, "t_avg@64"), (8766.93, "usec".into()));
    // perftest prints `-nan` as deviation of the largest sizes; the row counts, the number does not.
    assert_eq!(value(&sizes, "t_avg@8388608").0, 750514.75);
    assert!(!sizes.metrics.iter().any(|m| m.name == "t_stdev@8388608" || !m.value.is_finite()));
    let timed = parsers::parse("perftest", &data("perftest/ib_send_lat.duration.txt")).unwrap();
    assert_eq!(value(&timed, "tps_average").1, "1/s");
    assert_eq!(value(&timed, "t_avg").1, "usec");
}

#[test]
fn no_table_is_no_measurement() {
    let error = parsers::parse("perftest", &data("perftest/refused.txt")).unwrap_err();
    assert!(error.contains("no table"), "{error}");
    let whole = data("perftest/ib_send_lat.client.txt");
    let cut = &whole[..whole.find("\n 2 ").unwrap()];
    assert!(parsers::parse("perftest", cut).unwrap_err().contains("no row of 9 numbers"));
    assert!(parsers::parse("perftest", "").is_err());
}

#[test]
fn ping_data() {
    for (file, pings) in [("v4.client", 5.0), ("v4.server", 5.0), ("v6.client", 3.0), ("v6.server", 3.0)] {
        let parsed = parsers::parse("rping", &data(&format!("rping/{file}.txt"))).unwrap();
        assert_eq!(value(&parsed, "pings"), (pings, "count".into()), "{file}");
        assert_eq!(parsed.evidence[0].lines.len(), pings as usize, "{file}");
    }
    let client = data("rping/v4.client.txt");
    let corrupt = client.replace("rdma-ping-2: CDEF", "rdma-ping-2: CDXF");
    let error = parsers::parse("rping", &corrupt).unwrap_err();
    assert!(error.contains("byte 15 is 'X', not 'E'"), "{error}");
    let lost = client.replacen("ping data: rdma-ping-1", "lost", 1);
    assert!(parsers::parse("rping", &lost).unwrap_err().contains("`rdma-ping-1: ` is due here"));
    assert!(parsers::parse("rping", &data("rping/refused.txt")).unwrap_err().contains("rping sent nothing"));
}

#[test]
fn cases_of_verbs() {
    let matrix = parsers::parse("verbs", &data("verbs/matrix.jsonl")).unwrap();
    assert_eq!(value(&matrix, "cases"), (14.0, "count".into()));
    assert_eq!(value(&matrix, "cases_fetch_add").0, 4.0);
    assert_eq!(value(&matrix, "bytes"), (112.0, "B".into()));
    assert_eq!((value(&matrix, "failed_cases").0, value(&matrix, "mismatching_bytes").0), (0.0, 0.0));
    assert!(matrix.evidence.is_empty());
    let requests = parsers::parse("verbs", &data("verbs/requests.jsonl")).unwrap();
    assert_eq!(value(&requests, "cases_request").0, 30.0);

    let text = data("verbs/matrix.jsonl");
    let wrong = text.replacen("\"mismatches\":0,\"ok\":true", "\"mismatches\":3,\"ok\":false", 1);
    let error = parsers::parse("verbs", &wrong).unwrap_err();
    assert!(error.contains("the sum is") && error.contains("mismatches: 3"), "{error}");
    let told = wrong.replace("\"failed\":0,\"mismatches\":0}}", "\"failed\":1,\"mismatches\":3}}");
    let told = parsers::parse("verbs", &told).unwrap();
    assert_eq!((value(&told, "failed_cases").0, value(&told, "mismatching_bytes").0), (1.0, 3.0));
    assert!(told.evidence[0].lines[0].contains("write 8 heap+1 udmabuf"), "{told:?}");
    let cut = text.lines().take(14).map(|line| format!("{line}\n")).collect::<String>();
    assert!(parsers::parse("verbs", &cut).unwrap_err().contains("no line with the sum"));
    assert!(parsers::parse("verbs", "lab-verbs: no device\n").unwrap_err().contains("lab-verbs: no device"));
}

#[test]
fn reports_of_lab_devmem() {
    let received = parsers::parse("devmem", &data("devmem/received.json")).unwrap();
    assert_eq!(value(&received, "devmem_bytes"), (1_073_741_824.0, "B".into()));
    assert_eq!(value(&received, "devmem_percent"), (100.0, "%".into()));
    assert_eq!(value(&received, "received_gbit_per_second").1, "Gbit/s");
    assert_eq!((value(&received, "fragments").1, received.evidence.len()), ("count".into(), 0));
    let sent = parsers::parse("devmem", &data("devmem/sent.json")).unwrap();
    assert_eq!((value(&sent, "completions").0, value(&sent, "copied_completions").0), (4905.0, 0.0));

    let wrong = parsers::parse("devmem", &data("devmem/wrong-rule.json")).unwrap();
    assert_eq!((value(&wrong, "devmem_percent").0, value(&wrong, "ordinary_bytes").0), (0.0, 1_048_576.0));
    assert_eq!(wrong.evidence[0].lines, ["less than 99.50 % of the bytes are in device memory"]);
    for (bad, why) in
        [("", "no line with a JSON object"), ("{\"x\":1}\n", "neither devmem_bytes"), ("{x\n", "line `{x`")]
    {
        assert!(parsers::parse("devmem", bad).unwrap_err().contains(why), "{bad}");
    }
}

#[test]
fn iperf3_documents() {
    let tcp = parsers::parse("iperf3", &data("iperf/tcp.json")).unwrap();
    assert_eq!(value(&tcp, "received_rate").1, "Mbit/s");
    assert!(value(&tcp, "received_rate").0 > 1.0);
    assert_eq!(value(&tcp, "retransmits").1, "count");
    let udp = parsers::parse("iperf3", &data("iperf/udp.json")).unwrap();
    assert!((value(&udp, "received_rate").0 - 19.885).abs() < 0.001);
    assert_eq!(value(&udp, "received_lost"), (0.0, "%".into()));
    let refused = parsers::parse("iperf3", &data("iperf/refused.json")).unwrap_err();
    assert!(refused.contains("Connection refused"), "{refused}");
    assert!(parsers::parse("iperf3", "iperf3: error").is_err());
}

#[test]
fn every_name_has_a_parser() {
    for name in parsers::NAMES {
        assert!(!parsers::parse(name, "").unwrap_err().contains("there is no parser"), "{name}");
    }
}
