//! The configuration: fragments rendered, merged, and held against what Kconfig made of them.
//!
//! In: `templates/kernel/<name>.config` (minijinja: `debug_info`, `btf`, `since("7.3")`) and the `config` files of the
//! selftests. Out: one set of [`Request`]s, which `make allnoconfig` starts from, and after it the list of requests that
//! the final `.config` does not grant. Kconfig drops an option with unmet dependencies in silence; a kernel that
//! lacks what somebody asked for would fail a test much later and far away, so that is an error here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::{Environment, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such fragment.
    #[error("there is no kernel config fragment `{name}` ({} does not exist); there are: {}", path.display(),
        known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The file it would be.
        path: PathBuf,
        /// The fragments there are.
        known: Vec<String>,
    },
    /// A fragment cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A fragment's template is wrong.
    #[error("{}: {error:#}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What minijinja says, with the line.
        error: minijinja::Error,
    },
    /// A line is neither an option nor a comment.
    #[error("{origin}: `{line}` is neither `CONFIG_NAME=value` nor `# CONFIG_NAME is not set` nor a comment")]
    Line {
        /// File and line.
        origin: String,
        /// The line.
        line: String,
    },
    /// One fragment asks for two values.
    #[error("{second}: {symbol} was given another value at {first}")]
    Twice {
        /// The option.
        symbol: String,
        /// Where it was first.
        first: String,
        /// Where it is again.
        second: String,
    },
    /// Kconfig did not grant everything.
    #[error("the kernel's configuration lacks what was asked for:{}", absent.iter().map(|a| format!("\n  {a}"))
        .collect::<String>())]
    Absent {
        /// What is lacking.
        absent: Vec<Absent>,
    },
}

/// What an option shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Want {
    /// Exactly this: `y`, `m`, a number, a quoted string.
    Value(String),
    /// Off.
    Off,
    /// Built in or module; a selftest's wish.
    On,
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Want::Value(value) => value,
            Want::Off => "n",
            Want::On => "y or m",
        })
    }
}

/// One option that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What it shall be.
    pub want: Want,
    /// Who asked: file and line.
    pub origin: String,
}

/// A request the final configuration does not grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent {
    /// The option, `CONFIG_…`.
    pub symbol: String,
    /// What was asked for, and by whom.
    pub request: Request,
    /// What the final configuration says; `None` if nothing.
    pub got: Option<String>,
    /// What the tree's Kconfig files say of it, if anybody looked.
    pub hint: Option<String>,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let got = self.got.as_deref().unwrap_or("not set");
        write!(f, "{}={} ({}) is {got}", self.symbol, self.request.want, self.request.origin)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

/// What fragments may depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variables {
    /// The kernel's version, for `since("7.3")`.
    pub version: String,
    /// DWARF in vmlinux.
    pub debug_info: bool,
    /// BTF type information.
    pub btf: bool,
}

/// A fragment after rendering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Its file name.
    pub name: String,
    /// Its lines.
    pub text: String,
}

/// Every option asked for, by symbol.
pub type Requests = BTreeMap<String, Request>;

/// Reads and renders `<templates>/<name>.config` for every name.
pub fn render(templates: &Path, names: &[String], variables: &Variables) -> Result<Vec<Fragment>, ConfigError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let version = numbers(&variables.version);
    environment.add_function("since", move |other: &str| version >= numbers(other));
    let mut fragments = Vec::new();
    for name in names {
        let path = templates.join(format!("{name}.config"));
        if !path.exists() {
            return Err(ConfigError::Unknown { name: name.clone(), path, known: fragment_names(templates) });
        }
        let text = std::fs::read_to_string(&path).map_err(|error| ConfigError::Read { path: path.clone(), error })?;
        let text = environment
            .render_named_str(name, &text, context! { debug_info => variables.debug_info, btf => variables.btf })
            .map_err(|error| ConfigError::Template { path, error })?;
        fragments.push(Fragment { name: format!("{name}.config"), text });
    }
    Ok(fragments)
}

