//! Every descriptor that comes in is closed again. Alone in its process, for it counts all of them.

mod common;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use common::*;
use vfio_user::wire::{DmaMap, command, flags, irq};

#[test]
fn descriptors_are_closed_whatever_becomes_of_their_message() {
    let ram = memfd(1 << 20);
    let events: Vec<OwnedFd> = (0..253).map(|_| event()).collect();
    let events: Vec<BorrowedFd<'_>> = events.iter().map(AsFd::as_fd).collect();
    let before = open_fds();
    for round in 0..20u64 {
        let mut bench = Bench::new();
        let base = open_fds();
        let client = &mut bench.client;
        // What is in use: the vectors, and not the file of the memory, which is mapped.
        assert_eq!(client.map(0, 1 << 20, READ_WRITE, Some(ram.as_fd()), 0), 0);
        assert_eq!(open_fds(), base);
        for start in [0, 16, 32] {
            let fds = &events[..16];
            assert_eq!(client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, start, 16, &[], fds), 0);
        }
        assert_eq!(open_fds(), base + 48);
        // Replaced and taken away.
        assert_eq!(client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 0, 16, &[], &events[..16]), 0);
        assert_eq!(client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 16, 16, &[], &[]), 0);
        assert_eq!(open_fds(), base + 32);
        // Refused: too many, of the wrong kind, for the wrong command, too large a message, nobody waiting for an answer.
        for many in [1, 2, 16, 17, 100, 253] {
            for command in [command::VERSION, command::DMA_UNMAP, command::REGION_READ, command::DEVICE_RESET, 77] {
                assert_ne!(client.ask(command, &[1, 2, 3], &events[..many]).header.error, 0);
            }
            let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 1 << 30, size: 4096 };
            assert_ne!(client.ask(command::DMA_MAP, &body(|b| map.append(b)), &events[..many]).header.error, 0);
            assert_ne!(client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 0, 0, &[], &events[..many]), 0);
            assert_ne!(client.set_irqs(irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 60, 16, &[], &events[..many]), 0);
            let large = message(1, 77, &vec![0; 100_000], 0);
            client.send(&large, &events[..many]);
            assert_ne!(client.answer().unwrap().header.error, 0);
            let silent = message(1, command::DMA_MAP, &[0; 32], flags::NO_REPLY);
            client.send(&silent, &events[..many]);
            client.in_step();
            assert_eq!(open_fds(), base + 32, "after {many}");
        }
        // In a message that never ends, or in one that ends the connection.
        if round % 2 == 0 {
            client.send(&message(1, command::DMA_MAP, &[0; 32], 0)[..20], &events[..5]);
        } else {
            client.send(&[0; 16], &events[..5]);
        }
        bench.end();
        assert_eq!(open_fds(), before);
    }
}
