//! A small HTTP server that can misbehave on demand.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone)]
pub enum Act {
    /// Serves the file, honouring Range.
    Serve,
    /// Announces all of it, but ends the connection after so many bytes.
    Truncate(usize),
    /// Serves as many bytes, with one of them changed.
    Corrupt,
    /// Answers with this status and no body.
    Status(u16),
    /// Sends so many bytes and then nothing, keeping the connection open.
    Stall(usize),
    /// Serves all of the file with 200 whatever was asked for.
    IgnoreRange,
    /// Serves other bytes of another length.
    Other(Vec<u8>),
    /// Serves these bytes with no length announced.
    Unannounced(Vec<u8>),
    /// Answers with a redirection.
    Redirect(String),
    /// Sends the file in two halves and calls this between them.
    Midway(Arc<dyn Fn() + Send + Sync>),
    /// Claims to continue where it was asked to, but sends from the beginning.
    WrongRange,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    /// The first byte asked for by Range.
    pub from: Option<usize>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    acts: HashMap<String, VecDeque<Act>>,
    every: Option<Act>,
    seen: Vec<Seen>,
}

/// Serves until dropped.
pub struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, stop) = (Arc::clone(&shared), Arc::clone(&stopped));
                thread::spawn(move || {
                    // Clients hang up at will; that is what is tested.
                    let _ = talk(stream.unwrap(), &state, &stop);
                });
            }
        });
        Server { port, state, stop }
    }

    /// The mirror's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/debian", self.port)
    }

    /// Has a file at `path` below the mirror's address.
    pub fn file(&self, path: &str, content: &[u8]) -> &Self {
        self.state.lock().unwrap().files.insert(format!("/debian/{path}"), content.to_vec());
        self
    }

    /// Treats the next requests for `path` so, one after the other; then serves.
    pub fn acts(&self, path: &str, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.state.lock().unwrap().acts.insert(format!("/debian/{path}"), acts.into_iter().collect());
        self
    }

    /// Treats every request so.
    pub fn always(&self, act: Act) -> &Self {
        self.state.lock().unwrap().every = Some(act);
        self
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The first bytes asked for, request by request.
    pub fn offsets(&self) -> Vec<Option<usize>> {
        self.seen().into_iter().map(|seen| seen.from).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn talk(mut stream: TcpStream, state: &Mutex<State>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().replace("%2B", "+");
    let mut from = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        if let Some(range) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.split('-').next().and_then(|n| n.parse().ok());
        }
    }
    let (content, act) = {
        let mut state = state.lock().unwrap();
        state.seen.push(Seen { path: path.clone(), from });
        let next = state.acts.get_mut(&path).and_then(VecDeque::pop_front);
        (state.files.get(&path).cloned(), next.or(state.every.clone()).unwrap_or(Act::Serve))
    };
    let status = |stream: &mut TcpStream, status: u16, extra: &str| {
        write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 0\r\n{extra}\r\n")
    };
    let Some(mut content) = content else { return status(&mut stream, 404, "") };
    let all = content.len();
    let mut start = from.unwrap_or(0);
    match &act {
        Act::Status(code) => return status(&mut stream, *code, ""),
        Act::Redirect(to) => return status(&mut stream, 302, &format!("Location: {to}\r\n")),
        Act::Unannounced(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            return stream.write_all(body);
        }
        Act::Other(body) => (content, start) = (body.clone(), 0),
        Act::IgnoreRange => start = 0,
        Act::Corrupt => content[all / 2] ^= 0x40,
        _ => {}
    }
    if start > 0 && start >= content.len() {
        return status(&mut stream, 416, "");
    }
    let body = &content[start..];
    if start > 0 {
        let sent = if matches!(act, Act::WrongRange) { 0 } else { start };
        write!(stream, "HTTP/1.1 206 Partial\r\nContent-Range: bytes {sent}-{}/{all}\r\n", all - 1)?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "Connection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    match act {
        Act::Truncate(n) => stream.write_all(&body[..n.min(body.len())]),
        Act::Stall(n) => {
            stream.write_all(&body[..n.min(body.len())])?;
            while !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Act::Midway(call) => {
            let half = body.len() / 2;
            stream.write_all(&body[..half])?;
            stream.flush()?;
            call();
            stream.write_all(&body[half..])
        }
        _ => stream.write_all(body),
    }
}
