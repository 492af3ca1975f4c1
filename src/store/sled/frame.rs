//! The frames that records and journals are made of, and the octets of one record in the spool.
//!
//! A record is a head, the body in frames of 64 KiB, and a tail with the message's description. Every frame has
//! a CRC-32C that also covers whose frame it is and its number, so no frame can pass for another. A record
//! without a sound tail does not exist. Heads carry the segment's nonce, 16 random octets that no sender can
//! know: content that imitates a record is never taken for one.
//!
//! Called by the spool, the scanner and the journal. Pure.

use crate::mail::QueueId;
use crate::store::kept::Kept;

use super::octets::{Garbled, In, Out};
use super::record::{put_kept, take_kept};

/// Octets of body in one frame; only the last has fewer.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Octets of a head.
pub(crate) const HEAD_BYTES: usize = 4 + 16 + 16 + 4;
/// Octets before the content of any other frame.
pub(crate) const FRAME_BYTES: usize = 4 + 4 + 4;
/// Octets before the first record of a segment, and before the first mark of a journal.
pub(crate) const FILE_HEAD_BYTES: usize = 8 + 8 + 16 + 4 + 4;
/// Longest content of a tail or a mark that is believed.
pub(crate) const TAIL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A segment's or a journal's own random octets.
pub(crate) type Nonce = [u8; 16];

const HEAD: [u8; 4] = *b"RsH1";
const BODY: [u8; 4] = *b"RsB1";
const TAIL: [u8; 4] = *b"RsT1";
const MARK: [u8; 4] = *b"RsJ1";

/// The first octets of a segment or journal.
pub(crate) fn file_head(magic: [u8; 8], number: u64, nonce: &Nonce, epoch: u32) -> Vec<u8> {
    let mut out = Out(magic.to_vec());
    out.u64(number);
    out.0.extend_from_slice(nonce);
    out.u32(epoch);
    let crc = crc32c::crc32c(&out.0);
    out.u32(crc);
    out.0
}

/// The epoch in a file's first octets, if they are sound.
pub(crate) fn file_epoch(octets: &[u8]) -> Option<u32> {
    let whole = octets.get(..FILE_HEAD_BYTES)?;
    let (said, crc) = whole.split_at(FILE_HEAD_BYTES - 4);
    let sound = crc32c::crc32c(said).to_be_bytes() == crc;
    let epoch = said.get(32..36)?.try_into().ok()?;
    sound.then(|| u32::from_be_bytes(epoch))
}

/// The head of a record.
pub(crate) fn put_head(out: &mut Vec<u8>, nonce: &Nonce, id: QueueId) {
    let start = out.len();
    out.extend_from_slice(&HEAD);
    out.extend_from_slice(nonce);
    out.extend_from_slice(&id.to_bits().to_be_bytes());
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// Whose record begins here, if one does.
pub(crate) fn take_head(octets: &[u8], nonce: &Nonce) -> Option<QueueId> {
    let head = octets.get(..HEAD_BYTES)?;
    let (said, crc) = head.split_at(HEAD_BYTES - 4);
    let sound = said.starts_with(&HEAD)
        && said[4..20] == *nonce
        && crc32c::crc32c(said).to_be_bytes() == crc;
    if !sound {
        return None;
    }
    Some(QueueId::from_bits(u128::from_be_bytes(said[20..36].try_into().ok()?)))
}

/// The first place at or after `from` where a record could begin.
pub(crate) fn find_head(octets: &[u8], nonce: &Nonce, from: usize) -> Option<usize> {
    let mut needle = HEAD.to_vec();
    needle.extend_from_slice(nonce);
    memchr::memmem::find(octets.get(from..)?, &needle).map(|at| from + at)
}

fn checksum(magic: [u8; 4], nonce: &Nonce, id: u128, number: u64, content: &[u8]) -> u32 {
    let mut said = [0; 52];
    said[..4].copy_from_slice(&magic);
    said[4..20].copy_from_slice(nonce);
    said[20..36].copy_from_slice(&id.to_be_bytes());
    said[36..44].copy_from_slice(&number.to_be_bytes());
    said[44..].copy_from_slice(&(content.len() as u64).to_be_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&said), content)
}

fn put(out: &mut Vec<u8>, magic: [u8; 4], nonce: &Nonce, id: u128, number: u64, content: &[u8]) {
    out.extend_from_slice(&magic);
    out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&checksum(magic, nonce, id, number, content).to_be_bytes());
    out.extend_from_slice(content);
}

