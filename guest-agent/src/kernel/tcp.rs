//! Listening TCP sockets, from `/proc/net/tcp` and `tcp6` of the calling thread's network namespace.

use std::fs;
use std::io;

/// `TCP_LISTEN` (include/net/tcp_states.h), as the table prints it.
const LISTEN: &str = "0A";

/// The ports on which something listens, in ascending order.
pub fn listening() -> io::Result<Vec<u16>> {
    let mut ports = parse(&fs::read_to_string("/proc/thread-self/net/tcp")?);
    // A kernel without IPv6 has no second table.
    ports.extend(parse(&fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default()));
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn parse(table: &str) -> Vec<u16> {
    let listening = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, port) = fields.nth(1)?.rsplit_once(':')?;
        (fields.nth(1)? == LISTEN).then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(listening).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:4965 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 16 1 0 100 0 0 10 0
   1: 0100007F:0016 0100007F:A1B2 01 00000000:00000000 00:00000000 00000000     0        0 17 1 0 20 4 30 10 -1
   2: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0 0 0 0 0 0 18";

    #[test]
    fn only_listening_sockets_count() {
        assert_eq!(parse(TABLE), [18789, 8080]);
    }

    #[test]
    fn a_socket_of_ours_is_seen() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening().unwrap().contains(&socket.local_addr().unwrap().port()));
    }
}
