//! One message and its answer.

use std::os::fd::OwnedFd;

use crate::device::{Device, Event};
use crate::error::Refusal;
use crate::inlet::Message;
use crate::irqs;
use crate::memory::{Access, GuestMemory};
use crate::pci::Pci;
use crate::version;
use crate::wire::{
    DeviceInfo, DmaMap, DmaUnmap, HEADER, Header, IrqInfo, IrqSet, MULTI_DATA, MULTI_MAX, MultiWrite, RegionAccess,
    RegionInfo, command, device_flags, dma, flags, irq, region,
};

/// A connection: what the messages of one client work on.
pub(crate) struct Session<'a> {
    /// The function.
    pub pci: &'a mut Pci,
    /// The guest's memory.
    pub memory: &'a GuestMemory,
    /// The device.
    pub device: &'a mut dyn Device,
    /// Whether version and capabilities are agreed on.
    pub negotiated: bool,
}

impl Session<'_> {
    /// Does what a message asks for and puts the answer, header and all, into `answer`; nothing if nobody waits for one.
    pub fn handle(&mut self, message: Message<'_>, answer: &mut Vec<u8>) {
        let header = message.header;
        answer.clear();
        answer.resize(HEADER, 0);
        let mut error = 0;
        if let Err(why) = self.command(message, answer) {
            answer.truncate(HEADER);
            error = why.errno().raw_os_error() as u32;
            self.device.event(Event::Refused { command: header.command, why: &why });
        }
        if header.flags & flags::NO_REPLY != 0 {
            return answer.clear();
        }
        let mut first = Vec::with_capacity(HEADER);
        let flags = flags::REPLY | if error == 0 { 0 } else { flags::ERROR };
        Header { flags, error, size: answer.len() as u32, ..header }.append(&mut first);
        answer.splice(..HEADER, first);
    }

    fn command(&mut self, message: Message<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        let Header { command, size, .. } = message.header;
        let body = message.body.ok_or(Refusal::TooLarge(size))?;
        let fds = message.fds.ok_or(Refusal::TooManyDescriptors)?;
        if !matches!(command, command::DMA_MAP | command::DEVICE_SET_IRQS) && !fds.is_empty() {
            return Err(Refusal::Descriptors { got: fds.len(), wanted: "0" });
        }
        if self.negotiated == (command == command::VERSION) {
            return Err(Refusal::OutOfTurn);
        }
        match command {
            command::VERSION => {
                answer.extend_from_slice(&version::negotiate(body)?);
                self.negotiated = true;
            }
            command::DMA_MAP => self.dma_map(body, fds)?,
            command::DMA_UNMAP => self.dma_unmap(body, answer)?,
            command::DEVICE_GET_INFO => {
                let asked = whole(body, DeviceInfo::split)?;
                room(asked.argsz, DeviceInfo::SIZE)?;
                let flags = device_flags::RESET | device_flags::PCI;
                let (argsz, regions, irqs) = (DeviceInfo::SIZE as u32, region::COUNT, irq::COUNT);
                DeviceInfo { argsz, flags, regions, irqs }.append(answer);
            }
            command::DEVICE_GET_REGION_INFO => {
                let asked = whole(body, RegionInfo::split)?;
                room(asked.argsz, RegionInfo::SIZE)?;
                let (index, size) = (asked.index, self.pci.region_size(asked.index)?);
                let flags = if size == 0 { 0 } else { region::READ_WRITE };
                RegionInfo { argsz: RegionInfo::SIZE as u32, flags, index, size, ..Default::default() }.append(answer);
            }
            command::DEVICE_GET_REGION_IO_FDS => return Err(Refusal::Unsupported("I/O through file descriptors")),
            command::DEVICE_GET_IRQ_INFO => {
                let asked = whole(body, IrqInfo::split)?;
                room(asked.argsz, IrqInfo::SIZE)?;
                irqs::info(&self.pci.interrupts, asked.index)?.append(answer);
            }
            command::DEVICE_SET_IRQS => {
                let (set, data) = IrqSet::split(body).ok_or(Refusal::Length(body.len()))?;
                irqs::set(&self.pci.interrupts, &set, data, fds)?;
            }
            command::REGION_READ => {
                let access = whole(body, RegionAccess::split)?;
                self.pci.check(&access)?;
                access.append(answer);
                let data = answer.len();
                answer.resize(data + access.count as usize, 0);
                let into = answer.get_mut(data..).unwrap_or_default();
                self.pci.read(self.device, access.region, access.offset, into);
            }
            command::REGION_WRITE => {
                let (access, data) = RegionAccess::split(body).ok_or(Refusal::Length(body.len()))?;
                if data.len() != access.count as usize {
                    return Err(Refusal::Length(body.len()));
                }
                self.pci.check(&access)?;
                self.pci.write(self.device, access.region, access.offset, data);
                access.append(answer);
            }
            command::REGION_WRITE_MULTI => self.write_multi(body, answer)?,
            command::DEVICE_RESET => {
                if !body.is_empty() {
                    return Err(Refusal::Length(body.len()));
                }
                self.device.reset();
                self.pci.reset();
            }
            unknown => return Err(Refusal::UnknownCommand(unknown)),
        }
        Ok(())
    }

    fn dma_map(&mut self, body: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let map = whole(body, DmaMap::split)?;
        room(map.argsz, DmaMap::SIZE)?;
        let file = fds.pop();
        if !fds.is_empty() {
            return Err(Refusal::Descriptors { got: fds.len() + 1, wanted: "0 or 1" });
        }
        let access = Access { read: map.flags & dma::READ != 0, write: map.flags & dma::WRITE != 0 };
        if map.flags & !(dma::READ | dma::WRITE) != 0 || !(access.read || access.write) {
            return Err(Refusal::Flags(map.flags));
        }
        self.memory.map(map.address, map.size, access, file, map.offset)
    }

    fn dma_unmap(&mut self, body: &[u8], answer: &mut Vec<u8>) -> Result<(), Refusal> {
        let unmap = whole(body, DmaUnmap::split)?;
        room(unmap.argsz, DmaUnmap::SIZE)?;
        match unmap.flags {
            0 => self.memory.unmap(unmap.address, unmap.size)?,
            dma::UNMAP_ALL => self.memory.clear(),
            flags if flags & dma::UNMAP_DIRTY_BITMAP != 0 => {
                return Err(Refusal::Unsupported("telling which pages were written"));
            }
            flags => return Err(Refusal::Flags(flags)),
        }
        unmap.append(answer);
        Ok(())
    }

    /// All of the writes, or none if one of them is wrong.
    fn write_multi(&mut self, body: &[u8], answer: &mut Vec<u8>) -> Result<(), Refusal> {
        const ONE: usize = RegionAccess::SIZE + MULTI_DATA;
        let (multi, writes) = MultiWrite::split(body).ok_or(Refusal::Length(body.len()))?;
        if multi.count > MULTI_MAX {
            return Err(Refusal::Writes(multi.count));
        }
        if writes.len() != multi.count as usize * ONE {
            return Err(Refusal::Length(body.len()));
        }
        let writes = || {
            writes.chunks_exact(ONE).filter_map(|one| {
                let (access, data) = RegionAccess::split(one)?;
                Some((access, data.get(..access.count as usize)))
            })
        };
        for (access, data) in writes() {
            if data.is_none() {
                return Err(Refusal::Transfer(access.count));
            }
            self.pci.check(&access)?;
        }
        for (access, data) in writes() {
            self.pci.write(self.device, access.region, access.offset, data.unwrap_or_default());
        }
        multi.append(answer);
        Ok(())
    }
}

/// A body that is one structure and nothing else.
fn whole<T>(body: &[u8], split: impl FnOnce(&[u8]) -> Option<(T, &[u8])>) -> Result<T, Refusal> {
    match split(body) {
        Some((value, [])) => Ok(value),
        _ => Err(Refusal::Length(body.len())),
    }
}

/// Whether an answer fits into what the client has for it.
fn room(argsz: u32, needed: usize) -> Result<(), Refusal> {
    if (argsz as usize) < needed { Err(Refusal::Argsz { argsz, needed }) } else { Ok(()) }
}
