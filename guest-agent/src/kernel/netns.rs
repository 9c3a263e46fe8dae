//! Network namespaces, as `ip netns` names them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use protocol::{Failure, FailureKind};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::links;
use crate::serve::answer::{failed, failure};
use crate::sys;

const FOLDER: &str = "/run/netns";
/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// The names of all there are.
pub fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Makes a namespace that is held by its file, as `ip netns add` does; its `lo` is up. `AlreadyExists` if there is one.
pub fn create(name: &str) -> io::Result<File> {
    share_folder()?;
    let path = format!("{FOLDER}/{name}");
    File::options().write(true).create_new(true).mode(0o444).open(&path)?;
    let made = thread::scope(|scope| {
        let work = || -> io::Result<File> {
            sys::fresh_netns()?;
            let own = format!("/proc/self/task/{}/ns/net", rustix::thread::gettid().as_raw_nonzero());
            mount_bind(own, &path)?;
            links::set_up(LOOPBACK)?;
            File::open(&path)
        };
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    });
    made.inspect_err(|_| drop(delete(name)))
}

/// Makes the folder a mount of its own whose mounts every mount namespace sees, as `ip netns add` does the first time. It must
/// come before any namespace's: a folder mounted over itself later would hold each of them twice, and none could be removed.
fn share_folder() -> io::Result<()> {
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(FOLDER, shared) == Err(Errno::INVAL) {
        mount_bind_recursive(FOLDER, FOLDER)?;
        mount_change(FOLDER, shared)?;
    }
    Ok(())
}

/// Takes the name of a namespace away; it goes when no process and no file holds it any more. `NotFound` if there is none.
pub fn delete(name: &str) -> io::Result<()> {
    let path = format!("{FOLDER}/{name}");
    // Not a mount point: a file that somebody left.
    let _ = unmount(&path, UnmountFlags::DETACH);
    fs::remove_file(&path)
}

/// The namespace of that name. As long as it is open, the namespace stays.
pub fn open(name: &str) -> io::Result<File> {
    File::open(format!("{FOLDER}/{name}"))
}

/// Runs the function in the named namespace, or where we are when there is no name. It runs in a thread of its own:
/// that thread's namespace is left with it, so nothing is ever to be restored.
pub fn within<T: Send>(name: Option<&str>, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let Some(name) = name else { return work() };
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(failure(FailureKind::Invalid, format!("{name:?} is no name for a network namespace")));
    }
    let path = format!("{FOLDER}/{name}");
    let file = File::open(&path).map_err(|error| failed(&format!("opening the network namespace {path}"), &error))?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(format!("netns-{name}")).spawn_scoped(scope, || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| failed(&format!("entering the network namespace {path}"), &error.into()))?;
            work()
        });
        let thread = thread.map_err(|error| failed("starting a thread", &error))?;
        thread.join().unwrap_or_else(|_| Err(failure(FailureKind::Io, format!("looking into {path} panicked"))))
    })
}
