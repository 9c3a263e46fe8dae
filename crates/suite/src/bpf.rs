//! A BPF object, assembled here: a tcx program that drops every Nth RoCE packet and counts.
//!
//! Twenty-odd instructions are less than a compiler in every lab, and the number N is a constant in them. Out comes an
//! ELF relocatable as `clang -target bpf` would make it, for libbpf's loader: program section `tcx/HOOK`, counters in
//! `.bss` (which libbpf turns into an array map) and one relocation that points the program at them.
//!
//! Sources: instruction encoding Documentation/bpf/standardization/instruction-set.rst; context offsets
//! `struct __sk_buff` in include/uapi/linux/bpf.h; ELF conventions Documentation/bpf/llvm_reloc.rst; RoCE v2 port IBTA
//! A17 (UDP 4791).

/// Offsets in `struct __sk_buff`.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// Return values of tcx programs (`enum tcx_action_base`).
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

/// Offsets from the Ethernet header.
const ETHERTYPE: i16 = 12;
const IPV4_PROTOCOL: i16 = 14 + 9;
const IPV4_UDP_DPORT: i16 = 14 + 20 + 2;
const IPV6_NEXT_HEADER: i16 = 14 + 6;
const IPV6_UDP_DPORT: i16 = 14 + 40 + 2;
/// The shortest RoCE v2 packet over IPv4: Ethernet, IP, UDP, BTH, ICRC. It reaches past every field read here.
const SHORTEST: i32 = 14 + 20 + 8 + 12 + 4;

const UDP: i32 = 17;
/// As little-endian loads see them.
const ETH_IPV4: i32 = 0x0800_u16.swap_bytes() as i32;
const ETH_IPV6: i32 = 0x86dd_u16.swap_bytes() as i32;
const ROCE_PORT: i32 = 4791_u16.swap_bytes() as i32;

/// Opcodes, named as in the specification's assembly.
const LD_IMM64: u8 = 0x18;
const LDX_U32: u8 = 0x61;
const LDX_U16: u8 = 0x69;
const LDX_U8: u8 = 0x71;
const ATOMIC_U64: u8 = 0xdb;
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const ADD_IMM: u8 = 0x07;
const MOD_IMM: u8 = 0x97;
const JA: u8 = 0x05;
const JEQ_IMM: u8 = 0x15;
const JNE_IMM: u8 = 0x55;
const JGT_REG: u8 = 0x2d;
const EXIT: u8 = 0x95;

/// Immediates of `ATOMIC_U64`.
const ATOMIC_ADD: i32 = 0x00;
const ATOMIC_FETCH_ADD: i32 = 0x01;

/// Counters in `.bss`: RoCE packets seen, of them dropped; 64 bits each.
const COUNTERS: u64 = 16;
const SEEN: i16 = 0;
const DROPPED: i16 = 8;

/// One instruction slot of eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    opcode: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

