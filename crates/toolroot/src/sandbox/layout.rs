//! What the root of a sandbox looks like, as a list of steps: which host trees are opened, and what is made where.
//!
//! In: the toolroot's directory and the binds that were asked for. Out: a [`Layout`] whose paths are ready-made C
//! strings, since the process that follows it runs between `fork` and `exec` and may not allocate.
//!
//! The root is a tmpfs. The toolroot's top-level directories are bound into it read-only, its links are made anew, so
//! mount points for binds can be made anywhere. A bind that lies inside one of those directories, at a place the
//! toolroot does not have, splits that directory: it becomes one of the tmpfs with its entries bound one by one.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Device nodes of the host that a sandbox sees, where the host has them.
const NODES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "kvm", "net/tun"];
/// What the toolroot may have at the top but a sandbox gets fresh.
const FRESH: [&str; 5] = ["dev", "proc", "sys", "tmp", "run"];
/// Links that lead further than this are taken for a loop, as the kernel does (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A host file or directory that shows inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it shows, absolute.
    pub inside: PathBuf,
    /// Whether the sandbox may write to it.
    pub writable: bool,
}

/// Why a layout cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A path of the host could not be looked at.
    #[error("sandbox: cannot look at {}: {error}", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A place inside is not given in full.
    #[error("sandbox: {} is no place to bind to; give an absolute path without `..`", path.display())]
    Inside {
        /// The place.
        path: PathBuf,
    },
    /// The place is inside another bind, and the host directory that one shows has nothing there to bind on. It is not
    /// made: that would leave a stray directory on the host.
    #[error("sandbox: cannot bind to {}: the host's {} is not there; make it, or bind elsewhere", inside.display(), host.display())]
    NoMountPoint {
        /// The place.
        inside: PathBuf,
        /// Where it would have to be on the host.
        host: PathBuf,
    },
    /// Links inside the toolroot lead in a circle.
    #[error("sandbox: too many links on the way to {} in the toolroot", path.display())]
    Loop {
        /// The place.
        path: PathBuf,
    },
}

/// One thing to make, relative to the new root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A directory, if it is not there.
    Dir { path: CString, mode: u32 },
    /// An empty file to bind on, if it is not there.
    File { path: CString },
    /// A link.
    Link { path: CString, target: CString },
    /// Source number `source` goes here.
    Bind { path: CString, source: usize },
}

/// A host path to open before the root changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path, with no links in it.
    pub path: CString,
    /// Whether the mount is made read-only.
    pub read_only: bool,
}

/// The steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Host trees, opened first.
    pub sources: Vec<Source>,
    /// What is made, in order.
    pub ops: Vec<Op>,
}

impl Layout {
    /// The layout for a toolroot in `root` (none: an empty one, for the probe) and these binds.
    pub fn new(root: Option<&Path>, binds: &[Bind]) -> Result<Self, LayoutError> {
        let mut layout = Layout::default();
        let mut places: BTreeMap<PathBuf, Place> = BTreeMap::new();
        for bind in binds {
            let host = bind.host.canonicalize().map_err(|e| host_error(&bind.host, e))?;
            let is_dir = host.is_dir();
            let inside = resolve(root, &bind.inside)?;
            places.insert(inside, Place { host, is_dir, writable: bind.writable });
        }
        if let Some(root) = root {
            layout.directory(root, Path::new(""), &places)?;
        }
        for name in FRESH {
            let mode = if name == "tmp" || name == "run" { 0o1777 } else { 0o755 };
            layout.dir(Path::new(name), mode);
        }
        layout.devices();
        // A map in path order has an outer bind before what is bound inside it.
        for (inside, place) in &places {
            let outer = inside.ancestors().skip(1).find_map(|above| Some((above, places.get(above)?)));
            match outer {
                None => layout.bind(inside, place),
                Some((above, outer)) => {
                    let host = outer.host.join(inside.strip_prefix(above).unwrap_or(inside));
                    if !host.exists() {
                        return Err(LayoutError::NoMountPoint { inside: Path::new("/").join(inside), host });
                    }
                    layout.attach(inside, place);
                }
            }
        }
        Ok(layout)
    }

