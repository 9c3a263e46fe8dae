//! The BPF programs between a NIC and a pod, assembled here: their addresses and interfaces are constants in them, so there is
//! no compiler, no loader and no map but the counters.
//!
//! One sits at the NIC's ingress. A frame for one of the pod's addresses is counted under the receive queue it came by, and
//! with [`Via::Bpf`](protocol::Via) redirected into the pod (`bpf_redirect_peer`). The other, only then, is where the pod's end
//! of the netkit sends: a packet from one of the pod's addresses leaves through the NIC (`bpf_redirect_neigh`, which finds the
//! next hop); any other source goes the netkit's ordinary way, so a pod does not speak for others. Both read headers through
//! `bpf_skb_load_bytes` and nothing else: the payload of device memory is not readable.
//!
//! Counting here rather than at the driver is what makes a lease's numbers exact: a driver's counters of a queue begin anew
//! whenever device memory is bound to it or unbound.

use std::net::IpAddr;

use crate::kernel::bpf::Counters;

/// Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h). The queue of a received frame is its number plus one there.
const SKB_LEN: i16 = 0;
const SKB_QUEUE: i16 = 12;
const SKB_PROTOCOL: i16 = 16;
/// Offsets from the Ethernet header.
const IPV4_SOURCE: i32 = 14 + 12;
const IPV4_DESTINATION: i32 = 14 + 16;
const IPV6_SOURCE: i32 = 14 + 8;
const IPV6_DESTINATION: i32 = 14 + 24;
/// EtherTypes as a little-endian load sees them.
const ETH_IPV4: i32 = 0x0800_u16.swap_bytes() as i32;
const ETH_IPV6: i32 = 0x86dd_u16.swap_bytes() as i32;

/// TCX_NEXT and NETKIT_NEXT.
const NEXT: i32 = -1;
/// Numbers of helper functions.
const MAP_LOOKUP_ELEM: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
const REDIRECT_NEIGH: i32 = 152;
const REDIRECT_PEER: i32 = 155;

/// Opcodes, named as in Documentation/bpf/standardization/instruction-set.rst.
const LD_IMM64: u8 = 0x18;
const LDX_U32: u8 = 0x61;
const LDX_U64: u8 = 0x79;
const STX_U32: u8 = 0x63;
const ATOMIC_U64: u8 = 0xdb;
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const ADD_IMM: u8 = 0x07;
const JA: u8 = 0x05;
const JEQ_IMM: u8 = 0x15;
const JEQ32_IMM: u8 = 0x16;
const JEQ_REG: u8 = 0x1d;
const JNE_IMM: u8 = 0x55;
const JNE_REG: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// The source register of a load that names a map by its descriptor.
const PSEUDO_MAP_FD: u8 = 1;
/// The stack, and where the address and the counters' number are kept in it.
const FRAME: u8 = 10;
const ADDRESS: i16 = -16;
const INDEX: i16 = -20;

/// Which of a packet's addresses is the pod's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is for the pod.
    Destination,
    /// It is from the pod.
    Source,
}

/// Which pair of counters a packet goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// That of its receive queue: 0 for none, else the queue plus one.
    ByQueue,
    /// This one.
    Under(u32),
}

/// What becomes of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on as if there were no program.
    Pass,
    /// It arrives at the other end of this netkit.
    ToPeerOf(u32),
    /// It leaves through this interface.
    Out(u32),
}

/// Places in the code that are jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Pass,
    V4,
    V6,
    Hit,
    Act,
}

#[derive(Default)]
struct Code {
    slots: Vec<u64>,
    places: Vec<(Label, usize)>,
    jumps: Vec<(usize, Label)>,
}

impl Code {
    fn put(&mut self, opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) {
        let [o0, o1] = offset.to_le_bytes();
        let [i0, i1, i2, i3] = imm.to_le_bytes();
        self.slots.push(u64::from_le_bytes([opcode, src << 4 | dst, o0, o1, i0, i1, i2, i3]));
    }

    fn load64(&mut self, dst: u8, src: u8, value: u64) {
        self.put(LD_IMM64, dst, src, 0, value as u32 as i32);
        self.put(0, 0, 0, 0, (value >> 32) as u32 as i32);
    }

    fn jump(&mut self, opcode: u8, dst: u8, src: u8, imm: i32, to: Label) {
        self.jumps.push((self.slots.len(), to));
        self.put(opcode, dst, src, 0, imm);
    }

    fn place(&mut self, label: Label) {
        self.places.push((label, self.slots.len()));
    }

