//! Questions and orders about interrupts ("`VFIO_USER_DEVICE_GET_IRQ_INFO`" and "`VFIO_USER_DEVICE_SET_IRQS`" of QEMU's
//! `docs/interop/vfio-user.rst`).

use std::os::fd::OwnedFd;

use crate::error::Refusal;
use crate::interrupts::{Interrupts, check_eventfd};
use crate::wire::{IrqInfo, IrqSet, irq};

const DATA: u32 = irq::DATA_NONE | irq::DATA_BOOL | irq::DATA_EVENTFD;
const ACTION: u32 = irq::ACTION_MASK | irq::ACTION_UNMASK | irq::ACTION_TRIGGER;

/// What a kind of interrupt is like.
///
/// # Errors
/// There is no such kind.
pub(crate) fn info(interrupts: &Interrupts, index: u32) -> Result<IrqInfo, Refusal> {
    if index >= irq::COUNT {
        return Err(Refusal::NoIrq(index));
    }
    let (count, flags) = match index {
        irq::MSIX if interrupts.vectors() > 0 => (interrupts.vectors().into(), irq::EVENTFD | irq::MASKABLE),
        // It never fires. QEMU complains about a device that has none (`vfio_pci_populate_device`, `hw/vfio/pci.c`).
        irq::ERROR => (1, irq::EVENTFD),
        _ => (0, 0),
    };
    // Without VFIO_IRQ_INFO_NORESIZE: vectors can be connected one by one at any time.
    Ok(IrqInfo { argsz: IrqInfo::SIZE as u32, flags, index, count })
}

/// Connects, masks, unmasks or fires vectors. All of it, or nothing if it is wrong.
///
/// # Errors
/// Flags, vectors or descriptors that do not exist or do not go together.
pub(crate) fn set(interrupts: &Interrupts, set: &IrqSet, data: &[u8], fds: Vec<OwnedFd>) -> Result<(), Refusal> {
    let IrqSet { argsz, flags, index, start, count } = *set;
    let (what, action) = (flags & DATA, flags & ACTION);
    if flags & !(DATA | ACTION) != 0 || what.count_ones() != 1 || action.count_ones() != 1 {
        return Err(Refusal::Flags(flags));
    }
    let length = if what == irq::DATA_BOOL { count as usize } else { 0 };
    if data.len() != length {
        return Err(Refusal::Length(IrqSet::SIZE + data.len()));
    }
    if (argsz as usize) < IrqSet::SIZE + data.len() {
        return Err(Refusal::Argsz { argsz, needed: IrqSet::SIZE + data.len() });
    }
    let vectors = info(interrupts, index)?.count;
    if what != irq::DATA_EVENTFD && !fds.is_empty() {
        return Err(Refusal::Descriptors { got: fds.len(), wanted: "0" });
    }
    if (what, action, start, count) == (irq::DATA_NONE, irq::ACTION_TRIGGER, 0, 0) {
        // The special case of the protocol: all of this kind are disabled, and there may be none.
        if index == irq::MSIX {
            interrupts.disconnect();
        }
        return Ok(());
    }
    let end = start.checked_add(count).filter(|end| *end <= vectors);
    let Some(end) = end.filter(|_| count > 0) else { return Err(Refusal::NoVector { start, count, vectors }) };
    if what == irq::DATA_EVENTFD {
        return connect(interrupts, index, action, start..end, fds);
    }
    if index != irq::MSIX {
        return Err(Refusal::Unsupported("masking or firing anything but MSI-X"));
    }
    for (n, vector) in (start..end).enumerate() {
        if what == irq::DATA_BOOL && data.get(n) == Some(&0) {
            continue;
        }
        match action {
            irq::ACTION_MASK => interrupts.mask(vector, true),
            irq::ACTION_UNMASK => interrupts.mask(vector, false),
            // There are at most 2048.
            _ => interrupts.raise(vector as u16),
        }
    }
    Ok(())
}

fn connect(
    interrupts: &Interrupts,
    index: u32,
    action: u32,
    vectors: std::ops::Range<u32>,
    fds: Vec<OwnedFd>,
) -> Result<(), Refusal> {
    if action != irq::ACTION_TRIGGER {
        // Nothing here masks by itself, so there would never be anything to tell.
        return Err(Refusal::Unsupported("an eventfd for masking"));
    }
    if !fds.is_empty() && fds.len() != vectors.len() {
        return Err(Refusal::Descriptors { got: fds.len(), wanted: "one for each vector" });
    }
    for (vector, fd) in vectors.clone().zip(&fds) {
        check_eventfd(fd).map_err(|_| Refusal::NotAnEventfd(vector))?;
    }
    let mut fds = fds.into_iter();
    // Of what never fires the descriptor need not be kept.
    if index == irq::MSIX {
        vectors.for_each(|vector| interrupts.connect(vector, fds.next()));
    }
    Ok(())
}
