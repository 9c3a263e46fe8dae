//! One thing found out about the host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As the lab wants it.
    Ok,
    /// Labs work, slower or without something that not every lab needs.
    Limited,
    /// No lab can work before this is remedied.
    Missing,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Missing => "missing",
        })
    }
}

/// One ability of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name, for instance `kvm`.
    pub name: String,
    /// How good it is.
    pub status: Status,
    /// What was found, in one line.
    pub detail: String,
    /// What to do about it, in one line, where something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Finding { name: name.to_string(), status: Status::Ok, detail: detail.into(), remedy: None }
    }

    /// Labs work, with less.
    pub fn limited(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { status: Status::Limited, remedy: Some(remedy.into()), ..Finding::ok(name, detail) }
    }

    /// No lab works.
    pub fn missing(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { status: Status::Missing, remedy: Some(remedy.into()), ..Finding::ok(name, detail) }
    }
}
