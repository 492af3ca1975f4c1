//! Memory for what is read of many bodies at once.
//!
//! Used by the readers. A drain of small messages reads a hundred KiB, passes them on and forgets them, again and again:
//! asking the system for such a piece each time, and touching its pages for the first time, costs more than the reading.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::shared::locked;
use super::sync::Mutex;

/// Octets of the blocks that are kept: one for a chunk of a large body or a few small ones, one for many.
const BLOCK_BYTES: [usize; 2] = [80 << 10, 160 << 10];
/// Less than this is not worth a block.
const WORTH_BYTES: usize = 48 << 10;
/// Blocks of a size that nobody uses and that are kept.
const SPARE_MAX: usize = 8;

type Spare = Mutex<Vec<Vec<u8>>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Blocks([Arc<Spare>; 2]);

/// A piece of memory that goes back when the last part of it is forgotten.
#[derive(Debug)]
pub(crate) struct Block {
    octets: Vec<u8>,
    home: Weak<Spare>,
}

impl Blocks {
    /// At least `need` octets, of any content.
    pub(crate) fn take(&self, need: usize) -> Block {
        let fitting = BLOCK_BYTES.into_iter().zip(&self.0).find(|(bytes, _)| need <= *bytes);
        let Some((bytes, home)) = fitting.filter(|_| need >= WORTH_BYTES) else {
            return Block { octets: vec![0; need], home: Weak::new() };
        };
        let spare = locked(home).pop();
        let octets = spare.unwrap_or_else(|| vec![0; bytes]);
        Block { octets, home: Arc::downgrade(home) }
    }
}

impl Block {
    /// To be written to.
    pub(crate) fn octets(&mut self) -> &mut [u8] {
        &mut self.octets
    }

    /// To be shared.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut spare = locked(&home);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.octets));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_back_with_its_last_part() {
        shuttle::check_random(
            || {
                let blocks = Blocks::default();
                let spare = || [0, 1].map(|size| locked(&blocks.0[size]).len());
                let mut block = blocks.take(100 << 10);
                block.octets()[7] = 9;
                let whole = block.freeze();
                let part = whole.slice(5..10);
                drop(whole);
                assert_eq!((spare(), part[2]), ([0, 0], 9));
                drop(part);
                assert_eq!(spare(), [0, 1]);
                let many: Vec<Block> =
                    (0..SPARE_MAX + 5).map(|_| blocks.take(BLOCK_BYTES[1])).collect();
                assert_eq!(spare(), [0, 0], "it was taken again");
                drop(many);
                assert_eq!(spare(), [0, SPARE_MAX], "no more are kept");
                drop((blocks.take(1), blocks.take(BLOCK_BYTES[1] + 1)));
                assert_eq!(spare(), [0, SPARE_MAX], "pieces of other sizes are not kept");
                drop(blocks.take(64 << 10));
                assert_eq!(spare(), [1, SPARE_MAX], "a chunk does not take a large block");
            },
            1,
        );
    }
}
