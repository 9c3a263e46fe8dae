//! Values written as strings: how each is read, and what is said when it cannot be.
//!
//! A parser takes the text between the quotes and yields the value or a [`BadValue`]: what is wrong with it, what
//! would be right and, where one is near, the value that was probably meant. The caller knows where the text stood.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::file::Scalar;

/// Why a text is not a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; allowed: {allowed}")]
pub struct BadValue {
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub allowed: String,
    /// The value that was probably meant.
    pub meant: Option<String>,
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An interface's IP address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length in bits: at most 32 (IPv4) or 128 (IPv6).
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Mac {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |problem: String| Self::bad(problem, None);
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() != 6 {
            return Err(bad(format!("`{text}` has {} parts instead of 6", parts.len())));
        }
        let mut bytes = [0; 6];
        for (byte, part) in bytes.iter_mut().zip(parts) {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = digits
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
                .ok_or_else(|| bad(format!("`{part}` in `{text}` is not a byte of two hexadecimal digits")))?;
        }
        if bytes == [0; 6] {
            return Err(bad(format!("`{text}` is the null address, which no interface can have")));
        }
        if bytes[0] & 1 != 0 {
            let mut unicast = bytes;
            unicast[0] &= !1;
            let mut error = bad(format!("`{text}` is a group address: the lowest bit of its first byte is set"));
            error.meant = Some(Mac(unicast).to_string()).filter(|_| unicast != [0; 6]);
            return Err(error);
        }
        Ok(Mac(bytes))
    }
}

impl FromStr for Cidr {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let bad = |problem: String| Self::bad(problem, None);
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let ip: IpAddr = address.parse().map_err(|_| bad(format!("`{address}` is not an IP address")))?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        if prefix.is_empty() {
            let mut error = bad(format!("`{text}` has no prefix length"));
            error.meant = Some(format!("{address}/{}", if ip.is_ipv4() { 24 } else { 64 }));
            return Err(error);
        }
        let decimal = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix
            .parse::<u8>()
            .ok()
            .filter(|&p| decimal && (1..=longest).contains(&p))
            .ok_or_else(|| bad(format!("prefix length `{prefix}` of `{text}` is not between 1 and {longest}")))?;
        let cidr = Cidr { ip, prefix };
        match cidr.unusable() {
            Some(why) => Err(bad(format!("`{text}` is {why}, which no interface can have"))),
            None => Ok(cidr),
        }
    }
}

impl Cidr {
    /// The network's own address.
    pub fn network(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & mask32(self.prefix)).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & mask128(self.prefix)).into()),
        }
    }

    fn unusable(&self) -> Option<&'static str> {
        let ip = self.ip;
        if ip.is_unspecified() {
            return Some("the unspecified address");
        }
        if ip.is_multicast() {
            return Some("a multicast address");
        }
        if ip.is_loopback() {
            return Some("a loopback address");
        }
        // RFC 3021: a /31 has no network or broadcast address.
        let IpAddr::V4(v4) = ip else { return None };
        if self.prefix > 30 {
            return None;
        }
        if ip == self.network() {
            return Some("the address of its network");
        }
        (v4.to_bits() | mask32(self.prefix) == u32::MAX).then_some("the broadcast address of its network")
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX << (128 - u32::from(prefix))
}
