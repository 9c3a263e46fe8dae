//! Rings of the DQO queue format: gve_desc_dqo.h. Unlike everything else they are little-endian.
//!
//! Bit fields of that header are laid out from the lowest bit, for the driver builds on little-endian machines alone.

pub mod rx;
pub mod tx;

/// An integer at an offset of a descriptor; 0 beyond its end.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
