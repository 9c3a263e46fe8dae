//! What must not work: registrations that the kernel has to refuse, and requests that the peer's kernel has to.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::Result;
use serde_json::json;

use crate::buffer::{self, Kind};
use crate::device::{ALL_ACCESS, Device, Work};
use crate::ffi;
use crate::pattern;
use crate::report::{Report, status_name};
use crate::transfer::Client;

const LENGTH: usize = 65536;

/// Names of the errnos that registrations end with.
fn errno_name(errno: i32) -> String {
    match errno {
        0 => "success".into(),
        libc::EBADF => "EBADF".into(),
        libc::EACCES => "EACCES".into(),
        libc::EINVAL => "EINVAL".into(),
        libc::EOPNOTSUPP => "EOPNOTSUPP".into(),
        other => io::Error::from_raw_os_error(other).to_string(),
    }
}

/// A registration and what it has to end with.
struct Registration {
    what: &'static str,
    want: i32,
    fd: RawFd,
    offset: u64,
    length: usize,
    iova: u64,
    access: u32,
}

/// Tries every registration that is refused, and two beside them that are not.
pub fn registrations(device: &str, report: &mut Report) -> Result<()> {
    let device = Device::open(device)?;
    let (heap, read_only) = (buffer::heap(LENGTH, libc::O_RDWR)?, buffer::heap(LENGTH, libc::O_RDONLY)?);
    let (memfd, file) = (buffer::memfd(LENGTH)?, File::open("/dev/null")?);
    let (fd, top) = (heap.as_raw_fd(), u64::MAX - 4095);
    let case =
        |what, want, fd, (offset, length, iova), access| Registration { what, want, fd, offset, length, iova, access };
    let whole = (0, LENGTH, 0);
    let cases = [
        case("the whole buffer", 0, fd, whole, ALL_ACCESS),
        case("the end of the buffer", 0, fd, (LENGTH as u64 - 5, 5, 4096 * 9 - 5), ALL_ACCESS),
        case("read access to a read-only buffer", 0, read_only.as_raw_fd(), whole, ffi::REMOTE_READ),
        case("length 0", libc::EINVAL, fd, (0, 0, 0), ALL_ACCESS),
        case("one byte beyond the end", libc::EINVAL, fd, (0, LENGTH + 1, 0), ALL_ACCESS),
        case("behind the end", libc::EINVAL, fd, (LENGTH as u64, 1, 0), ALL_ACCESS),
        case("offset and length overflow", libc::EINVAL, fd, (top, 8192, 0), ALL_ACCESS),
        case("address and length overflow", libc::EINVAL, fd, (0, 8192, top), ALL_ACCESS),
        case("offset and address differ within the page", libc::EINVAL, fd, (0, 4096, 8), ALL_ACCESS),
        case("a memfd", libc::EINVAL, memfd.as_raw_fd(), whole, ALL_ACCESS),
        case("a device", libc::EINVAL, file.as_raw_fd(), whole, ALL_ACCESS),
        case("on-demand paging", libc::EINVAL, fd, whole, ALL_ACCESS | ffi::ON_DEMAND),
        case("no file", libc::EBADF, -1, whole, ALL_ACCESS),
        case("a file number not in use", libc::EBADF, 1000, whole, ALL_ACCESS),
        case("local write to a read-only buffer", libc::EACCES, read_only.as_raw_fd(), whole, ffi::LOCAL_WRITE),
        case("all access to a read-only buffer", libc::EACCES, read_only.as_raw_fd(), whole, ALL_ACCESS),
    ];
    for case in cases {
        let Registration { what, want, fd, offset, length, iova, access } = case;
        let got = match device.register_fd(fd, offset, length, iova, access) {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let facts = json!({ "operation": "register", "want": errno_name(want), "got": errno_name(got) });
        report.case(what, got == want, 0, 0, facts);
    }
    Ok(())
}

/// `enum ibv_wc_status`.
const REMOTE_ACCESS: u32 = 10;

/// The provider's own refusal of a request.
const NOT_POSTED: u32 = u32::MAX;

/// Requests that are refused, nearly all by the other end's kernel; nothing of its memory may change, and nothing come back.
pub fn requests(client: &mut Client, kinds: &[Kind], report: &mut Report) -> Result<()> {
    let end = LENGTH as u64;
    // (what, request, offset, length, access of the region, status)
    let cases = [
        ("READ beyond the region", ffi::WR_READ, end - 8, 16, ALL_ACCESS, REMOTE_ACCESS),
        ("WRITE beyond the region", ffi::WR_WRITE, end - 8, 16, ALL_ACCESS, REMOTE_ACCESS),
        ("READ behind the region", ffi::WR_READ, end, 1, ALL_ACCESS, REMOTE_ACCESS),
        ("WRITE before the region", ffi::WR_WRITE, 0u64.wrapping_sub(1), 1, ALL_ACCESS, REMOTE_ACCESS),
        ("FETCH_ADD beyond the region", ffi::WR_FETCH_ADD, end, 8, ALL_ACCESS, REMOTE_ACCESS),
        // The provider looks at the address before the kernel can.
        ("FETCH_ADD at an odd place", ffi::WR_FETCH_ADD, 4, 8, ALL_ACCESS, NOT_POSTED),
        ("CMP_SWAP at an odd place", ffi::WR_CMP_SWAP, 1, 8, ALL_ACCESS, NOT_POSTED),
        ("READ without the right", ffi::WR_READ, 0, 8, ffi::LOCAL_WRITE, REMOTE_ACCESS),
        ("WRITE without the right", ffi::WR_WRITE, 0, 8, ffi::REMOTE_READ, REMOTE_ACCESS),
        ("FETCH_ADD without the right", ffi::WR_FETCH_ADD, 0, 8, ffi::LOCAL_WRITE | ffi::REMOTE_WRITE, REMOTE_ACCESS),
    ];
    for kind in kinds {
        for (what, opcode, offset, length, access, want) in cases {
            let mut near = client.region(*kind, LENGTH)?;
            let far = client.remote(*kind, LENGTH, access)?;
            let key = client.fresh_key();
            near.buffer()?.access(|memory| pattern::fill(memory, key, 0, LENGTH))?;
            client.control.ask(&format!("fill {key} 0 {LENGTH}"))?;
            let work = Work {
                opcode,
                local: 0,
                remote: far.iova.wrapping_add(offset),
                rkey: far.rkey,
                length,
                operands: (1, 1),
            };
            let status = match client.run(&near, &work) {
                Ok(status) => status,
                Err(error) => match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
                    Some(libc::EINVAL) => NOT_POSTED,
                    _ => return Err(error),
                },
            };
            let wrong = client.control.ask_one(&format!("check {key} 0 {LENGTH}"))?
                + near.buffer()?.access(|memory| pattern::mismatches(memory, key, 0, LENGTH))?;
            let facts = json!({ "operation": "request", "want": status_name(want), "got": status_name(status) });
            report.case(&format!("{kind}: {what}"), status == want && wrong == 0, wrong, 0, facts);
            client.reconnect()?;
        }
    }
    Ok(())
}
