//! The kernel's KVM interface (`include/uapi/linux/kvm.h`, Documentation/virt/kvm/api.rst), as little of it as it takes
//! to run a few instructions. Everything unsafe of this crate is here.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::{self, NonNull};

use libc::{c_ulong, c_void};

const KVM_GET_API_VERSION: c_ulong = 0xae00;
const KVM_CREATE_VM: c_ulong = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: c_ulong = 0xae04;
const KVM_GET_SUPPORTED_CPUID: c_ulong = 0xc008_ae05;
const KVM_SET_CPUID2: c_ulong = 0x4008_ae90;
const KVM_CREATE_VCPU: c_ulong = 0xae41;
const KVM_SET_USER_MEMORY_REGION: c_ulong = 0x4020_ae46;
const KVM_SET_TSS_ADDR: c_ulong = 0xae47;
const KVM_RUN: c_ulong = 0xae80;
const KVM_SET_REGS: c_ulong = 0x4090_ae82;
const KVM_GET_SREGS: c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: c_ulong = 0x4138_ae84;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// `struct kvm_regs` of x86.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
#[allow(missing_docs, reason = "the processor's registers")]
pub(super) struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8_to_r15: [u64; 8],
    pub rip: u64,
    pub rflags: u64,
}

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Segment {
    pub base: u64,
    pub limit: u32,
    pub selector: u16,
    pub kind: u8,
    pub present: u8,
    pub dpl: u8,
    pub db: u8,
    pub s: u8,
    pub l: u8,
    pub g: u8,
    pub avl: u8,
    pub unusable: u8,
    pub padding: u8,
}

/// `struct kvm_dtable`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Table {
    pub base: u64,
    pub limit: u16,
    padding: [u16; 3],
}

/// `struct kvm_sregs` of x86.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Sregs {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: Table,
    pub idt: Table,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
    pub interrupt_bitmap: [u64; 4],
}

/// `struct kvm_cpuid2` with room for as many entries as KVM ever reports (`KVM_MAX_CPUID_ENTRIES`).
#[repr(C)]
struct Cpuid {
    nent: u32,
    padding: u32,
    entries: [[u32; 10]; 256],
}

// The sizes are part of the request numbers above.
const _: () = assert!(size_of::<MemoryRegion>() == 32 && size_of::<Regs>() == 0x90 && size_of::<Sregs>() == 0x138);

/// Why a virtual processor stopped (`KVM_EXIT_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exit {
    /// `out`: port and first byte.
    Out(u16, u8),
    /// `hlt`.
    Halt,
    /// A triple fault.
    Shutdown,
    /// The processor refused to enter the guest.
    FailEntry(u64),
    /// KVM could not go on; 1 is a failed emulation.
    InternalError(u32),
    /// Any other.
    Other(u32),
}

/// Shared pages, unmapped when dropped.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    fn new(len: usize, file: Option<&OwnedFd>) -> io::Result<Self> {
        let (flags, fd) = match file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: the kernel chooses the address, so no memory of ours is touched; the result is checked.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= self.len);
        // SAFETY: in bounds (checked above); T is Copy and only used with integers, for which any bytes are a value.
        unsafe { self.start.as_ptr().cast::<u8>().add(offset).cast::<T>().read_unaligned() }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: in bounds (checked above); no reference into the mapping exists, and the guest does not run now.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().cast::<u8>().add(offset), bytes.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this range was mapped by `new` and is unmapped once.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}

// SAFETY: the mapping is plain memory owned by this value; nothing about it is bound to a thread.
unsafe impl Send for Mapping {}

