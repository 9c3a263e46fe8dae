//! Source lines for real compiled code: a linked program stands for the kernel, a relocatable object for a module.
//!
//! The compiler that links Rust programs brings `addr2line` along on most hosts; where either is missing the test says
//! that it was not tried.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use machine::crash::{self, Decoder};

/// Lines 2, 6 and 10 are the ones the trace must lead to.
const SOURCE: &str = "__attribute__((always_inline)) static inline void poke(volatile int *p) {
    *p = 1;
}

__attribute__((noinline)) int faulting(volatile int *p) {
    poke(p); return *p;
}

__attribute__((noinline)) int calling(volatile int *p) {
    return faulting(p) + 1;
}

int main(void) { int x = 0; return calling(&x); }
";

fn tool(program: &str, args: &[&str], dir: &Path) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(dir).output().ok()?;
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Size of a function, and the offset after its first call (0 without one).
fn measure(object: &Path, function: &str, dir: &Path) -> (u64, u64) {
    let name = object.to_str().expect("UTF-8");
    let symbols = tool("nm", &["-S", name], dir).expect("nm comes with addr2line");
    let line = symbols.lines().find(|l| l.ends_with(&format!(" {function}"))).expect("the function");
    let numbers: Vec<u64> = line.split(' ').take(2).map(|n| u64::from_str_radix(n, 16).expect("hex")).collect();
    let code = tool("objdump", &["-d", "--no-show-raw-insn", &format!("--disassemble={function}"), name], dir);
    let code = code.expect("objdump comes with addr2line");
    let mut lines = code.lines().skip_while(|l| !l.contains("\tcall"));
    let after = lines.nth(1).and_then(|l| u64::from_str_radix(l.trim().split(':').next()?, 16).ok());
    (numbers[1], after.map_or(0, |a| a - numbers[0]))
}

fn trace(faulting: u64, calling: u64, after_call: u64, module: &str) -> String {
    format!(
        "[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
         [    1.000100] Oops: Oops: 0002 [#1] SMP\n\
         [    1.000200] RIP: 0010:faulting+0x4/{faulting:#x}{module}\n\
         [    1.000300] Call Trace:\n\
         [    1.000400]  <TASK>\n\
         [    1.000500]  calling+{after_call:#x}/{calling:#x}{module}\n\
         [    1.000600]  not_there+0x10/0x20{module}\n\
         [    1.000700]  </TASK>\n\
         [    1.000800] ---[ end trace 0000000000000000 ]---\n"
    )
}

#[test]
fn frames_get_their_source_lines() {
    let dir = tempfile::tempdir().expect("temporary directory");
    if tool("addr2line", &["--version"], dir.path()).is_none() || tool("cc", &["--version"], dir.path()).is_none() {
        eprintln!("frames_get_their_source_lines: NOT TRIED, this host has no cc or no addr2line");
        return;
    }
    fs::write(dir.path().join("probe.c"), SOURCE).expect("source");
    let flags = ["-g", "-O1", "-fno-omit-frame-pointer", "-fcf-protection=none", "-ffunction-sections"];
    let build = |extra: &[&str]| tool("cc", &[&flags, extra, &["probe.c"]].concat(), dir.path());
    build(&["-o", "vmlinux", "-no-pie"]).expect("linked");
    fs::create_dir_all(dir.path().join("modules/net")).expect("directory");
    build(&["-c", "-o", "modules/net/my-mod.ko"]).expect("relocatable");

    let decoder = Decoder::new()
        .vmlinux(dir.path().join("vmlinux"))
        .modules(dir.path().join("modules"))
        .addr2line(vec![OsString::from("addr2line")])
        .source_root(fs::canonicalize(dir.path()).expect("path"));
    for (object, module) in [("vmlinux", ""), ("modules/net/my-mod.ko", " [my_mod]")] {
        let object = dir.path().join(object);
        let (faulting, _) = measure(&object, "faulting", dir.path());
        let (calling, after) = measure(&object, "calling", dir.path());
        let crashes = crash::scan(trace(faulting, calling, after, module).as_bytes());
        let decoded = decoder.decode(&crashes[0]).unwrap_or_else(|e| panic!("{e}"));
        let line = |part: &str| decoded.trace.lines().find(|l| l.contains(part)).unwrap_or_default().to_owned();
        assert!(line(" calling+").ends_with("(probe.c:10)"), "{}", decoded.trace);
        assert!(line("RIP: 0010:faulting+").contains("(probe.c:6)"), "{}", decoded.trace);
        assert!(decoded.trace.contains("\n    inlined: probe.c:2"), "{}", decoded.trace);
        assert_eq!(decoded.notes, ["not_there is not in the symbol table"]);
        assert_eq!(decoded.decoded, 2);
    }
}

#[test]
fn what_cannot_be_decoded_is_said() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let crashes = crash::scan(trace(0x20, 0x20, 0x10, "").as_bytes());
    let bare = Decoder::new().decode(&crashes[0]).expect("nothing to read");
    assert_eq!(bare.trace, crashes[0].trace);
    assert_eq!(bare.notes, ["no vmlinux of this kernel was kept: no source lines"]);

    let crashes = crash::scan(trace(0x20, 0x20, 0x10, " [nothere]").as_bytes());
    let decoded = Decoder::new().modules(dir.path()).decode(&crashes[0]).expect("nothing to read");
    assert_eq!(decoded.notes, [format!("module nothere: no uncompressed nothere.ko under {}", dir.path().display())]);

    let error = Decoder::new().vmlinux(dir.path().join("gone")).decode(&crash::scan(trace(1, 1, 1, "").as_bytes())[0]);
    assert!(error.expect_err("no such file").to_string().contains("gone"));
}

#[test]
fn bare_addresses_get_names_from_system_map() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let map = dir.path().join("System.map");
    fs::write(
        &map,
        "0000000000000000 D fixed\nffffffff81000000 T _text\nffffffff81000100 t inner\nffffffff81000180 T next\n",
    )
    .expect("map");
    let log = "[    1.000000] Kernel panic - not syncing: x\n\
               [    1.000100] Call Trace:\n\
               [    1.000200]  [<ffffffff91000110>] 0xffffffff91000110\n\
               [    1.000300]  [<ffffffff91000020>] named+0x20/0x40\n\
               [    1.000400] Kernel Offset: 0x10000000 from 0xffffffff81000000 (relocation range: 0x0-0x1)\n";
    let decoded = Decoder::new().system_map(map).decode(&crash::scan(log.as_bytes())[0]).expect("decode");
    assert!(decoded.trace.contains("0xffffffff91000110 inner+0x10/0x80\n"), "{}", decoded.trace);
    assert!(decoded.trace.contains("] named+0x20/0x40\n"), "{}", decoded.trace);
}
