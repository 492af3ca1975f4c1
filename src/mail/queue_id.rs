//! The name of a held message: 128 bits, ordered by time of arrival, 26 characters when written.

use std::fmt;

/// Crockford's base 32: no I, L, O, U, so that an id can be read aloud.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The id of a message in the queue. The upper 48 bits are milliseconds since 1970, the rest is a counter and
/// chance, so ids made later compare greater. Opaque to everybody but the store and the clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(u128);

/// The text is no queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIdError;

impl fmt::Display for QueueIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a queue id has 26 characters of 0-9 and A-Z without I, L, O, U")
    }
}

impl std::error::Error for QueueIdError {}

impl QueueId {
    /// Takes the bits as they are.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits; big-endian order of their bytes is order of arrival.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        self.0
    }

    /// An id for a message that arrived at `milliseconds` since 1970; `rest` fills the lower 80 bits.
    #[must_use]
    pub const fn at(milliseconds: u64, rest: u128) -> Self {
        Self(((milliseconds as u128) << 80) | (rest & ((1 << 80) - 1)))
    }

    /// Milliseconds since 1970 at which the message arrived.
    #[must_use]
    pub const fn milliseconds(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 26];
        for (place, slot) in text.iter_mut().rev().enumerate() {
            *slot = ALPHABET[((self.0 >> (5 * place)) & 31) as usize];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

impl std::str::FromStr for QueueId {
    type Err = QueueIdError;
    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        if text.len() != 26 {
            return Err(QueueIdError);
        }
        let mut bits = 0u128;
        for (place, byte) in text.bytes().enumerate() {
            let digit =
                ALPHABET.iter().position(|a| a.eq_ignore_ascii_case(&byte)).ok_or(QueueIdError)?;
            if place == 0 && digit > 7 {
                return Err(QueueIdError);
            }
            bits = (bits << 5) | digit as u128;
        }
        Ok(Self(bits))
    }
}

impl serde::Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_sorts_like_the_bits() {
        let ids = [0, 1, 31, 32, u128::MAX >> 1, u128::MAX].map(QueueId::from_bits);
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].to_string() < pair[1].to_string());
        }
        for id in ids {
            assert_eq!(id.to_string().parse::<QueueId>(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse::<QueueId>(), Ok(id));
        }
        assert_eq!(QueueId::at(1_700_000_000_000, 7).milliseconds(), 1_700_000_000_000);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "0",
            "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
            "U0000000000000000000000000",
            "000000000000000000000000000",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(QueueIdError), "{text}");
        }
    }
}
