//! What the shell carries: whoever speaks over a wire, seen from the side of the bytes.
//!
//! Implemented by the drain; a relay can implement it as well. The shell moves octets between a wire and an
//! errand and knows nothing else of it.

use std::collections::VecDeque;
use std::task::Context;

use bytes::{Buf, Bytes, BytesMut};

/// Somebody who speaks over a wire and decides everything about it.
pub trait Errand: Send {
    /// Octets came in.
    fn received(&mut self, octets: &[u8]);

    /// The peer closed, or the wire broke; nothing will come any more.
    fn ended(&mut self);

    /// The provider stops: come to an end at the next safe point.
    fn stop(&mut self);

    /// Does what can be done now, and sees to being woken when there is more. True if anything changed: then
    /// the shell tries to write, and calls again.
    fn work(&mut self, context: &mut Context<'_>) -> bool;

    /// What waits to be written.
    fn outbox(&mut self) -> &mut Outbox;

    /// So many octets of the outbox were handed to the wire.
    fn left(&mut self, octets: usize);

    /// Whether it is over and the wire can be closed.
    fn is_over(&self) -> bool;
}

/// Octets on their way to the wire, in the portions in which they are to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    portions: VecDeque<Bytes>,
    /// Small ones, behind all of these, gathered so that a write is worth its price. Its room is used again and again.
    gathered: BytesMut,
    octets: usize,
    is_by_line: bool,
}

/// A portion of this size or more is passed on as it is, without being copied; in octets.
const WHOLE_BYTES: usize = 16 << 10;

impl Outbox {
    /// Every portion is to be written and flushed for itself (see `Style::line_by_line`).
    pub fn keep_portions(&mut self) {
        self.is_by_line = true;
    }

    /// Appends.
    pub fn push(&mut self, octets: Bytes) {
        self.octets += octets.len();
        if !self.is_by_line && octets.len() < WHOLE_BYTES {
            self.gathered.extend_from_slice(&octets);
            return;
        }
        if !self.gathered.is_empty() {
            self.portions.push_back(self.gathered.split().freeze());
        }
        if !octets.is_empty() {
            self.portions.push_back(octets);
        }
    }

    /// The portion to write next, from where it was left.
    #[must_use]
    pub fn first(&self) -> Option<&[u8]> {
        let gathered = (!self.gathered.is_empty()).then_some(&*self.gathered);
        self.portions.front().map(|portion| &**portion).or(gathered)
    }

    /// So many octets of [`Outbox::first`] were written. True if that ended a portion that is to be flushed for
    /// itself.
    pub fn advance(&mut self, octets: usize) -> bool {
        self.octets -= octets;
        let Some(portion) = self.portions.front_mut() else {
            self.gathered.advance(octets);
            return false;
        };
        portion.advance(octets);
        if !portion.is_empty() {
            return false;
        }
        self.portions.pop_front();
        self.is_by_line
    }

    /// Gives back the room of busier moments: thousands of idle customers must not each keep it.
    pub fn rest(&mut self) {
        if self.is_empty() {
            (self.portions, self.gathered) = (VecDeque::new(), BytesMut::new());
        }
    }

    /// Whether chunks of a large message wait, which are passed on as they are.
    #[must_use]
    pub fn has_chunks(&self) -> bool {
        !self.portions.is_empty()
    }

    /// Octets waiting.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.octets
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.octets == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drained(outbox: &mut Outbox) -> Vec<Vec<u8>> {
        let mut portions = Vec::new();
        while let Some(first) = outbox.first() {
            let portion = first.to_vec();
            outbox.advance(1);
            outbox.advance(portion.len() - 1);
            portions.push(portion);
        }
        assert!(outbox.is_empty());
        portions
    }

    #[test]
    fn small_portions_are_gathered_and_large_ones_kept() {
        let mut outbox = Outbox::default();
        for part in [b"ab".to_vec(), b"cd".to_vec(), vec![b'x'; WHOLE_BYTES], b"e".to_vec()] {
            outbox.push(part.into());
        }
        outbox.push(Bytes::new());
        outbox.push(Bytes::from_static(b"f"));
        assert_eq!(outbox.len(), 6 + WHOLE_BYTES);
        let whole = vec![b'x'; WHOLE_BYTES];
        assert_eq!(drained(&mut outbox), [&b"abcd"[..], &whole, b"ef"]);
    }

    proptest! {
        #[test]
        fn octets_keep_their_order(
            steps in proptest::collection::vec((0..3 * WHOLE_BYTES / 2, any::<bool>()), 1..40),
        ) {
            let (mut outbox, mut pushed, mut gone) = (Outbox::default(), Vec::new(), Vec::new());
            for (number, (octets, pushes)) in steps.into_iter().enumerate() {
                if pushes {
                    // Large ones, small ones, and empty ones.
                    let octets = if number % 3 == 0 { octets / 400 } else { octets };
                    let part: Vec<u8> =
                        (0..octets).map(|n| (pushed.len() + n) as u8).collect();
                    pushed.extend_from_slice(&part);
                    outbox.push(part.into());
                } else if let Some(first) = outbox.first().map(<[u8]>::to_vec) {
                    let octets = first.len().min(octets.max(1));
                    gone.extend_from_slice(&first[..octets]);
                    outbox.advance(octets);
                }
                outbox.rest();
                prop_assert_eq!(outbox.len(), pushed.len() - gone.len());
                prop_assert_eq!(outbox.first().is_none(), outbox.is_empty());
            }
            gone.extend(drained(&mut outbox).concat());
            prop_assert!(gone == pushed);
        }
    }

    #[test]
    fn portions_stay_apart_by_line() {
        let mut outbox = Outbox::default();
        outbox.keep_portions();
        outbox.push(Bytes::from_static(b"a\r\n"));
        outbox.push(Bytes::from_static(b"b\r\n"));
        assert!(!outbox.advance(2));
        assert!(outbox.advance(1));
        assert_eq!(outbox.first(), Some(&b"b\r\n"[..]));
    }
}
