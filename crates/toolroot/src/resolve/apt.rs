//! Runs the toolroot's apt on a directory of its own: nothing of the host's apt is read, nothing is installed.
//!
//! In: suites, pins, a mirror. Out: what apt prints. The state is empty, so apt resolves from nothing; the cache of
//! archives is empty, so it names every package; every index is checked against the archive's keyring, which is a
//! package of the lock itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use progress::Progress;

use super::spec::RootsSpec;
use crate::Toolroot;

/// Where the directory shows inside.
const INSIDE: &str = "/run/apt";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What the host says about proxies; apt follows these too.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/// apt, its toolroot and its directory.
#[derive(Debug)]
pub(super) struct Apt<'a> {
    root: &'a Toolroot,
    dir: PathBuf,
    progress: Progress,
}

impl<'a> Apt<'a> {
    /// Prepares `dir`, a mutable directory that may hold the indices of an earlier time.
    pub(super) fn prepare(root: &'a Toolroot, dir: &Path, spec: &RootsSpec, progress: &Progress) -> Result<Self> {
        let make = || -> std::io::Result<()> {
            for name in ["etc/apt.conf.d", "etc/preferences.d", "lists/partial", "cache/archives/partial", "state"] {
                fs::create_dir_all(dir.join(name))?;
            }
            fs::write(dir.join("status"), "")?;
            fs::write(dir.join("etc/preferences"), preferences(spec))?;
            fs::write(dir.join("apt.conf"), configuration(&spec.distribution.arch))
        };
        make().with_context(|| format!("cannot prepare {} for apt", dir.display()))?;
        Ok(Apt { root, dir: dir.to_owned(), progress: progress.clone() })
    }

    /// Fetches and checks the indices from this mirror.
    pub(super) fn update(&self, mirror: &str, spec: &RootsSpec) -> Result<()> {
        let path = self.dir.join("etc/sources.list");
        fs::write(&path, sources(mirror, spec)).with_context(|| format!("cannot write {}", path.display()))?;
        self.run(&["apt-get", "update"]).map(|_| ())
    }

    /// What installing `packages` would install.
    pub(super) fn simulate(&self, packages: &[String]) -> Result<String> {
        let mut words = vec!["apt-get", "install", "--simulate", "--assume-yes", "--no-install-recommends", "--"];
        words.extend(packages.iter().map(String::as_str));
        self.run(&words)
    }

    /// The index's paragraphs of `NAME=VERSION`s.
    pub(super) fn show(&self, packages: &[String]) -> Result<String> {
        let mut words = vec!["apt-cache", "show", "--no-all-versions", "--"];
        words.extend(packages.iter().map(String::as_str));
        self.run(&words)
    }

    /// The index's paragraphs of a source package, all versions.
    pub(super) fn show_source(&self, package: &str) -> Result<String> {
        self.run(&["apt-cache", "showsrc", "--only-source", "--", package])
    }

    /// The Release files of all suites.
    pub(super) fn releases(&self) -> Result<Vec<String>> {
        let lists = self.dir.join("lists");
        let read = || -> std::io::Result<Vec<String>> {
            let mut all = Vec::new();
            for entry in fs::read_dir(&lists)? {
                let path = entry?.path();
                if path.to_string_lossy().ends_with("Release") {
                    all.push(fs::read_to_string(path)?);
                }
            }
            Ok(all)
        };
        read().with_context(|| format!("cannot read {}", lists.display()))
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut sandbox = self
            .root
            .sandbox(words[0])
            .args(&words[1..])
            .env("APT_CONFIG", format!("{INSIDE}/apt.conf"))
            .bind_rw(&self.dir, INSIDE)
            .network(true)
            .progress(&self.progress);
        for name in PROXIES {
            if let Some(value) = std::env::var_os(name) {
                sandbox = sandbox.env(name, value);
            }
        }
        let output = sandbox.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let code = output.status.code().unwrap_or(255);
            bail!("`{} {}` ended with status {code}: {}", words[0], words[1], said.trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{} {}` printed no text", words[0], words[1]))
    }
}

fn configuration(arch: &str) -> String {
    let settings = [
        ("Dir::State", format!("{INSIDE}/state")),
        ("Dir::State::lists", format!("{INSIDE}/lists")),
        ("Dir::State::status", format!("{INSIDE}/status")),
        ("Dir::Cache", format!("{INSIDE}/cache")),
        ("Dir::Etc", format!("{INSIDE}/etc")),
        ("Dir::Log", format!("{INSIDE}/state")),
        ("APT::Architecture", arch.to_owned()),
        // There is nobody else inside to run as.
        ("APT::Sandbox::User", "root".into()),
        ("APT::Install-Recommends", "false".into()),
        ("APT::Update::Error-Mode", "any".into()),
        ("Acquire::Languages", "none".into()),
        ("Acquire::Retries", "2".into()),
        ("Acquire::http::Timeout", "30".into()),
        ("Acquire::https::Timeout", "30".into()),
    ];
    let mut text = format!("APT::Architectures {{ \"{arch}\"; }};\n");
    for (name, value) in settings {
        text.push_str(&format!("{name} \"{value}\";\n"));
    }
    text
}

fn sources(mirror: &str, spec: &RootsSpec) -> String {
    let components = spec.distribution.components.join(" ");
    let line = |kind: &str, suite: &str| format!("{kind} [signed-by={KEYRING}] {mirror} {suite} {components}\n");
    let binaries = spec.distribution.suites.iter().map(|suite| line("deb", suite));
    let sources = spec.source_suites().into_iter().map(|suite| line("deb-src", suite));
    binaries.chain(sources).collect()
}

fn preferences(spec: &RootsSpec) -> String {
    let stanza = |packages: &str, suite: &str, priority: u32| {
        format!("Package: {packages}\nPin: release n={suite}\nPin-Priority: {priority}\n\n")
    };
    // 990: above every suite, below what would force a downgrade (apt_preferences(5)).
    spec.pin.iter().map(|pin| stanza(&pin.packages.join(" "), &pin.suite, 990)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_suites_keyring_and_pins() {
        let spec = RootsSpec::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../images/roots.toml"))).unwrap();
        let text = sources("http://mirror.example/debian", &spec);
        assert!(text.starts_with(&format!("deb [signed-by={KEYRING}] http://mirror.example/debian trixie main\n")));
        assert!(text.contains("\ndeb-src [signed-by="), "{text}");
        assert!(!text.contains("trusted"), "{text}");
        assert!(preferences(&spec).contains("Pin: release n=trixie-backports\nPin-Priority: 990\n"));
        assert!(configuration("amd64").contains("Dir::State::status \"/run/apt/status\";\n"));
    }
}
