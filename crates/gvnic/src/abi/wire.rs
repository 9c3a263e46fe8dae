//! Big-endian structs: a layout is written down once, as a list of fields, and its size is asserted while compiling.
//!
//! In: bytes that were copied from the guest. Out: plain values, so that nothing is read from the guest twice.

/// Something with a fixed place on the wire.
pub trait Wire: Sized {
    /// Its length in bytes.
    const SIZE: usize;
    /// Takes it from the front of what is left.
    fn take(from: &mut Source<'_>) -> Self;
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);

    /// Reads it from the front of `bytes`; `None` when they are too few.
    fn decode(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= Self::SIZE).then(|| Self::take(&mut Source(bytes)))
    }

    /// Its bytes.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        self.put(&mut bytes);
        bytes
    }
}

/// Bytes that are left to read.
#[derive(Debug)]
pub struct Source<'a>(&'a [u8]);

impl Source<'_> {
    /// The next `N` bytes. Zeros stand for those that are missing: [`Wire::decode`] has looked before.
    fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    const SIZE: usize = N;

    fn take(from: &mut Source<'_>) -> Self {
        from.next()
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            const SIZE: usize = size_of::<$int>();

            fn take(from: &mut Source<'_>) -> Self {
                <$int>::from_be_bytes(from.next())
            }

            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

/// Declares a wire struct: `struct Name[bytes] { field: type, … }`, fields in their order on the wire.
macro_rules! wire {
    ($($(#[$meta:meta])* struct $name:ident[$size:literal] { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::abi::wire::Wire for $name {
            const SIZE: usize = $size;

            fn take(from: &mut $crate::abi::wire::Source<'_>) -> Self {
                $name { $($field: <$type as $crate::abi::wire::Wire>::take(from),)* }
            }

            fn put(&self, to: &mut Vec<u8>) {
                $($crate::abi::wire::Wire::put(&self.$field, to);)*
            }
        }

        const _: () = assert!(0 $(+ <$type as $crate::abi::wire::Wire>::SIZE)* == $size);
    )*};
}

pub(crate) use wire;

#[cfg(test)]
mod tests {
    use super::*;

    wire! {
        /// A sample.
        struct Sample[11] {
            /// A number.
            number: u32,
            /// Bytes.
            bytes: [u8; 3],
            /// Nested twice.
            nested: [u8; 2],
            /// Another.
            small: u16,
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_big_endian() {
        let sample = Sample { number: 0x0102_0304, bytes: [5, 6, 7], nested: [8, 9], small: 0x0a0b };
        let bytes = sample.encode();
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(Sample::decode(&bytes), Some(sample));
        assert_eq!(Sample::decode(&bytes[..10]), None, "a byte short");
        assert_eq!(Sample::decode(&[&bytes[..], &[0xff]].concat()), Some(sample), "what follows is not its own");
    }
}
