//! ethtool's ioctl (include/uapi/linux/ethtool.h) on an interface of the calling thread's namespace: the call, and the numbers in
//! its structs by their offsets.

use std::io;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::sys;

/// Calls it with a struct that begins with the command and is as large as the command asks for.
pub fn call(interface: &str, buffer: &mut [u64]) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sys::ethtool(&socket, interface, buffer)
}

/// The 32-bit number at an offset in bytes, a multiple of four.
pub fn get(buffer: &[u64], at: usize) -> u32 {
    let bytes = buffer[at / 8].to_ne_bytes();
    u32::from_ne_bytes(if at.is_multiple_of(8) {
        [bytes[0], bytes[1], bytes[2], bytes[3]]
    } else {
        [bytes[4], bytes[5], bytes[6], bytes[7]]
    })
}

/// Puts one there.
pub fn set(buffer: &mut [u64], at: usize, value: u32) {
    let mut bytes = buffer[at / 8].to_ne_bytes();
    let offset = at % 8;
    bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    buffer[at / 8] = u64::from_ne_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_were_put() {
        let mut buffer = vec![0; 3];
        set(&mut buffer, 0, 7);
        set(&mut buffer, 16, 9);
        set(&mut buffer, 20, 11);
        assert_eq!((get(&buffer, 0), get(&buffer, 16), get(&buffer, 20)), (7, 9, 11));
    }
}
