//! Flow rules on the wire (`gve_adminq_add_flow_rule` and `gve_adminq_query_flow_rules`, gve_adminq.c).

use super::wire::wire;

/// What CONFIGURE_FLOW_RULE does: `enum gve_adminq_flow_rule_cfg_opcode`, gve_adminq.h. This one adds.
pub const CONFIGURE_ADD: u16 = 0;
/// Removes the rule at a location.
pub const CONFIGURE_DELETE: u16 = 1;
/// Removes every rule.
pub const CONFIGURE_RESET: u16 = 2;

/// What QUERY_FLOW_RULES answers: `enum gve_adminq_flow_rule_query_opcode`, gve_adminq.h. This one: rules.
pub const QUERY_RULES: u16 = 0;
/// Locations.
pub const QUERY_IDS: u16 = 1;
/// How many there are, and how many there can be.
pub const QUERY_STATS: u16 = 2;

wire! {
    /// `struct gve_flow_spec`, gve.h: 37 bytes of fields, padded as the compiler does.
    struct FlowSpec[40] {
        /// Source address; IPv4 is the first four bytes.
        source: [u8; 16],
        /// Destination address; IPv4 is the first four bytes.
        destination: [u8; 16],
        /// Source port and destination port, or the SPI.
        ports: [u8; 4],
        /// Type of service or traffic class.
        traffic_class: u8,
        /// Nothing.
        padding: [u8; 3],
    }

    /// `struct gve_adminq_flow_rule`.
    struct FlowRule[84] {
        /// `enum gve_adminq_flow_type`, gve_adminq.h.
        flow_type: u16,
        /// The RX queue.
        queue: u16,
        /// What a frame must be, where the mask has bits.
        key: FlowSpec,
        /// Which bits count.
        mask: FlowSpec,
    }

    /// `struct gve_adminq_configure_flow_rule`.
    struct ConfigureFlowRule[92] {
        /// [`CONFIGURE_ADD`], [`CONFIGURE_DELETE`] or [`CONFIGURE_RESET`].
        opcode: u16,
        /// Nothing.
        padding: [u8; 2],
        /// The rule to add.
        rule: FlowRule,
        /// Where: the lowest location that matches wins.
        location: u32,
    }

    /// `struct gve_adminq_query_flow_rules`.
    struct QueryFlowRules[24] {
        /// [`QUERY_RULES`], [`QUERY_IDS`] or [`QUERY_STATS`].
        opcode: u16,
        /// Nothing.
        padding: [u8; 2],
        /// First location of interest.
        start: u32,
        /// Bytes there are for the answer.
        available: u64,
        /// Where it goes.
        address: u64,
    }

    /// `struct gve_query_flow_rules_descriptor`: what the answer begins with.
    struct FlowRulesDescriptor[16] {
        /// Rules there are.
        rules: u32,
        /// Rules there can be.
        capacity: u32,
        /// Rules or locations that follow.
        queried: u32,
        /// Bytes of the whole answer.
        total_length: u32,
    }

    /// `struct gve_adminq_queried_flow_rule`.
    struct QueriedFlowRule[88] {
        /// Where it is.
        location: u32,
        /// What it says.
        rule: FlowRule,
    }
}
