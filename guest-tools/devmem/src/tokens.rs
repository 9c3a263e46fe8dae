//! Fragments of device memory that are done with, in as few calls as the kernel lets one return them.
//!
//! The kernel (net/core/sock.c, `sock_devmem_dontneed`) takes 128 tokens and 1024 fragments a call. It hands out the lowest
//! free numbers, so those of one recvmsg mostly follow each other, and a token stands for a run of them.

/// Most tokens in a call.
pub const MOST_TOKENS: usize = 128;
/// Most fragments in a call.
pub const MOST_FRAGMENTS: u32 = 1024;

/// A run of fragments: `struct dmabuf_token` of linux/uio.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Token {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// What is to be returned by the next call.
#[derive(Debug, Default)]
pub struct Batch {
    tokens: Vec<Token>,
    fragments: u32,
}

impl Batch {
    /// Adds a fragment. What comes back is a full batch, to be returned before.
    #[must_use]
    pub fn push(&mut self, fragment: u32) -> Option<(Vec<Token>, u32)> {
        let joins = self.tokens.last().is_some_and(|last| last.start.checked_add(last.count) == Some(fragment));
        let full = self.fragments == MOST_FRAGMENTS || (!joins && self.tokens.len() == MOST_TOKENS);
        let before = if full { self.take() } else { None };
        match self.tokens.last_mut().filter(|_| joins) {
            Some(last) => last.count += 1,
            None => self.tokens.push(Token { start: fragment, count: 1 }),
        }
        self.fragments += 1;
        before
    }

    /// Takes what there is: tokens, and the fragments they stand for.
    pub fn take(&mut self) -> Option<(Vec<Token>, u32)> {
        let fragments = std::mem::take(&mut self.fragments);
        (fragments > 0).then(|| (std::mem::take(&mut self.tokens), fragments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(fragments: impl Iterator<Item = u32>) -> Vec<(Vec<Token>, u32)> {
        let mut batch = Batch::default();
        let mut all: Vec<_> = fragments.filter_map(|fragment| batch.push(fragment)).collect();
        all.extend(batch.take());
        all
    }

    #[test]
    fn runs_become_one_token() {
        let made = batches([3, 4, 5, 9, 8, 0].into_iter());
        let tokens = [(3, 3), (9, 1), (8, 1), (0, 1)].map(|(start, count)| Token { start, count });
        assert_eq!(made, [(tokens.to_vec(), 6)]);
        assert_eq!(batches(std::iter::empty()), []);
        // The number after the last one is not the first.
        assert_eq!(batches([u32::MAX, 0].into_iter())[0].0.len(), 2);
    }

    #[test]
    fn no_call_has_more_than_the_kernel_takes() {
        for step in [1, 2] {
            let made = batches((0..5000).map(|n| n * step));
            let most = if step == 1 { 1024 } else { 128 };
            assert_eq!(made.iter().map(|(_, fragments)| fragments).sum::<u32>(), 5000);
            assert_eq!(made.len(), 5000_usize.div_ceil(most));
            let mut next = 0;
            for (tokens, fragments) in made {
                assert!(tokens.len() <= MOST_TOKENS && fragments <= MOST_FRAGMENTS);
                assert_eq!(tokens.iter().map(|token| token.count).sum::<u32>(), fragments);
                for token in tokens {
                    assert_eq!(token.start, next);
                    next += token.count * step;
                }
            }
        }
    }
}
