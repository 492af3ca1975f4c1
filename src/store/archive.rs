//! Messages on their way from one store to another: what is known of each but its body, and a store as it stood
//! at one moment.
//!
//! Made by the engines ([`super::Store::snapshot`]), taken by [`super::Store::enter`]; written down by
//! [`super::dump`] and by the program's export. What comes in from a file is checked here: nothing in an
//! [`Archived`] can become a second command on a wire.

use std::collections::HashSet;
use std::sync::Arc;

use crate::mail::{
    ContentFacts, Customer, CustomerName, Envelope, QueueId, Recipient, RecipientState, ReplyText,
    Timestamp,
};

use super::kept::{Kept, KeptRecipient};
use super::{Answer, BodyReader, Head, HeldRecipient, StoreError};

/// Longest DSN parameter that is believed, in octets.
const PARAMETER_BYTES_MAX: usize = 1000;

/// A message with all its recipients, as it stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Described", into = "Described")]
pub struct Archived(pub(in crate::store) Kept);

/// Why a description is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// The form in a dump.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Described {
    id: QueueId,
    envelope: Envelope,
    facts: ContentFacts,
    arrived: Timestamp,
    size: u64,
    recipients: Vec<Standing>,
}

/// What [`Envelope`] does not say about the recipient at the same place.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Standing {
    index: u32,
    owner: CustomerName,
    state: RecipientState,
    held: bool,
    expires: Timestamp,
    attempts: u32,
    line_breaks: u32,
}

impl From<Archived> for Described {
    fn from(Archived(kept): Archived) -> Self {
        let (recipients, standings) = kept
            .recipients
            .into_iter()
            .map(|KeptRecipient { seen, line_breaks, .. }| {
                let HeldRecipient { index, recipient, owner, state, held, expires, attempts } =
                    seen;
                let standing =
                    Standing { index, owner, state, held, expires, attempts, line_breaks };
                (recipient, standing)
            })
            .unzip();
        let envelope = Envelope { recipients, ..kept.envelope };
        let (id, facts, arrived, size) = (kept.id, kept.facts, kept.arrived, kept.size);
        Self { id, envelope, facts, arrived, size, recipients: standings }
    }
}

impl TryFrom<Described> for Archived {
    type Error = Malformed;

    fn try_from(said: Described) -> Result<Self, Malformed> {
        let Described { id, mut envelope, facts, arrived, size, recipients } = said;
        let paths = std::mem::take(&mut envelope.recipients);
        if paths.len() != recipients.len() {
            return Err(Malformed("its recipients and their states are not equally many"));
        }
        let recipients = paths.into_iter().zip(recipients).map(|(recipient, standing)| {
            let Standing { index, owner, state, held, expires, attempts, line_breaks } = standing;
            let seen = HeldRecipient { index, recipient, owner, state, held, expires, attempts };
            KeptRecipient { seen, line_breaks, counted_by: 0 }
        });
        let recipients = recipients.collect();
        Self::checked(Kept { id, envelope, facts, arrived, size, recipients, damaged: false })
    }
}

impl Archived {
    /// The message of a listing, with the recipients that it shows.
    ///
    /// # Errors
    /// It has no recipients, or one of them twice.
    pub fn of(head: Head) -> Result<Self, Malformed> {
        let Head { id, envelope, recipients, facts, arrived, line_breaks, .. } = head;
        let recipients = recipients
            .into_iter()
            .map(|seen| KeptRecipient { seen, line_breaks, counted_by: 0 })
            .collect();
        let size = facts.size;
        Self::checked(Kept { id, envelope, facts, arrived, size, recipients, damaged: false })
    }

    fn checked(mut kept: Kept) -> Result<Self, Malformed> {
        if kept.recipients.is_empty() {
            return Err(Malformed("it has no recipients"));
        }
        let mut seen = HashSet::new();
        if !kept.recipients.iter().all(|one| seen.insert(one.seen.index)) {
            return Err(Malformed("it has one recipient twice"));
        }
        let dsn = &kept.envelope.dsn;
        let orcpts = kept.recipients.iter().map(|one| &one.seen.recipient.orcpt);
        if !orcpts.chain([&dsn.envid]).flatten().all(|text| is_parameter(text)) {
            return Err(Malformed("a DSN parameter in it cannot be one"));
        }
        kept.facts.message_id =
            kept.facts.message_id.filter(|id| id.len() <= 250 && id.bytes().all(|b| b >= 0x20));
        for one in &mut kept.recipients {
            let state = &mut one.seen.state;
            match state {
                RecipientState::Queued => {}
                RecipientState::Deferred(said)
                | RecipientState::Failed(said)
                | RecipientState::Relayed(said) => *said = ReplyText::clean(said.as_str()),
            }
        }
        Ok(Self(kept))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.0.id
    }

    /// Octets of its body.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Its recipients, in order.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.0.recipients.iter().map(|one| &one.seen.recipient)
    }

    /// The record that an engine keeps, for a body of `size` octets.
    pub(in crate::store) fn entering(self, size: u64) -> Kept {
        Kept { size, damaged: false, ..self.0 }
    }
}

/// What stands in a MAIL or RCPT command behind `=`: no space, nothing that could end a line.
fn is_parameter(text: &str) -> bool {
    text.len() <= PARAMETER_BYTES_MAX && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// A store as it stood at one moment. What happens to mail meanwhile does not show in it: a message that was
/// delivered since can still be read. It costs disk, which cannot be given back before it is dropped.
pub trait Snapshot: Send {
    /// How many messages there are.
    fn messages(&self) -> u64;
    /// All customers, by name.
    fn customers(&self) -> Vec<Arc<Customer>>;
    /// [`super::Directory::server_key`], if there was one.
    fn server_key(&self) -> Option<[u8; 32]>;
    /// The next message, by id; after [`StoreError::Corrupt`] the one behind it.
    fn next(&mut self) -> Answer<'_, Option<Archived>>;
    /// The body of the message that came last.
    fn open_body(&mut self) -> Answer<'_, Box<dyn BodyReader>>;
}

/// The answer of an engine, or of something before one, that does not know how.
pub(super) fn unable<T>() -> Result<T, StoreError> {
    Err(StoreError::Transient("this store can neither be copied nor be copied into".into()))
}
