//! libibverbs as far as this program needs it: structures, constants, and functions looked up at run time.
//!
//! The structures are those of `<infiniband/verbs.h>` (libibverbs 1.14, whose ABI is stable). The library is loaded and not
//! linked, so the program builds where there is none. Posting and polling are inline functions in the header: they call
//! through the operations of the context, and so does this.

#![allow(missing_docs)] // named as in verbs.h(7), where they are described

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// What this program never looks into.
#[repr(C)]
pub struct Opaque {
    _private: [u8; 0],
}

/// `struct ibv_context_ops`: 32 pointers, of which three are used.
#[repr(C)]
pub struct ContextOps {
    _before_poll: [*const c_void; 11],
    pub poll_cq: Option<unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int>,
    _before_post: [*const c_void; 13],
    pub post_send: Option<unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int>,
    pub post_recv: Option<unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int>,
    _after: [*const c_void; 5],
}

#[repr(C)]
pub struct Context {
    device: *mut Opaque,
    pub ops: ContextOps,
    pub cmd_fd: c_int,
    // what follows is libibverbs' own
}

#[repr(C)]
pub struct Pd {
    context: *mut Context,
    handle: u32,
}

#[repr(C)]
pub struct Cq {
    pub context: *mut Context,
    // what follows is libibverbs' own
}

#[repr(C)]
pub struct Qp {
    pub context: *mut Context,
    qp_context: *mut c_void,
    pd: *mut Pd,
    send_cq: *mut Cq,
    recv_cq: *mut Cq,
    srq: *mut Opaque,
    handle: u32,
    pub qp_num: u32,
    // what follows is libibverbs' own
}