/// An ioctl whose argument is a number.
fn ioctl(fd: &impl AsRawFd, request: c_ulong, argument: c_ulong) -> io::Result<i32> {
    // SAFETY: only used with requests that take a number and touch no memory of ours.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// An ioctl whose argument is a structure the request number was made for.
fn ioctl_with<T>(fd: &impl AsRawFd, request: c_ulong, argument: &mut T) -> io::Result<()> {
    // The size field of an ioctl number: include/uapi/asm-generic/ioctl.h.
    assert_eq!((request >> 16) as usize & 0x3fff, size_of::<T>());
    // SAFETY: the structure has the size that the request number names (checked above), and is borrowed mutably.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request as _, ptr::from_mut(argument)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The CPUID ioctls, whose number names only the head of their structure.
fn ioctl_cpuid(fd: &impl AsRawFd, request: c_ulong, cpuid: &mut Cpuid) -> io::Result<()> {
    assert!(cpuid.nent as usize <= cpuid.entries.len());
    // SAFETY: KVM reads and writes at most `nent` entries, and there are that many (checked above).
    match unsafe { libc::ioctl(fd.as_raw_fd(), request as _, ptr::from_mut(cpuid)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: KVM just returned this descriptor to us as a new one; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `/dev/kvm`, opened.
pub(super) struct Kvm(File);

impl Kvm {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(path).map(Kvm)
    }

    pub(super) fn api_version(&self) -> io::Result<i32> {
        ioctl(&self.0, KVM_GET_API_VERSION, 0)
    }

    /// A virtual machine with one processor and `memory` bytes at guest address 0.
    pub(super) fn machine(&self, memory: usize) -> io::Result<Machine> {
        let vm = owned(ioctl(&self.0, KVM_CREATE_VM, 0)?);
        // Intel processors without unrestricted guest mode need three pages for real mode; above our memory.
        ioctl(&vm, KVM_SET_TSS_ADDR, 0xfffb_d000)?;
        let memory = Mapping::new(memory, None)?;
        let mut region = MemoryRegion {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory.len as u64,
            userspace_addr: memory.start.as_ptr() as u64,
        };
        ioctl_with(&vm, KVM_SET_USER_MEMORY_REGION, &mut region)?;
        let vcpu = owned(ioctl(&vm, KVM_CREATE_VCPU, 0)?);
        // Without it the guest's processor has no 64-bit mode, and current kernels refuse to set it.
        let mut cpuid = Box::new(Cpuid { nent: 256, padding: 0, entries: [[0; 10]; 256] });
        ioctl_cpuid(&self.0, KVM_GET_SUPPORTED_CPUID, &mut cpuid)?;
        ioctl_cpuid(&vcpu, KVM_SET_CPUID2, &mut cpuid)?;
        let run_size = ioctl(&self.0, KVM_GET_VCPU_MMAP_SIZE, 0)?;
        let run = Mapping::new(run_size.max(0) as usize, Some(&vcpu))?;
        Ok(Machine { run, vcpu, _vm: vm, memory })
    }
}

/// A virtual machine. Its descriptors close before its memory goes.
pub(super) struct Machine {
    run: Mapping,
    vcpu: OwnedFd,
    _vm: OwnedFd,
    memory: Mapping,
}

impl Machine {
    pub(super) fn write(&self, address: usize, bytes: &[u8]) {
        self.memory.write(address, bytes);
    }

    pub(super) fn read_u64(&self, address: usize) -> u64 {
        self.memory.read(address)
    }

    pub(super) fn set_regs(&self, mut regs: Regs) -> io::Result<()> {
        ioctl_with(&self.vcpu, KVM_SET_REGS, &mut regs)
    }

    pub(super) fn sregs(&self) -> io::Result<Sregs> {
        let mut sregs = Sregs::default();
        ioctl_with(&self.vcpu, KVM_GET_SREGS, &mut sregs)?;
        Ok(sregs)
    }

    pub(super) fn set_sregs(&self, mut sregs: Sregs) -> io::Result<()> {
        ioctl_with(&self.vcpu, KVM_SET_SREGS, &mut sregs)
    }

    /// Lets the processor run until it stops for us.
    pub(super) fn run(&mut self) -> io::Result<Exit> {
        loop {
            match ioctl(&self.vcpu, KVM_RUN, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
                Ok(_) => break,
            }
        }
        // `struct kvm_run`: exit_reason at 8; the union at 32, whose `io` has direction, size, port and data_offset.
        Ok(match self.run.read::<u32>(8) {
            2 if self.run.read::<u8>(32) == 1 => {
                let data = self.run.read::<u64>(40) as usize;
                Exit::Out(self.run.read(34), self.run.read(data))
            }
            5 => Exit::Halt,
            8 => Exit::Shutdown,
            9 => Exit::FailEntry(self.run.read(32)),
            17 => Exit::InternalError(self.run.read(32)),
            other => Exit::Other(other),
        })
    }
}
