//! How frames are spread over RX queues.

use super::{Answer, ensure, read, write};
use crate::abi::adminq::Status;
use crate::abi::rss::{ConfigureRss, HASH_ALL, HASH_TOEPLITZ, KEY_BYTES, LUT_ENTRIES, QueryRss, RssDescriptor};
use crate::abi::wire::Wire;
use crate::device::Device;
use crate::shared::Shared;

/// Bytes of the table on the wire.
const LUT_BYTES: usize = LUT_ENTRIES * 4;

impl Device {
    /// Zeros leave what was; what is there is taken all together or not at all.
    pub(super) fn configure_rss(&mut self, shared: &Shared, asked: ConfigureRss) -> Answer {
        ensure([0, HASH_TOEPLITZ].contains(&asked.algorithm), Status::InvalidArgument)?;
        ensure(asked.hash_types & !HASH_ALL == 0, Status::InvalidArgument)?;
        ensure([0, KEY_BYTES].contains(&usize::from(asked.key_size)), Status::InvalidArgument)?;
        ensure([0, LUT_ENTRIES].contains(&usize::from(asked.lut_size)), Status::InvalidArgument)?;
        let mut spread = self.spread.clone();
        if asked.hash_types != 0 {
            spread.types = asked.hash_types;
        }
        if asked.key_size != 0 {
            spread.key = read(shared, asked.key)?;
        }
        if asked.lut_size != 0 {
            let entries: [u8; LUT_BYTES] = read(shared, asked.lut)?;
            let mut lut = [0; LUT_ENTRIES];
            // The queues need not be there yet: the driver configures the table first (`gve_setup_device_resources`,
            // gve_main.c).
            for (queue, entry) in lut.iter_mut().zip(entries.as_chunks::<4>().0) {
                let wanted = u16::try_from(u32::from_be_bytes(*entry)).ok();
                *queue = wanted.filter(|q| *q < self.config.queue_pairs).ok_or(Status::OutOfRange)?;
            }
            spread.lut = Some(lut);
        }
        self.spread = spread;
        self.dirty.spread = true;
        Ok(())
    }

    pub(super) fn query_rss(&mut self, shared: &Shared, asked: QueryRss) -> Answer {
        ensure(self.config.rss_query, Status::Unimplemented)?;
        let length = RssDescriptor::SIZE + KEY_BYTES + LUT_BYTES;
        ensure(asked.available >= length as u64, Status::InvalidArgument)?;
        let mut answer = RssDescriptor {
            total_length: length as u32,
            hash_types: self.spread.types,
            algorithm: HASH_TOEPLITZ,
            reserved: 0,
        }
        .encode();
        self.spread.key.put(&mut answer);
        self.spread.table().iter().for_each(|queue| u32::from(*queue).put(&mut answer));
        write(shared, asked.address, &answer)
    }
}
