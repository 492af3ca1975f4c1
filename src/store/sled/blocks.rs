//! Memory for what is read of many bodies at once.
//!
//! Used by the readers. A drain of small messages reads a hundred KiB, passes them on and forgets them, again and again:
//! asking the system for such a piece each time, and touching its pages for the first time, costs more than the reading.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::shared::locked;
use super::sync::Mutex;

/// Octets of a block.
const BLOCK_BYTES: usize = 160 << 10;
/// Less than this is not worth a block.
const WORTH_BYTES: usize = 48 << 10;
/// Blocks that nobody uses and that are kept.
const SPARE_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Arc<Mutex<Vec<Vec<u8>>>>);

/// A piece of memory that goes back when the last part of it is forgotten.
#[derive(Debug)]
pub(crate) struct Block {
    octets: Vec<u8>,
    home: Weak<Mutex<Vec<Vec<u8>>>>,
}

impl Blocks {
    /// At least `need` octets, of any content.
    pub(crate) fn take(&self, need: usize) -> Block {
        if !(WORTH_BYTES..=BLOCK_BYTES).contains(&need) {
            return Block { octets: vec![0; need], home: Weak::new() };
        }
        let spare = locked(&self.0).pop();
        let octets = spare.unwrap_or_else(|| vec![0; BLOCK_BYTES]);
        Block { octets, home: Arc::downgrade(&self.0) }
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
                let spare = || locked(&blocks.0).len();
                let mut block = blocks.take(100 << 10);
                block.octets()[7] = 9;
                let whole = block.freeze();
                let part = whole.slice(5..10);
                drop(whole);
                assert_eq!((spare(), part[2]), (0, 9));
                drop(part);
                assert_eq!(spare(), 1);
                let many: Vec<Block> =
                    (0..SPARE_MAX + 5).map(|_| blocks.take(BLOCK_BYTES)).collect();
                assert_eq!(spare(), 0, "it was taken again");
                drop(many);
                assert_eq!(spare(), SPARE_MAX, "no more are kept");
                drop((blocks.take(1), blocks.take(BLOCK_BYTES + 1)));
                assert_eq!(spare(), SPARE_MAX, "pieces of other sizes are not kept");
            },
            1,
        );
    }
}