    /// Loads bytes of the packet to the stack; on failure passes.
    fn load_packet(&mut self, at: i32, length: i32) {
        self.put(MOV_REG, 1, 6, 0, 0);
        self.put(MOV_IMM, 2, 0, 0, at);
        self.put(MOV_REG, 3, FRAME, 0, 0);
        self.put(ADD_IMM, 3, 0, 0, i32::from(ADDRESS));
        self.put(MOV_IMM, 4, 0, 0, length);
        self.put(CALL, 0, 0, 0, SKB_LOAD_BYTES);
        self.jump(JNE_IMM, 0, 0, 0, Label::Pass);
    }

    fn pass(&mut self) {
        self.put(MOV_IMM, 0, 0, 0, NEXT);
        self.put(EXIT, 0, 0, 0, 0);
    }

    /// Fills the jumps in: an offset counts from the slot after the jump.
    fn done(mut self) -> Vec<u64> {
        for (at, to) in &self.jumps {
            let place = self.places.iter().find(|(label, _)| label == to).map_or(0, |(_, place)| *place);
            let offset = (place as i64 - *at as i64 - 1) as u16;
            self.slots[*at] |= u64::from(offset) << 16;
        }
        self.slots
    }
}

/// The instructions.
pub fn program(addresses: &[IpAddr], end: End, counters: &Counters, count: Count, then: Then) -> Vec<u64> {
    assemble(addresses, end, counters.descriptor(), count, then)
}

fn assemble(addresses: &[IpAddr], end: End, counters: i32, count: Count, then: Then) -> Vec<u64> {
    let (v4_at, v6_at) = match end {
        End::Destination => (IPV4_DESTINATION, IPV6_DESTINATION),
        End::Source => (IPV4_SOURCE, IPV6_SOURCE),
    };
    let mut code = Code::default();
    // Register 6 survives calls.
    code.put(MOV_REG, 6, 1, 0, 0);
    code.put(LDX_U32, 2, 6, SKB_PROTOCOL, 0);
    code.jump(JEQ_IMM, 2, 0, ETH_IPV4, Label::V4);
    code.jump(JEQ_IMM, 2, 0, ETH_IPV6, Label::V6);
    code.place(Label::Pass);
    code.pass();

    code.place(Label::V4);
    code.load_packet(v4_at, 4);
    code.put(LDX_U32, 1, FRAME, ADDRESS, 0);
    for address in addresses {
        if let IpAddr::V4(address) = address {
            code.jump(JEQ32_IMM, 1, 0, i32::from_le_bytes(address.octets()), Label::Hit);
        }
    }
    code.jump(JA, 0, 0, 0, Label::Pass);

    code.place(Label::V6);
    code.load_packet(v6_at, 16);
    code.put(LDX_U64, 1, FRAME, ADDRESS, 0);
    code.put(LDX_U64, 2, FRAME, ADDRESS + 8, 0);
    for address in addresses {
        if let IpAddr::V6(address) = address {
            let number = u128::from_le_bytes(address.octets());
            code.load64(3, 0, number as u64);
            // Over the rest of this address: two slots of a load and a jump.
            code.put(JNE_REG, 1, 3, 3, 0);
            code.load64(3, 0, (number >> 64) as u64);
            code.jump(JEQ_REG, 2, 3, 0, Label::Hit);
        }
    }
    code.jump(JA, 0, 0, 0, Label::Pass);

    code.place(Label::Hit);
    match count {
        Count::ByQueue => code.put(LDX_U32, 1, 6, SKB_QUEUE, 0),
        Count::Under(index) => code.put(MOV_IMM, 1, 0, 0, index as i32),
    }
    code.put(STX_U32, FRAME, 1, INDEX, 0);
    code.load64(1, PSEUDO_MAP_FD, counters as u64);
    code.put(MOV_REG, 2, FRAME, 0, 0);
    code.put(ADD_IMM, 2, 0, 0, i32::from(INDEX));
    code.put(CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
    code.jump(JEQ_IMM, 0, 0, 0, Label::Act);
    code.put(MOV_IMM, 1, 0, 0, 1);
    code.put(ATOMIC_U64, 0, 1, 0, 0);
    code.put(LDX_U32, 1, 6, SKB_LEN, 0);
    code.put(ATOMIC_U64, 0, 1, 8, 0);

    code.place(Label::Act);
    match then {
        Then::Pass => code.pass(),
        Then::ToPeerOf(interface) => {
            code.put(MOV_IMM, 1, 0, 0, interface as i32);
            code.put(MOV_IMM, 2, 0, 0, 0);
            code.put(CALL, 0, 0, 0, REDIRECT_PEER);
            code.put(EXIT, 0, 0, 0, 0);
        }
        Then::Out(interface) => {
            code.put(MOV_IMM, 1, 0, 0, interface as i32);
            // No next hop of ours, no flags.
            for register in 2..=4 {
                code.put(MOV_IMM, register, 0, 0, 0);
            }
            code.put(CALL, 0, 0, 0, REDIRECT_NEIGH);
            code.put(EXIT, 0, 0, 0, 0);
        }
    }
    code.done()
}
