//! `[kernel.NAME]` and `[image.NAME]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, DefinitionPath, Name, Release, SourceName};

/// A kernel: exactly one of `source`, `package` and `rebuild`, its own or by `extends`.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct KernelTable {
    /// Another kernel, whose keys hold where this one has none of its own. The way to a fair pair: the same kernel
    /// with and without a series.
    pub(crate) extends: Option<At<Name>>,
    /// Build from source: the name of a source in `lab.lock`.
    pub(crate) source: Option<At<SourceName>>,
    /// Use Debian's binary kernel as it is: the release it calls itself.
    pub(crate) package: Option<At<Release>>,
    /// Rebuild only the modules that the series touch, against the headers of that package kernel.
    pub(crate) rebuild: Option<At<Name>>,
    /// Patch series, in the order they are applied; each is `kernel-patches/NAME/`.
    #[schemars(extend("uniqueItems" = true))]
    pub(crate) series: Option<At<Vec<At<Name>>>>,
    /// Config fragments, merged in this order; each is `templates/kernel/NAME.config`. Only with `source`.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    pub(crate) fragments: Option<At<Vec<At<Name>>>>,
    /// Build with DWARF, so that an oops is decoded to source lines; the build takes longer. Only with `source`.
    #[schemars(extend("default" = false))]
    pub(crate) debug_info: Option<At<bool>>,
    /// Build BTF type information; the build takes longer. Only with `source`.
    #[schemars(extend("default" = false))]
    pub(crate) btf: Option<At<bool>>,
}

/// A guest image.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ImageTable {
    /// The image's definition (packages, files, fix-ups), a path relative to the folder of `lab.toml`.
    pub(crate) definition: At<DefinitionPath>,
}
