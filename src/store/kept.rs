//! A held message as every engine sees it, and what each call of the store does to it: pure, without I/O.
//!
//! Called by the engines. It never touches a disk, a clock or another message. What the engines must keep in
//! step (queues, totals, deadlines) follows from [`Kept::places`] and [`Kept::deadlines`] before and after a
//! change.

use std::collections::BTreeSet;

use crate::mail::{
    ContentFacts, CustomerName, Domain, Envelope, Outcome, QueueId, RecipientState, ReversePath,
    Timestamp,
};

use super::{
    Filter, Head, HeldRecipient, NewMessage, Position, QueueAction, StateFilter, StoreError,
    Verdict,
};

/// A line that broke this often on one message puts it last.
const LINE_BREAKS_PATIENCE: u32 = 3;

/// A recipient and what only the engines know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptRecipient {
    /// As the callers see it.
    pub(crate) seen: HeldRecipient,
    /// How often the line broke between its content and the reply.
    pub(crate) line_breaks: u32,
    /// The fencing token under which the last attempt was counted: one drain counts once, so that settling
    /// twice is the same as once.
    pub(crate) counted_by: u64,
}

/// A message without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Its id.
    pub(crate) id: QueueId,
    /// Its envelope, without recipients.
    pub(crate) envelope: Envelope,
    /// What was found in the content.
    pub(crate) facts: ContentFacts,
    /// When it arrived.
    pub(crate) arrived: Timestamp,
    /// Octets of its body.
    pub(crate) size: u64,
    /// The recipients that are left, in the order of their RCPT commands.
    pub(crate) recipients: Vec<KeptRecipient>,
    /// Its body cannot be read: set aside, shown, not offered.
    pub(crate) damaged: bool,
}

/// How a queue sees a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// Would be offered, in turn.
    Ready = 0,
    /// Would be offered, after the others: the line broke on it three times.
    Late = 1,
    /// Not failed and not offered: held by the operator, or damaged.
    Held = 2,
    /// All its recipients in this queue are over: failed, or delivered with the report of it owed.
    Failed = 3,
}

/// A message's place in one queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The queue.
    pub(crate) domain: Domain,
    /// Whose it is.
    pub(crate) owner: CustomerName,
    /// How it stands there.
    pub(crate) class: Class,
}

impl Kept {
    /// The message that `commit` asks to keep; `size` is the length of its body.
    pub(crate) fn new(message: NewMessage, size: u64) -> Result<Self, StoreError> {
        let NewMessage { id, mut envelope, owners, facts, arrived, expires } = message;
        let recipients = std::mem::take(&mut envelope.recipients);
        if recipients.is_empty()
            || owners.len() != recipients.len()
            || expires.len() != recipients.len()
        {
            return Err(StoreError::Transient(
                "a message needs an owner and an end for each recipient, and one recipient".into(),
            ));
        }
        let recipients = recipients.into_iter().zip(owners).zip(expires).zip(0u32..);
        let recipients = recipients
            .map(|(((recipient, owner), expires), index)| KeptRecipient {
                seen: HeldRecipient {
                    index,
                    recipient,
                    owner,
                    state: RecipientState::Queued,
                    held: false,
                    expires,
                    attempts: 0,
                },
                line_breaks: 0,
                counted_by: 0,
            })
            .collect();
        Ok(Self { id, envelope, facts, arrived, size, recipients, damaged: false })
    }

