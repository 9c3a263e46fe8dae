//! A file tree in memory, on its way into an image.
//!
//! Packages, fix-ups, kernels and programs all end up as nodes of one sorted map from path to node; whatever order
//! they came in, the map (and so the image) is the same. File contents are shared, never copied: packages' files live
//! in memory since they come out of a decompressor, a kernel's stay on disk until they are written out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a tree could not be put together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Two packages disagree about a path.
    #[error(
        "{first} and {second} both ship /{path} and differ ({difference}); prune it in the image definition and write \
         the one that is wanted, or take one of the two out"
    )]
    Conflict {
        /// The path without its leading slash.
        path: String,
        /// Who brought it first.
        first: Arc<str>,
        /// Who brought it too.
        second: Arc<str>,
        /// In what they differ.
        difference: &'static str,
    },
    /// A path leads through something that is no directory.
    #[error("{origin} ships /{path}, but /{through} is no directory")]
    Through {
        /// The path.
        path: String,
        /// The ancestor that is in the way.
        through: String,
        /// Who brought the path.
        origin: Arc<str>,
    },
    /// Symbolic links among a path's ancestors lead nowhere or in a circle.
    #[error("{origin} ships /{path}, whose directory cannot be found through symbolic links")]
    Unresolved {
        /// The path.
        path: String,
        /// Who brought it.
        origin: Arc<str>,
    },
    /// A path that would leave the image or is not written in its shortest form.
    #[error("{origin} ships the path {path:?}, which is not a plain path below the root")]
    BadPath {
        /// As it was given.
        path: String,
        /// Who brought it.
        origin: Arc<str>,
    },
}

/// What a file holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// The bytes themselves. Two nodes that share them are hard links of each other.
    Bytes(Arc<Vec<u8>>),
    /// A file outside that is read when the image is written.
    Outside {
        /// Where it is.
        path: PathBuf,
        /// How many bytes it had when the tree was made.
        size: u64,
    },
}

impl Content {
    /// Wraps bytes that nothing else shares.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Content::Bytes(Arc::new(bytes.into()))
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Outside { size, .. } => *size,
        }
    }
}

/// What a path is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and where it points.
    Symlink(String),
}

/// One path of the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Who brought it: a package, or a word such as `definition` or `kernel`.
    pub origin: Arc<str>,
}

impl Node {
    /// A directory of root's.
    pub fn directory(mode: u32, origin: &Arc<str>) -> Self {
        Node { kind: Kind::Directory, mode, uid: 0, gid: 0, origin: Arc::clone(origin) }
    }

    /// A file of root's.
    pub fn file(content: Content, mode: u32, origin: &Arc<str>) -> Self {
        Node { kind: Kind::File(content), mode, uid: 0, gid: 0, origin: Arc::clone(origin) }
    }

    /// A symbolic link.
    pub fn symlink(target: impl Into<String>, origin: &Arc<str>) -> Self {
        Node { kind: Kind::Symlink(target.into()), mode: 0o777, uid: 0, gid: 0, origin: Arc::clone(origin) }
    }

    /// Bytes of content; 0 for what is no file.
    pub fn size(&self) -> u64 {
        if let Kind::File(content) = &self.kind { content.size() } else { 0 }
    }

    fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// The tree: paths are relative to the root, without a leading slash, and sorted bytewise, so that a directory always
/// comes before what it holds.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// Most links that are followed for one path, as in the kernel's `MAXSYMLINKS` (include/linux/namei.h).
const MAX_LINKS: usize = 40;

impl Tree {
    /// An empty tree.
    pub fn new() -> Self {
        Tree::default()
    }