const fn insn(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Insn {
    Insn { opcode, dst, src, offset, imm }
}

impl Insn {
    fn bytes(self) -> [u8; 8] {
        let [o0, o1] = self.offset.to_le_bytes();
        let [i0, i1, i2, i3] = self.imm.to_le_bytes();
        [self.opcode, self.src << 4 | self.dst, o0, o1, i0, i1, i2, i3]
    }
}

/// The slot of the load that the relocation fills with the counters' address.
const COUNTERS_LOAD: usize = 16;
const EXIT_AT: i16 = 26;

fn program(every: i32) -> Vec<Insn> {
    // A jump's offset counts from the slot after it.
    let to_exit = |at: i16| EXIT_AT - at - 1;
    let code = vec![
        /*  0 */ insn(LDX_U32, 2, 1, SKB_DATA, 0),
        /*  1 */ insn(LDX_U32, 3, 1, SKB_DATA_END, 0),
        /*  2 */ insn(MOV_IMM, 0, 0, 0, TCX_NEXT),
        /*  3 */ insn(MOV_REG, 4, 2, 0, 0),
        /*  4 */ insn(ADD_IMM, 4, 0, 0, SHORTEST),
        /*  5 */ insn(JGT_REG, 4, 3, to_exit(5), 0),
        /*  6 */ insn(LDX_U16, 5, 2, ETHERTYPE, 0),
        /*  7 */ insn(JEQ_IMM, 5, 0, 4, ETH_IPV4),
        /*  8 */ insn(JNE_IMM, 5, 0, to_exit(8), ETH_IPV6),
        /*  9 */ insn(LDX_U8, 5, 2, IPV6_NEXT_HEADER, 0),
        /* 10 */ insn(LDX_U16, 1, 2, IPV6_UDP_DPORT, 0),
        /* 11 */ insn(JA, 0, 0, 2, 0),
        /* 12 */ insn(LDX_U8, 5, 2, IPV4_PROTOCOL, 0),
        /* 13 */ insn(LDX_U16, 1, 2, IPV4_UDP_DPORT, 0),
        /* 14 */ insn(JNE_IMM, 5, 0, to_exit(14), UDP),
        /* 15 */ insn(JNE_IMM, 1, 0, to_exit(15), ROCE_PORT),
        /* 16 */ insn(LD_IMM64, 1, 0, 0, 0),
        /* 17 */ insn(0, 0, 0, 0, 0),
        /* 18 */ insn(MOV_IMM, 2, 0, 0, 1),
        /* 19 */ insn(ATOMIC_U64, 1, 2, SEEN, ATOMIC_FETCH_ADD),
        /* 20 */ insn(ADD_IMM, 2, 0, 0, 1),
        /* 21 */ insn(MOD_IMM, 2, 0, 0, every),
        /* 22 */ insn(JNE_IMM, 2, 0, to_exit(22), 0),
        /* 23 */ insn(MOV_IMM, 0, 0, 0, TCX_DROP),
        /* 24 */ insn(MOV_IMM, 2, 0, 0, 1),
        /* 25 */ insn(ATOMIC_U64, 1, 2, DROPPED, ATOMIC_ADD),
        /* 26 */ insn(EXIT, 0, 0, 0, 0),
    ];
    debug_assert_eq!(code[COUNTERS_LOAD].opcode, LD_IMM64);
    debug_assert_eq!(code[EXIT_AT as usize].opcode, EXIT);
    code
}

/// ELF constants (elf.h).
const EM_BPF: u16 = 247;
const R_BPF_64_64: u64 = 1;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
const SHT_REL: u32 = 9;
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const STB_GLOBAL: u8 = 1 << 4;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;

/// Section numbers, in the order they are written.
const CODE: u16 = 1;
const BSS: u16 = 3;
const LICENSE: u16 = 4;
const SYMTAB: u32 = 5;
const STRTAB: u32 = 6;

#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        if self.0.is_empty() {
            self.0.push(0);
        }
        let at = self.0.len() as u32;
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        at
    }
}

struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    content: Vec<u8>,
    /// Differs from the content's length for `.bss`.
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry: u64,
}

fn section(name: u32, kind: u32, flags: u64, content: Vec<u8>, align: u64) -> Section {
    let size = content.len() as u64;
    Section { name, kind, flags, content, size, link: 0, info: 0, align, entry: 0 }
}