    /// Its places, sorted by queue, one for each queue.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::with_capacity(1);
        for recipient in &self.recipients {
            let class = self.class_of(recipient);
            let (domain, owner) =
                (recipient.seen.recipient.forward_path.domain(), &recipient.seen.owner);
            match places.iter_mut().find(|p| p.domain == *domain && p.owner == *owner) {
                Some(place) => place.class = merged(place.class, class),
                None => {
                    places.push(Place { domain: domain.clone(), owner: owner.clone(), class });
                }
            }
        }
        places.sort_unstable();
        places
    }

    fn class_of(&self, recipient: &KeptRecipient) -> Class {
        if recipient.seen.state.is_over() {
            Class::Failed
        } else if recipient.seen.held || self.damaged {
            Class::Held
        } else if recipient.line_breaks >= LINE_BREAKS_PATIENCE {
            Class::Late
        } else {
            Class::Ready
        }
    }

    /// The times at which recipients that can still be moved are given up.
    pub(crate) fn deadlines(&self) -> BTreeSet<Timestamp> {
        self.recipients.iter().filter(|r| waits(r)).map(|r| r.seen.expires).collect()
    }

    /// What a drain of these queues is offered, if anything. `domains` is sorted.
    pub(crate) fn offer(&self, customer: &CustomerName, domains: &[Domain]) -> Option<Head> {
        if self.damaged {
            return None;
        }
        self.head(|r| {
            waits(r)
                && r.seen.owner == *customer
                && domains.binary_search(r.seen.recipient.forward_path.domain()).is_ok()
        })
    }

    /// The recipients whose time is over at `now`, neither failed nor held.
    pub(crate) fn overdue(&self, now: Timestamp, limit: usize) -> Option<Head> {
        let mut left = limit;
        self.head(|r| {
            let due = waits(r) && r.seen.expires <= now && left > 0;
            left -= usize::from(due);
            due
        })
    }

    /// The recipients that the filter means, if the message is meant at all.
    pub(crate) fn meant(&self, filter: &Filter) -> Option<Head> {
        if !self.is_meant(filter) {
            return None;
        }
        self.head(|r| recipient_is_meant(r, self.damaged, filter))
    }

    fn head(&self, mut wanted: impl FnMut(&KeptRecipient) -> bool) -> Option<Head> {
        let mut line_breaks = None;
        let mut recipients = Vec::new();
        for recipient in self.recipients.iter().filter(|r| wanted(r)) {
            line_breaks = line_breaks.max(Some(recipient.line_breaks));
            recipients.push(shown(recipient, self.damaged));
        }
        let line_breaks = line_breaks?;
        Some(Head {
            id: self.id,
            envelope: self.envelope.clone(),
            recipients,
            facts: self.facts.clone(),
            arrived: self.arrived,
            line_breaks,
            position: Position { rank: u8::from(line_breaks >= LINE_BREAKS_PATIENCE), id: self.id },
        })
    }

    fn is_meant(&self, filter: &Filter) -> bool {
        (filter.ids.is_empty() || filter.ids.contains(&self.id))
            && filter.sender.as_deref().is_none_or(|text| self.is_from(text))
            && filter.before.is_none_or(|time| self.arrived < time)
            && filter.since.is_none_or(|time| self.arrived >= time)
            && filter.larger.is_none_or(|size| self.size >= size)
    }

    fn is_from(&self, text: &str) -> bool {
        match (&self.envelope.reverse_path, text) {
            (path, "<>") => path.is_null(),
            (ReversePath::Null, _) => false,
            (path, text) => contains(path.as_str(), text),
        }
    }

    /// Records a verdict about the recipient `index`, if it is still here and in a queue of the drain. Answers
    /// whether anything changed.
    pub(crate) fn settle(
        &mut self,
        index: u32,
        verdict: &Verdict,
        customer: &CustomerName,
        domains: &[Domain],
        token: u64,
    ) -> bool {
        let Some(place) = self.recipients.iter().position(|r| r.seen.index == index) else {
            return false;
        };
        let recipient = &mut self.recipients[place];
        let domain = recipient.seen.recipient.forward_path.domain();
        if recipient.seen.owner != *customer || domains.binary_search(domain).is_err() {
            return false;
        }
        let has_arrived =
            matches!(verdict, Verdict::Said(Outcome::Delivered(_)) | Verdict::Relayed(_));
        if recipient.seen.state.is_over() && !has_arrived {
            return false;
        }
        match verdict {
            Verdict::Said(Outcome::Delivered(_)) => {
                self.recipients.remove(place);
                true
            }
            Verdict::Said(Outcome::Later(reply)) => changes(recipient, |recipient| {
                recipient.seen.state = RecipientState::Deferred(reply.clone());
                count_attempt(recipient, token);
            }),
            Verdict::Said(Outcome::Failed(reply)) => changes(recipient, |recipient| {
                recipient.seen.state = RecipientState::Failed(reply.clone());
            }),
            Verdict::Relayed(reply) => changes(recipient, |recipient| {
                recipient.seen.state = RecipientState::Relayed(reply.clone());
            }),
            Verdict::InDoubt => changes(recipient, |recipient| {
                let fresh = recipient.counted_by != token;
                recipient.line_breaks = recipient.line_breaks.saturating_add(u32::from(fresh));
                count_attempt(recipient, token);
            }),
        }
    }

    /// Forgets recipients that are over, if all of them are here and stand as said. Answers whether they were.
    pub(crate) fn conclude(
        &mut self,
        states: &[(u32, RecipientState)],
    ) -> Result<bool, StoreError> {
        if !states.iter().all(|(_, state)| state.is_over()) {
            return Err(StoreError::Transient("only what is over can be concluded".into()));
        }
        let stands = |(index, state): &(u32, RecipientState)| {
            self.recipients.iter().any(|r| r.seen.index == *index && r.seen.state == *state)
        };
        if !states.iter().all(stands) {
            return Ok(false);
        }
        self.recipients.retain(|r| !states.iter().any(|(index, _)| r.seen.index == *index));
        Ok(true)
    }

    /// Does what the operator wants to the recipients that the filter means; answers whether anything changed.
    pub(crate) fn act(&mut self, filter: &Filter, action: QueueAction) -> bool {
        if !self.is_meant(filter) {
            return false;
        }
        let before = self.recipients.clone();
        let damaged = self.damaged;
        if action == QueueAction::Remove {
            self.recipients.retain(|r| !recipient_is_meant(r, damaged, filter));
        } else {
            for recipient in
                self.recipients.iter_mut().filter(|r| recipient_is_meant(r, damaged, filter))
            {
                recipient.seen.held = action == QueueAction::Hold;
                if action == QueueAction::Release
                    && matches!(recipient.seen.state, RecipientState::Failed(_))
                {
                    recipient.seen.state = RecipientState::Queued;
                }
            }
        }
        self.recipients != before
    }
}

