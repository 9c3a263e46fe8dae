//! Generic netlink (include/uapi/linux/genetlink.h): families are found by name and say which operations they have.

use std::io;

use super::netlink::{DUMP, Netlink, attributes, put, u16_at, u32_at};

/// GENL_ID_CTRL, the family that knows the others.
const CONTROLLER: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_OPS: u16 = 6;
const CTRL_ATTR_OP_ID: u16 = 1;
/// struct genlmsghdr.
const GENLMSGHDR: usize = 4;

/// A family.
#[derive(Debug)]
pub struct Family {
    id: u16,
    operations: Vec<u32>,
}

fn message(command: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![command, 1, 0, 0];
    message.extend_from_slice(body);
    message
}

impl Family {
    /// Looks a family up. One that the kernel does not have is `ENOENT`.
    pub fn find(name: &str) -> io::Result<Family> {
        let mut body = Vec::new();
        put(&mut body, CTRL_ATTR_FAMILY_NAME, format!("{name}\0").as_bytes());
        let mut family = Family { id: 0, operations: Vec::new() };
        let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
        netlink.request(CONTROLLER, 0, &message(CTRL_CMD_GETFAMILY, &body), |_, payload| {
            for (kind, value) in attributes(payload.get(GENLMSGHDR..).unwrap_or_default()) {
                match kind {
                    CTRL_ATTR_FAMILY_ID => family.id = u16_at(value, 0),
                    CTRL_ATTR_OPS => {
                        let ids = attributes(value).flat_map(|(_, operation)| attributes(operation));
                        let ids = ids.filter(|(kind, _)| *kind == CTRL_ATTR_OP_ID);
                        family.operations.extend(ids.map(|(_, id)| u32_at(id, 0)));
                    }
                    _ => {}
                }
            }
        })?;
        Ok(family)
    }

    /// Whether the family has an operation.
    pub fn has(&self, operation: u32) -> bool {
        self.operations.contains(&operation)
    }

    /// Has one thing done, and hands the attributes of the answer, if there is one, to the function.
    pub fn request(&self, command: u8, body: &[u8], mut reply: impl FnMut(&[u8])) -> io::Result<()> {
        let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
        netlink.request(self.id, 0, &message(command, body), |_, payload| {
            reply(payload.get(GENLMSGHDR..).unwrap_or_default());
        })
    }

    /// Asks for all there are and hands the attributes of each to the function.
    pub fn dump(&self, command: u8, body: &[u8], mut reply: impl FnMut(&[u8])) -> io::Result<()> {
        let mut netlink = Netlink::open(Some(rustix::net::netlink::GENERIC))?;
        netlink.request(self.id, DUMP, &message(command, body), |_, payload| {
            reply(payload.get(GENLMSGHDR..).unwrap_or_default());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_knows_itself() {
        let family = Family::find("nlctrl").expect("generic netlink");
        assert_eq!(family.id, CONTROLLER);
        assert!(family.has(u32::from(CTRL_CMD_GETFAMILY)) && !family.has(250));
        let missing = Family::find("no-such-family").expect_err("no such family");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
