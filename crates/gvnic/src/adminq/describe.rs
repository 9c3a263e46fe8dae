//! Who the driver is, and what the device can do.

use super::{Answer, ensure, read, write};
use crate::abi::adminq::{
    CAPABILITY_DQO_RDA, DescribeDevice, DriverInfo, LinkSpeed, NicTimestamp, PARAMETER_MTU, Report, SetParameter,
    Status, VerifyDriver,
};
use crate::abi::describe::*;
use crate::abi::ptype;
use crate::abi::rss::{KEY_BYTES, LUT_ENTRIES};
use crate::abi::wire::Wire;
use crate::config::{MTU_MIN, PortConfig};
use crate::device::Device;
use crate::shared::Shared;

/// The MTU a device has without the jumbo option, in bytes.
const MTU_PLAIN: u16 = 1500;

/// The descriptor with its options: what DESCRIBE_DEVICE answers.
pub(crate) fn descriptor(config: &PortConfig) -> Vec<u8> {
    let jumbo = JumboFrames { supported_features: SUPPORTS_JUMBO_FRAMES, max_mtu: config.mtu, padding: [0; 2] };
    let buffers = BufferSizes {
        supported_features: SUPPORTS_BUFFER_SIZES,
        packet_buffer: config.rx_buffer,
        header_buffer: if config.header_split { HEADER_BUFFER } else { 0 },
    };
    let rings = ModifyRing {
        supported_features: SUPPORTS_MODIFY_RING,
        max_rx: config.rx_ring.max,
        max_tx: config.tx_ring.max,
        min_rx: config.rx_ring.min,
        min_tx: config.tx_ring.min,
    };
    let steering =
        FlowSteering { supported_features: SUPPORTS_FLOW_STEERING, reserved: 0, max_flow_rules: config.flow_rules };
    let rss =
        RssConfig { supported_features: SUPPORTS_RSS_CONFIG, key_size: KEY_BYTES as u16, lut_size: LUT_ENTRIES as u16 };
    let timestamps = NicTimestampOption { supported_features: SUPPORTS_NIC_TIMESTAMP };
    // Each with its feature bit, which the driver looks for in the first option.
    let optional = [
        (config.mtu > MTU_PLAIN, OPTION_JUMBO_FRAMES, SUPPORTS_JUMBO_FRAMES, jumbo.encode()),
        (true, OPTION_BUFFER_SIZES, SUPPORTS_BUFFER_SIZES, buffers.encode()),
        (true, OPTION_MODIFY_RING, SUPPORTS_MODIFY_RING, rings.encode()),
        (config.flow_rules > 0, OPTION_FLOW_STEERING, SUPPORTS_FLOW_STEERING, steering.encode()),
        (config.rss_query, OPTION_RSS_CONFIG, SUPPORTS_RSS_CONFIG, rss.encode()),
        (config.timestamps, OPTION_NIC_TIMESTAMP, SUPPORTS_NIC_TIMESTAMP, timestamps.encode()),
    ];
    let offered: Vec<_> = optional.into_iter().filter(|option| option.0).collect();
    let supported_features = offered.iter().fold(0, |mask, option| mask | option.2);
    let mut options = Vec::new();
    let mut put = |id, body: &[u8]| {
        OptionHeader { id, length: body.len() as u16, required_features: 0 }.put(&mut options);
        options.extend_from_slice(body);
    };
    put(OPTION_DQO_RDA, &DqoRda { supported_features, reserved: 0 }.encode());
    offered.iter().for_each(|(_, id, _, body)| put(*id, body));
    let mut bytes = DeviceDescriptor {
        max_registered_pages: 0,
        reserved1: 0,
        tx_queue_entries: config.tx_ring.initial,
        rx_queue_entries: config.rx_ring.initial,
        default_num_queues: config.initial_queues(),
        mtu: config.mtu.min(MTU_PLAIN),
        counters: counters(config),
        tx_pages_per_qpl: 0,
        rx_pages_per_qpl: 0,
        mac: config.mac.0,
        num_device_options: 1 + offered.len() as u16,
        total_length: (DeviceDescriptor::SIZE + options.len()) as u16,
        reserved2: [0; 6],
    }
    .encode();
    bytes.extend(options);
    bytes
}

/// Event counters, one a queue: DQO counts in none of them, but the driver reads each TX queue's
/// (`gve_tx_load_event_counter`, gve_tx.c) and allocates as many as it is told.
pub(crate) fn counters(config: &PortConfig) -> u16 {
    2 * config.queue_pairs
}

impl Device {
    pub(super) fn describe_device(&mut self, shared: &Shared, asked: DescribeDevice) -> Answer {
        ensure(asked.version == DESCRIPTOR_VERSION, Status::InvalidArgument)?;
        let descriptor = descriptor(&self.config);
        ensure(asked.available as usize >= descriptor.len(), Status::InvalidArgument)?;
        write(shared, asked.address, &descriptor)
    }

    pub(super) fn verify_driver(&mut self, shared: &Shared, asked: VerifyDriver) -> Answer {
        ensure(asked.length >= DriverInfo::SIZE as u64, Status::InvalidArgument)?;
        let driver: DriverInfo = read(shared, asked.address)?;
        ensure(driver.capabilities & CAPABILITY_DQO_RDA != 0, Status::FailedPrecondition)?;
        self.driver = Some(driver);
        Ok(())
    }

    pub(super) fn ptype_map(&mut self, shared: &Shared, asked: Report) -> Answer {
        ensure(asked.length >= ptype::MAP_BYTES as u64, Status::InvalidArgument)?;
        write(shared, asked.address, &ptype::map())
    }

    pub(super) fn link_speed(&mut self, shared: &Shared, asked: LinkSpeed) -> Answer {
        write(shared, asked.address, &u64::from(self.config.speed).to_be_bytes())
    }

    pub(super) fn nic_timestamp(&mut self, shared: &Shared, asked: Report) -> Answer {
        ensure(self.config.timestamps, Status::Unimplemented)?;
        ensure(asked.length >= NicTimestamp::SIZE as u64, Status::InvalidArgument)?;
        let report = NicTimestamp { nanoseconds: shared.clock().nanoseconds(), reserved: [0; 32] };
        write(shared, asked.address, &report.encode())
    }

    pub(super) fn set_parameter(&mut self, asked: SetParameter) -> Answer {
        ensure(asked.kind == PARAMETER_MTU, Status::InvalidArgument)?;
        let fits = |mtu: &u16| (MTU_MIN..=self.config.mtu).contains(mtu);
        let mtu = u16::try_from(asked.value).ok().filter(fits).ok_or(Status::OutOfRange)?;
        self.dirty.mtu |= self.mtu != mtu;
        self.mtu = mtu;
        Ok(())
    }
}
