//! A client that somebody else wrote: the one of the crate `vfio_user`.

mod common;

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::thread;

use common::*;
use vfio_user::Server;
use vfio_user::wire::{irq, region};

#[test]
fn another_client_finds_its_way_about() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = Server::new(function()).unwrap();
    let (stopper, memory, interrupts) = (server.stopper(), server.memory(), server.interrupts());
    let mut device = Registers::new(interrupts.clone());
    let seen = device.seen.clone();
    let serving = thread::spawn(move || server.serve(&listener, &mut device));
    for _ in 0..3 {
        let mut client = other::Client::new(&path).unwrap();
        let sizes: Vec<u64> = (0..9).map(|n| client.region(n).unwrap().size).collect();
        assert_eq!(sizes, [4096, 0, 8192, 0, 0, 1 << 18, 0, 256, 0]);
        assert!(client.region(9).is_none());

        let mut id = [0; 4];
        client.region_read(region::CONFIG, 0, &mut id).unwrap();
        assert_eq!(id, [0x34, 0x12, 0x78, 0x56]);
        client.region_write(region::CONFIG, 0x10, &[0xff; 4]).unwrap();
        client.region_read(region::CONFIG, 0x10, &mut id).unwrap();
        assert_eq!(id, [0, 0xf0, 0xff, 0xff]);

        let file = memfd(1 << 20);
        client.dma_map(0x1000, 0x8000_0000, 0x2000, file.as_raw_fd()).unwrap();
        memory.write(0x8000_1ffe, &[1, 2]).unwrap();
        assert_eq!(peek(&file, 0x2ffe, 2), [1, 2]);
        client.dma_unmap(0x8000_0000, 0x2000).unwrap();
        assert!(memory.write(0x8000_1ffe, &[1, 2]).is_err());
        // It does not look at errors, but it would be out of step after one that it does not expect.
        client.dma_unmap(0, 0x1000).unwrap();

        let info = client.get_irq_info(irq::MSIX).unwrap();
        assert_eq!((info.count, info.flags), (VECTORS.into(), irq::EVENTFD | irq::MASKABLE));
        let fd = event();
        client.set_irqs(irq::MSIX, irq::DATA_EVENTFD | irq::ACTION_TRIGGER, 3, 1, &[fd.as_raw_fd()]).unwrap();
        client.region_write(0, BAR0 - 4, &3u32.to_le_bytes()).unwrap();
        assert_eq!(count(&fd), 1);

        client.region_write(0, 0, &[9; 16]).unwrap();
        client.reset().unwrap();
        let mut back = [1; 16];
        client.region_read(0, 0, &mut back).unwrap();
        assert_eq!(back, [0; 16]);
        client.shutdown().unwrap();
    }
    assert_eq!(seen.lock().unwrap().refused, Vec::<String>::new());
    stopper.stop();
    serving.join().unwrap().unwrap();
}
