//! Frames, made by hand.

fn sum(pieces: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for piece in pieces {
        for word in piece.chunks(2) {
            total += u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Bytes that tell where they are.
fn payload(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251 + seed) as u8).collect()
}

/// A TCP segment over IPv4 with right checksums, 54 bytes of headers.
pub fn tcp4(length: usize, seed: usize) -> Vec<u8> {
    let payload = payload(length, seed);
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    ip[2..4].copy_from_slice(&((40 + length) as u16).to_be_bytes());
    let check = !sum(&[&ip]);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let mut tcp = vec![0x30, 0x39, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0];
    let pseudo = [&[0, 6][..], &((20 + length) as u16).to_be_bytes()].concat();
    let check = !sum(&[&ip[12..], &pseudo, &tcp, &payload]);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &tcp, &payload].concat()
}

/// A UDP datagram over IPv6 with a right checksum, 62 bytes of headers.
pub fn udp6(length: usize, seed: usize) -> Vec<u8> {
    let payload = payload(length, seed);
    let size = ((8 + length) as u16).to_be_bytes();
    let addresses = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(2);
    let mut udp = [&[0x30, 0x39, 0x14, 0x51][..], &size, &[0, 0]].concat();
    let check = !sum(&[&addresses, &size, &[0, 17], &udp, &payload]);
    // 0 would say that there is none.
    udp[6..].copy_from_slice(&if check == 0 { 0xffff } else { check }.to_be_bytes());
    let ip = [&[0x60, 0, 0, 0][..], &size, &[17, 64], &addresses].concat();
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd][..], &ip, &udp, &payload].concat()
}

/// One of either.
pub fn frame(length: usize, seed: usize) -> Vec<u8> {
    if seed.is_multiple_of(2) { tcp4(length, seed) } else { udp6(length, seed) }
}
