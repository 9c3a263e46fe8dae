//! What a copy to and from the guest costs, against a plain copy of the same bytes in the same run: nanoseconds each.
//!
//! `cargo run --release -p vfio-user --example copies`

use std::hint::black_box;
use std::time::Instant;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfio_user::{Access, GuestMemory};

/// Bytes that are gone over: more than caches hold.
const FOOTPRINT: u64 = 256 << 20;
/// Maps they are cut into: two as in a guest, and one a page as with an IOMMU.
const MAPS: [u64; 2] = [2, FOOTPRINT >> 12 >> 1];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, FOOTPRINT)?;
    let mut plain = vec![1u8; FOOTPRINT as usize];
    println!(
        "{:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "maps", "bytes", "memcpy", "read", "write", "publish", "in view"
    );
    for maps in MAPS {
        let memory = GuestMemory::new();
        let size = FOOTPRINT / maps;
        for map in 0..maps {
            let access = Access { read: true, write: true };
            memory.map(map * size, size, access, Some(file.try_clone()?), map * size)?;
        }
        for bytes in [8usize, 32, 1448, 8896] {
            let rounds = 200_000u64;
            let mut buffer = vec![2u8; bytes];
            let address = |round: u64| ((round * 9000) % (FOOTPRINT - 16_384)) & !7;
            let mut time = |what: &mut dyn FnMut(u64, &mut [u8])| {
                // Once over all pages before.
                (0..FOOTPRINT / 4096 - 4).for_each(|page| what(page * 4096, &mut buffer));
                let start = Instant::now();
                (0..rounds).for_each(|round| what(address(round), black_box(&mut buffer)));
                start.elapsed().as_nanos() as f64 / rounds as f64
            };
            let copy = time(&mut |at, b| black_box(&mut plain[at as usize..][..b.len()]).copy_from_slice(b));
            let read = time(&mut |at, b| memory.read(at, b).unwrap_or_default());
            let write = time(&mut |at, b| memory.write(at, b).unwrap_or_default());
            let publish = time(&mut |at, b| memory.publish(at, b, 5).unwrap_or_default());
            let view = memory.view();
            let viewed = time(&mut |at, b| view.write(at, b).unwrap_or_default());
            println!("{maps:>6} {bytes:>6} {copy:>8.1} {read:>8.1} {write:>8.1} {publish:>8.1} {viewed:>8.1}");
        }
    }
    Ok(())
}
