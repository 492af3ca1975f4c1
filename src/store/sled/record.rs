//! Layout 1 of what is written down about a message: its description (in the spool and in the index) and the
//! marks that change it (in the journal).
//!
//! Called by the spool, the journal and the index. Pure. A layout, once shipped, is never changed here: a new
//! one is a new step under `migrations/`.

use crate::mail::{
    BodyKind, ContentFacts, CustomerName, DsnRequest, Envelope, ForwardPath, Notify, QueueId,
    Recipient, RecipientState, ReplyText, Ret, ReversePath, Timestamp,
};
use crate::store::HeldRecipient;
use crate::store::kept::{Kept, KeptRecipient};

use super::octets::{Garbled, In, Out};

/// Where a record lies in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment's number.
    pub(crate) segment: u64,
    /// Of the record's first octet.
    pub(crate) offset: u64,
    /// Octets of the whole record.
    pub(crate) len: u64,
}

pub(crate) fn put_location(out: &mut Out, at: Location) {
    out.u64(at.segment);
    out.u64(at.offset);
    out.u64(at.len);
}

pub(crate) fn take_location(from: &mut In<'_>) -> Result<Location, Garbled> {
    Ok(Location { segment: from.u64()?, offset: from.u64()?, len: from.u64()? })
}

/// Writes a message's description.
pub(crate) fn put_kept(out: &mut Out, kept: &Kept) {
    out.u128(kept.id.to_bits());
    out.u64(kept.arrived.0);
    out.u64(kept.size);
    out.flag(kept.damaged);
    let envelope = &kept.envelope;
    out.text(envelope.reverse_path.as_str());
    out.flag(envelope.body == BodyKind::EightBitMime);
    out.flag(envelope.smtputf8);
    out.maybe_text(envelope.dsn.envid.as_deref());
    out.u8(match envelope.dsn.ret {
        None => 0,
        Some(Ret::Full) => 1,
        Some(Ret::Headers) => 2,
    });
    let facts = &kept.facts;
    out.u64(facts.size);
    out.flag(facts.has_8bit_body);
    out.flag(facts.has_8bit_header);
    out.u64(facts.line_bytes_longest);
    out.u32(facts.received_count);
    out.maybe_text(facts.message_id.as_deref());
    out.u32(u32::try_from(kept.recipients.len()).unwrap_or(u32::MAX));
    for recipient in &kept.recipients {
        let seen = &recipient.seen;
        out.text(seen.recipient.forward_path.as_str());
        out.u8(match seen.recipient.notify {
            None => 0,
            Some(n) => {
                0x80 | u8::from(n.success) | u8::from(n.failure) << 1 | u8::from(n.delay) << 2
            }
        });
        out.maybe_text(seen.recipient.orcpt.as_deref());
        out.text(seen.owner.as_str());
        out.u64(seen.expires.0);
        Standing::of(recipient).put(out);
    }
}

/// Reads what [`put_kept`] wrote.
pub(crate) fn take_kept(from: &mut In<'_>) -> Result<Kept, Garbled> {
    let id = QueueId::from_bits(from.u128()?);
    let arrived = Timestamp(from.u64()?);
    let size = from.u64()?;
    let damaged = from.flag()?;
    let reverse_path = ReversePath::parse(from.text()?).map_err(|_| Garbled)?;
    let body = if from.flag()? { BodyKind::EightBitMime } else { BodyKind::SevenBit };
    let smtputf8 = from.flag()?;
    let envid = from.maybe_text()?.map(Into::into);
    let ret = match from.u8()? {
        0 => None,
        1 => Some(Ret::Full),
        2 => Some(Ret::Headers),
        _ => return Err(Garbled),
    };
    let facts = ContentFacts {
        size: from.u64()?,
        has_8bit_body: from.flag()?,
        has_8bit_header: from.flag()?,
        line_bytes_longest: from.u64()?,
        received_count: from.u32()?,
        message_id: from.maybe_text()?.map(Into::into),
    };
    let count = from.u32()?;
    let recipients = (0..count).map(|_| take_recipient(from)).collect::<Result<_, _>>()?;
    let dsn = DsnRequest { envid, ret };
    let envelope = Envelope { reverse_path, recipients: Vec::new(), body, smtputf8, dsn };
    Ok(Kept { id, envelope, facts, arrived, size, recipients, damaged })
}

fn take_recipient(from: &mut In<'_>) -> Result<KeptRecipient, Garbled> {
    let forward_path = ForwardPath::parse(from.text()?).map_err(|_| Garbled)?;
    let bits = from.u8()?;
    let notify = (bits & 0x80 != 0).then_some(Notify {
        success: bits & 1 != 0,
        failure: bits & 2 != 0,
        delay: bits & 4 != 0,
    });
    let orcpt = from.maybe_text()?.map(Into::into);
    let owner = CustomerName::parse(from.text()?).map_err(|_| Garbled)?;
    let expires = Timestamp(from.u64()?);
    let standing = take_standing(from)?;
    let seen = HeldRecipient {
        index: standing.index,
        recipient: Recipient { forward_path, notify, orcpt },
        owner,
        state: standing.state,
        held: standing.held,
        expires,
        attempts: standing.attempts,
    };
    let Standing { line_breaks, counted_by, .. } = standing;
    Ok(KeptRecipient { seen, line_breaks, counted_by })
}

/// What can change about a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    index: u32,
    state: RecipientState,
    held: bool,
    attempts: u32,
    line_breaks: u32,
    counted_by: u64,
}

