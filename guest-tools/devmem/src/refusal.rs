//! What the kernel refused, and what to do about it.

use std::fmt;

/// A refusal: its errno, and the kernel's words where it had some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As in errno.h, positive.
    pub errno: i32,
    /// The netlink extended acknowledgement; empty without one.
    pub words: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(self.errno))?;
        if self.words.is_empty() { Ok(()) } else { write!(f, ": {}", self.words) }
    }
}

impl std::error::Error for Refusal {}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Refusal { errno: error.raw_os_error().unwrap_or(0), words: String::new() }
    }
}

/// The name of an errno.
pub fn name(errno: i32) -> String {
    let known = match errno {
        0 => "success",
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EIO => "EIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENOSPC => "ENOSPC",
        libc::ERANGE => "ERANGE",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENOBUFS => "ENOBUFS",
        libc::ENETDOWN => "ENETDOWN",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ECONNREFUSED => "ECONNREFUSED",
        _ => return format!("errno {errno}"),
    };
    known.to_owned()
}

impl Refusal {
    /// What somebody does who gets this when binding `queues` of `netdev`, which has `count` queues for receiving.
    pub fn advice(&self, netdev: &str, queues: &[u32], count: Option<usize>) -> String {
        let highest = queues.iter().max().copied().unwrap_or(0);
        match self.errno {
            libc::EINVAL if self.words.contains("tcp-data-split") => {
                format!("run `ethtool -G {netdev} tcp-data-split on`, or give --setup")
            }
            libc::EINVAL if self.words.contains("hds-thresh") => format!("run `ethtool -G {netdev} hds-thresh 0`"),
            libc::EINVAL if count.is_some_and(|count| highest as usize >= count) => {
                let count = count.unwrap_or(0);
                format!(
                    "{netdev} has {count} RX queues, 0 to {}; `ethtool -l {netdev}` shows how many it can have",
                    count.saturating_sub(1)
                )
            }
            libc::EEXIST if self.words.contains("XDP") => format!("run `ip link set {netdev} xdp off`"),
            libc::EEXIST => "another program has bound that queue; `lab-devmem probe` shows which are taken".into(),
            libc::EBUSY => {
                "the queue is leased to a netkit device, or in use by AF_XDP: bind it where it is leased to".into()
            }
            libc::ERANGE if queues.contains(&0) => {
                "the driver (gve for one) cannot restart queue 0 while others are there: take queues from 1 on".into()
            }
            libc::EOPNOTSUPP => {
                format!("{netdev} or its driver cannot do that; `lab-devmem probe --netdev {netdev}` shows what it can")
            }
            libc::EPERM => "binding queues for receiving needs CAP_NET_ADMIN".into(),
            libc::ENODEV => format!("there is no {netdev} any more"),
            libc::ENETDOWN => format!("run `ip link set {netdev} up`"),
            _ => format!("`lab-devmem probe --netdev {netdev}` shows what there is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_run() {
        let refusal = |errno, words: &str| Refusal { errno, words: words.into() };
        for (refusal, queues, text) in [
            (refusal(22, "tcp-data-split is disabled"), [1], "ethtool -G eth0 tcp-data-split on"),
            (refusal(22, "hds-thresh is not zero"), [1], "ethtool -G eth0 hds-thresh 0"),
            (refusal(22, ""), [4], "eth0 has 4 RX queues, 0 to 3"),
            (refusal(34, ""), [0], "queues from 1 on"),
            (refusal(17, "designated queue already memory provider bound"), [1], "another program"),
            (refusal(17, "unable to custom memory provider to device with XDP program attached"), [1], "xdp off"),
            (refusal(16, "rx queue leased to a virtual netdev"), [1], "leased"),
            (refusal(1, ""), [1], "CAP_NET_ADMIN"),
        ] {
            let advice = refusal.advice("eth0", &queues, Some(4));
            assert!(advice.contains(text), "{refusal}: {advice}");
        }
    }

    #[test]
    fn refusals_read_as_the_kernels_headers_name_them() {
        assert_eq!(Refusal { errno: 34, words: String::new() }.to_string(), "ERANGE");
        assert_eq!(
            Refusal { errno: 22, words: "hds-thresh is not zero".into() }.to_string(),
            "EINVAL: hds-thresh is not zero"
        );
        assert_eq!(name(9999), "errno 9999");
    }
}