    /// Shows the entries of `host` at `inside`, splitting those that a bind needs a mount point in.
    fn directory(&mut self, host: &Path, inside: &Path, places: &BTreeMap<PathBuf, Place>) -> Result<(), LayoutError> {
        for (name, path, kind) in entries(host)? {
            let here = inside.join(&name);
            let top = inside.as_os_str().is_empty();
            if (top && FRESH.iter().any(|f| name == *f)) || places.contains_key(&here) {
                continue;
            }
            if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(|e| host_error(&path, e))?;
                self.ops.push(Op::Link { path: c(&here), target: c(&target) });
            } else if kind.is_dir() {
                let missing = |p: &PathBuf| {
                    p.starts_with(&here) && p.strip_prefix(&here).is_ok_and(|rest| !path.join(rest).exists())
                };
                if here == Path::new("var/tmp") {
                    self.dir(&here, 0o1777);
                } else if places.keys().any(missing) || (top && name == "var") {
                    // /var is always split: programs want a /var/tmp they can write to.
                    self.dir(&here, 0o755);
                    self.directory(&path, &here, places)?;
                } else if entries(&path)?.is_empty() {
                    self.dir(&here, 0o755);
                } else {
                    self.bind(&here, &Place { host: path, is_dir: true, writable: false });
                }
            } else {
                self.bind(&here, &Place { host: path, is_dir: false, writable: false });
            }
        }
        Ok(())
    }

    /// The device nodes and links every program expects.
    fn devices(&mut self) {
        self.dir(Path::new("dev/shm"), 0o1777);
        for node in NODES {
            let host = Path::new("/dev").join(node);
            if host.exists() {
                self.bind(&Path::new("dev").join(node), &Place { host, is_dir: false, writable: true });
            }
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
            ("core", "/proc/kcore"),
        ] {
            self.ops.push(Op::Link { path: c(&Path::new("dev").join(name)), target: c(Path::new(target)) });
        }
    }

    fn dir(&mut self, path: &Path, mode: u32) {
        self.ops.push(Op::Dir { path: c(path), mode });
    }

    /// Makes the mount point, parents included, and binds.
    fn bind(&mut self, inside: &Path, place: &Place) {
        let mut parents: Vec<&Path> = inside.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        parents.reverse();
        for parent in parents {
            self.dir(parent, 0o755);
        }
        if place.is_dir {
            self.dir(inside, 0o755);
        } else {
            self.ops.push(Op::File { path: c(inside) });
        }
        self.attach(inside, place);
    }

    /// Binds where something is.
    fn attach(&mut self, inside: &Path, place: &Place) {
        self.ops.push(Op::Bind { path: c(inside), source: self.sources.len() });
        self.sources.push(Source { path: c(&place.host), read_only: !place.writable });
    }
}

/// A bind whose place has been looked up.
#[derive(Debug)]
struct Place {
    host: PathBuf,
    is_dir: bool,
    writable: bool,
}

fn host_error(path: &Path, error: io::Error) -> LayoutError {
    LayoutError::Host { path: path.to_owned(), error }
}

/// Paths of a file system never hold the one byte a C string cannot.
fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// The entries of a directory by name, so that a layout does not depend on the file system's order.
fn entries(dir: &Path) -> Result<Vec<(OsString, PathBuf, fs::FileType)>, LayoutError> {
    let read = || -> io::Result<Vec<_>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            all.push((entry.file_name(), entry.path(), entry.file_type()?));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    };
    read().map_err(|e| host_error(dir, e))
}

