//! Safe handles for what libibverbs gives out: a device, regions, and reliable connections.
//!
//! In: names, numbers and buffers. Out: handles that undo themselves; each keeps alive what it needs. Errors are
//! `io::Error`s, so that a refusal can be compared by its errno.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::ptr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::buffer::Buffer;
use crate::ffi::{self, Library};

/// Every access that a region may be registered for.
pub const ALL_ACCESS: u32 = ffi::LOCAL_WRITE | ffi::REMOTE_WRITE | ffi::REMOTE_READ | ffi::REMOTE_ATOMIC;
/// How long a completion may take; 64 MiB are under way for seconds in an emulated guest, and for minutes on a debug kernel there.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Looks at an empty completion queue in a row before the processor is left to others for a while: RXE's workers need it.
const EAGER_LOOKS: u32 = 1000;
/// That while.
const REST: Duration = Duration::from_micros(200);
/// The one port of a device.
const PORT: u8 = 1;

/// An open device with a protection domain.
pub struct Device {
    library: Library,
    context: *mut ffi::Context,
    pd: *mut ffi::Pd,
}

impl Device {
    /// Opens the device of that name.
    pub fn open(name: &str) -> Result<Rc<Device>> {
        let library = Library::load().map_err(anyhow::Error::msg).context("cannot load libibverbs")?;
        // SAFETY: the list is null-terminated and freed once, after the device was opened from it.
        let context = unsafe {
            let list = (library.ibv_get_device_list)(ptr::null_mut());
            if list.is_null() {
                return Err(io::Error::last_os_error()).context("cannot list RDMA devices");
            }
            let mut context = ptr::null_mut();
            let mut at = list;
            while !(*at).is_null() {
                if CStr::from_ptr((library.ibv_get_device_name)(*at)).to_bytes() == name.as_bytes() {
                    context = (library.ibv_open_device)(*at);
                }
                at = at.add(1);
            }
            (library.ibv_free_device_list)(list);
            context
        };
        ensure!(!context.is_null(), "there is no RDMA device {name}, or it cannot be opened");
        // SAFETY: the context is open.
        let pd = unsafe { (library.ibv_alloc_pd)(context) };
        if pd.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: nothing was made of the context.
            unsafe { (library.ibv_close_device)(context) };
            return Err(error).context("ibv_alloc_pd");
        }
        Ok(Rc::new(Device { library, context, pd }))
    }

    /// The index and GID that stand for an address.
    fn gid(&self, address: IpAddr) -> Result<(u8, ffi::Gid)> {
        let want = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        for index in 0..=u8::MAX {
            let mut gid = ffi::Gid::default();
            // SAFETY: the context is open, the GID is ours.
            let failed = unsafe { (self.library.ibv_query_gid)(self.context, PORT, index.into(), &mut gid) } != 0;
            if failed {
                break;
            }
            if gid.0 == want {
                return Ok((index, gid));
            }
        }
        bail!("the device has no GID for {address}")
    }

    fn active_mtu(&self) -> Result<u32> {
        let mut port = ffi::PortAttr::default();
        // SAFETY: the structure is at least as long as any that the library fills.
        match unsafe { (self.library.ibv_query_port)(self.context, PORT, &mut port) } {
            0 => Ok(port.active_mtu),
            error => Err(io::Error::from_raw_os_error(error)).context("ibv_query_port"),
        }
    }

    /// Registers part of a dma-buf, given by its number: what is refused is refused by the kernel.
    pub fn register_fd(
        self: &Rc<Self>,
        fd: RawFd,
        offset: u64,
        length: usize,
        iova: u64,
        access: u32,
    ) -> io::Result<Region> {
        // SAFETY: numbers only; the kernel checks every one of them.
        let mr = unsafe { (self.library.ibv_reg_dmabuf_mr)(self.pd, offset, length, iova, fd, access as i32) };
        self.region(mr, iova, None)
    }

    /// Registers a whole buffer, at an address of the caller's choice if it is a dma-buf.
    pub fn register(self: &Rc<Self>, buffer: Buffer, iova: u64, access: u32) -> io::Result<Region> {
        let length = buffer.len();
        let (mr, iova) = match buffer.fd() {
            Some(fd) => {
                // SAFETY: as in `register_fd`; the region keeps the buffer.
                let mr = unsafe { (self.library.ibv_reg_dmabuf_mr)(self.pd, 0, length, iova, fd, access as i32) };
                (mr, iova)
            }
            None => {
                let address = buffer.address();
                // SAFETY: the memory is mapped as long as the buffer, which the region keeps.
                let mr = unsafe { (self.library.ibv_reg_mr)(self.pd, address.cast(), length, access as i32) };
                (mr, address as u64)
            }
        };
        self.region(mr, iova, Some(buffer))
    }

    fn region(self: &Rc<Self>, mr: *mut ffi::Mr, iova: u64, buffer: Option<Buffer>) -> io::Result<Region> {
        if mr.is_null() {
            return Err(io::Error::last_os_error());
        }
        Ok(Region { device: Rc::clone(self), mr, iova, buffer })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: made in `open`; whatever was made of them held an `Rc` of this.
        unsafe {
            (self.library.ibv_dealloc_pd)(self.pd);
            (self.library.ibv_close_device)(self.context);
        }
    }
}

