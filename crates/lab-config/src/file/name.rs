//! Names: of things in the file, of network interfaces, of kernel parameters.

use std::str::FromStr;

use crate::model::BadValue;

use super::scalar::{Scalar, scalar};

/// A name of a kernel, guest, network, series, …
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) String);

/// A network interface's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface(pub(crate) String);

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter(pub(crate) String);

scalar!(Name);
scalar!(Interface);
scalar!(Parameter);

impl Scalar for Name {
    const FORMAT: &'static str = "name";
    const PATTERN: &'static str = "^[a-z][a-z0-9-]{0,31}$";
    const ALLOWED: &'static str = "a lower-case letter, then lower-case letters, digits and hyphens, 32 in all at most";
}

impl FromStr for Name {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let problem = if text.is_empty() {
            "a name is empty".into()
        } else if text.len() > 32 {
            format!("name `{text}` has {} characters", text.chars().count())
        } else if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            format!("name `{text}` does not begin with a lower-case letter")
        } else if let Some(wrong) = text.chars().find(|&c| !fits(c)) {
            format!("name `{text}` contains `{wrong}`")
        } else {
            return Ok(Name(text.into()));
        };
        let mended: String = text.to_ascii_lowercase().replace([' ', '_', '.'], "-");
        let usable = mended != text && mended.parse::<Name>().is_ok();
        Err(Self::bad(problem, usable.then_some(mended)))
    }
}

impl Scalar for Interface {
    const FORMAT: &'static str = "interface-name";
    const PATTERN: &'static str = "^[a-zA-Z][a-zA-Z0-9._-]{0,14}$";
    const ALLOWED: &'static str =
        "a letter, then letters, digits, dots, hyphens and underscores, 15 in all at most; not `lo`";
}

impl FromStr for Interface {
    type Err = BadValue;

    /// `IFNAMSIZ` (include/uapi/linux/if.h) leaves 15 characters; `dev_valid_name` refuses slashes, colons, blanks.
    fn from_str(text: &str) -> Result<Self, BadValue> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let problem = if text.is_empty() {
            "an interface's name is empty".into()
        } else if text == "lo" {
            "`lo` is the loopback interface, which every guest has".into()
        } else if text.len() > 15 {
            format!("`{text}` has {} characters; the kernel has room for 15", text.chars().count())
        } else if !text.starts_with(|c: char| c.is_ascii_alphabetic()) || !text.chars().all(fits) {
            format!("`{text}` is not an interface's name")
        } else {
            return Ok(Interface(text.into()));
        };
        Err(Self::bad(problem, None))
    }
}

impl Scalar for Parameter {
    const FORMAT: &'static str = "kernel-parameter";
    const PATTERN: &'static str = "^[^\\s\"]+$";
    const ALLOWED: &'static str =
        "one kernel parameter, for instance \"slub_debug=P\"; not one that the lab sets itself";
}

/// Parameters that decide how a guest boots and talks to the lab.
const RESERVED: [&str; 8] = ["console", "root", "rootfstype", "init", "rdinit", "panic", "initrd", "rw"];

impl FromStr for Parameter {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let name = text.split('=').next().unwrap_or("");
        let problem = if name.is_empty() {
            "a kernel parameter is empty".into()
        } else if text.contains(char::is_whitespace) {
            format!("`{text}` has a space in it; give each parameter its own string")
        } else if text.contains(['"', '\'']) || !text.is_ascii() {
            format!("`{text}` has characters that a kernel command line does not carry")
        } else if RESERVED.contains(&name) || name.starts_with("lab.") {
            format!("`{name}` is set by the lab itself")
        } else {
            return Ok(Parameter(text.into()));
        };
        Err(Self::bad(problem, None))
    }
}
