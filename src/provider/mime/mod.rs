//! MIME, as far as a relay needs it: 8-bit content made 7-bit without loss, for servers without 8BITMIME.
//!
//! Called by the drain when a customer's server lacks 8BITMIME, and by the reports for their own parts. A message
//! is walked line by line, twice: a [`Planner`] looks whether and where something has to be done, a [`Converter`]
//! does it. Memory is bounded whatever the message; what cannot be converted without loss, or must not be because
//! it is signed or encrypted, is said and left alone.
//!
//! Keeps RFC 6152 §3, RFC 2045 §6 (encodings, and where they may stand), RFC 2046 §5.1 (boundaries), RFC 1847
//! (signed and encrypted parts are not touched), RFC 1428 (`unknown-8bit`).

mod convert;
mod encode;
mod header;
mod plan;
mod walk;

#[cfg(test)]
mod tests;

pub use convert::Converter;
pub use encode::{Quoted, quoted_text};
pub use plan::{Plan, Planner};

/// Most entities in one message; more are not looked into.
pub const ENTITIES_MAX: usize = 4096;
/// Deepest nesting of parts.
pub const DEPTH_MAX: usize = 32;
/// Longest line, octets without CRLF; the intake takes no longer ones.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Why a message cannot be made 7-bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Octets above 127 in a header section; there is no encoding for them that is surely right.
    Header,
    /// In a signed or encrypted part, which must stay as it is.
    Sealed,
    /// In a part that is encoded already, or of a type that may not be.
    Encoded,
    /// Between the parts.
    BetweenParts,
    /// A structure that two readers might read differently.
    Structure,
    /// Too many parts, too deep, or a line too long.
    TooComplex,
}

impl Obstacle {
    /// For logs and reports.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Header => "its header has 8-bit octets",
            Self::Sealed => "the 8-bit part is signed or encrypted",
            Self::Encoded => "the 8-bit part is of a kind that may not be encoded",
            Self::BetweenParts => "there are 8-bit octets between its parts",
            Self::Structure => "its MIME structure is not sound",
            Self::TooComplex => "its MIME structure is too complex",
        }
    }
}

/// Cuts a stream of octets into lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Gives each whole line, without its CRLF, to `each`. The content has CRLF line ends only.
    fn feed(
        &mut self,
        mut octets: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Obstacle>,
    ) -> Result<(), Obstacle> {
        while let Some(end) = memchr::memchr(b'\n', octets) {
            let (head, rest) = octets.split_at(end + 1);
            octets = rest;
            if self.begun.is_empty() {
                each(without_end(head))?;
            } else {
                let mut line = std::mem::take(&mut self.begun);
                line.extend_from_slice(head);
                each(without_end(&line))?;
                line.clear();
                self.begun = line;
            }
        }
        if self.begun.len() + octets.len() > LINE_BYTES_MAX {
            return Err(Obstacle::TooComplex);
        }
        self.begun.extend_from_slice(octets);
        Ok(())
    }

    /// What follows the last line end, if anything.
    fn rest(self) -> Option<Vec<u8>> {
        (!self.begun.is_empty()).then_some(self.begun)
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