/// Merges fragments; a later one overrides an earlier one, but one fragment must agree with itself.
pub fn merge(fragments: &[Fragment]) -> Result<Requests, ConfigError> {
    let mut all = Requests::new();
    for fragment in fragments {
        let mut own = Requests::new();
        for (number, line) in fragment.text.lines().enumerate() {
            let origin = format!("{}:{}", fragment.name, number + 1);
            let Some((symbol, want)) = parse(line, &origin)? else { continue };
            let request = Request { want, origin };
            if let Some(first) = own.get(&symbol).filter(|first| first.want != request.want) {
                let (first, second) = (first.origin.clone(), request.origin);
                return Err(ConfigError::Twice { symbol, first, second });
            }
            own.entry(symbol).or_insert(request);
        }
        all.extend(own);
    }
    Ok(all)
}

/// Adds what a selftest's `config` file wishes for, where no fragment has a say. `name` is for messages.
pub fn add_wishes(requests: &mut Requests, name: &str, text: &str) -> Result<(), ConfigError> {
    for (number, line) in text.lines().enumerate() {
        let origin = format!("{name}:{}", number + 1);
        // Some name the option and no value.
        let bare = line.starts_with("CONFIG_") && !line.contains('=');
        let line = if bare { format!("{}=y", line.trim()) } else { line.to_string() };
        let Some((symbol, want)) = parse(&line, &origin)? else { continue };
        let want = match want {
            Want::Value(value) if value == "y" || value == "m" => Want::On,
            other => other,
        };
        requests.entry(symbol).or_insert(Request { want, origin });
    }
    Ok(())
}

/// The text that `KCONFIG_ALLCONFIG` is given.
pub fn allconfig(requests: &Requests) -> String {
    let mut text = String::new();
    for (symbol, request) in requests {
        match &request.want {
            Want::Value(value) => text.push_str(&format!("{symbol}={value}\n")),
            Want::Off => text.push_str(&format!("# {symbol} is not set\n")),
            Want::On => text.push_str(&format!("{symbol}=y\n")),
        }
    }
    text
}

/// What `config`, a final `.config`, does not grant.
pub fn absent(requests: &Requests, config: &str) -> Vec<Absent> {
    let granted = values(config);
    let mut absent = Vec::new();
    for (symbol, request) in requests {
        let got = granted.get(symbol.as_str()).copied();
        let fine = match &request.want {
            Want::Value(value) => got == Some(value),
            Want::Off => got.is_none(),
            Want::On => matches!(got, Some("y" | "m")),
        };
        if !fine {
            let (symbol, got) = (symbol.clone(), got.map(str::to_string));
            absent.push(Absent { symbol, request: request.clone(), got, hint: None });
        }
    }
    absent
}

/// The options a `.config` sets.
pub fn values(config: &str) -> BTreeMap<&str, &str> {
    config.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('=')).collect()
}

/// The fragments there are.
pub fn fragment_names(templates: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(templates).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(".config").map(str::to_string)).collect();
    names.sort();
    names
}