fn symbol(name: u32, kind: u8, section: u16, size: u64) -> Vec<u8> {
    let mut out = name.to_le_bytes().to_vec();
    out.extend([STB_GLOBAL | kind, 0]);
    out.extend(section.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(size.to_le_bytes());
    out
}

/// The object: `hook` is `egress` or `ingress`, `every` at least 2.
pub(crate) fn drop_every(hook: &str, every: i32) -> Vec<u8> {
    let mut names = Strings::default();
    let code: Vec<u8> = program(every).into_iter().flat_map(Insn::bytes).collect();
    let section_name = format!("tcx/{hook}");

    let mut symbols = vec![0; 24];
    symbols.extend(symbol(names.add("drop_every"), STT_FUNC, CODE, code.len() as u64));
    symbols.extend(symbol(names.add("counters"), STT_OBJECT, BSS, COUNTERS));
    let counters_symbol = 2u64;

    let mut relocation = ((COUNTERS_LOAD * 8) as u64).to_le_bytes().to_vec();
    relocation.extend((counters_symbol << 32 | R_BPF_64_64).to_le_bytes());

    let mut sections = vec![
        section(names.add(&section_name), SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, code, 8),
        section(names.add(&format!(".rel{section_name}")), SHT_REL, 0, relocation, 8),
        section(names.add(".bss"), SHT_NOBITS, SHF_ALLOC | SHF_WRITE, Vec::new(), 8),
        section(names.add("license"), SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, b"GPL\0".to_vec(), 1),
        section(names.add(".symtab"), SHT_SYMTAB, 0, symbols, 8),
    ];
    (sections[1].link, sections[1].info, sections[1].entry) = (SYMTAB, u32::from(CODE), 16);
    sections[2].size = COUNTERS;
    (sections[4].link, sections[4].info, sections[4].entry) = (STRTAB, 1, 24);
    let strtab = names.add(".strtab");
    sections.push(section(strtab, SHT_STRTAB, 0, names.0, 1));
    debug_assert_eq!(usize::from(LICENSE), 4);
    elf(&sections)
}

/// Header, sections' contents, section table.
fn elf(sections: &[Section]) -> Vec<u8> {
    const HEADER: u64 = 64;
    let mut body: Vec<u8> = Vec::new();
    let mut table: Vec<u8> = vec![0; 64];
    for section in sections {
        while !(HEADER + body.len() as u64).is_multiple_of(section.align) {
            body.push(0);
        }
        let at = HEADER + body.len() as u64;
        body.extend_from_slice(&section.content);
        table.extend(section.name.to_le_bytes());
        table.extend(section.kind.to_le_bytes());
        for word in [section.flags, 0, at, section.size] {
            table.extend(word.to_le_bytes());
        }
        table.extend(section.link.to_le_bytes());
        table.extend(section.info.to_le_bytes());
        table.extend(section.align.to_le_bytes());
        table.extend(section.entry.to_le_bytes());
    }
    while !body.len().is_multiple_of(8) {
        body.push(0);
    }
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(1u16.to_le_bytes()); // ET_REL
    out.extend(EM_BPF.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(0u64.to_le_bytes()); // no entry point
    out.extend(0u64.to_le_bytes()); // no program headers
    out.extend((HEADER + body.len() as u64).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    for half in [HEADER as u16, 0, 0, 64, sections.len() as u16 + 1, STRTAB as u16] {
        out.extend(half.to_le_bytes());
    }
    out.extend(body);
    out.extend(table);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the program over one packet. The only map is the counters.
    fn run(code: &[Insn], packet: &[u8], counters: &mut [u64; 2]) -> i32 {
        let mut regs = [0i64; 11];
        let mut pc = 0usize;
        // Registers that point somewhere hold an offset: the packet begins at 0, as does the counters' memory.
        loop {
            let i = code[pc];
            let (dst, src) = (usize::from(i.dst), usize::from(i.src));
            let at = |base: i64| usize::try_from(base + i64::from(i.offset)).unwrap();
            pc += 1;
            let jump = match i.opcode {
                LDX_U32 => {
                    regs[dst] = if i.offset == SKB_DATA { 0 } else { packet.len() as i64 };
                    false
                }
                LDX_U16 => {
                    let from = at(regs[src]);
                    regs[dst] = i64::from(u16::from_le_bytes([packet[from], packet[from + 1]]));
                    false
                }
                LDX_U8 => {
                    regs[dst] = i64::from(packet[at(regs[src])]);
                    false
                }
                LD_IMM64 => {
                    regs[dst] = 0;
                    pc += 1;
                    false
                }
                ATOMIC_U64 => {
                    let cell = &mut counters[at(regs[dst]) / 8];
                    let old = *cell;
                    *cell += regs[src] as u64;
                    if i.imm == ATOMIC_FETCH_ADD {
                        regs[src] = old as i64;
                    }
                    false
                }
                MOV_REG => {
                    regs[dst] = regs[src];
                    false
                }
                MOV_IMM => {
                    regs[dst] = i64::from(i.imm);
                    false
                }
                ADD_IMM => {
                    regs[dst] += i64::from(i.imm);
                    false
                }
                MOD_IMM => {
                    regs[dst] %= i64::from(i.imm);
                    false
                }
                JA => true,
                JEQ_IMM => regs[dst] == i64::from(i.imm),
                JNE_IMM => regs[dst] != i64::from(i.imm),
                JGT_REG => regs[dst] > regs[src],
                EXIT => return regs[0] as i32,
                other => panic!("opcode {other:#x}"),
            };
            if jump {
                pc = usize::try_from(pc as i64 + i64::from(i.offset)).unwrap();
            }
        }
    }

    fn packet(ethertype: u16, protocol: u8, port: u16, length: usize) -> Vec<u8> {
        let mut packet = vec![0; length.max(64)];
        packet[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let (protocol_at, port_at) = if ethertype == 0x0800 { (23, 36) } else { (20, 56) };
        packet[protocol_at] = protocol;
        packet[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        packet.truncate(length);
        packet
    }

    #[test]
    fn every_nth_roce_packet_is_dropped() {
        let (code, mut counters) = (program(4), [0, 0]);
        let kinds = [packet(0x0800, 17, 4791, 60), packet(0x86dd, 17, 4791, 80)];
        let verdicts: Vec<i32> = (0..8).map(|n| run(&code, &kinds[n % 2], &mut counters)).collect();
        assert_eq!(verdicts, [-1, -1, -1, 2, -1, -1, -1, 2]);
        assert_eq!(counters, [8, 2]);
    }

    #[test]
    fn other_packets_are_not_even_counted() {
        let (code, mut counters) = (program(2), [0, 0]);
        for other in [
            packet(0x0806, 17, 4791, 60),
            packet(0x0800, 6, 4791, 60),
            packet(0x0800, 17, 53, 60),
            packet(0x86dd, 17, 53, 80),
            packet(0x0800, 17, 4791, 57),
        ] {
            assert_eq!(run(&code, &other, &mut counters), TCX_NEXT);
        }
        assert_eq!(counters, [0, 0]);
    }

    /// What llvm-readelf and libbpf look at.
    #[test]
    fn the_object_is_an_elf_for_bpf() {
        let object = drop_every("egress", 16);
        let half = |at: usize| u16::from_le_bytes([object[at], object[at + 1]]);
        let word = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap());
        assert_eq!((&object[..4], half(16), half(18)), (&b"\x7fELF"[..], 1, EM_BPF));
        let table = word(40) as usize;
        assert_eq!(object.len(), table + 64 * usize::from(half(60)));
        let strings = word(table + 64 * usize::from(half(62)) + 24) as usize;
        let name = |section: usize| {
            let at = strings + word(table + 64 * section) as u32 as usize;
            String::from_utf8_lossy(object[at..].split(|b| *b == 0).next().unwrap()).into_owned()
        };
        let names: Vec<String> = (1..7).map(name).collect();
        assert_eq!(names, ["tcx/egress", ".reltcx/egress", ".bss", "license", ".symtab", ".strtab"]);
        let relocation = word(table + 64 * 2 + 24) as usize;
        assert_eq!(word(relocation) as usize, COUNTERS_LOAD * 8);
        let code = word(table + 64 + 24) as usize;
        assert_eq!(object[code + COUNTERS_LOAD * 8], LD_IMM64);
    }
}
