//! Vectors: connected, masked in three ways, latched, and fired once they can be.

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;

use common::*;
use vfio_user::wire::{DeviceInfo, IrqSet, command, irq, region};

const MASK: u32 = irq::DATA_NONE | irq::ACTION_MASK;
const UNMASK: u32 = irq::DATA_NONE | irq::ACTION_UNMASK;
const FIRE: u32 = irq::DATA_NONE | irq::ACTION_TRIGGER;
const CONNECT: u32 = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;

fn pending(client: &mut Client) -> Vec<u16> {
    let bits = client.read(2, PBA, 16);
    (0..128).filter(|n| bits[usize::from(n / 8)] >> (n % 8) & 1 != 0).collect()
}

/// Has the server done with everything before: it answers in order.
fn settle(client: &mut Client) {
    client.ok(command::DEVICE_GET_INFO, &body(|b| DeviceInfo { argsz: 16, ..Default::default() }.append(b)), &[]);
}

#[test]
fn a_doorbell_raises_the_vector_and_no_other() {
    let mut bench = Bench::new();
    let fds: Vec<OwnedFd> = (0..u32::from(VECTORS)).map(|n| bench.client.connect(n)).collect();
    for vector in [0u16, 1, 63, 64, 69] {
        bench.client.write(0, BAR0 - 4, &u32::from(vector).to_le_bytes());
        let fired: Vec<_> = fds.iter().map(count).enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(fired, [(usize::from(vector), 1)]);
    }
    // One that is not there.
    bench.client.write(0, BAR0 - 4, &70u32.to_le_bytes());
    bench.interrupts.raise(u16::MAX);
    assert!(fds.iter().all(|fd| count(fd) == 0));
    assert_eq!(pending(&mut bench.client), [0u16; 0]);
}

/// However a vector is kept from being delivered, it is pending once and fires once when it can.
#[test]
fn what_cannot_be_delivered_is_latched_and_fires_once() {
    type Step = fn(&mut Client, &OwnedFd);
    let ways: [(&str, Step, Step); 5] = [
        (
            "masked by the client",
            |c, _| assert_eq!(c.set_irqs(MASK, 65, 1, &[], &[]), 0),
            |c, _| assert_eq!(c.set_irqs(UNMASK, 65, 1, &[], &[]), 0),
        ),
        (
            "masked by the client, by booleans",
            |c, _| assert_eq!(c.set_irqs(irq::DATA_BOOL | irq::ACTION_MASK, 64, 3, &[0, 1, 0], &[]), 0),
            |c, _| assert_eq!(c.set_irqs(irq::DATA_BOOL | irq::ACTION_UNMASK, 64, 3, &[0, 0xff, 0], &[]), 0),
        ),
        (
            "masked in the table",
            |c, _| c.write(2, TABLE + 65 * 16 + 12, &[1, 0, 0, 0]),
            |c, _| c.write(2, TABLE + 65 * 16 + 8, &[0; 8]),
        ),
        (
            "masked with the function",
            |c, _| c.write(region::CONFIG, 0x42, &[0, 0xc0]),
            |c, _| c.write(region::CONFIG, 0x40, &[0xff, 0xff, 0xff, 0x80]),
        ),
        (
            "not connected",
            |c, _| assert_eq!(c.set_irqs(CONNECT, 65, 1, &[], &[]), 0),
            |c, fd| assert_eq!(c.set_irqs(CONNECT, 65, 1, &[], &[fd.as_fd()]), 0),
        ),
    ];
    for (way, mask, unmask) in ways {
        let mut bench = Bench::new();
        let (other, fd) = (bench.client.connect(66), bench.client.connect(65));
        mask(&mut bench.client, &fd);
        for _ in 0..3 {
            bench.interrupts.raise(65);
        }
        assert_eq!(count(&fd), 0, "{way}");
        assert_eq!((pending(&mut bench.client), bench.interrupts.is_pending(65)), (vec![65], true), "{way}");
        unmask(&mut bench.client, &fd);
        assert_eq!((count(&fd), count(&other)), (1, 0), "{way}");
        assert_eq!(pending(&mut bench.client), [0u16; 0], "{way}");
        bench.interrupts.raise(65);
        assert_eq!(count(&fd), 1, "{way}");
        // Unmasked with nothing pending: nothing.
        mask(&mut bench.client, &fd);
        unmask(&mut bench.client, &fd);
        assert_eq!(count(&fd), 0, "{way}");
    }
}

#[test]
fn one_mask_is_enough_and_the_last_one_to_go_fires() {
    let mut bench = Bench::new();
    let fd = bench.client.connect(0);
    assert_eq!(bench.client.set_irqs(MASK, 0, 1, &[], &[]), 0);
    bench.client.write(2, TABLE + 12, &[1]);
    bench.client.write(region::CONFIG, 0x43, &[0xc0]);
    bench.interrupts.raise(0);
    assert_eq!(bench.client.set_irqs(UNMASK, 0, 1, &[], &[]), 0);
    bench.client.write(region::CONFIG, 0x43, &[0x80]);
    assert_eq!(count(&fd), 0);
    bench.client.write(2, TABLE + 12, &[0]);
    assert_eq!(count(&fd), 1);
}