fn take_standing(from: &mut In<'_>) -> Result<Standing, Garbled> {
    Ok(Standing {
        index: from.u32()?,
        state: match from.u8()? {
            0 => RecipientState::Queued,
            1 => RecipientState::Deferred(ReplyText::clean(from.text()?)),
            2 => RecipientState::Failed(ReplyText::clean(from.text()?)),
            3 => RecipientState::Relayed(ReplyText::clean(from.text()?)),
            _ => return Err(Garbled),
        },
        held: from.flag()?,
        attempts: from.u32()?,
        line_breaks: from.u32()?,
        counted_by: from.u64()?,
    })
}

/// One entry of the journal: the newest one about a record says how it stands, whatever came before. Marks are
/// about records and not about messages, so each is of use exactly as long as its segment exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The record counts no more: nobody is left, or it was copied elsewhere.
    Dead { id: QueueId, at: Location },
    /// Those recipients are left, and stand so. It also makes a copy count, which does not count by itself.
    Standing { id: QueueId, at: Location, damaged: bool, left: Vec<Standing> },
    /// From now on this segment must be there.
    Born(u64),
    /// From now on this segment may be missing.
    Retired(u64),
    /// The record was dead already, and the file that said so first is to go.
    StillDead { id: QueueId, at: Location },
    /// All of these, or none if the write did not come to its end.
    Together(Vec<Mark>),
}

impl Mark {
    /// How the message stands after a change.
    pub(crate) fn about(kept: &Kept, at: Location) -> Self {
        let id = kept.id;
        if kept.recipients.is_empty() {
            return Self::Dead { id, at };
        }
        let left = kept.recipients.iter().map(Standing::of).collect();
        Self::Standing { id, at, damaged: kept.damaged, left }
    }

    /// Writes the mark.
    pub(crate) fn put(&self, out: &mut Out) {
        match self {
            Self::Dead { id, at } => {
                out.u8(1);
                out.u128(id.to_bits());
                put_location(out, *at);
            }
            Self::Standing { id, at, damaged, left } => {
                out.u8(2);
                out.u128(id.to_bits());
                put_location(out, *at);
                out.flag(*damaged);
                out.u32(u32::try_from(left.len()).unwrap_or(u32::MAX));
                for standing in left {
                    standing.put(out);
                }
            }
            Self::Born(segment) => {
                out.u8(3);
                out.u64(*segment);
            }
            Self::Retired(segment) => {
                out.u8(4);
                out.u64(*segment);
            }
            Self::StillDead { id, at } => {
                out.u8(6);
                out.u128(id.to_bits());
                put_location(out, *at);
            }
            Self::Together(marks) => {
                out.u8(5);
                out.u32(u32::try_from(marks.len()).unwrap_or(u32::MAX));
                marks.iter().for_each(|mark| mark.put(out));
            }
        }
    }

    /// Reads what [`Mark::put`] wrote.
    pub(crate) fn take(octets: &[u8]) -> Result<Self, Garbled> {
        let mut from = In(octets);
        let mark = match from.u8()? {
            5 => {
                let count = from.u32()?;
                let marks = (0..count).map(|_| Self::one(&mut from));
                Self::Together(marks.collect::<Result<_, _>>()?)
            }
            tag => Self::one_of(tag, &mut from)?,
        };
        from.end()?;
        Ok(mark)
    }

    fn one(from: &mut In<'_>) -> Result<Self, Garbled> {
        let tag = from.u8()?;
        Self::one_of(tag, from)
    }

    fn one_of(tag: u8, from: &mut In<'_>) -> Result<Self, Garbled> {
        Ok(match tag {
            1 => {
                let id = QueueId::from_bits(from.u128()?);
                Self::Dead { id, at: take_location(from)? }
            }
            2 => {
                let id = QueueId::from_bits(from.u128()?);
                let at = take_location(from)?;
                let (damaged, count) = (from.flag()?, from.u32()?);
                let left = (0..count).map(|_| take_standing(from)).collect::<Result<_, _>>()?;
                Self::Standing { id, at, damaged, left }
            }
            3 => Self::Born(from.u64()?),
            4 => Self::Retired(from.u64()?),
            6 => {
                let id = QueueId::from_bits(from.u128()?);
                Self::StillDead { id, at: take_location(from)? }
            }
            _ => return Err(Garbled),
        })
    }
}

impl Standing {
    fn put(&self, out: &mut Out) {
        out.u32(self.index);
        match &self.state {
            RecipientState::Queued => out.u8(0),
            RecipientState::Deferred(reply) => {
                out.u8(1);
                out.text(reply.as_str());
            }
            RecipientState::Failed(reply) => {
                out.u8(2);
                out.text(reply.as_str());
            }
            RecipientState::Relayed(reply) => {
                out.u8(3);
                out.text(reply.as_str());
            }
        }
        out.flag(self.held);
        out.u32(self.attempts);
        out.u32(self.line_breaks);
        out.u64(self.counted_by);
    }

    fn of(recipient: &KeptRecipient) -> Self {
        let seen = &recipient.seen;
        Self {
            index: seen.index,
            state: seen.state.clone(),
            held: seen.held,
            attempts: seen.attempts,
            line_breaks: recipient.line_breaks,
            counted_by: recipient.counted_by,
        }
    }
}

/// Makes the message stand as a mark says.
pub(crate) fn stand(kept: &mut Kept, damaged: bool, left: &[Standing]) {
    kept.damaged = damaged;
    kept.recipients.retain_mut(|recipient| {
        let Some(standing) = left.iter().find(|s| s.index == recipient.seen.index) else {
            return false;
        };
        let standing = standing.clone();
        recipient.seen.state = standing.state;
        recipient.seen.held = standing.held;
        recipient.seen.attempts = standing.attempts;
        recipient.line_breaks = standing.line_breaks;
        recipient.counted_by = standing.counted_by;
        true
    });
}
