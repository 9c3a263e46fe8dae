//! Quoting of a command line for people who copy it into a POSIX shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Joins arguments with spaces, each quoted only where it must be. Bytes that are not UTF-8 become `$'\xNN'`.
pub(crate) fn line(args: &[OsString]) -> String {
    args.iter().map(|a| quote(a)).collect::<Vec<_>>().join(" ")
}

fn quote(arg: &OsStr) -> String {
    let bytes = arg.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_=+,./:@%^".contains(b);
    match arg.to_str() {
        Some(text) if !text.is_empty() && bytes.iter().all(plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut out = String::from("$'");
            for &b in bytes {
                match b {
                    b'\'' | b'\\' => out.extend(['\\', b as char]),
                    0x20..=0x7e => out.push(b as char),
                    _ => out.push_str(&format!("\\x{b:02x}")),
                }
            }
            out.push('\'');
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;
    use std::process::Command;

    #[test]
    fn quotes_only_what_needs_it() {
        let args = ["qemu", "-m", "size=512M", "a b", "it's", "", "$HOME"].map(OsString::from);
        assert_eq!(line(&args), r#"qemu -m size=512M 'a b' 'it'\''s' '' '$HOME'"#);
    }

    #[test]
    fn a_shell_reads_back_what_went_in() {
        let mut args: Vec<OsString> =
            ["a b", "it's", "", "$HOME", "`x`", "*", "~", "a\\b", "é"].map(OsString::from).into();
        args.push(OsString::from_vec(vec![0xff, b'\'', b'\n', b'\\']));
        let script = format!("printf '%s\\0' {}", line(&args));
        let Ok(out) = Command::new("bash").args(["-c", &script]).output() else {
            eprintln!("no bash on this host: the round trip through a shell was not tried");
            return;
        };
        let back: Vec<OsString> =
            out.stdout.split(|&b| b == 0).take(args.len()).map(|b| OsString::from_vec(b.to_vec())).collect();
        assert_eq!(back, args);
    }
}
