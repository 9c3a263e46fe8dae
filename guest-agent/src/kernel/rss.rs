//! The table by which a NIC spreads what no rule steers over its receive queues (`ethtool -x`), by ethtool's ioctl.

use std::io;

use super::ethtool::{call, get, set};

/// include/uapi/linux/ethtool.h
const ETHTOOL_GRXFHINDIR: u32 = 0x38;
const ETHTOOL_SRXFHINDIR: u32 = 0x39;
/// Offsets in struct ethtool_rxfh_indir.
const SIZE: usize = 4;
const TABLE: usize = 8;

/// The table: a queue for each value of the hash's low bits.
pub fn table(interface: &str) -> io::Result<Vec<u32>> {
    // Asked with no room it says how much it needs.
    let mut buffer = vec![0_u64; 1];
    set(&mut buffer, 0, ETHTOOL_GRXFHINDIR);
    call(interface, &mut buffer)?;
    let size = get(&buffer, SIZE);
    let mut buffer = room(ETHTOOL_GRXFHINDIR, size);
    call(interface, &mut buffer)?;
    Ok((0..size as usize).map(|at| get(&buffer, TABLE + 4 * at)).collect())
}

/// Sets the table, of the same size.
pub fn set_table(interface: &str, table: &[u32]) -> io::Result<()> {
    let mut buffer = room(ETHTOOL_SRXFHINDIR, table.len() as u32);
    for (at, queue) in table.iter().enumerate() {
        set(&mut buffer, TABLE + 4 * at, *queue);
    }
    call(interface, &mut buffer)
}

/// Has the driver make its default table again. To set one that happens to be the same is not that: the kernel then keeps to
/// it, and refuses fewer queues.
pub fn reset_table(interface: &str) -> io::Result<()> {
    call(interface, &mut room(ETHTOOL_SRXFHINDIR, 0))
}

/// Whether a table is the one that a driver with so many queues begins with (`ethtool_rxfh_indir_default`).
pub fn is_default(table: &[u32], queues: usize) -> bool {
    table.iter().enumerate().all(|(at, queue)| *queue as usize == at % queues.max(1))
}

fn room(command: u32, size: u32) -> Vec<u64> {
    let mut buffer = vec![0_u64; TABLE / 8 + (size as usize).div_ceil(2)];
    set(&mut buffer, 0, command);
    set(&mut buffer, SIZE, size);
    buffer
}
