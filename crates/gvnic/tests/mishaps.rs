//! Faults that strike frames, as the drivers at both ends of a cable meet them.

mod common;
mod rings;

use common::Driver;
use gvnic::fault::{Fault, FaultPlan, Trigger, Way};
use rings::{Guest, cable, flow, lab, number, numbered};

fn plan(seed: u64, fault: Fault) -> FaultPlan {
    FaultPlan { seed, list: vec![fault] }
}

#[test]
fn mishaps_happen_as_often_as_they_should() {
    let run = |seed: u64, fault: Fault| {
        let (a, b) = lab(1);
        let (one, other) = cable(64);
        let (mut a, mut b) = (Guest::new(&a, 1, 256, one), Guest::new(&b, 1, 256, other));
        a.post();
        b.post();
        a.bench.control.set_faults(plan(seed, fault)).unwrap();
        b.bench.control.set_faults(plan(seed, fault)).unwrap();
        let got = flow(&mut a, &mut b, 2000, numbered);
        a.accounted();
        b.accounted();
        let lost = a.bench.control.status().tx[0].frames.drop_fault + b.bench.control.status().rx[0].frames.drop_fault;
        (got.iter().map(|frame| (number(frame), frame.errors.1, frame.split)).collect::<Vec<_>>(), lost)
    };
    let chance = Trigger::probability(0.1);
    for way in [Way::Tx, Way::Rx] {
        let drop = Fault::Drop { way, when: chance };
        let (got, lost) = run(1, drop);
        assert_eq!(got.len() as u64 + lost, 2000);
        // Five standard deviations: 67.
        assert!((133..267).contains(&lost), "{lost}");
        assert_eq!(run(1, drop).0, got, "the same seed");
        assert_ne!(run(2, drop).0, got, "another");

        let (got, _) = run(1, Fault::Duplicate { way, when: chance });
        assert!((2133..2267).contains(&got.len()), "{}", got.len());

        let (got, _) = run(1, Fault::Corrupt { way, when: chance });
        let bad = got.iter().filter(|(_, error, _)| *error).count();
        assert!((100..267).contains(&bad), "{bad}: a bit of an address or a length is not a wrong checksum");

        for fault in [Fault::Reorder { way, when: chance }, Fault::Delay { micros: 2000, way, when: chance }] {
            let (got, _) = run(1, fault);
            let numbers: Vec<_> = got.iter().map(|(n, ..)| *n).collect();
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            assert!(sorted == (0..2000).collect::<Vec<_>>());
            let late = numbers.windows(2).filter(|w| w[1] < w[0]).count();
            assert!(late > 20, "{fault:?}: {late}");
        }
        assert_eq!(run(1, Fault::Drop { way, when: Trigger::times(5, 3) }).1, 3);
    }
    let (got, _) = run(1, Fault::MissSplit { when: chance });
    let unsplit = got.iter().filter(|(_, _, split)| !split).count();
    assert_eq!(got.len(), 2000);
    assert!((133..267).contains(&unsplit), "{unsplit}");
    assert_eq!(run(1, Fault::Miss { when: chance }).0.len(), 2000, "every packet is completed all the same");
}

#[test]
fn withheld_completions_are_withheld() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    a.post();
    b.post();
    a.bench.control.set_faults(plan(1, Fault::WithholdCompletion { when: Trigger::times(3, 2) })).unwrap();
    let got = flow(&mut a, &mut b, 500, numbered);
    assert_eq!((got.len(), a.tx[0].flying.len()), (500, 2));
}

/// A plan is followed across resets, and begins anew when it is given anew.
#[test]
fn faults_count_on_until_they_are_replaced() {
    let (a, b) = lab(1);
    let (one, other) = cable(64);
    let (mut a, mut b) = (Guest::new(&a, 1, 64, one), Guest::new(&b, 1, 64, other));
    a.post();
    b.post();
    let lost = |b: &Guest<'_>| b.bench.control.status().rx[0].frames.drop_fault;
    let first = plan(1, Fault::Drop { way: Way::Rx, when: Trigger::times(0, 3) });
    b.bench.control.set_faults(first.clone()).unwrap();
    assert_eq!((flow(&mut a, &mut b, 10, numbered).len(), lost(&b)), (7, 3));
    b.driver.release();
    b.bench.ram.free_all();
    b.driver = Driver::probe(b.bench, 1);
    (b.resources, b.tx, b.rx) = Guest::open(&mut b.driver, b.bench, 1, 64);
    b.post();
    assert_eq!((flow(&mut a, &mut b, 10, numbered).len(), lost(&b)), (10, 3), "a reset is no new plan");
    b.bench.control.set_faults(first).unwrap();
    assert_eq!((flow(&mut a, &mut b, 10, numbered).len(), lost(&b)), (7, 6));
    b.bench.control.set_faults(FaultPlan::default()).unwrap();
    assert_eq!((flow(&mut a, &mut b, 10, numbered).len(), lost(&b)), (10, 6));
}
