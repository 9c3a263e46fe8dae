//! What the agent asks the kernel about networks: netlink, and the files of `/proc/net`.

pub mod addresses;
pub mod bpf;
pub mod ethtool;
pub mod genl;
pub mod links;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod ntuple;
pub mod rdma;
pub mod rings;
pub mod rss;
pub mod tcp;
pub mod uevent;
