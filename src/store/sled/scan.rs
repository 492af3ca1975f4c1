//! Reading a segment from end to end without an index: which records are in it, and what is unreadable.
//!
//! Called by recovery, by the rebuilding of the index and by `verify`. It reads in order, holds one record's
//! frames at most, and never writes.

use std::io;

use crate::mail::QueueId;

use super::disk::DiskFile;
use super::frame::{
    self, BODY_BYTES_MAX, FILE_HEAD_BYTES, FRAME_BYTES, HEAD_BYTES, Kind, Nonce, TAIL_BYTES_MAX,
    Tail,
};
use super::record::Location;

/// What lies at a place of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record with a sound tail. `sound_body` is false if its body was checked and is not what was written.
    Record { at: Location, tail: Box<Tail>, sound_body: bool },
    /// Octets that are no record, with the id if the head could be read.
    Unreadable { offset: u64, len: u64, id: Option<QueueId> },
    /// The segment ends inside a record: it was never finished.
    Unfinished { offset: u64, id: Option<QueueId> },
}

/// Whether the bodies are read and checked too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// All of them.
    Checked,
    /// None; only heads, frames' lengths and tails.
    Skipped,
}

/// A window that moves over a file.
struct Window<'a> {
    file: &'a dyn DiskFile,
    start: u64,
    octets: Vec<u8>,
}

/// How much is read at once.
const WINDOW_BYTES: usize = 512 * 1024;

impl Window<'_> {
    /// `len` octets at `offset`, or as many as there are.
    fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let inside =
            offset >= self.start && offset + len as u64 <= self.start + self.octets.len() as u64;
        if !inside {
            self.octets.resize(len.max(WINDOW_BYTES), 0);
            let got = self.file.read_at(&mut self.octets, offset)?;
            self.octets.truncate(got);
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let to = self.octets.len().min(from.saturating_add(len));
        Ok(self.octets.get(from..to).unwrap_or_default())
    }
}

enum Step {
    Found { end: u64, tail: Box<Tail>, sound_body: bool },
    Broken,
    Ended,
}

/// Tells `tell` what lies in the segment from `from` on (its start if zero), in order.
pub(crate) fn segment(
    file: &dyn DiskFile,
    number: u64,
    nonce: &Nonce,
    from: u64,
    bodies: Bodies,
    tell: &mut dyn FnMut(Found),
) -> io::Result<()> {
    let len = file.len()?;
    let mut window = Window { file, start: 0, octets: Vec::new() };
    let mut offset = from.max(FILE_HEAD_BYTES as u64);
    while offset < len {
        let id = frame::take_head(window.at(offset, HEAD_BYTES)?, nonce);
        let step = match id {
            Some(id) => record(&mut window, offset, nonce, id, bodies)?,
            None if len - offset < HEAD_BYTES as u64 => Step::Ended,
            None => Step::Broken,
        };
        match step {
            Step::Found { end, tail, sound_body } => {
                let at = Location { segment: number, offset, len: end - offset };
                tell(Found::Record { at, tail, sound_body });
                offset = end;
            }
            Step::Ended | Step::Broken => {
                let resumed = next_head(&mut window, offset + 1, len, nonce)?;
                match resumed {
                    Some(next) => tell(Found::Unreadable { offset, len: next - offset, id }),
                    None => tell(Found::Unfinished { offset, id }),
                }
                offset = resumed.unwrap_or(len);
            }
        }
    }
    Ok(())
}

/// The record at `offset`, its body not looked at; `None` if there is none.
pub(crate) fn one(file: &dyn DiskFile, nonce: &Nonce, offset: u64) -> io::Result<Option<Tail>> {
    let mut window = Window { file, start: 0, octets: Vec::new() };
    let Some(id) = frame::take_head(window.at(offset, HEAD_BYTES)?, nonce) else {
        return Ok(None);
    };
    match record(&mut window, offset, nonce, id, Bodies::Skipped)? {
        Step::Found { tail, .. } => Ok(Some(*tail)),
        Step::Broken | Step::Ended => Ok(None),
    }
}

fn record(
    window: &mut Window<'_>,
    offset: u64,
    nonce: &Nonce,
    id: QueueId,
    bodies: Bodies,
) -> io::Result<Step> {
    let mut place = offset + HEAD_BYTES as u64;
    let mut sound_body = true;
    for number in 0.. {
        let first = window.at(place, FRAME_BYTES)?;
        if first.len() < FRAME_BYTES {
            return Ok(Step::Ended);
        }
        match frame::kind(first) {
            Some(Kind::Body(len)) => {
                let whole = FRAME_BYTES + len;
                if bodies == Bodies::Checked {
                    let octets = window.at(place, whole)?;
                    sound_body &= frame::body(octets, nonce, id, number).is_ok();
                }
                place += whole as u64;
            }
            Some(Kind::Tail(len)) => {
                let whole = FRAME_BYTES + len;
                let octets = window.at(place, whole)?;
                if octets.len() < whole {
                    return Ok(Step::Ended);
                }
                return Ok(match frame::tail(octets, nonce, id, number) {
                    Ok(tail) => {
                        Step::Found { end: place + whole as u64, tail: Box::new(tail), sound_body }
                    }
                    Err(_) => Step::Broken,
                });
            }
            // A frame's own first octets are damaged: the rest is found by the next head.
            Some(Kind::Mark(_)) | None => return Ok(Step::Broken),
        }
    }
    Ok(Step::Broken)
}

/// The next place from `from` on where a record could begin. The nonce in it is not known to any sender.
fn next_head(
    window: &mut Window<'_>,
    from: u64,
    len: u64,
    nonce: &Nonce,
) -> io::Result<Option<u64>> {
    let mut place = from;
    while place < len {
        let octets = window.at(place, WINDOW_BYTES)?;
        let got = octets.len();
        let mut start = 0;
        while let Some(hit) = frame::find_head(octets, nonce, start) {
            if hit + HEAD_BYTES > got && place + (got as u64) < len {
                break;
            }
            if frame::take_head(&octets[hit..], nonce).is_some() {
                return Ok(Some(place + hit as u64));
            }
            start = hit + 1;
        }
        if got < HEAD_BYTES || place + got as u64 >= len {
            return Ok(None);
        }
        // The windows overlap by a head, so that none is missed between two of them.
        place += (got - HEAD_BYTES + 1) as u64;
    }
    Ok(None)
}

/// Octets that a window may hold for one record's frames: the largest tail.
const _: () = assert!(TAIL_BYTES_MAX > BODY_BYTES_MAX);
