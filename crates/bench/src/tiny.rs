//! The least a kernel can boot into: an initramfs with one program of a few instructions, which says that it runs.

use anyhow::Result;
use image::cpio::{Entry, Writer};

/// What the program writes.
pub const MARKER: &str = "init runs";

/// Where the program is loaded.
const BASE: u64 = 0x40_0000;
/// Size of the ELF header and of one program header (elf(5)).
const HEADERS: u64 = 64 + 56;

/// An initramfs whose `/init` writes [`MARKER`] to the console and sleeps.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn initramfs() -> Result<Vec<u8>> {
    let mut cpio = Writer::new(Vec::new());
    cpio.append("dev", 0o755, Entry::Directory)?;
    // The kernel opens it as init's standard output (init/main.c, console_on_rootfs).
    cpio.append("dev/console", 0o600, Entry::CharDevice(5, 1))?;
    cpio.append("init", 0o755, Entry::File(&program()))?;
    Ok(cpio.finish()?)
}

/// `write(1, MARKER, …)`, then `pause()` for ever, as a static x86-64 ELF file.
fn program() -> Vec<u8> {
    let text = format!("\n{MARKER}\n");
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    #[rustfmt::skip]
    let mut code = vec![
        0xb8, 1, 0, 0, 0,            // mov eax, 1 (write)
        0xbf, 1, 0, 0, 0,            // mov edi, 1
        0x48, 0x8d, 0x35, 16, 0, 0, 0, // lea rsi, [rip + 16]: the text behind the code
        0xba, length, 0, 0, 0,       // mov edx, length
        0x0f, 0x05,                  // syscall
        0xb8, 34, 0, 0, 0,           // mov eax, 34 (pause)
        0x0f, 0x05,                  // syscall
        0xeb, 0xf7,                  // jmp back to the pause
    ];
    code.extend_from_slice(text.as_bytes());
    let size = HEADERS + code.len() as u64;

    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    elf.resize(16, 0);
    let half = |elf: &mut Vec<u8>, v: u16| elf.extend_from_slice(&v.to_le_bytes());
    let word = |elf: &mut Vec<u8>, v: u32| elf.extend_from_slice(&v.to_le_bytes());
    let long = |elf: &mut Vec<u8>, v: u64| elf.extend_from_slice(&v.to_le_bytes());
    half(&mut elf, 2); // ET_EXEC
    half(&mut elf, 62); // EM_X86_64
    word(&mut elf, 1);
    long(&mut elf, BASE + HEADERS); // entry
    long(&mut elf, 64); // program headers
    long(&mut elf, 0); // no sections
    word(&mut elf, 0);
    for v in [64, 56, 1, 0, 0, 0] {
        half(&mut elf, v);
    }
    word(&mut elf, 1); // PT_LOAD
    word(&mut elf, 5); // readable, executable
    for v in [0, BASE, BASE, size, size, 0x1000] {
        long(&mut elf, v);
    }
    elf.extend_from_slice(&code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    /// The program runs on any x86-64 Linux, this one too.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_program_speaks_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        std::fs::write(&path, program()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = vec![0; MARKER.len() + 2];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        let running = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), format!("\n{MARKER}\n"));
        assert!(running);
    }
}
