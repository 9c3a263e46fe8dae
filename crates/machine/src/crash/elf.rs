//! The little of ELF that decoding needs: function symbols, sections, and whether there is debug information.
//!
//! Reads only headers, symbol table and string table, so a vmlinux of hundreds of megabytes costs a few. All offsets
//! come from the file and are checked against it (ELF-64 Object File Format; `include/uapi/linux/elf.h`).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A function's symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Address (linked file) or offset in its section (relocatable file).
    pub(super) value: u64,
    /// Size in bytes.
    pub(super) size: u64,
    /// Name of its section.
    pub(super) section: String,
}

/// What was read of an object.
#[derive(Debug)]
pub(super) struct Elf {
    /// Functions by name; static functions may share one.
    pub(super) functions: HashMap<String, Vec<Symbol>>,
    /// A relocatable file: a module.
    pub(super) relocatable: bool,
    /// It has a `.debug_info`.
    pub(super) debug_info: bool,
}

const ET_REL: u16 = 1;
const SHT_SYMTAB: u32 = 2;
const STT_FUNC: u8 = 2;
const SECTION_HEADER: usize = 64;
const SYMBOL: usize = 24;
/// No kernel's symbol table is larger; a damaged header must not make us allocate what it says.
const TABLE_MAX: u64 = 1 << 28;

struct Section {
    name: String,
    kind: u32,
    offset: u64,
    size: u64,
    link: usize,
}

impl Elf {
    pub(super) fn read(path: &Path) -> io::Result<Elf> {
        let file = File::open(path)?;
        let header = bytes(&file, 0, 64)?;
        // ELFCLASS64, ELFDATA2LSB.
        if header[..6] != *b"\x7fELF\x02\x01" {
            return Err(bad("is no 64-bit little-endian ELF file"));
        }
        let sections = sections(&file, &header)?;
        let mut functions: HashMap<String, Vec<Symbol>> = HashMap::new();
        for table in sections.iter().filter(|s| s.kind == SHT_SYMTAB) {
            let symbols = bytes(&file, table.offset, table.size)?;
            let strings = sections.get(table.link).ok_or_else(|| bad("has a symbol table without names"))?;
            let names = bytes(&file, strings.offset, strings.size)?;
            for entry in symbols.chunks_exact(SYMBOL) {
                let section = sections.get(usize::from(u16_at(entry, 6)));
                let (true, Some(section)) = (entry[4] & 0xf == STT_FUNC, section) else { continue };
                let symbol = Symbol { value: u64_at(entry, 8), size: u64_at(entry, 16), section: section.name.clone() };
                functions.entry(string(&names, u32_at(entry, 0))).or_default().push(symbol);
            }
        }
        Ok(Elf {
            functions,
            relocatable: u16_at(&header, 16) == ET_REL,
            debug_info: sections.iter().any(|s| s.name == ".debug_info"),
        })
    }
}

fn sections(file: &File, header: &[u8]) -> io::Result<Vec<Section>> {
    let count = usize::from(u16_at(header, 60));
    if usize::from(u16_at(header, 58)) != SECTION_HEADER {
        return Err(bad("has section headers of an unknown size"));
    }
    let table = bytes(file, u64_at(header, 40), (count * SECTION_HEADER) as u64)?;
    let field = |i: usize| &table[i * SECTION_HEADER..(i + 1) * SECTION_HEADER];
    let names = usize::from(u16_at(header, 62));
    if names >= count {
        return Err(bad("has no section names"));
    }
    let names = bytes(file, u64_at(field(names), 24), u64_at(field(names), 32))?;
    let section = |raw: &[u8]| Section {
        name: string(&names, u32_at(raw, 0)),
        kind: u32_at(raw, 4),
        offset: u64_at(raw, 24),
        size: u64_at(raw, 32),
        link: u32_at(raw, 40) as usize,
    };
    Ok((0..count).map(|i| section(field(i))).collect())
}

fn bytes(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if size > TABLE_MAX || offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(bad(&format!("is damaged: {size} bytes at {offset} are beyond its end at {length}")));
    }
    let mut out = vec![0; usize::try_from(size).map_err(|_| bad("is too large"))?];
    file.read_exact_at(&mut out, offset)?;
    Ok(out)
}

fn string(table: &[u8], at: u32) -> String {
    let rest = table.get(at as usize..).unwrap_or_default();
    let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
    String::from_utf8_lossy(&rest[..end]).into_owned()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(raw[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(raw: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(raw[at..at + 8].try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_program_that_tests_it() {
        let elf = Elf::read(&std::env::current_exe().expect("own path")).expect("own ELF file");
        assert!(!elf.relocatable);
        assert!(elf.functions.contains_key("main"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x");
        let whole = std::fs::read(std::env::current_exe().expect("own path")).expect("own bytes");
        for (bytes, what) in
            [(&b"text"[..], "beyond its end"), (&[0; 64][..], "no 64-bit"), (&whole[..4096], "beyond its end")]
        {
            std::fs::write(&path, bytes).expect("write");
            let error = Elf::read(&path).expect_err("must fail").to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