    /// The node at `path` (no leading slash).
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Every path and node, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Puts `node` at `path`, replacing what was there.
    pub fn put(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        check_path(path, &node.origin)?;
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// Adds a package's node to what other packages brought.
    ///
    /// Equal files may be shipped twice; a symbolic link stands in for a directory of the same name (that is how a
    /// merged `/usr` works); of two modes of one directory the unusual one wins. Anything else is a conflict.
    pub fn merge(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        check_path(path, &node.origin)?;
        let Some(old) = self.nodes.get(path) else {
            self.nodes.insert(path.to_owned(), node);
            return Ok(());
        };
        let conflict = |difference| TreeError::Conflict {
            path: path.to_owned(),
            first: Arc::clone(&old.origin),
            second: Arc::clone(&node.origin),
            difference,
        };
        let attributes = |n: &Node| (n.mode, n.uid, n.gid);
        let replace = match (&old.kind, &node.kind) {
            (Kind::Directory, Kind::Directory) => match (attributes(old), attributes(&node)) {
                (a, b) if a == b || b == PLAIN_DIRECTORY => false,
                (PLAIN_DIRECTORY, _) => true,
                _ => return Err(conflict("mode or owner of the directory")),
            },
            (Kind::Symlink(_), Kind::Directory) => false,
            (Kind::Directory, Kind::Symlink(_)) => true,
            (Kind::Symlink(a), Kind::Symlink(b)) if a == b => false,
            (Kind::Symlink(_), Kind::Symlink(_)) => return Err(conflict("target of the link")),
            (Kind::File(_), Kind::File(_)) if attributes(old) != attributes(&node) => {
                return Err(conflict("mode or owner"));
            }
            (Kind::File(Content::Bytes(a)), Kind::File(Content::Bytes(b))) if a == b => false,
            (Kind::File(_), Kind::File(_)) => return Err(conflict("content")),
            _ => return Err(conflict("kind of file")),
        };
        if replace {
            self.nodes.insert(path.to_owned(), node);
        }
        Ok(())
    }

    /// Where `path` really is once symbolic links among its ancestors (not itself) are followed inside the tree.
    /// `None` when they lead in a circle or out of the tree.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut real: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(part),
            }
            if rest.is_empty() {
                break;
            }
            if let Some(Node { kind: Kind::Symlink(target), .. }) = self.nodes.get(&real.join("/")) {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                if target.starts_with('/') {
                    real.clear();
                } else {
                    real.pop();
                }
                rest.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        (!real.is_empty()).then(|| real.join("/"))
    }

    /// The node at `path` after every symbolic link on the way, its own included.
    pub fn follow(&self, path: &str) -> Option<(String, &Node)> {
        let mut at = self.resolve(path)?;
        for _ in 0..MAX_LINKS {
            let node = self.nodes.get(&at)?;
            let Kind::Symlink(target) = &node.kind else { return Some((at, node)) };
            let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
            let next = if target.starts_with('/') { target.clone() } else { format!("{parent}/{target}") };
            at = self.resolve(&next)?;
        }
        None
    }

    /// Moves what was shipped below a symbolic link to where that link leads (`/lib/x` to `/usr/lib/x`) and adds the
    /// parents nobody shipped, for `origin`. Afterwards every parent of every node is a directory of the tree.
    pub fn settle(&mut self, origin: &Arc<str>) -> Result<(), TreeError> {
        let moved: Vec<(String, String)> = self
            .nodes
            .iter()
            .map(|(path, node)| match self.resolve(path) {
                Some(real) => Ok((path.clone(), real)),
                None => Err(TreeError::Unresolved { path: path.clone(), origin: Arc::clone(&node.origin) }),
            })
            .filter(|pair| !matches!(pair, Ok((path, real)) if path == real))
            .collect::<Result<_, _>>()?;
        for (path, real) in moved {
            if let Some(node) = self.nodes.remove(&path) {
                self.merge(&real, node)?;
            }
        }
        let mut missing: BTreeMap<String, Node> = BTreeMap::new();
        for (path, node) in &self.nodes {
            let mut child = path.as_str();
            while let Some((parent, _)) = child.rsplit_once('/') {
                match self.nodes.get(parent) {
                    Some(n) if n.is_directory() => break,
                    Some(_) => {
                        return Err(TreeError::Through {
                            path: path.clone(),
                            through: parent.to_owned(),
                            origin: Arc::clone(&node.origin),
                        });
                    }
                    None => missing.insert(parent.to_owned(), Node::directory(0o755, origin)),
                };
                child = parent;
            }
        }
        self.nodes.append(&mut missing);
        Ok(())
    }