/// A registered memory region and the memory it is in.
pub struct Region {
    device: Rc<Device>,
    mr: *mut ffi::Mr,
    /// Its address for work requests.
    pub iova: u64,
    buffer: Option<Buffer>,
}

impl Region {
    /// The key for local access.
    pub fn lkey(&self) -> u32 {
        // SAFETY: the region lives as long as the handle.
        unsafe { (*self.mr).lkey }
    }

    /// The key for the peer's access.
    pub fn rkey(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.mr).rkey }
    }

    /// The memory.
    ///
    /// # Errors
    /// When the region was registered by a file's number only.
    pub fn buffer(&mut self) -> Result<&mut Buffer> {
        self.buffer.as_mut().context("the region has no memory of ours")
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: registered once, and not yet deregistered.
        unsafe { (self.device.library.ibv_dereg_mr)(self.mr) };
    }
}

/// What one side tells the other of its queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Queue pair number.
    pub qpn: u32,
    /// Address.
    pub gid: ffi::Gid,
}

/// What a work request asks for; the operation is one of `ffi::WR_…`.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// The operation.
    pub opcode: u32,
    /// Where in the local region.
    pub local: u64,
    /// Where at the peer.
    pub remote: u64,
    /// The peer's key.
    pub rkey: u32,
    /// Bytes.
    pub length: u32,
    /// Operands of an atomic: compare or add, and swap.
    pub operands: (u64, u64),
}

/// A reliable connection: one queue pair with a completion queue of its own.
pub struct Connection {
    device: Rc<Device>,
    cq: *mut ffi::Cq,
    qp: *mut ffi::Qp,
    gid_index: u8,
    gid: ffi::Gid,
}

impl Connection {
    /// Makes one that sends from `address`.
    pub fn new(device: &Rc<Device>, address: IpAddr) -> Result<Connection> {
        let (gid_index, gid) = device.gid(address)?;
        // SAFETY: the context is open; no completion channel is used.
        let cq = unsafe { (device.library.ibv_create_cq)(device.context, 64, ptr::null_mut(), ptr::null_mut(), 0) };
        if cq.is_null() {
            return Err(io::Error::last_os_error()).context("ibv_create_cq");
        }
        let cap = ffi::QpCap { max_send_wr: 16, max_recv_wr: 16, max_send_sge: 1, max_recv_sge: 1, max_inline_data: 0 };
        let mut init = ffi::QpInitAttr {
            qp_context: ptr::null_mut(),
            send_cq: cq,
            recv_cq: cq,
            srq: ptr::null_mut(),
            cap,
            qp_type: ffi::QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: domain and queue are alive.
        let qp = unsafe { (device.library.ibv_create_qp)(device.pd, &mut init) };
        if qp.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: nothing uses the queue.
            unsafe { (device.library.ibv_destroy_cq)(cq) };
            return Err(error).context("ibv_create_qp");
        }
        Ok(Connection { device: Rc::clone(device), cq, qp, gid_index, gid })
    }

    /// What the peer has to know.
    pub fn endpoint(&self) -> Endpoint {
        // SAFETY: the queue pair lives as long as the handle.
        Endpoint { qpn: unsafe { (*self.qp).qp_num }, gid: self.gid }
    }

