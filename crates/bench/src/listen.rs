//! Waits for a word on a pipe.

use std::io::{PipeReader, Read};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use progress::Progress;

/// How often a wait looks whether it was cancelled.
const ROUND: Duration = Duration::from_millis(200);
/// Lines of what was heard in an error.
const LINES: usize = 15;

/// Seconds from `started` until a line that is `word` was heard; `patience` counts from `started`, too.
///
/// # Errors
/// When the other end closes or time is up first, with the last lines; `who` is the speaker.
pub fn until(
    mut reader: PipeReader,
    word: &str,
    who: &str,
    started: Instant,
    patience: Duration,
    progress: &Progress,
) -> Result<f64> {
    let (sender, receiver) = channel();
    // Not waited for: it ends when the speaker does, or with the first word nobody wants any more.
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut heard = Vec::new();
    loop {
        progress.check_cancelled()?;
        match receiver.recv_timeout(ROUND) {
            Ok(bytes) => {
                heard.extend_from_slice(&bytes);
                let text = String::from_utf8_lossy(&heard);
                if text.lines().any(|line| line.trim() == word) {
                    return Ok(started.elapsed().as_secs_f64());
                }
            }
            Err(RecvTimeoutError::Timeout) if started.elapsed() < patience => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(anyhow!(
                    "{who} did not say `{word}` within {} s{}",
                    patience.as_secs(),
                    last_lines(&heard)
                ));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(anyhow!("{who} ended before it said `{word}`{}", last_lines(&heard)));
            }
        }
    }
}

/// The end of a text, for an error.
pub fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        0 => "; it said nothing".into(),
        n => format!("; its last lines:\n{}", lines[n.saturating_sub(LINES)..].join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_word_in_pieces_is_heard_and_silence_is_not_waited_for() {
        let hear = |texts: &[&str]| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            for text in texts {
                writer.write_all(text.as_bytes()).unwrap();
            }
            drop(writer);
            until(reader, "hello", "it", Instant::now(), Duration::from_secs(60), &Progress::silent())
        };
        assert!(hear(&["noise\nhel", "lo\r\n"]).is_ok());
        let error = hear(&["well hello\n"]).unwrap_err().to_string();
        assert!(error.contains("ended before") && error.contains("well hello"), "{error}");
    }
}