fn merged(one: Class, other: Class) -> Class {
    match (one, other) {
        // One that can be offered makes the message offered; the last in order decides its rank.
        (Class::Ready | Class::Late, Class::Ready | Class::Late) => one.max(other),
        _ => one.min(other),
    }
}

/// It waits: neither held nor over.
fn waits(recipient: &KeptRecipient) -> bool {
    !recipient.seen.held && !recipient.seen.state.is_over()
}

/// Does it, and answers whether anything is other than before.
fn changes(recipient: &mut KeptRecipient, work: impl FnOnce(&mut KeptRecipient)) -> bool {
    let before = recipient.clone();
    work(recipient);
    *recipient != before
}

fn count_attempt(recipient: &mut KeptRecipient, token: u64) {
    if recipient.counted_by != token {
        recipient.counted_by = token;
        recipient.seen.attempts = recipient.seen.attempts.saturating_add(1);
    }
}

/// A recipient as it is seen. What was set aside is kept back like what an operator holds.
fn shown(recipient: &KeptRecipient, damaged: bool) -> HeldRecipient {
    let mut seen = recipient.seen.clone();
    seen.held |= damaged && !seen.state.is_over();
    seen
}

fn recipient_is_meant(recipient: &KeptRecipient, damaged: bool, filter: &Filter) -> bool {
    let seen = &recipient.seen;
    let path = &seen.recipient.forward_path;
    filter.customer.as_ref().is_none_or(|name| seen.owner == *name)
        && filter.domain.as_ref().is_none_or(|domain| path.domain() == domain)
        && filter.recipient.as_deref().is_none_or(|text| contains(path.as_str(), text))
        && filter.state.is_none_or(|wanted| {
            wanted
                == match &seen.state {
                    RecipientState::Failed(_) => StateFilter::Failed,
                    RecipientState::Relayed(_) => StateFilter::Relayed,
                    _ if seen.held || damaged => StateFilter::Held,
                    RecipientState::Queued => StateFilter::Queued,
                    RecipientState::Deferred(_) => StateFilter::Deferred,
                }
        })
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}
