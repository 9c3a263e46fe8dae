//! Faults by plan, as the driver meets them.

mod common;

use common::{Driver, bench, command, config};
use gvnic::abi::adminq::{Opcode, Status};
use gvnic::config::PortConfig;
use gvnic::fault::{Fault, FaultPlan, Trigger};

fn plan(list: Vec<Fault>) -> FaultPlan {
    FaultPlan { seed: 1, list }
}

#[test]
fn a_command_is_refused_once_and_nothing_happens() {
    let when = Trigger::times(1, 1);
    let fault = Fault::AdminError { opcode: Some(Opcode::CreateRxQueue), status: Status::ResourceExhausted, when };
    let bench = bench(PortConfig { faults: plan(vec![fault]), ..config() });
    let mut driver = Driver::probe(&bench, 4);
    let rings = [driver.rings(64), driver.rings(64)];
    assert_eq!(driver.execute(driver.create_rx(0, &rings[0], 0)), 1);
    assert_eq!(driver.execute(driver.create_rx(1, &rings[1], 0)), 0xffff_fffc);
    assert!(bench.control.shared().view().queues.rx(1).is_none());
    assert_eq!(driver.execute(driver.create_rx(1, &rings[1], 0)), 1);
    let control = bench.control.status().control;
    assert_eq!((control.command_errors, control.rx_created), (1, 2));
}

#[test]
fn an_answer_is_withheld_until_the_reset() {
    let bench = bench(config());
    let mut driver = Driver::probe(&bench, 4);
    let fault = Fault::AdminTimeout { opcode: Some(Opcode::DestroyRxQueue), when: Trigger::times(0, 1) };
    bench.control.set_faults(plan(vec![fault])).unwrap();
    driver.open(4, 64);
    driver.issue(command(8, &[]));
    assert_eq!(driver.kick(), None, "`AQ commands timed out, need to reset AQ`");
    assert!(bench.control.status().stalled);
    assert!(bench.control.shared().view().queues.rx(0).is_some(), "and the command was not run");
    driver.issue(command(0xd, &[]));
    assert_eq!(driver.kick(), None, "what comes behind it waits as well");
    // `gve_reset` without an attempt to tear down.
    driver.release();
    assert_eq!(bench.control.shared().view().queues.all_rx().count(), 0);
    driver.run();
    driver.verify();
    driver.configure(4);
    driver.open(4, 64);
    driver.close(4);
    let status = bench.control.status();
    assert!(!status.stalled);
    assert_eq!(status.control.commands_withheld, 1);
}

#[test]
fn the_link_flaps_and_comes_back() {
    let flap = Fault::LinkFlap { down: 3, when: Trigger::times(2, 1) };
    let bench = bench(PortConfig { faults: plan(vec![flap]), ..config() });
    let _driver = Driver::probe(&bench, 4);
    let link: Vec<bool> = (0..8)
        .map(|_| {
            bench.control.tick();
            bench.control.shared().link_up()
        })
        .collect();
    assert_eq!(link, [true, true, false, false, false, true, true, true]);
    assert_eq!(bench.raised.take(), [8, 8]);
    bench.control.set_link(false);
    bench.control.set_faults(plan(vec![Fault::LinkFlap { down: 1, when: Trigger::times(0, 1) }])).unwrap();
    (0..4).for_each(|_| bench.control.tick());
    assert!(!bench.control.shared().link_up(), "a flap does not plug in what was pulled out");
    assert_eq!(bench.control.status().control.link_changes, 3);
}

#[test]
fn a_thousand_flaps_are_two_thousand_interrupts() {
    let flap = Fault::LinkFlap { down: 1, when: Trigger::default() };
    let bench = bench(config());
    let driver = Driver::probe(&bench, 16);
    for n in 0..1000 {
        bench.control.set_faults(plan(vec![flap])).unwrap();
        bench.control.tick();
        assert_eq!((bench.raised.take(), driver.read32(0) & 4), (vec![32], 0), "flap {n}");
        bench.control.set_faults(FaultPlan::default()).unwrap();
        bench.control.tick();
        assert_eq!((bench.raised.take(), driver.read32(0) & 4), (vec![32], 4), "flap {n}");
    }
}

#[test]
fn the_device_asks_for_a_reset_and_gets_it() {
    let reset = Fault::DeviceReset { when: Trigger::times(1, 2) };
    let bench = bench(PortConfig { faults: plan(vec![reset]), ..config() });
    let mut driver = Driver::probe(&bench, 2);
    for asks in [false, true, true, false, false] {
        bench.control.tick();
        assert_eq!(driver.read32(0) & 2 != 0, asks);
        assert_eq!(bench.raised.take(), if asks { vec![4] } else { vec![] });
        if asks {
            driver.release();
            driver.run();
            driver.configure(2);
        }
    }
    assert_eq!(bench.control.status().control.reset_requests, 2);
}

#[test]
fn a_plan_that_cannot_be_is_refused_and_the_old_one_stays() {
    let bench = bench(config());
    let bad = Fault::DeviceReset { when: Trigger::probability(2.0) };
    let error = bench.control.set_faults(plan(vec![bad])).unwrap_err();
    assert_eq!(error.to_string(), "no gVNIC can have faults.when.probability = 2: 0 to 1");
    bench.control.tick();
    assert!(!bench.control.status().reset_requested);
}
