//! The agent's own parameters on the kernel's command line: `lab.guest=NAME lab.nonce=HEX lab.root=overlay|none`.

use std::fs::File;
use std::io::Read;

/// Where the guest's root file system comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Root {
    /// The image's disks, under an overlay in memory.
    Overlay,
    /// The initramfs itself.
    #[default]
    None,
}

/// The parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    /// The guest's name; empty when not given.
    pub guest: String,
    /// The first session's nonce.
    pub nonce: Option<u32>,
    /// Where the root comes from.
    pub root: Root,
    /// What could not be understood, for the report.
    pub unknown: Vec<String>,
}

impl Parameters {
    /// Reads `/proc/cmdline`.
    pub fn read() -> Parameters {
        // At most COMMAND_LINE_SIZE, 2048 (arch/x86/include/asm/setup.h).
        let mut line = [0; 2048];
        let length = File::open("/proc/cmdline").and_then(|mut file| file.read(&mut line)).unwrap_or(0);
        Self::parse(&String::from_utf8_lossy(&line[..length]))
    }

    fn parse(line: &str) -> Parameters {
        let mut found = Parameters::default();
        for (name, value) in line.split_ascii_whitespace().filter_map(|word| word.strip_prefix("lab.")?.split_once('='))
        {
            let mut wrong = |allowed: &str| {
                found.unknown.push(format!("kernel parameter lab.{name}={value}: {allowed}"));
            };
            match (name, value) {
                ("guest", _) => found.guest = value.to_string(),
                ("root", "overlay") => found.root = Root::Overlay,
                ("root", "none") => found.root = Root::None,
                ("root", _) => wrong("must be overlay or none"),
                ("nonce", _) => match u32::from_str_radix(value, 16) {
                    Ok(nonce) if nonce != 0 => found.nonce = Some(nonce),
                    _ => wrong("must be 1 to 8 hexadecimal digits, not 0"),
                },
                _ => wrong("is unknown (known: lab.guest, lab.nonce, lab.root)"),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lab_s_parameters_are_read_and_others_left_alone() {
        let found = Parameters::parse("console=ttyS0 quiet lab.guest=a lab.nonce=00c0ffee lab.root=overlay panic=-1\n");
        assert_eq!((found.guest.as_str(), found.nonce, found.root), ("a", Some(0xc0_ffee), Root::Overlay));
        assert_eq!(found.unknown, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_reported_by_name() {
        let found = Parameters::parse("lab.root=nfs lab.nonce=0 lab.colour=red");
        assert_eq!((found.root, found.nonce), (Root::None, None));
        assert_eq!(
            found.unknown,
            [
                "kernel parameter lab.root=nfs: must be overlay or none",
                "kernel parameter lab.nonce=0: must be 1 to 8 hexadecimal digits, not 0",
                "kernel parameter lab.colour=red: is unknown (known: lab.guest, lab.nonce, lab.root)",
            ]
        );
    }
}