#[test]
fn a_table_nobody_writes_masks_nothing() {
    // As QEMU has it: the table reads as masked, but it is not the one that counts.
    let mut bench = Bench::new();
    let fd = bench.client.connect(5);
    assert_eq!(bench.client.read(2, TABLE + 5 * 16 + 12, 4), [1, 0, 0, 0]);
    bench.interrupts.raise(5);
    assert_eq!(count(&fd), 1);
    // Address and data are memory; they are no mask either.
    bench.client.write(2, TABLE + 5 * 16, &[0xee; 12]);
    assert_eq!(bench.client.read(2, TABLE + 5 * 16, 12), [0xee; 12]);
    bench.interrupts.raise(5);
    assert_eq!(count(&fd), 1);
}

#[test]
fn the_client_fires_connects_and_disconnects_ranges() {
    let mut bench = Bench::new();
    let fds: Vec<OwnedFd> = (0..16).map(|_| event()).collect();
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    assert_eq!(bench.client.set_irqs(CONNECT, 54, 16, &[], &borrowed), 0);
    assert_eq!(bench.client.set_irqs(FIRE, 54, 16, &[], &[]), 0);
    assert!(fds.iter().all(|fd| count(fd) == 1));
    assert_eq!(bench.client.set_irqs(irq::DATA_BOOL | irq::ACTION_TRIGGER, 60, 3, &[1, 0, 2], &[]), 0);
    assert_eq!(fds.iter().map(count).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Half of them go.
    assert_eq!(bench.client.set_irqs(CONNECT, 54, 8, &[], &[]), 0);
    assert_eq!(bench.client.set_irqs(FIRE, 54, 16, &[], &[]), 0);
    assert_eq!(fds.iter().map(count).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(pending(&mut bench.client), (54..62).collect::<Vec<_>>());
    // All of them, as QEMU does when the guest turns MSI-X off (`vfio_device_irq_disable`, hw/vfio/device.c).
    assert_eq!(bench.client.set_irqs(FIRE, 0, 0, &[], &[]), 0);
    bench.interrupts.raise(69);
    assert_eq!(count(&fds[15]), 0);
    // A kind of which there are none may be disabled too.
    let none = IrqSet { argsz: 20, flags: FIRE, index: 0, start: 0, count: 0 };
    bench.client.ok(command::DEVICE_SET_IRQS, &body(|b| none.append(b)), &[]);
}

#[test]
fn a_reset_forgets_what_is_pending_and_what_the_guest_masked() {
    let mut bench = Bench::new();
    let fd = bench.client.connect(1);
    bench.client.write(2, TABLE + 16, &[7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bench.client.write(region::CONFIG, 0x43, &[0xc0]);
    bench.client.write(0, 0, &[1, 2, 3]);
    bench.interrupts.raise(1);
    bench.interrupts.raise(2);
    assert_eq!(pending(&mut bench.client), [1, 2]);
    bench.client.ok(command::DEVICE_RESET, &[], &[]);
    assert_eq!(bench.seen.lock().unwrap().resets, 1);
    assert_eq!(pending(&mut bench.client), [0u16; 0]);
    assert_eq!(bench.client.read(2, TABLE + 16, 16), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bench.client.read(region::CONFIG, 0x43, 1), [0]);
    assert_eq!(bench.client.read(0, 0, 3), [0, 0, 0]);
    assert_eq!(count(&fd), 0);
    // The client's connection is not the guest's business.
    bench.interrupts.raise(1);
    assert_eq!(count(&fd), 1);
}

#[test]
fn an_eventfd_that_is_full_stops_nobody() {
    let mut bench = Bench::new();
    // As the client made it: blocking.
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    assert_eq!(bench.client.set_irqs(CONNECT, 0, 1, &[], &[fd.as_fd()]), 0);
    for _ in 0..3 {
        bench.interrupts.raise(0);
        assert_eq!(bench.client.set_irqs(FIRE, 0, 1, &[], &[]), 0);
    }
    bench.client.in_step();
    assert_eq!(count(&fd), u64::MAX - 1);
}

#[test]
fn none_is_lost_while_another_thread_raises_and_the_client_masks() {
    const ROUNDS: u64 = 2000;
    let mut bench = Bench::new();
    let fd = bench.client.connect(7);
    let interrupts = bench.interrupts.clone();
    let raising = thread::spawn({
        let fd = fd.try_clone().unwrap();
        move || {
            for _ in 0..ROUNDS {
                interrupts.raise(7);
                // The next one only after this one has come: each has to.
                assert_eq!(wait(&fd), 1);
            }
        }
    });
    let mut turn = 0u32;
    while !raising.is_finished() {
        turn += 1;
        match turn % 3 {
            0 => {
                assert_eq!(bench.client.set_irqs(MASK, 7, 1, &[], &[]), 0);
                assert_eq!(bench.client.set_irqs(UNMASK, 7, 1, &[], &[]), 0);
            }
            1 => {
                bench.client.write(region::CONFIG, 0x43, &[0xc0]);
                bench.client.write(region::CONFIG, 0x43, &[0x80]);
            }
            _ => {
                bench.client.write(2, TABLE + 7 * 16 + 12, &[1]);
                bench.client.write(2, TABLE + 7 * 16 + 12, &[0]);
            }
        }
    }
    raising.join().unwrap();
    settle(&mut bench.client);
    assert!(!bench.interrupts.is_pending(7));
}