    /// Connects to the peer's queue pair.
    pub fn connect(&self, peer: Endpoint) -> Result<()> {
        let mut attr = ffi::QpAttr {
            qp_state: ffi::QPS_INIT,
            port_num: PORT,
            qp_access_flags: ALL_ACCESS,
            ..ffi::QpAttr::default()
        };
        let init = ffi::QP_STATE | ffi::QP_PKEY_INDEX | ffi::QP_PORT | ffi::QP_ACCESS_FLAGS;
        self.modify(&mut attr, init).context("queue pair to INIT")?;
        let grh = ffi::GlobalRoute { dgid: peer.gid, sgid_index: self.gid_index, hop_limit: 64, ..Default::default() };
        let mut attr = ffi::QpAttr {
            qp_state: ffi::QPS_RTR,
            path_mtu: self.device.active_mtu()?,
            dest_qp_num: peer.qpn,
            max_dest_rd_atomic: 4,
            min_rnr_timer: 12,
            ah_attr: ffi::AhAttr { grh, is_global: 1, port_num: PORT, ..Default::default() },
            ..ffi::QpAttr::default()
        };
        let rtr = ffi::QP_STATE
            | ffi::QP_AV
            | ffi::QP_PATH_MTU
            | ffi::QP_DEST_QPN
            | ffi::QP_RQ_PSN
            | ffi::QP_MAX_DEST_RD_ATOMIC
            | ffi::QP_MIN_RNR_TIMER;
        self.modify(&mut attr, rtr).context("queue pair to RTR")?;
        // 2^19 * 4 µs are two seconds: an emulated guest is slow, nothing here is about loss, and a READ that is asked for again too
        // early is answered once more from there on.
        let mut attr = ffi::QpAttr {
            qp_state: ffi::QPS_RTS,
            timeout: 19,
            retry_cnt: 7,
            rnr_retry: 7,
            max_rd_atomic: 4,
            ..ffi::QpAttr::default()
        };
        let rts = ffi::QP_STATE
            | ffi::QP_TIMEOUT
            | ffi::QP_RETRY_CNT
            | ffi::QP_RNR_RETRY
            | ffi::QP_SQ_PSN
            | ffi::QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut attr, rts).context("queue pair to RTS")
    }

    fn modify(&self, attr: &mut ffi::QpAttr, mask: i32) -> io::Result<()> {
        // SAFETY: the queue pair is alive, the attributes are complete for the mask.
        match unsafe { (self.device.library.ibv_modify_qp)(self.qp, attr, mask) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Posts a request whose local side is in `region`, and waits for it; returns the completion's status.
    pub fn run(&self, region: &Region, work: &Work) -> Result<u32> {
        let mut sge = ffi::Sge { addr: region.iova + work.local, length: work.length, lkey: region.lkey() };
        let (compare_add, swap) = work.operands;
        let wr = match work.opcode {
            ffi::WR_CMP_SWAP | ffi::WR_FETCH_ADD => {
                let atomic = ffi::Atomic { remote_addr: work.remote, compare_add, swap, rkey: work.rkey };
                ffi::Target { atomic }
            }
            _ => ffi::Target { rdma: ffi::Rdma { remote_addr: work.remote, rkey: work.rkey } },
        };
        let mut request = ffi::SendWr {
            wr_id: 0,
            next: ptr::null_mut(),
            sg_list: &mut sge,
            num_sge: 1,
            opcode: work.opcode,
            send_flags: ffi::SIGNALED,
            imm_data: 0,
            wr,
            _rest: [0; 7],
        };
        let mut bad = ptr::null_mut();
        // SAFETY: the provider copies the request before it returns; its region lives until the completion is here.
        let error = unsafe {
            let post = (*(*self.qp).context).ops.post_send.context("the provider cannot send")?;
            post(self.qp, &mut request, &mut bad)
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error)).context("ibv_post_send");
        }
        Ok(self.wait()?.status)
    }

    /// Posts a receive buffer in `region`.
    pub fn receive(&self, region: &Region, local: u64, length: u32) -> Result<()> {
        let mut sge = ffi::Sge { addr: region.iova + local, length, lkey: region.lkey() };
        let mut request = ffi::RecvWr { wr_id: 1, next: ptr::null_mut(), sg_list: &mut sge, num_sge: 1 };
        let mut bad = ptr::null_mut();
        // SAFETY: as in `run`.
        let error = unsafe {
            let post = (*(*self.qp).context).ops.post_recv.context("the provider cannot receive")?;
            post(self.qp, &mut request, &mut bad)
        };
        match error {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)).context("ibv_post_recv"),
        }
    }

    /// The next completion.
    pub fn wait(&self) -> Result<ffi::Wc> {
        let end = Instant::now() + PATIENCE;
        let mut looks = 0;
        let mut wc = ffi::Wc::default();
        loop {
            // SAFETY: the queue is alive, there is room for the one completion asked for.
            let found = unsafe {
                let poll = (*(*self.cq).context).ops.poll_cq.context("the provider cannot poll")?;
                poll(self.cq, 1, &mut wc)
            };
            match found {
                0 if Instant::now() > end => bail!("no completion within {} s", PATIENCE.as_secs()),
                // The peer may share our only processor.
                0 if looks < EAGER_LOOKS => {
                    looks += 1;
                    std::thread::yield_now();
                }
                0 => std::thread::sleep(REST),
                1 => return Ok(wc),
                error => bail!("ibv_poll_cq returned {error}"),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once; the queue pair goes before its completion queue.
        unsafe {
            (self.device.library.ibv_destroy_qp)(self.qp);
            (self.device.library.ibv_destroy_cq)(self.cq);
        }
    }
}