#[repr(C)]
pub struct Mr {
    context: *mut Context,
    pd: *mut Pd,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    pub lkey: u32,
    pub rkey: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sge {
    pub addr: u64,
    pub length: u32,
    pub lkey: u32,
}

/// `struct ibv_send_wr` with the unions of what is used: `atomic` begins like `rdma`, but the key is behind its operands.
#[repr(C)]
pub struct SendWr {
    pub wr_id: u64,
    pub next: *mut SendWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
    pub opcode: c_uint,
    pub send_flags: c_uint,
    pub imm_data: u32,
    pub wr: Target,
    /// `qp_type`, `bind_mw` and `tso`, none of which is used.
    pub _rest: [u64; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union Target {
    pub rdma: Rdma,
    pub atomic: Atomic,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rdma {
    pub remote_addr: u64,
    pub rkey: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Atomic {
    pub remote_addr: u64,
    pub compare_add: u64,
    pub swap: u64,
    pub rkey: u32,
}

#[repr(C)]
pub struct RecvWr {
    pub wr_id: u64,
    pub next: *mut RecvWr,
    pub sg_list: *mut Sge,
    pub num_sge: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Wc {
    pub wr_id: u64,
    pub status: c_uint,
    pub opcode: c_uint,
    pub vendor_err: u32,
    pub byte_len: u32,
    pub imm_data: u32,
    pub qp_num: u32,
    pub src_qp: u32,
    pub wc_flags: c_uint,
    pub pkey_index: u16,
    pub slid: u16,
    pub sl: u8,
    pub dlid_path_bits: u8,
}

#[repr(C)]
#[derive(Default)]
pub struct QpCap {
    pub max_send_wr: u32,
    pub max_recv_wr: u32,
    pub max_send_sge: u32,
    pub max_recv_sge: u32,
    pub max_inline_data: u32,
}

#[repr(C)]
pub struct QpInitAttr {
    pub qp_context: *mut c_void,
    pub send_cq: *mut Cq,
    pub recv_cq: *mut Cq,
    pub srq: *mut Opaque,
    pub cap: QpCap,
    pub qp_type: c_uint,
    pub sq_sig_all: c_int,
}

/// `union ibv_gid`, which has 8-byte integers in it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Gid(pub [u8; 16]);

#[repr(C)]
#[derive(Default)]
pub struct GlobalRoute {
    pub dgid: Gid,
    pub flow_label: u32,
    pub sgid_index: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
}

#[repr(C)]
#[derive(Default)]
pub struct AhAttr {
    pub grh: GlobalRoute,
    pub dlid: u16,
    pub sl: u8,
    pub src_path_bits: u8,
    pub static_rate: u8,
    pub is_global: u8,
    pub port_num: u8,
}

#[repr(C)]
#[derive(Default)]
pub struct QpAttr {
    pub qp_state: c_uint,
    pub cur_qp_state: c_uint,
    pub path_mtu: c_uint,
    pub path_mig_state: c_uint,
    pub qkey: u32,
    pub rq_psn: u32,
    pub sq_psn: u32,
    pub dest_qp_num: u32,
    pub qp_access_flags: c_uint,
    pub cap: QpCap,
    pub ah_attr: AhAttr,
    pub alt_ah_attr: AhAttr,
    pub pkey_index: u16,
    pub alt_pkey_index: u16,
    pub en_sqd_async_notify: u8,
    pub sq_draining: u8,
    pub max_rd_atomic: u8,
    pub max_dest_rd_atomic: u8,
    pub min_rnr_timer: u8,
    pub port_num: u8,
    pub timeout: u8,
    pub retry_cnt: u8,
    pub rnr_retry: u8,
    pub alt_port_num: u8,
    pub alt_timeout: u8,
    pub rate_limit: u32,
}

/// The beginning of `struct ibv_port_attr`, and room for the rest.
#[repr(C)]
#[derive(Default)]
pub struct PortAttr {
    pub state: c_uint,
    pub max_mtu: c_uint,
    pub active_mtu: c_uint,
    pub gid_tbl_len: c_int,
    _rest: [u64; 8],
}

// enum ibv_access_flags
pub const LOCAL_WRITE: c_uint = 1;
pub const REMOTE_WRITE: c_uint = 1 << 1;
pub const REMOTE_READ: c_uint = 1 << 2;
pub const REMOTE_ATOMIC: c_uint = 1 << 3;
pub const ON_DEMAND: c_uint = 1 << 6;

// enum ibv_wr_opcode
pub const WR_WRITE: c_uint = 0;
pub const WR_SEND: c_uint = 2;
pub const WR_READ: c_uint = 4;
pub const WR_CMP_SWAP: c_uint = 5;
pub const WR_FETCH_ADD: c_uint = 6;

// enum ibv_send_flags
pub const SIGNALED: c_uint = 1 << 1;

// enum ibv_qp_type, enum ibv_qp_state
pub const QPT_RC: c_uint = 2;
pub const QPS_INIT: c_uint = 1;
pub const QPS_RTR: c_uint = 2;
pub const QPS_RTS: c_uint = 3;

// enum ibv_qp_attr_mask
pub const QP_STATE: c_int = 1;
pub const QP_ACCESS_FLAGS: c_int = 1 << 3;
pub const QP_PKEY_INDEX: c_int = 1 << 4;
pub const QP_PORT: c_int = 1 << 5;
pub const QP_AV: c_int = 1 << 7;
pub const QP_PATH_MTU: c_int = 1 << 8;
pub const QP_TIMEOUT: c_int = 1 << 9;
pub const QP_RETRY_CNT: c_int = 1 << 10;
pub const QP_RNR_RETRY: c_int = 1 << 11;
pub const QP_RQ_PSN: c_int = 1 << 12;
pub const QP_MAX_QP_RD_ATOMIC: c_int = 1 << 13;
pub const QP_MIN_RNR_TIMER: c_int = 1 << 15;
pub const QP_SQ_PSN: c_int = 1 << 16;
pub const QP_MAX_DEST_RD_ATOMIC: c_int = 1 << 17;
pub const QP_DEST_QPN: c_int = 1 << 20;

macro_rules! library {
    ($($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions of libibverbs.
        #[derive(Clone, Copy)]
        pub struct Library {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Library {
            /// Loads the library, which stays loaded.
            pub fn load() -> Result<Self, String> {
                let name = c"libibverbs.so.1";
                // SAFETY: a plain name, and the library's constructors have no requirements.
                let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
                if handle.is_null() {
                    return Err(last_error());
                }
                Ok(Library {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        // SAFETY: the handle is of a library that is never unloaded, the name ends with a zero.
                        let symbol = unsafe { libc::dlsym(handle, name.as_ptr().cast()) };
                        if symbol.is_null() {
                            return Err(last_error());
                        }
                        // SAFETY: the signature is that of verbs.h for a function of this name.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>(symbol) }
                    },)*
                })
            }
        }
    };
}

library! {
    ibv_get_device_list: fn(*mut c_int) -> *mut *mut Opaque;
    ibv_free_device_list: fn(*mut *mut Opaque);
    ibv_get_device_name: fn(*mut Opaque) -> *const c_char;
    ibv_open_device: fn(*mut Opaque) -> *mut Context;
    ibv_close_device: fn(*mut Context) -> c_int;
    ibv_query_port: fn(*mut Context, u8, *mut PortAttr) -> c_int;
    ibv_query_gid: fn(*mut Context, u8, c_int, *mut Gid) -> c_int;
    ibv_alloc_pd: fn(*mut Context) -> *mut Pd;
    ibv_dealloc_pd: fn(*mut Pd) -> c_int;
    ibv_reg_mr: fn(*mut Pd, *mut c_void, usize, c_int) -> *mut Mr;
    ibv_reg_dmabuf_mr: fn(*mut Pd, u64, usize, u64, c_int, c_int) -> *mut Mr;
    ibv_dereg_mr: fn(*mut Mr) -> c_int;
    ibv_create_cq: fn(*mut Context, c_int, *mut c_void, *mut Opaque, c_int) -> *mut Cq;
    ibv_destroy_cq: fn(*mut Cq) -> c_int;
    ibv_create_qp: fn(*mut Pd, *mut QpInitAttr) -> *mut Qp;
    ibv_modify_qp: fn(*mut Qp, *mut QpAttr, c_int) -> c_int;
    ibv_destroy_qp: fn(*mut Qp) -> c_int;
}

fn last_error() -> String {
    // SAFETY: dlerror returns a string that lives until the next call of this thread, or null.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return "the dynamic linker says nothing".into();
    }
    // SAFETY: as above, and it is not null.
    unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// What a C compiler says of the header's structures (x86-64).
    #[test]
    fn the_layout_is_that_of_the_header() {
        assert_eq!(size_of::<ContextOps>(), 32 * 8);
        assert_eq!(offset_of!(Context, cmd_fd), 264);
        assert_eq!(offset_of!(ContextOps, poll_cq), 88);
        assert_eq!(offset_of!(ContextOps, post_send), 200);
        assert_eq!(offset_of!(ContextOps, post_recv), 208);
        assert_eq!(offset_of!(Qp, qp_num), 52);
        assert_eq!((offset_of!(Mr, lkey), offset_of!(Mr, rkey)), (36, 40));
        assert_eq!((offset_of!(SendWr, opcode), offset_of!(SendWr, wr), size_of::<SendWr>()), (28, 40, 128));
        assert_eq!((size_of::<RecvWr>(), size_of::<Wc>(), size_of::<Sge>()), (32, 48, 16));
        assert_eq!((size_of::<QpInitAttr>(), offset_of!(QpInitAttr, qp_type)), (64, 52));
        assert_eq!((size_of::<AhAttr>(), size_of::<QpAttr>()), (32, 144));
        assert_eq!((offset_of!(QpAttr, ah_attr), offset_of!(QpAttr, timeout)), (56, 130));
    }
}
