//! What all values written as strings have in common.

use std::str::FromStr;

use crate::model::{BadValue, Cidr, Mac};

use super::fault::NicFault;
use super::name::{Interface, Name, Parameter};
use super::place::{DefinitionPath, Release, SourceName, Url};
use super::quantity::{Memory, Percent, Period};

/// A value written as a string with rules of its own. The schema carries [`Scalar::FORMAT`], by which the check finds
/// the parser again.
pub(crate) trait Scalar: FromStr<Err = BadValue> {
    /// `format` in the schema.
    const FORMAT: &'static str;
    /// A regular expression every value matches, for editors; the parser may be stricter.
    const PATTERN: &'static str;
    /// What a value looks like, in words and an example.
    const ALLOWED: &'static str;

    /// What a bare number in its place probably meant.
    fn from_number(_number: &str) -> Option<String> {
        None
    }

    /// A [`BadValue`] of this kind.
    fn bad(problem: impl Into<String>, meant: Option<String>) -> BadValue {
        BadValue { problem: problem.into(), allowed: Self::ALLOWED.into(), meant }
    }
}

/// A [`Scalar`] without its type, for the check.
pub(crate) struct Kind {
    pub(crate) format: &'static str,
    pub(crate) allowed: &'static str,
    pub(crate) check: fn(&str) -> Result<(), BadValue>,
    pub(crate) from_number: fn(&str) -> Option<String>,
}

impl Kind {
    const fn of<T: Scalar>() -> Kind {
        Kind {
            format: T::FORMAT,
            allowed: T::ALLOWED,
            check: |text| text.parse::<T>().map(drop),
            from_number: T::from_number,
        }
    }
}

static KINDS: [Kind; 13] = [
    Kind::of::<Period>(),
    Kind::of::<Interface>(),
    Kind::of::<Cidr>(),
    Kind::of::<Parameter>(),
    Kind::of::<Release>(),
    Kind::of::<SourceName>(),
    Kind::of::<Mac>(),
    Kind::of::<Memory>(),
    Kind::of::<Url>(),
    Kind::of::<Name>(),
    Kind::of::<NicFault>(),
    Kind::of::<Percent>(),
    Kind::of::<DefinitionPath>(),
];

/// All kinds, in the order of their formats.
pub(crate) fn kinds() -> &'static [Kind] {
    &KINDS
}

/// The kind a schema's `format` names.
pub(crate) fn kind(format: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.format == format)
}

/// Decodes a [`Scalar`] through its parser and describes it in the schema.
macro_rules! scalar {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                <Self as $crate::file::scalar::Scalar>::FORMAT.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use $crate::file::scalar::Scalar;
                schemars::json_schema!({ "type": "string", "format": Self::FORMAT, "pattern": Self::PATTERN })
            }
        }
    };
}

pub(super) use scalar;

impl Scalar for Mac {
    const FORMAT: &'static str = "mac-address";
    const PATTERN: &'static str = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$";
    const ALLOWED: &'static str = "six bytes in hexadecimal with colons, for instance \"52:54:00:12:34:56\"";
}

impl Scalar for Cidr {
    const FORMAT: &'static str = "ip-address-with-prefix";
    const PATTERN: &'static str = "^[0-9a-fA-F:.]+/[0-9]{1,3}$";
    const ALLOWED: &'static str =
        "an IP address with its prefix length, for instance \"192.168.77.1/24\" or \"fd77::1/64\"";
}

scalar!(Mac);
scalar!(Cidr);
