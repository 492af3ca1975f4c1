//! BDAT: content in chunks of known length.
//!
//! Called by the dispatch and, for the octets of a chunk, by the session. A chunk that cannot be taken is swallowed
//! first and refused then, so that its octets never become commands (CVE-2017-16943 and its kin).
//!
//! Keeps RFC 3030 §2 and §4.2. BINARYMIME is not offered: lines follow the same rule as in DATA (see `data`).
//!
//! Deviation: a size that cannot be read ends the session behind the 501, since nobody could tell the octets of
//! the chunk from commands.

use super::content;
use super::phase::{Chunk, Chunked, Next, Parked, Phase, Sink, Spoilt, Transaction};
use super::talk::Talk;
use crate::smtp::refusal::Refusal;
use crate::smtp::{Door, Question};

/// BDAT.
pub(super) fn bdat(argument: &str, phase: Phase, talk: &mut Talk<'_>) -> Next {
    let Some((size, is_last)) = read(argument) else {
        return talk.refuse(Refusal::ChunkSize, phase);
    };
    if let Err(refusal) = check(&phase, talk.common.door) {
        let sink = Sink::Nowhere(refusal, Box::new(phase));
        return Next::Go(Phase::Chunk(Chunk { sink, left: size, size, is_last }));
    }
    match phase {
        Phase::Transaction(transaction) => {
            let question = Question::Content(content::request(&transaction));
            Next::park(Parked::Chunk(*transaction, size, is_last), question, talk)
        }
        Phase::Chunked(chunked) => {
            let sink = Sink::Body(chunked);
            Next::Go(Phase::Chunk(Chunk { sink, left: size, size, is_last }))
        }
        phase => talk.refuse(Refusal::BadSequence, phase),
    }
}

/// `size [LAST]`: digits that a u64 holds.
fn read(argument: &str) -> Option<(u64, bool)> {
    let (digits, last) = argument.split_once(' ').unwrap_or((argument, ""));
    let is_last = last.trim_matches(' ').eq_ignore_ascii_case("LAST");
    let sound = digits.bytes().all(|b| b.is_ascii_digit()) && (is_last || last.trim().is_empty());
    let size = digits.parse().ok().filter(|_| sound)?;
    Some((size, is_last))
}

/// Whether a chunk may stand here.
fn check(phase: &Phase, door: Door) -> Result<(), Refusal> {
    match phase {
        _ if door != Door::Mx => Err(Refusal::NotHere),
        Phase::Fresh => Err(Refusal::HelloFirst),
        Phase::Chunked(_) => Ok(()),
        Phase::Transaction(transaction) => content::check_recipients(transaction),
        Phase::Spoilt(_) => Err(Refusal::ChunkRefused),
        _ => Err(Refusal::BadSequence),
    }
}

/// The provider has opened a body for the first chunk, or not.
pub(super) fn opened(
    transaction: Transaction,
    size: u64,
    is_last: bool,
    verdict: Result<(), Refusal>,
    talk: &mut Talk<'_>,
) -> Next {
    let sink = match verdict {
        Ok(()) => {
            Sink::Body(Box::new(Chunked { transaction, content: content::new_content(talk) }))
        }
        Err(refusal) => {
            let Transaction { hello, account, .. } = transaction;
            let spoilt = Phase::Spoilt(Spoilt { hello, account });
            Sink::Nowhere(refusal, Box::new(spoilt))
        }
    };
    Next::Go(Phase::Chunk(Chunk { sink, left: size, size, is_last }))
}

/// Takes what has come of a chunk; gives the phase back if octets are missing.
pub(super) fn take(mut chunk: Chunk, talk: &mut Talk<'_>) -> Result<Next, Chunk> {
    let waiting = talk.common.inbox.waiting();
    let count = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(waiting.len());
    if let Sink::Body(chunked) = &mut chunk.sink {
        let piece = waiting[..count].to_vec();
        content::store(&mut chunked.content, piece, talk);
    }
    talk.common.inbox.consume(count);
    chunk.left -= count as u64;
    if chunk.left > 0 {
        return Err(chunk);
    }
    Ok(complete(chunk, talk))
}

/// All octets of a chunk are here.
fn complete(chunk: Chunk, talk: &mut Talk<'_>) -> Next {
    let chunked = match chunk.sink {
        Sink::Nowhere(refusal, phase) => {
            return talk.refuse_noted(refusal, "BDAT", None, None, *phase);
        }
        Sink::Body(chunked) => chunked,
    };
    if chunk.is_last {
        return content::finish(chunked.transaction, chunked.content, talk);
    }
    if let Some(refusal) = chunked.content.fault() {
        let from = Some(chunked.transaction.reverse_path.to_string());
        let Transaction { hello, account, .. } = chunked.transaction;
        let phase = Phase::Spoilt(Spoilt { hello, account });
        return talk.refuse_noted(refusal, "content", from, None, phase);
    }
    talk.okay(format!("{} octets received", chunk.size));
    Next::Go(Phase::Chunked(chunked))
}
