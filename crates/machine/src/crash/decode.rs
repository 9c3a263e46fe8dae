//! From `function+0x1b/0x20` to `file.c:123`.
//!
//! Source lines come from debug information: the kernel's `vmlinux` and the modules' `.ko` files, read with binutils'
//! `addr2line` (it also applies the relocations a module's debug sections need). Where there is none, `System.map` still
//! names bare addresses. What could not be decoded, and why, is said in [`Decoded::notes`]: a trace that was left as it is
//! must not look like one without anything to decode.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Crash;
use super::elf::Elf;
use super::frame::Frame;

/// Decoding failed for a reason worth fixing (as opposed to debug information that is not there).
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tool failed.
    #[error("{program} on {object}: {what}")]
    Tool {
        /// The program.
        program: PathBuf,
        /// What it was to read.
        object: PathBuf,
        /// What happened.
        what: String,
    },
}

/// A trace with source lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoded {
    /// The report's text; decoded lines end with ` (file.c:123)`, calls that were inlined there follow indented.
    pub trace: String,
    /// How many frames got a source line.
    pub decoded: usize,
    /// What could not be decoded and why, each once.
    pub notes: Vec<String>,
}

/// Where the symbols of one build are.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    vmlinux: Option<PathBuf>,
    system_map: Option<PathBuf>,
    modules: Option<PathBuf>,
    addr2line: Vec<OsString>,
    source_root: Option<PathBuf>,
}

impl Decoder {
    /// A decoder that knows nothing yet; set what exists.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// The linked kernel.
    pub fn vmlinux(mut self, path: impl Into<PathBuf>) -> Decoder {
        self.vmlinux = Some(path.into());
        self
    }

    /// The kernel's `System.map`.
    pub fn system_map(mut self, path: impl Into<PathBuf>) -> Decoder {
        self.system_map = Some(path.into());
        self
    }

    /// A directory somewhere under which modules with their debug information are.
    pub fn modules(mut self, dir: impl Into<PathBuf>) -> Decoder {
        self.modules = Some(dir.into());
        self
    }

    /// binutils' `addr2line`: the program, or a loader with the program among its arguments.
    pub fn addr2line(mut self, argv_prefix: Vec<OsString>) -> Decoder {
        self.addr2line = argv_prefix;
        self
    }

    /// The directory the kernel was built from: taken off file names.
    pub fn source_root(mut self, dir: impl Into<PathBuf>) -> Decoder {
        self.source_root = Some(dir.into());
        self
    }

    /// Decodes the frames of a report.
    pub fn decode(&self, crash: &Crash) -> Result<Decoded, DecodeError> {
        let mut notes = Vec::new();
        let text = self.name_addresses(&crash.trace, &mut notes)?;
        let lines: Vec<&str> = text.lines().collect();
        let found: Vec<Option<Frame>> = lines.iter().map(|line| Frame::find(line)).collect();

        // A return address belongs to the instruction after the call; the place of a fault is the instruction itself.
        let mut wanted: BTreeMap<Option<String>, Vec<(usize, Frame, bool)>> = BTreeMap::new();
        for (index, frame) in found.iter().enumerate() {
            if let Some(frame) = frame {
                let called = Frame::of_trace_line(lines[index].trim_start().trim_start_matches("? ")).is_some();
                wanted.entry(frame.module.clone()).or_default().push((index, frame.clone(), called));
            }
        }
        let mut places: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (module, frames) in wanted {
            match self.object(module.as_deref()) {
                Ok(object) => self.resolve(&object, &frames, &mut places, &mut notes)?,
                Err(note) => notes.push(note),
            }
        }
        let mut trace = String::new();
        for (index, line) in lines.iter().enumerate() {
            trace.push_str(line);
            if let Some([inner @ .., outer]) = places.get(&index).map(Vec::as_slice) {
                // addr2line names the innermost inlined call first; the frame's own function is the last.
                trace.push_str(&format!(" ({outer})"));
                inner.iter().rev().for_each(|place| trace.push_str(&format!("\n    inlined: {place}")));
            }
            trace.push('\n');
        }
        notes.sort();
        notes.dedup();
        Ok(Decoded { trace: trace.trim_end().to_owned(), decoded: places.len(), notes })
    }

