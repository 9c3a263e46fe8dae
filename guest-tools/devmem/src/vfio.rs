//! Memory of a device rather than of the machine: a BAR of a PCI function, exported as a dma-buf by vfio-pci
//! (drivers/vfio/pci/vfio_pci_dmabuf.c). Only importers that can do peer-to-peer may attach to it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context as _, Result};

use crate::dmabuf::PAGE;
use crate::sys;

/// The first page of a function's BAR 0.
#[derive(Debug)]
pub struct Exported {
    buffer: OwnedFd,
    // The function stays the program's as long as these are open, and the buffer is revoked with it.
    _device: OwnedFd,
    _group: File,
    _container: File,
}

impl Exported {
    /// Takes a function that vfio-pci drives, by its address (`0000:00:05.0`).
    ///
    /// # Errors
    /// When there is no such function, it has no IOMMU group or another driver, or this kernel's vfio-pci exports nothing.
    pub fn new(address: &str) -> Result<Exported> {
        let link = format!("/sys/bus/pci/devices/{address}/iommu_group");
        let group = fs::read_link(&link).with_context(|| format!("{link}: is there such a function, and an IOMMU?"))?;
        let group = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let open = |name: &str| -> Result<File> {
            let path = format!("/dev/vfio/{name}");
            let file = OpenOptions::new().read(true).write(true).open(&path);
            file.with_context(|| format!("cannot open {path}; is {address} bound to vfio-pci?"))
        };
        let (container, group) = (open("vfio")?, open(&group)?);
        let name = CString::new(address).context("an address without zero bytes is wanted")?;
        let device = sys::vfio_device(container.as_fd(), group.as_fd(), &name)
            .with_context(|| format!("cannot get {address} from vfio-pci"))?;
        let buffer = sys::vfio_buffer(device.as_fd(), 0, PAGE as u64);
        let buffer = buffer.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY) => io::Error::new(error.kind(), "this kernel's vfio-pci exports no dma-bufs"),
            _ => error,
        });
        let buffer = buffer.with_context(|| format!("cannot export BAR 0 of {address}"))?;
        Ok(Exported { buffer, _device: device, _group: group, _container: container })
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.buffer.as_raw_fd()
    }
}
