//! The two programs that show whether KVM runs code, as machine code with its source beside it.

use super::sys::{Exit, Kvm, Machine, Regs, Segment, Sregs};

const MEMORY: usize = 64 * 1024;
const CODE: u64 = 0x1000;
/// Three page tables follow each other from here.
const TABLES: usize = 0x2000;
const DATA: usize = 0x8000;
const STACK: u64 = 0x9000;
/// The first serial port; nothing answers there, the exit is what counts.
const PORT: u16 = 0x3f8;

pub(super) fn machine(kvm: &Kvm) -> std::io::Result<Machine> {
    kvm.machine(MEMORY)
}

/// Adds two numbers, says the result on a port, halts. The sum proves that the instructions ran in order.
pub(super) fn real_mode(machine: &mut Machine) -> Result<(), String> {
    machine.write(
        CODE as usize,
        &[
            0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0x00, 0xd8, // add al, bl
            0xee, // out dx, al
            0xf4, // hlt
        ],
    );
    let mut sregs = machine.sregs().map_err(|e| e.to_string())?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    start(machine, sregs, Regs { rip: CODE, rax: 19, rbx: 23, rflags: 2, ..Regs::default() })?;
    expect(machine, &Exit::Out(PORT, 42))?;
    expect(machine, &Exit::Halt)
}

/// The same in 64-bit mode with paging: a call and a return over the stack, memory written through page tables, SSE2,
/// CPUID and a control register, all of which a kernel uses in its first microseconds.
pub(super) fn long_mode(machine: &mut Machine) -> Result<(), String> {
    machine.write(
        CODE as usize,
        &[
            0xe8, 0x1b, 0x00, 0x00, 0x00, // call add
            0x66, 0x48, 0x0f, 0x6e, 0xc0, // movq xmm0, rax
            0x66, 0x0f, 0xd4, 0xc0, // paddq xmm0, xmm0
            0x66, 0x48, 0x0f, 0x7e, 0xc0, // movq rax, xmm0
            0x48, 0x89, 0x07, // mov [rdi], rax
            0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
            0xee, // out dx, al
            0x0f, 0x20, 0xd8, // mov rax, cr3
            0xf4, // hlt
            0xf4, // (never reached)
            // add:
            0x48, 0x01, 0xd8, // add rax, rbx
            0x50, 0x53, // push rax; push rbx
            0x31, 0xc0, 0x0f, 0xa2, // xor eax, eax; cpuid
            0x5b, 0x58, // pop rbx; pop rax
            0xc3, // ret
        ],
    );
    // One large page maps the first 2 MiB: PML4 → PDPT → PD (Intel SDM 3A, 4.5).
    let entry = |address: usize, flags: u64| (address as u64 | flags).to_le_bytes();
    machine.write(TABLES, &entry(TABLES + 0x1000, 0x3));
    machine.write(TABLES + 0x1000, &entry(TABLES + 0x2000, 0x3));
    machine.write(TABLES + 0x2000, &entry(0, 0x83));
    machine.write(DATA, &[0; 8]);

    let mut sregs = machine.sregs().map_err(|e| e.to_string())?;
    sregs.cr3 = TABLES as u64;
    sregs.cr4 = 0x620; // PAE, OSFXSR, OSXMMEXCPT
    sregs.cr0 = 0x8000_0033; // PG, NE, ET, MP, PE
    sregs.efer = 0x500; // LMA, LME
    let segment = Segment { limit: u32::MAX, present: 1, s: 1, g: 1, ..Segment::default() };
    sregs.cs = Segment { kind: 11, selector: 8, l: 1, ..segment };
    let data = Segment { kind: 3, selector: 16, db: 1, ..segment };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    let regs = Regs { rip: CODE, rax: 10, rbx: 11, rdi: DATA as u64, rsp: STACK, rflags: 2, ..Regs::default() };
    start(machine, sregs, regs)?;
    expect(machine, &Exit::Out(PORT, 42))?;
    expect(machine, &Exit::Halt)?;
    match machine.read_u64(DATA) {
        42 => Ok(()),
        other => Err(format!("it wrote {other} to memory where 42 is right")),
    }
}

fn start(machine: &Machine, sregs: Sregs, regs: Regs) -> Result<(), String> {
    machine.set_sregs(sregs).and_then(|()| machine.set_regs(regs)).map_err(|e| format!("registers are refused: {e}"))
}

fn expect(machine: &mut Machine, expected: &Exit) -> Result<(), String> {
    let exit = machine.run().map_err(|e| format!("KVM_RUN: {e}"))?;
    if exit == *expected {
        return Ok(());
    }
    Err(match exit {
        Exit::InternalError(1) => "internal error 1: emulation failure".to_string(),
        Exit::InternalError(code) => format!("internal error {code}"),
        Exit::FailEntry(reason) => format!("the processor refuses to enter the guest (reason {reason:#x})"),
        Exit::Shutdown => "triple fault".to_string(),
        Exit::Out(port, byte) => format!("it computed {byte} at port {port:#x}"),
        Exit::Halt => "it halted too early".to_string(),
        Exit::Other(reason) => format!("exit {reason}"),
    })
}
