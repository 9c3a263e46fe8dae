//! One attempt to bring one file from one address into its partial file.
//!
//! The hash runs along with the bytes; a partial file left by an earlier attempt is hashed and continued with a Range
//! request. A server that ignores Range starts the file over. Nothing here decides what to try next.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{CONTENT_RANGE, RANGE};
use sha2::{Digest, Sha256};

use super::error::Refusal;
use crate::digest::{self, CHUNK};
use crate::{Key, space};

/// Slower than this over the whole stall timeout counts as stalled.
const CRAWL: u64 = 1024;

/// What is to arrive.
pub(super) struct Wanted<'a> {
    pub url: &'a str,
    pub size: u64,
    pub sha256: &'a Key,
    pub part: &'a Path,
    pub stall: Duration,
}

/// How an attempt ended short of the file being there.
#[derive(Debug)]
pub(super) enum Ended {
    /// This address would not do.
    Refused { refusal: Refusal, resumed: bool },
    /// Somebody asked to stop.
    Stopped,
    /// The partial file cannot be written.
    Write(io::Error),
}

impl Ended {
    fn refused(refusal: Refusal) -> Self {
        Ended::Refused { refusal, resumed: false }
    }
}

/// Brings the file; `Ok` means that `part` holds exactly the bytes wanted, on the disk. `seen` is told how many bytes
/// there are so far, and answers whether to go on.
pub(super) fn transfer(client: &Client, wanted: &Wanted<'_>, seen: &dyn Fn(u64) -> bool) -> Result<(), Ended> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(wanted.part)
        .map_err(Ended::Write)?;
    let mut hasher = Sha256::new();
    let mut have = digest::hash_reader(&mut file, &mut hasher).map_err(Ended::Write)?;
    if have > wanted.size {
        have = start_over(&mut file, &mut hasher)?;
    }
    let mut resumed = have > 0;
    if have < wanted.size {
        let response = request(client, wanted, have)?;
        if response.status() == StatusCode::OK && have > 0 {
            have = start_over(&mut file, &mut hasher)?;
            resumed = false;
        }
        check_length(&response, wanted, have)?;
        receive(response, wanted, &mut file, &mut hasher, have, seen)?;
    }
    let found = Key::from_digest(&hasher.finalize());
    if found != *wanted.sha256 {
        return Err(Ended::Refused { refusal: Refusal::WrongHash(found), resumed });
    }
    file.sync_all().map_err(Ended::Write)
}

fn start_over(file: &mut File, hasher: &mut Sha256) -> Result<u64, Ended> {
    *hasher = Sha256::new();
    file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(Ended::Write)
}

fn request(client: &Client, wanted: &Wanted<'_>, have: u64) -> Result<Response, Ended> {
    let mut request = client.get(wanted.url);
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let response = request.send().map_err(|e| Ended::refused(refusal(&e, wanted.stall)))?;
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::PARTIAL_CONTENT if have > 0 && continues(&response, have) => Ok(response),
        // Its file is shorter than what is here, or it sent another part: what is here cannot be trusted either.
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
            Err(Ended::Refused { refusal: Refusal::Status(response.status().as_u16()), resumed: true })
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Ended::refused(Refusal::NotFound)),
        status => Err(Ended::refused(Refusal::Status(status.as_u16()))),
    }
}

/// Whether a 206 begins where the partial file ends (`Content-Range: bytes FIRST-LAST/ALL`, RFC 9110 §14.4).
fn continues(response: &Response, have: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
    range.and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok()) == Some(have)
}

/// Refuses a file of another length before its bytes are paid for.
fn check_length(response: &Response, wanted: &Wanted<'_>, have: u64) -> Result<(), Ended> {
    match response.content_length() {
        Some(length) if have + length != wanted.size => {
            Err(Ended::Refused { refusal: Refusal::WrongSize(have + length), resumed: have > 0 })
        }
        _ => Ok(()),
    }
}

fn receive(
    mut response: Response,
    wanted: &Wanted<'_>,
    file: &mut File,
    hasher: &mut Sha256,
    mut have: u64,
    seen: &dyn Fn(u64) -> bool,
) -> Result<(), Ended> {
    let resumed = have > 0;
    let mut buffer = vec![0; CHUNK];
    let mut window = (Instant::now(), have);
    loop {
        if !seen(have) {
            return Err(Ended::Stopped);
        }
        let n = match response.read(&mut buffer) {
            Ok(0) if have == wanted.size => return Ok(()),
            Ok(0) => return Err(Ended::refused(Refusal::Truncated(have))),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if is_timeout(&e) => return Err(Ended::refused(Refusal::Stalled(wanted.stall.as_secs()))),
            Err(_) => return Err(Ended::refused(Refusal::Truncated(have))),
        };
        have += n as u64;
        if have > wanted.size {
            return Err(Ended::Refused { refusal: Refusal::WrongSize(have), resumed });
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(Ended::Write)?;
        if window.0.elapsed() >= wanted.stall {
            if have - window.1 < CRAWL * wanted.stall.as_secs() && have < wanted.size {
                return Err(Ended::refused(Refusal::Stalled(wanted.stall.as_secs())));
            }
            window = (Instant::now(), have);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut
        || error.get_ref().and_then(|e| e.downcast_ref::<reqwest::Error>()).is_some_and(reqwest::Error::is_timeout)
}

/// What a request that got no response says about the host.
fn refusal(error: &reqwest::Error, stall: Duration) -> Refusal {
    let mut causes = vec![];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let last = causes.last().cloned().unwrap_or_else(|| error.to_string());
    if error.is_connect() {
        // The resolver's failure has no type of its own in the client's errors, only this text.
        if causes.iter().any(|c| c.contains("dns error")) { Refusal::Dns } else { Refusal::Connect(last) }
    } else if error.is_timeout() {
        Refusal::Stalled(stall.as_secs())
    } else {
        Refusal::Other(last)
    }
}

/// Whether a write failed because the disk is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    space::is_no_space(error)
}