    /// Takes every node out for which `gone` says so.
    pub fn remove_if(&mut self, mut gone: impl FnMut(&str, &Node) -> bool) {
        self.nodes.retain(|path, node| !gone(path, node));
    }
}

/// Mode, owner and group of a directory nobody asked anything special of.
const PLAIN_DIRECTORY: (u32, u32, u32) = (0o755, 0, 0);

/// Refuses paths that are absolute, empty, or hold empty, `.` or `..` parts.
fn check_path(path: &str, origin: &Arc<str>) -> Result<(), TreeError> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || path.contains('\0') {
        return Err(TreeError::BadPath { path: path.to_owned(), origin: Arc::clone(origin) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn file(content: &str, origin: &str) -> Node {
        Node::file(Content::new(content), 0o644, &who(origin))
    }

    fn merged(nodes: &[(&str, Node)]) -> Result<Vec<String>, TreeError> {
        let mut tree = Tree::new();
        for (path, node) in nodes {
            tree.merge(path, node.clone())?;
        }
        tree.settle(&who("image"))?;
        Ok(tree.iter().map(|(path, node)| format!("{path} {:o} {}", node.mode, node.origin)).collect())
    }

    #[test]
    fn a_merged_usr_comes_out_the_same_in_any_order() {
        let mut nodes = [
            ("lib", Node::symlink("usr/lib", &who("base-files"))),
            ("lib", Node::directory(0o755, &who("old"))),
            ("lib/udev", Node::directory(0o755, &who("old"))),
            ("lib/udev/rule", file("x", "old")),
            ("tmp", Node::directory(0o1777, &who("base-files"))),
            ("tmp", Node::directory(0o755, &who("old"))),
        ];
        let want =
            ["lib 777 base-files", "tmp 1777 base-files", "usr 755 image", "usr/lib 755 image", "usr/lib/udev 755 old"];
        let forward = merged(&nodes).unwrap();
        nodes.reverse();
        assert_eq!(forward, merged(&nodes).unwrap());
        assert_eq!(forward[..5], want);
        assert_eq!(forward[5], "usr/lib/udev/rule 644 old");
    }

    #[test]
    fn equal_files_may_be_shipped_twice_and_others_may_not() {
        assert!(merged(&[("etc/x", file("1", "a")), ("etc/x", file("1", "b"))]).is_ok());
        let error = merged(&[("etc/x", file("1", "a")), ("etc/x", file("2", "b"))]).unwrap_err().to_string();
        assert!(error.starts_with("a and b both ship /etc/x and differ (content)"), "{error}");
        let modes = [("d", Node::directory(0o700, &who("a"))), ("d", Node::directory(0o750, &who("b")))];
        assert!(matches!(merged(&modes), Err(TreeError::Conflict { .. })));
    }

    #[test]
    fn a_file_is_no_directory_and_links_may_not_circle() {
        let error = merged(&[("a", file("", "p")), ("a/b", file("", "q"))]).unwrap_err();
        assert_eq!(error, TreeError::Through { path: "a/b".into(), through: "a".into(), origin: who("q") });
        let circle =
            [("a", Node::symlink("b", &who("p"))), ("b", Node::symlink("a", &who("p"))), ("a/x", file("", "q"))];
        assert!(matches!(merged(&circle), Err(TreeError::Unresolved { .. })));
    }

    #[test]
    fn paths_that_leave_the_image_are_refused() {
        for path in ["", "/etc/x", "a/../../etc/x", "a//b", "./a", "a/"] {
            assert!(matches!(merged(&[(path, file("", "p"))]), Err(TreeError::BadPath { .. })), "{path}");
        }
    }

    #[test]
    fn following_ends_at_the_file_itself() {
        let mut tree = Tree::new();
        tree.merge("usr/bin/python3.13", file("elf", "p")).unwrap();
        tree.merge("usr/bin/python3", Node::symlink("python3.13", &who("p"))).unwrap();
        tree.merge("bin", Node::symlink("usr/bin", &who("p"))).unwrap();
        tree.merge("etc/alternatives/python", Node::symlink("/bin/python3", &who("p"))).unwrap();
        assert_eq!(tree.follow("etc/alternatives/python").unwrap().0, "usr/bin/python3.13");
        assert!(tree.follow("etc/nothing").is_none());
    }
}
