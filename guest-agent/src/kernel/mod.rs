//! What the agent asks the kernel about networks: netlink, and the files of `/proc/net`.

pub mod genl;
pub mod links;
pub mod netlink;
pub mod netns;
pub mod ntuple;
pub mod rdma;
pub mod tcp;
pub mod uevent;