/// The kind of a frame and the length of its content, from its first octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Body(usize),
    Tail(usize),
    Mark(usize),
}

/// What frame begins here, if one does; its content is not checked yet.
pub(crate) fn kind(octets: &[u8]) -> Option<Kind> {
    let len = u32::from_be_bytes(octets.get(4..8)?.try_into().ok()?);
    let len = usize::try_from(len).ok()?;
    match octets.get(..4)? {
        magic if magic == BODY && (1..=BODY_BYTES_MAX).contains(&len) => Some(Kind::Body(len)),
        magic if magic == TAIL && len <= TAIL_BYTES_MAX => Some(Kind::Tail(len)),
        magic if magic == MARK && len <= TAIL_BYTES_MAX => Some(Kind::Mark(len)),
        _ => None,
    }
}

fn content<'a>(
    octets: &'a [u8],
    magic: [u8; 4],
    nonce: &Nonce,
    id: u128,
    number: u64,
) -> Result<&'a [u8], Garbled> {
    let mut from = In(octets);
    let (said, len, crc) = (from.take(4)?, from.u32()?, from.u32()?);
    let content = from.take(usize::try_from(len).map_err(|_| Garbled)?)?;
    let sound = said == magic && checksum(magic, nonce, id, number, content) == crc;
    if sound { Ok(content) } else { Err(Garbled) }
}

/// Frame `number` of a body.
pub(crate) fn put_body(out: &mut Vec<u8>, nonce: &Nonce, id: QueueId, number: u64, octets: &[u8]) {
    put(out, BODY, nonce, id.to_bits(), number, octets);
}

/// The content of frame `number` of a body.
pub(crate) fn body<'a>(
    octets: &'a [u8],
    nonce: &Nonce,
    id: QueueId,
    number: u64,
) -> Result<&'a [u8], Garbled> {
    content(octets, BODY, nonce, id.to_bits(), number)
}

/// What the tail of a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    /// All before this place of the segment was durable when the record was written.
    pub(crate) synced: u64,
    /// Moved here by compaction, not by a sender.
    pub(crate) copy: bool,
    /// The message.
    pub(crate) kept: Kept,
}

/// The tail of a record; its number is that of body frames before it.
pub(crate) fn put_tail(out: &mut Vec<u8>, nonce: &Nonce, number: u64, tail: &Tail) {
    let mut said = Out(Vec::with_capacity(512));
    said.u64(tail.synced);
    said.flag(tail.copy);
    put_kept(&mut said, &tail.kept);
    put(out, TAIL, nonce, tail.kept.id.to_bits(), number, &said.0);
}

/// Reads the tail of the record of `id`.
pub(crate) fn tail(
    octets: &[u8],
    nonce: &Nonce,
    id: QueueId,
    number: u64,
) -> Result<Tail, Garbled> {
    let mut from = In(content(octets, TAIL, nonce, id.to_bits(), number)?);
    let tail = Tail { synced: from.u64()?, copy: from.flag()?, kept: take_kept(&mut from)? };
    from.end()?;
    let whole = tail.kept.size.div_ceil(BODY_BYTES_MAX as u64) == number && tail.kept.id == id;
    if whole { Ok(tail) } else { Err(Garbled) }
}

/// A mark of the journal that lies at `place`.
pub(crate) fn put_mark(out: &mut Vec<u8>, nonce: &Nonce, place: u64, said: &[u8]) {
    put(out, MARK, nonce, 0, place, said);
}

/// The content of the mark at `place`.
pub(crate) fn mark<'a>(octets: &'a [u8], nonce: &Nonce, place: u64) -> Result<&'a [u8], Garbled> {
    content(octets, MARK, nonce, 0, place)
}

/// The first place at or after `from` where a mark could begin.
pub(crate) fn find_mark(octets: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(octets.get(from..)?, &MARK).map(|at| from + at)
}

/// Where body frame `number` begins, from the record's first octet.
pub(crate) const fn body_offset(number: u64) -> u64 {
    HEAD_BYTES as u64 + number * (FRAME_BYTES + BODY_BYTES_MAX) as u64
}

/// Octets of a record with a body of `size` octets, its tail not counted.
pub(crate) const fn record_bytes(size: u64) -> u64 {
    let frames = size.div_ceil(BODY_BYTES_MAX as u64).saturating_mul(FRAME_BYTES as u64);
    size.saturating_add(frames).saturating_add(HEAD_BYTES as u64)
}
