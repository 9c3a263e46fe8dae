//! Flow rules come, go, and are listed a page at a time.

use super::{Answer, ensure, write};
use crate::abi::adminq::{BUFFER_BYTES, Status};
use crate::abi::flow::{
    CONFIGURE_ADD, CONFIGURE_DELETE, CONFIGURE_RESET, ConfigureFlowRule, FlowRulesDescriptor, QUERY_IDS, QUERY_RULES,
    QUERY_STATS, QueriedFlowRule, QueryFlowRules,
};
use crate::abi::wire::Wire;
use crate::device::Device;
use crate::shared::Shared;
use crate::steer::rules::BadRule;

impl From<BadRule> for Status {
    fn from(why: BadRule) -> Status {
        match why {
            BadRule::FlowType | BadRule::Mask => Status::InvalidArgument,
            BadRule::Location | BadRule::Queue => Status::OutOfRange,
            BadRule::Missing => Status::NotFound,
        }
    }
}

impl Device {
    pub(super) fn configure_flow_rule(&mut self, asked: ConfigureFlowRule) -> Answer {
        ensure(self.rules.capacity() > 0, Status::Unimplemented)?;
        match asked.opcode {
            CONFIGURE_ADD => self.rules.add(asked.location, asked.rule)?,
            CONFIGURE_DELETE => self.rules.remove(asked.location)?,
            CONFIGURE_RESET => self.rules.clear(),
            _ => return Err(Status::InvalidArgument),
        }
        self.dirty.rules = true;
        Ok(())
    }

    /// The driver keeps what one buffer of [`BUFFER_BYTES`] holds (`GVE_FLOW_RULES_CACHE_SIZE`, gve.h) whatever length it
    /// claims, and asks again from behind the last location until nothing comes (`gve_get_flow_rule_ids`,
    /// gve_flow_rule.c).
    pub(super) fn query_flow_rules(&mut self, shared: &Shared, asked: QueryFlowRules) -> Answer {
        ensure(self.rules.capacity() > 0, Status::Unimplemented)?;
        let available = usize::try_from(asked.available).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        let room = available.checked_sub(FlowRulesDescriptor::SIZE).ok_or(Status::InvalidArgument)?;
        let mut body = Vec::new();
        let mut queried = 0;
        match asked.opcode {
            QUERY_RULES => {
                for (location, rule) in self.rules.from(asked.start).take(room / QueriedFlowRule::SIZE) {
                    QueriedFlowRule { location, rule: *rule }.put(&mut body);
                    queried += 1;
                }
            }
            QUERY_IDS => {
                for (location, _) in self.rules.from(asked.start).take(room / size_of::<u32>()) {
                    location.put(&mut body);
                    queried += 1;
                }
            }
            QUERY_STATS => {}
            _ => return Err(Status::InvalidArgument),
        }
        let mut answer = FlowRulesDescriptor {
            rules: self.rules.len() as u32,
            capacity: self.rules.capacity(),
            queried,
            total_length: (FlowRulesDescriptor::SIZE + body.len()) as u32,
        }
        .encode();
        answer.extend(body);
        write(shared, asked.address, &answer)
    }
}
