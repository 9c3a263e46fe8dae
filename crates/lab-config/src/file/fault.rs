//! Faults of an emulated NIC, in the words of the device's own crate.

use std::str::FromStr;

use gvnic::fault::{BadFault, Fault};

use crate::model::BadValue;
use crate::nearest::nearest;

use super::scalar::{Scalar, scalar};

/// One way in which a gvnic goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NicFault(pub(crate) Fault);

scalar!(NicFault);

impl Scalar for NicFault {
    const FORMAT: &'static str = "nic-fault";
    const PATTERN: &'static str = "^[a-z]+(-[a-z]+)*( .*)?$";
    const ALLOWED: &'static str = "a fault and its occasions, for instance \"drop 1%\", \"delay 2ms rx 10%\", \
        \"link-flap 500ms after 100 once\" or \"admin-error create-rx-queue internal-error times 2\"";
}

impl FromStr for NicFault {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<NicFault, BadValue> {
        text.parse().map(NicFault).map_err(|BadFault { text, problem, unknown }| {
            let meant = unknown.and_then(|(word, known)| {
                let right = nearest(&word, known.iter().map(String::as_str))?;
                Some(text.split_whitespace().map(|w| if w == word { right } else { w }).collect::<Vec<_>>().join(" "))
            });
            NicFault::bad(format!("`{text}` is no fault of a NIC: {problem}"), meant)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_any_word_is_named() {
        for (slip, meant) in [
            ("dorp 1%", Some("drop 1%")),
            ("drop  1% onec", Some("drop 1% once")),
            ("admin-error create-rx-queu internal-error", Some("admin-error create-rx-queue internal-error")),
            ("drop 101%", None),
            ("explode", None),
        ] {
            let error = slip.parse::<NicFault>().expect_err(slip);
            assert_eq!(error.meant.as_deref(), meant, "{error:?}");
        }
    }
}
