//! The admin queue: takes commands from the driver's ring, runs them, and answers inside the doorbell.
//!
//! The driver sleeps 20 ms each time it finds an answer missing (`gve_adminq_wait_for_cmd`, gve_adminq.c), so none ever is.
//! A command is copied once; what it names is checked before anything is changed, and an error changes nothing.

mod describe;
mod flow;
mod report;
mod resources;
mod rings;
mod spread;

use crate::abi::adminq::{CONFIGURE_FLOW_RULE, Command, Extended, Opcode, PASSED, STATUS_AT, Status};
use crate::abi::flow::ConfigureFlowRule;
use crate::abi::wire::Wire;
use crate::device::Device;
use crate::fault::AdminFault;
use crate::shared::Shared;

/// What a command comes to.
type Answer = Result<(), Status>;

/// Reads a struct from the guest.
fn read<T: Wire>(shared: &Shared, address: u64) -> Result<T, Status> {
    let mut bytes = vec![0; T::SIZE];
    shared.memory().read(address, &mut bytes).map_err(|_| Status::InvalidArgument)?;
    T::decode(&bytes).ok_or(Status::InternalError)
}

/// Writes an answer to the guest.
fn write(shared: &Shared, address: u64, bytes: &[u8]) -> Answer {
    shared.memory().write(address, bytes).map_err(|_| Status::InvalidArgument)
}

/// Refuses with a status unless something holds.
fn ensure(holds: bool, otherwise: Status) -> Answer {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Device {
    /// The driver has issued `issued` commands since RUN.
    pub fn admin_doorbell(&mut self, shared: &Shared, issued: u32) {
        let counted = &shared.stats().control;
        let pending = issued.wrapping_sub(self.registers.answered);
        // More than the ring holds is a doorbell that went back, or one of a guest that makes things up.
        let Some(ring) = self.registers.ring().filter(|ring| pending <= ring.slots) else {
            counted.bad_admin_doorbells.add(1);
            return;
        };
        for _ in 0..pending {
            if self.stalled {
                return;
            }
            let slot = u64::from(self.registers.answered & (ring.slots - 1));
            // The ring does not wrap around the address space: `Registers` has looked.
            let address = ring.base + slot * Command::SIZE as u64;
            let Ok(command) = read::<Command>(shared, address) else {
                counted.bad_admin_addresses.add(1);
                return;
            };
            let opcode = Opcode::from_code(command.opcode);
            let answer = match self.faults.command(opcode) {
                Some(AdminFault::Timeout) => {
                    counted.commands_withheld.add(1);
                    self.stalled = true;
                    return;
                }
                Some(AdminFault::Error(status)) => Err(status),
                None => self.run(shared, opcode, &command.body),
            };
            counted.commands.add(1);
            counted.command_errors.add(u64::from(answer.is_err()));
            let status = answer.map_or_else(|status| status as u32, |()| PASSED);
            if write(shared, address + STATUS_AT, &status.to_be_bytes()).is_err() {
                counted.bad_admin_addresses.add(1);
            }
            self.registers.answered = self.registers.answered.wrapping_add(1);
        }
    }

    fn run(&mut self, shared: &Shared, opcode: Option<Opcode>, body: &[u8; 56]) -> Answer {
        // Every body is shorter than the 56 bytes there are.
        fn of<T: Wire>(body: &[u8; 56]) -> Result<T, Status> {
            T::decode(body).ok_or(Status::InternalError)
        }
        match opcode.ok_or(Status::Unimplemented)? {
            Opcode::DescribeDevice => self.describe_device(shared, of(body)?),
            Opcode::VerifyDriverCompatibility => self.verify_driver(shared, of(body)?),
            Opcode::GetPtypeMap => self.ptype_map(shared, of(body)?),
            Opcode::ReportLinkSpeed => self.link_speed(shared, of(body)?),
            Opcode::ReportNicTimestamp => self.nic_timestamp(shared, of(body)?),
            Opcode::SetDriverParameter => self.set_parameter(of(body)?),
            Opcode::ReportStats => self.report_stats(shared, of(body)?),
            Opcode::ConfigureDeviceResources => self.configure_resources(shared, of(body)?),
            Opcode::DeconfigureDeviceResources => self.deconfigure_resources(shared),
            Opcode::CreateTxQueue => self.create_tx(shared, of(body)?),
            Opcode::CreateRxQueue => self.create_rx(shared, of(body)?),
            Opcode::DestroyTxQueue => self.destroy_tx(shared, of(body)?),
            Opcode::DestroyRxQueue => self.destroy_rx(shared, of(body)?),
            Opcode::ConfigureRss => self.configure_rss(shared, of(body)?),
            Opcode::QueryRss => self.query_rss(shared, of(body)?),
            Opcode::QueryFlowRules => self.query_flow_rules(shared, of(body)?),
            Opcode::ExtendedCommand => self.run_extended(shared, of(body)?),
            // Pages for copies: raw addressing has none.
            Opcode::RegisterPageList | Opcode::UnregisterPageList => Err(Status::Unimplemented),
        }
    }

    fn run_extended(&mut self, shared: &Shared, command: Extended) -> Answer {
        ensure(command.opcode == CONFIGURE_FLOW_RULE, Status::Unimplemented)?;
        ensure(command.length as usize == ConfigureFlowRule::SIZE, Status::InvalidArgument)?;
        self.configure_flow_rule(read(shared, command.address)?)
    }
}