    /// The file that holds a module's code, or the kernel's.
    fn object(&self, module: Option<&str>) -> Result<PathBuf, String> {
        let Some(name) = module else {
            return self
                .vmlinux
                .clone()
                .ok_or_else(|| "no vmlinux of this kernel was kept: no source lines".to_owned());
        };
        let dir = self.modules.as_ref().ok_or_else(|| format!("module {name}: no modules of this kernel are known"))?;
        find_module(dir, name)
            .ok_or_else(|| format!("module {name}: no uncompressed {name}.ko under {}", dir.display()))
    }

    fn resolve(
        &self,
        object: &Path,
        frames: &[(usize, Frame, bool)],
        places: &mut BTreeMap<usize, Vec<String>>,
        notes: &mut Vec<String>,
    ) -> Result<(), DecodeError> {
        let elf = Elf::read(object).map_err(|source| DecodeError::Read { path: object.into(), source })?;
        if !elf.debug_info {
            let what = "has no debug information (build with `debug-info = true` for source lines)";
            notes.push(format!("{} {what}", object.display()));
            return Ok(());
        }
        if self.addr2line.is_empty() {
            notes.push("no addr2line was given: no source lines".to_owned());
            return Ok(());
        }
        // addr2line takes one section at a time; a linked kernel needs none named.
        let mut queries: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
        for (index, frame, called) in frames {
            match locate(&elf, frame) {
                Ok((section, address)) => {
                    let address = if *called && frame.offset > 0 { address - 1 } else { address };
                    queries.entry(section).or_default().push((*index, address));
                }
                Err(note) => notes.push(note),
            }
        }
        for (section, query) in queries {
            let addresses: Vec<u64> = query.iter().map(|(_, address)| *address).collect();
            let answers = self.ask(object, &section, &addresses)?;
            for ((index, _), answer) in query.iter().zip(answers) {
                if !answer.is_empty() {
                    places.insert(*index, answer);
                }
            }
        }
        Ok(())
    }

    /// Source places of addresses, innermost inlined call first.
    fn ask(&self, object: &Path, section: &str, addresses: &[u64]) -> Result<Vec<Vec<String>>, DecodeError> {
        let program = PathBuf::from(&self.addr2line[0]);
        let failed = |what: String| DecodeError::Tool { program: program.clone(), object: object.into(), what };
        let mut command = Command::new(&program);
        command.args(&self.addr2line[1..]).args(["-a", "-i", "-e"]).arg(object);
        if !section.is_empty() {
            command.args(["-j", section]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let asked: String = addresses.iter().map(|a| format!("{a:#x}\n")).collect();
        // A crash has a few dozen addresses: they fit the pipe, so writing before reading cannot block.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(asked.as_bytes()).map_err(|e| failed(e.to_string()))?;
        }
        let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())));
        }
        let mut answers: Vec<Vec<String>> = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match (line.starts_with("0x"), answers.last_mut()) {
                (true, _) => answers.push(Vec::new()),
                (false, Some(answer)) if !line.starts_with("??") && !line.ends_with(":?") => {
                    answer.push(self.shorten(line))
                }
                (false, _) => {}
            }
        }
        Ok(answers)
    }

    fn shorten(&self, place: &str) -> String {
        let place = place.split(" (discriminator").next().unwrap_or(place);
        let root = self.source_root.as_ref().map(|r| format!("{}/", r.display()));
        let place = root.and_then(|r| place.strip_prefix(&r).map(str::to_owned)).unwrap_or_else(|| place.to_owned());
        place.strip_prefix("./").map(str::to_owned).unwrap_or(place)
    }

    /// Gives bare kernel addresses (`RIP: 0010:0xffffffff81…`, `[<ffffffff81…>] 0x…`) their names from `System.map`.
    fn name_addresses(&self, trace: &str, notes: &mut Vec<String>) -> Result<String, DecodeError> {
        let bare = |line: &str| bare_address(line).is_some();
        let Some(path) = self.system_map.as_ref().filter(|_| trace.lines().any(bare)) else {
            return Ok(trace.to_owned());
        };
        let text = fs::read_to_string(path).map_err(|source| DecodeError::Read { path: path.clone(), source })?;
        let mut map: Vec<(u64, &str)> = text.lines().filter_map(map_entry).collect();
        map.sort_unstable();
        let shift = kaslr_shift(trace);
        let mut out = String::new();
        for line in trace.lines() {
            out.push_str(line);
            if let Some(address) = bare_address(line) {
                let linked = address.wrapping_sub(shift);
                let next = map.partition_point(|(start, _)| *start <= linked);
                match (next.checked_sub(1).and_then(|at| map.get(at)), map.get(next)) {
                    (Some((start, name)), Some((end, _))) => {
                        out.push_str(&format!(" {name}+{:#x}/{:#x}", linked - start, end - start));
                    }
                    _ => notes.push(format!("{address:#x} is in no function of {}", path.display())),
                }
            }
            out.push('\n');
        }
        Ok(out)
    }
}