/// The place that `inside` means once the toolroot's own links (`lib` → `usr/lib`) are followed, relative to the root.
fn resolve(root: Option<&Path>, inside: &Path) -> Result<PathBuf, LayoutError> {
    let refuse = || LayoutError::Inside { path: inside.to_owned() };
    let mut todo: Vec<OsString> = Vec::new();
    let mut components: Vec<Component<'_>> = inside.components().collect();
    if components.first() != Some(&Component::RootDir) || inside.as_os_str().as_bytes().contains(&0) {
        return Err(refuse());
    }
    components.reverse();
    for component in components {
        match component {
            Component::Normal(name) => todo.push(name.to_owned()),
            Component::RootDir => {}
            _ => return Err(refuse()),
        }
    }
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        match root.and_then(|root| fs::read_link(root.join(&next)).ok()) {
            None => done = next,
            Some(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(LayoutError::Loop { path: inside.to_owned() });
                }
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                let parts = target.components().rev().filter_map(|part| match part {
                    Component::Normal(name) => Some(name.to_owned()),
                    Component::ParentDir => Some(OsString::from("..")),
                    _ => None,
                });
                todo.extend(parts);
            }
        }
    }
    if done.as_os_str().is_empty() { Err(refuse()) } else { Ok(done) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr/bin", "usr/lib", "usr/share/doc", "etc", "home", "dev", "proc", "tmp", "var/tmp", "var/lib/a"]
        {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        symlink("../lib", dir.path().join("usr/loop-a")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "").unwrap();
        fs::write(dir.path().join("usr/bin/x"), "").unwrap();
        fs::write(dir.path().join("usr/lib/y"), "").unwrap();
        fs::write(dir.path().join("var/lib/a/z"), "").unwrap();
        dir
    }

    fn bind(host: &Path, inside: &str) -> Bind {
        Bind { host: host.to_owned(), inside: inside.into(), writable: false }
    }

    /// The steps outside /dev, in words; what the toolroot itself gives is `own`.
    fn steps(root: &Path, binds: &[Bind]) -> Vec<String> {
        let layout = Layout::new(Some(root), binds).unwrap();
        let text = |c: &CString| c.to_str().unwrap().to_owned();
        let mut all: Vec<String> = layout
            .ops
            .iter()
            .map(|op| match op {
                Op::Dir { path, .. } => format!("dir {}", text(path)),
                Op::File { path } => format!("file {}", text(path)),
                Op::Link { path, target } => format!("link {} {}", text(path), text(target)),
                Op::Bind { path, source } => {
                    let source = &layout.sources[*source];
                    let own = Path::new(&text(&source.path)).starts_with(root.canonicalize().unwrap());
                    assert!(!own || source.read_only);
                    format!("bind {}{}", text(path), if own { " own" } else { "" })
                }
            })
            .filter(|step| !step.contains(" dev"))
            .collect();
        all.dedup();
        all
    }

    #[test]
    fn top_level_directories_are_bound_whole() {
        let root = root();
        let steps = steps(root.path(), &[]);
        let expected = [
            "dir etc",
            "bind etc own",
            "dir home",
            "link lib usr/lib",
            "dir usr",
            "bind usr own",
            "dir var",
            "dir var/lib",
            "bind var/lib own",
            "dir var/tmp",
        ];
        for step in expected {
            assert!(steps.contains(&step.to_owned()), "{step}: {steps:?}");
        }
        assert!(!steps.iter().any(|s| s.starts_with("bind dev") || s.starts_with("bind proc")), "{steps:?}");
    }

    #[test]
    fn a_place_the_toolroot_lacks_splits_what_is_above_it() {
        let (root, host) = (root(), tempfile::tempdir().unwrap());
        let steps = steps(root.path(), &[bind(host.path(), "/lib/modules/1")]);
        for step in ["bind usr/bin own", "bind usr/lib/y own", "bind usr/share own", "bind usr/lib/modules/1"] {
            assert!(steps.contains(&step.to_owned()), "{step}: {steps:?}");
        }
        assert!(!steps.contains(&"bind usr own".to_owned()) && !steps.contains(&"bind usr/lib own".to_owned()));
    }

    #[test]
    fn a_place_the_toolroot_has_splits_nothing() {
        let (root, host) = (root(), tempfile::tempdir().unwrap());
        let steps = steps(root.path(), &[bind(host.path(), "/usr/share/doc"), bind(host.path(), "/data/deep")]);
        let position = |step: &str| steps.iter().position(|s| s == step).unwrap_or_else(|| panic!("{step}: {steps:?}"));
        assert!(position("bind usr own") < position("bind usr/share/doc"));
        assert!(position("dir data") < position("bind data/deep"));
    }

    #[test]
    fn outer_binds_come_before_inner_ones() {
        let (root, host) = (root(), tempfile::tempdir().unwrap());
        let binds = [bind(host.path(), "/w/a/b"), bind(host.path(), "/w"), bind(host.path(), "/w/a")];
        let error = Layout::new(Some(root.path()), &binds).unwrap_err().to_string();
        assert!(error.contains("/w/a") && error.contains(host.path().join("a").to_str().unwrap()), "{error}");
        fs::create_dir_all(host.path().join("a")).unwrap();
        fs::create_dir_all(host.path().join("b")).unwrap();
        let steps: Vec<String> = steps(root.path(), &binds).into_iter().filter(|s| s.starts_with("bind w")).collect();
        assert_eq!(steps, ["bind w", "bind w/a", "bind w/a/b"]);
    }

    #[test]
    fn places_are_resolved_through_the_toolroots_links() {
        let root = root();
        let place = |path: &str| resolve(Some(root.path()), Path::new(path));
        assert_eq!(place("/lib/x").unwrap(), Path::new("usr/lib/x"));
        assert_eq!(place("/usr/loop-a/x").unwrap(), Path::new("usr/lib/x"));
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert!(matches!(place("/a/x"), Err(LayoutError::Loop { .. })));
        for path in ["/", "", "x", "/x/../y"] {
            assert!(matches!(place(path), Err(LayoutError::Inside { .. })), "{path}");
        }
    }
}
