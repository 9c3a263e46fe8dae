//! Files into and out of a guest.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use progress::{Progress, Unit};
use protocol::{Event, Input, Pull, Push, Request};

use crate::client::{Client, RemoteStream};

/// Bytes sent at once.
const CHUNK: usize = 60 * 1024;

/// How long the other end may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// Copies a file of this host to `path` in a guest, permissions included. It appears there only when complete.
///
/// # Errors
/// When the file cannot be read or the guest cannot write it.
pub fn push(client: &Client, guest: &str, from: &Path, path: &str, progress: &Progress) -> Result<()> {
    let mut file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        bail!("{} is not a file; only files can be copied (pack a folder with tar)", from.display());
    }
    let path = if path.ends_with('/') {
        let name = from
            .file_name()
            .and_then(|n| n.to_str())
            .with_context(|| format!("{} has no usable name", from.display()))?;
        format!("{path}{name}")
    } else {
        path.to_owned()
    };
    let step = progress.step(format!("cp:{guest}"), format!("copy {} to {guest}:{path}", from.display()));
    step.total(meta.len(), Unit::Bytes);
    let request = Push { path, mode: meta.permissions().mode() & 0o7777, size: meta.len() };
    let mut stream = client.open(guest, Request::Push(request))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        progress.check_cancelled()?;
        let n = file.read(&mut buffer).with_context(|| format!("cannot read {}", from.display()))?;
        if n == 0 {
            break;
        }
        if stream.send(&Input::Stdin(buffer[..n].to_vec())).is_err() {
            // The guest says why on the stream it closed.
            break;
        }
        step.inc(n as u64);
    }
    let _ = stream.send(&Input::StdinEof);
    match next(&mut stream, guest)? {
        Event::Done => step.done(),
        other => bail!("guest `{guest}` answered {other:?} to a copy"),
    }
    Ok(())
}

/// Copies `path` of a guest to a file of this host, which appears only when complete.
///
/// # Errors
/// When the guest cannot read it or the file cannot be written.
pub fn pull(client: &Client, guest: &str, path: &str, to: &Path, progress: &Progress) -> Result<()> {
    let to = match Path::new(path).file_name() {
        Some(name) if to.is_dir() => to.join(name),
        _ => to.to_path_buf(),
    };
    let step = progress.step(format!("cp:{guest}"), format!("copy {guest}:{path} to {}", to.display()));
    let mut stream = client.open(guest, Request::Pull(Pull { path: path.to_owned() }))?;
    let Event::FileInfo { mode, size } = next(&mut stream, guest)? else {
        bail!("guest `{guest}` did not describe {path}")
    };
    step.total(size, Unit::Bytes);
    let mut name = to.file_name().with_context(|| format!("{} has no file name", to.display()))?.to_owned();
    name.push(".part");
    let partial = Partial(to.with_file_name(name));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial.0)
        .with_context(|| format!("cannot write {}", partial.0.display()))?;
    loop {
        progress.check_cancelled()?;
        match next(&mut stream, guest)? {
            Event::Output { bytes, .. } => {
                file.write_all(&bytes).with_context(|| format!("cannot write {}", partial.0.display()))?;
                step.inc(bytes.len() as u64);
            }
            Event::Done => break,
            other => bail!("guest `{guest}` answered {other:?} to a copy"),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    fs::rename(&partial.0, &to).with_context(|| format!("cannot write {}", to.display()))?;
    step.done();
    Ok(())
}

/// Removed when the copy does not end well; after the rename there is nothing left to remove.
struct Partial(std::path::PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn next(stream: &mut RemoteStream, guest: &str) -> Result<Event> {
    match stream.recv(SILENCE)? {
        Some(Event::Failed(failure)) => bail!("guest `{guest}`: {failure}"),
        Some(event) => Ok(event),
        None => bail!("guest `{guest}` was silent for {} s", SILENCE.as_secs()),
    }
}
