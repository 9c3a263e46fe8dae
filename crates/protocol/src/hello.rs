//! The greeting that starts a session, in both directions.
//!
//! Its first two bytes are the version, little endian, in every version there will ever be; only when they are equal
//! is the rest decoded. So an old agent under a new host is an error that says so, not a riddle.

use serde::{Deserialize, Serialize};

use crate::{ChannelError, VERSION};

/// What an end says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which build it is, for people.
    pub build: String,
    /// How the guest came up; absent from the host's greeting.
    pub boot: Option<BootReport>,
}

/// How a guest came up, as its agent saw it. Times are microseconds since the kernel started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BootReport {
    /// The guest's name from `lab.guest=`.
    pub guest: String,
    /// `uname -r`.
    pub kernel_release: String,
    /// Whether the agent is process 1.
    pub init: bool,
    /// When the agent began to run.
    pub started_us: u64,
    /// When the channel was open.
    pub ready_us: u64,
    /// What the agent did in between.
    pub steps: Vec<BootStep>,
    /// What went wrong without stopping the boot. A guest with faults serves the channel, but may lack its image.
    pub faults: Vec<String>,
}

/// One step of the boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStep {
    /// For instance `modules` or `overlay`.
    pub name: String,
    /// How long it took, in microseconds.
    pub took_us: u64,
}

impl Hello {
    /// The payload of a greeting frame.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, VERSION.to_le_bytes().to_vec()).unwrap_or_else(|_| VERSION.to_le_bytes().to_vec())
    }

    /// Reads a greeting. A different version is [`ChannelError::Version`].
    pub fn decode(payload: &[u8]) -> Result<Hello, ChannelError> {
        let broken =
            |what: &str| ChannelError::Protocol { what: format!("greeting of {} bytes {what}", payload.len()) };
        let Some((version, body)) = payload.split_first_chunk::<2>() else { return Err(broken("has no version")) };
        let theirs = u16::from_le_bytes(*version);
        let hello = postcard::from_bytes::<Hello>(body);
        if theirs != VERSION {
            let build = hello.map_or_else(|_| "of another build".to_string(), |hello| hello.build);
            return Err(ChannelError::Version { ours: VERSION, theirs, build });
        }
        hello.map_err(|_| broken("does not decode"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_of_another_version_is_an_error_that_names_both() {
        let hello = Hello { build: "agent 0.1".into(), boot: None };
        let mut bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        bytes[0] = bytes[0].wrapping_add(1);
        let error = Hello::decode(&bytes).expect_err("another version");
        let text = error.to_string();
        assert!(text.contains(&format!("version {}", VERSION + 1)) && text.contains("agent 0.1"), "{text}");
    }

    #[test]
    fn a_cut_greeting_is_an_error() {
        assert!(matches!(Hello::decode(&[1]), Err(ChannelError::Protocol { .. })));
        assert!(matches!(Hello::decode(&VERSION.to_le_bytes()), Err(ChannelError::Protocol { .. })));
    }
}