fn parse(line: &str, origin: &str) -> Result<Option<(String, Want)>, ConfigError> {
    let line = line.trim();
    let symbol_is_sound = |symbol: &str| {
        symbol
            .strip_prefix("CONFIG_")
            .is_some_and(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
    };
    if let Some(symbol) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"))
        && symbol_is_sound(symbol)
    {
        return Ok(Some((symbol.into(), Want::Off)));
    }
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    match line.split_once('=') {
        Some((symbol, "n")) if symbol_is_sound(symbol) => Ok(Some((symbol.into(), Want::Off))),
        Some((symbol, value)) if symbol_is_sound(symbol) && !value.is_empty() => {
            Ok(Some((symbol.into(), Want::Value(value.into()))))
        }
        _ => Err(ConfigError::Line { origin: origin.into(), line: line.into() }),
    }
}

/// `7.3.4` as numbers; a part's non-digits end it (`7.4-rc1` is 7.4).
fn numbers(version: &str) -> Vec<u32> {
    let part = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    version.split('.').map_while(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(name: &str, text: &str) -> Fragment {
        Fragment { name: name.into(), text: text.into() }
    }

    #[test]
    fn later_fragments_override_earlier_ones() {
        let requests = merge(&[
            fragment("a", "CONFIG_A=y\nCONFIG_B=m\n"),
            fragment("b", "# CONFIG_A is not set\nCONFIG_C=\"x\"\n"),
        ])
        .unwrap();
        assert_eq!(allconfig(&requests), "# CONFIG_A is not set\nCONFIG_B=m\nCONFIG_C=\"x\"\n");
        assert_eq!(requests["CONFIG_A"].origin, "b:1");
    }

    #[test]
    fn what_kconfig_did_not_grant_is_named_with_who_asked() {
        let mut requests = merge(&[fragment("a", "CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=n\nCONFIG_D=4\n")]).unwrap();
        add_wishes(&mut requests, "rdma/config", "CONFIG_B=y\nCONFIG_E\nCONFIG_F=m\n").unwrap();
        let fine = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=4\nCONFIG_E=m\nCONFIG_F=y\n";
        assert_eq!(absent(&requests, fine), []);
        let poor = "CONFIG_A=m\nCONFIG_B=m\nCONFIG_C=y\n# CONFIG_E is not set\nCONFIG_F=y\n";
        let lines: Vec<String> = absent(&requests, poor).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "CONFIG_A=y (a:1) is m",
                "CONFIG_C=n (a:3) is y",
                "CONFIG_D=4 (a:4) is not set",
                "CONFIG_E=y or m (rdma/config:2) is not set"
            ]
        );
    }

    #[test]
    fn bad_lines_and_contradictions_are_refused() {
        for (text, expected) in [
            ("CONFIG_A\n", "a:1: `CONFIG_A` is neither"),
            ("\nCONFIG_A B=y\n", "a:2: "),
            ("CONFIG_A=\n", "a:1: "),
            ("CONFIG_A=y\nCONFIG_A=m\n", "a:2: CONFIG_A was given another value at a:1"),
        ] {
            let error = merge(&[fragment("a", text)]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn fragments_know_version_and_options() {
        let dir = tempfile::tempdir().unwrap();
        let text = "{% if since(\"7.3\") %}CONFIG_NEW=y{% endif %}\n{% if debug_info %}CONFIG_D=y{% endif %}\n";
        std::fs::write(dir.path().join("a.config"), text).unwrap();
        std::fs::write(dir.path().join("bad.config"), "{{ nothing }}\n").unwrap();
        let with = |version: &str, debug_info| {
            let variables = Variables { version: version.into(), debug_info, btf: false };
            render(dir.path(), &["a".into()], &variables).unwrap()[0].text.clone()
        };
        assert_eq!(with("7.3.4", false).trim(), "CONFIG_NEW=y");
        assert_eq!(with("7.1.13", true).trim(), "CONFIG_D=y");
        assert_eq!(with("7.10", true), "CONFIG_NEW=y\nCONFIG_D=y");
        let variables = Variables::default();
        let error = render(dir.path(), &["bad".into()], &variables).unwrap_err().to_string();
        assert!(error.contains("bad.config") && error.contains("undefined"), "{error}");
        let error = render(dir.path(), &["c".into()], &variables).unwrap_err().to_string();
        assert!(error.ends_with("there are: a, bad"), "{error}");
    }

    #[test]
    fn the_projects_fragments_render_and_merge() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../templates/kernel");
        let names = fragment_names(&templates);
        assert!(names.contains(&"base".to_string()));
        for (debug_info, btf) in [(false, false), (true, false), (true, true)] {
            let variables = Variables { version: "7.3.4".into(), debug_info, btf };
            merge(&render(&templates, &names, &variables).unwrap()).unwrap();
        }
    }
}
