//! Numbers of any width at any bit of a byte string, big-endian, as headers have them.

/// The `width` bits from bit `at` on. Bits past the end read as 0.
pub fn get(bytes: &[u8], at: usize, width: usize) -> u128 {
    (at..at + width).fold(0, |value, bit| {
        let byte = bytes.get(bit / 8).copied().unwrap_or_default();
        value << 1 | u128::from(byte >> (7 - bit % 8) & 1)
    })
}

/// Sets them. Bits past the end are lost, as is what does not fit into `width`.
pub fn set(bytes: &mut [u8], at: usize, width: usize, value: u128) {
    for n in 0..width {
        let bit = at + width - 1 - n;
        let mask = 1u8 << (7 - bit % 8);
        if let Some(byte) = bytes.get_mut(bit / 8) {
            if value >> n & 1 == 1 { *byte |= mask } else { *byte &= !mask }
        }
    }
}

/// The largest number of `width` bits.
pub fn max(width: usize) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_and_nothing_else_changes() {
        for (at, width) in [(0, 1), (7, 1), (3, 13), (8, 24), (0, 128), (5, 64)] {
            for value in [0, 1, max(width), max(width) / 3] {
                let mut bytes = [0xa5u8; 17];
                set(&mut bytes, at, width, value);
                assert_eq!(get(&bytes, at, width), value, "{at} {width}");
                set(&mut bytes, at, width, get(&[0xa5; 17], at, width));
                assert_eq!(bytes, [0xa5; 17], "{at} {width}");
            }
        }
        let mut short = [0u8; 1];
        set(&mut short, 4, 16, 0xffff);
        assert_eq!((short, get(&short, 4, 8)), ([0x0f], 0xf0));
    }
}
