//! Network namespaces, as `ip netns` names them.

use std::fs::{self, File};
use std::thread;

use protocol::{Failure, FailureKind};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::serve::answer::{failed, failure};
use std::os::fd::AsFd;

const FOLDER: &str = "/run/netns";

/// The names of all there are.
pub fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
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
