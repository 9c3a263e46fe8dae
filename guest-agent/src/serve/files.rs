//! Writes and reads whole files for the host.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::mux::{Item, MuxStream};
use protocol::{Event, Failure, FailureKind, Pull, Push};

use super::answer::{failed, failure, send};

/// How often a push that receives nothing looks whether it should go on. Closing the stream ends the wait at once.
const STALL: Duration = Duration::from_secs(3600);

fn absolute(path: &str) -> Result<&Path, Failure> {
    let path = Path::new(path);
    if path.is_absolute() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(path);
    }
    Err(failure(FailureKind::Invalid, format!("{} is no absolute path", path.display())))
}

/// A file that is there under a temporary name until it is complete, with the folders that were made for it. What is
/// not kept is removed again.
struct Draft {
    temporary: PathBuf,
    made: Vec<PathBuf>,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.temporary);
            for folder in &self.made {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// Makes missing folders; what was made, innermost first.
fn make_folders(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
    fs::create_dir_all(folder).map_err(|error| failed(&format!("making the folder {}", folder.display()), &error))?;
    Ok(missing)
}

/// Serves a [`Push`].
pub fn push(stream: &MuxStream, push: &Push) -> Result<(), Failure> {
    let path = absolute(&push.path)?;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failure(FailureKind::Invalid, format!("{} names no file", push.path)));
    };
    if path.is_dir() {
        return Err(failure(FailureKind::Invalid, format!("{} is a folder", push.path)));
    }
    let temporary = folder.join(format!(".{}.{}-part", name.to_string_lossy(), stream.id()));
    let mut draft = Draft { temporary, made: make_folders(folder)?, kept: false };
    let trouble = |error: std::io::Error| failed(&format!("writing {}", push.path), &error);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft.temporary)
        .map_err(trouble)?;
    let mut received = 0;
    loop {
        match stream.recv(STALL) {
            Ok(Some(Item::Data { bytes, .. })) => {
                received += bytes.len() as u64;
                if received > push.size {
                    break;
                }
                file.write_all(&bytes).map_err(trouble)?;
            }
            Ok(Some(Item::Eof)) => break,
            Ok(_) => {}
            // The host gave up; the draft goes.
            Err(_) => return Ok(()),
        }
    }
    if received != push.size {
        return Err(failure(
            FailureKind::Invalid,
            format!("{}: {received} bytes came where {} were announced; nothing was written", push.path, push.size),
        ));
    }
    file.set_permissions(Permissions::from_mode(push.mode & 0o7777)).map_err(trouble)?;
    drop(file);
    fs::rename(&draft.temporary, path).map_err(trouble)?;
    draft.kept = true;
    let _ = send(stream, &Event::Done);
    Ok(())
}

/// Serves a [`Pull`].
pub fn pull(stream: &MuxStream, pull: &Pull) -> Result<(), Failure> {
    let path = absolute(&pull.path)?;
    let trouble = |error: std::io::Error| failed(&format!("reading {}", pull.path), &error);
    let info = fs::metadata(path).map_err(trouble)?;
    if !info.is_file() {
        return Err(failure(FailureKind::Invalid, format!("{} is no regular file", pull.path)));
    }
    let mut file = File::open(path).map_err(trouble)?;
    let _ = send(stream, &Event::FileInfo { mode: info.permissions().mode() & 0o7777, size: info.len() });
    let mut buffer = vec![0; protocol::frame::MAX_PAYLOAD];
    loop {
        match file.read(&mut buffer).map_err(trouble)? {
            0 => break,
            length => {
                if stream.send_data(false, &buffer[..length]).is_err() {
                    return Ok(());
                }
            }
        }
    }
    let _ = send(stream, &Event::Done);
    Ok(())
}