/// Where a frame's function is: its section (empty for a linked file) and the frame's address.
fn locate(elf: &Elf, frame: &Frame) -> Result<(String, u64), String> {
    let all = elf.functions.get(&frame.function).map(Vec::as_slice).unwrap_or_default();
    // kallsyms rounds a size up to the next symbol, so a symbol may be a little smaller than the frame says.
    let fits = |size: u64| size <= frame.size && frame.size - size < 64;
    let fitting: Vec<_> = all.iter().filter(|s| fits(s.size)).cloned().collect();
    match (fitting.as_slice(), all) {
        ([one], _) | ([], [one]) if frame.offset <= frame.size => {
            let section = if elf.relocatable { one.section.clone() } else { String::new() };
            Ok((section, one.value + frame.offset))
        }
        (_, []) => Err(format!("{} is not in the symbol table", frame.function)),
        _ => Err(format!("{} is ambiguous: {} functions share the name and size", frame.function, all.len())),
    }
}

fn find_module(dir: &Path, name: &str) -> Option<PathBuf> {
    // The kernel writes `-` in file names as `_` in module names.
    let same = |file: &str| {
        let stem = file.strip_suffix(".ko.debug").or_else(|| file.strip_suffix(".ko"));
        stem.is_some_and(|s| s.replace('-', "_") == name)
    };
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).ok()?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                _ if entry.file_name().to_str().is_some_and(same) => return Some(entry.path()),
                _ => {}
            }
        }
    }
    None
}

/// An address with no name beside it.
fn bare_address(line: &str) -> Option<u64> {
    if Frame::find(line).is_some() {
        return None;
    }
    let line = line.trim();
    let text = match line.strip_prefix("RIP: 0010:") {
        Some(rest) => rest,
        None => line.strip_prefix("[<").and_then(|r| r.split_once(">]")).map(|(address, _)| address)?,
    };
    let digits = text.split_ascii_whitespace().next()?.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).ok().filter(|a| *a > u64::MAX / 2)
}

fn map_entry(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let text = matches!(words.next()?, "t" | "T" | "w" | "W");
    text.then_some((address, words.next()?)).filter(|(a, _)| *a > u64::MAX / 2)
}

/// `Kernel Offset: 0x2c000000 from 0xffffffff81000000 (…)`, printed by a panic.
fn kaslr_shift(trace: &str) -> u64 {
    let line = trace.lines().find_map(|l| l.trim().strip_prefix("Kernel Offset: 0x"));
    line.and_then(|l| u64::from_str_radix(l.split(' ').next()?, 16).ok()).unwrap_or(0)
}
