//! `lab-devmem refusals`: what the kernel must not do, each with the errno that Documentation and drivers promise.
//!
//! Most are about binding: each case changes one thing of a request that works. Queue 0 of a gve is not among them: it is refused,
//! and the kernel warns (a page pool taken down under a running NAPI), so that has a test of its own.

use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::dmabuf::{self, Buffer, Memory};
use crate::netdev::{self, Ask, Netdev};
use crate::refusal::{self, Refusal};
use crate::sys;
use crate::vfio::Exported;

const SIZE: usize = 16 << 20;
/// No process has it open, no machine has so many netdevs, no NIC so many queues.
const NO_FD: RawFd = 0x7fff_fff0;
const NO_NETDEV: u32 = 0x7fff_fff0;
const NO_QUEUE: u32 = 1 << 20;

/// Cases, and how many of them are not as they have to be.
#[derive(Debug, Default)]
struct Cases {
    cases: u64,
    failed: u64,
}

impl Cases {
    fn case<T>(&mut self, name: &str, due: i32, found: Result<T, Refusal>) {
        let errno = found.as_ref().err().map_or(0, |refusal| refusal.errno);
        self.cases += 1;
        self.failed += u64::from(errno != due);
        let words = found.err().map_or(String::new(), |refusal| refusal.words);
        println!(
            "{}",
            json!({ "case": name, "ok": errno == due, "errno": refusal::name(errno), "due": refusal::name(due), "words": words, "mismatches": 0 })
        );
    }
}

/// Tries them all, with `vfio` also memory of the PCI function at that address; whether each was refused as it has to be.
///
/// # Errors
/// When what must work does not, so that a refusal would mean nothing.
pub fn refusals(name: &str, queues: &[u32], vfio: Option<&str>) -> Result<bool> {
    let [queue, other] = *queues else { bail!("which two queues? --queues 1,2") };
    let netdev = Netdev::find(name)?;
    let buffer = Buffer::new(Memory::Udmabuf, SIZE)?;
    let count = netdev::rx_queues(&netdev)?.map_err(anyhow::Error::from)?.len() as u32;
    let mut cases = Cases::default();
    let bind =
        |queues: &[u32]| netdev::bind_rx(&Ask { index: netdev.index, dmabuf: buffer.fd(), queues, page_size: None });
    let good = Ask { index: netdev.index, dmabuf: buffer.fd(), queues: &[queue], page_size: None };

    cases.case("rx-works", 0, bind(&[queue])?);
    cases.case("rx-first-absent-queue", libc::EINVAL, bind(&[count])?);
    cases.case("rx-queue-far-away", libc::EINVAL, bind(&[NO_QUEUE])?);
    cases.case("rx-no-queue", libc::EINVAL, bind(&[])?);
    let first = bind(&[queue])?.map_err(anyhow::Error::from)?;
    cases.case("rx-bound-twice", libc::EEXIST, bind(&[queue])?);
    // All or nothing: the queue that was free does not stay bound.
    cases.case("rx-free-and-bound-queue", libc::EEXIST, bind(&[queue, other])?);
    cases.case("rx-works-after-that", 0, bind(&[other])?);
    drop(first);
    cases.case("rx-works-when-unbound", 0, bind(&[queue, other])?);
    let memfd = dmabuf::memfd(SIZE, false).context("cannot make a memfd")?;
    let (file, index) = (memfd.as_raw_fd(), netdev.index);
    cases.case("rx-not-a-dma-buf", libc::EINVAL, netdev::bind_rx(&Ask { dmabuf: file, ..good.clone() })?);
    cases.case("rx-no-file", libc::EBADF, netdev::bind_rx(&Ask { dmabuf: NO_FD, ..good.clone() })?);
    cases.case("rx-no-netdev", libc::ENODEV, netdev::bind_rx(&Ask { index: NO_NETDEV, ..good.clone() })?);
    let lo = Netdev::find("lo")?.index;
    cases.case("rx-loopback", libc::EOPNOTSUPP, netdev::bind_rx(&Ask { index: lo, queues: &[0], ..good.clone() })?);
    cases.case("rx-odd-page-size", libc::EINVAL, netdev::bind_rx(&Ask { page_size: Some(12_288), ..good.clone() })?);
    cases.case("tx-works", 0, netdev::bind_tx(index, buffer.fd())?);
    cases.case("tx-not-a-dma-buf", libc::EINVAL, netdev::bind_tx(index, file)?);
    cases.case("tx-no-file", libc::EBADF, netdev::bind_tx(index, NO_FD)?);
    cases.case("tx-no-netdev", libc::ENODEV, netdev::bind_tx(NO_NETDEV, buffer.fd())?);
    cases.case("tx-loopback", libc::EOPNOTSUPP, netdev::bind_tx(lo, buffer.fd())?);
    messages(&mut cases, &netdev, &buffer)?;
    if let Some(address) = vfio {
        let exported = Exported::new(address)?;
        let ask = Ask { dmabuf: exported.fd(), ..good.clone() };
        cases.case("rx-memory-of-a-pci-function", libc::EOPNOTSUPP, netdev::bind_rx(&ask)?);
        cases.case("tx-memory-of-a-pci-function", libc::EOPNOTSUPP, netdev::bind_tx(index, exported.fd())?);
    }

    let Cases { cases, failed } = cases;
    println!("{}", json!({ "summary": { "cases": cases, "failed": failed, "mismatches": 0, "bytes": 0 } }));
    Ok(failed == 0)
}

/// Messages with device memory that cannot be: over a connection within this machine, whose route is not the NIC's.
fn messages(cases: &mut Cases, netdev: &Netdev, buffer: &Buffer) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1; is lo up?")?;
    let socket = TcpStream::connect(listener.local_addr()?).context("cannot connect to 127.0.0.1")?;
    let binding = netdev::bind_tx(netdev.index, buffer.fd())?.map_err(anyhow::Error::from)?;
    let send = |binding: u32| sys::send_device(&socket, binding, 0, 4096).map_err(Refusal::from);
    cases.case("message-without-zerocopy", libc::EINVAL, send(binding.id));
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).context("SO_ZEROCOPY")?;
    cases.case("message-with-no-binding", libc::EINVAL, send(u32::MAX));
    cases.case("message-by-another-netdev", libc::ENODEV, send(binding.id));
    Ok(())
}
