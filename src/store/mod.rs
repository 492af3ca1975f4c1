//! The store: what survives a power cut.
//!
//! Called by `provider` (and by the program for administration); knows the words of `mail` and no reply code, no
//! socket and no customer's server. The calls are intentions, not get and put, so that another engine can keep
//! them in its own way. One contract suite, `tests/store_contract.rs`, runs over every engine.
//!
//! Every call may be awaited on any executor: the engines do their blocking work on threads of their own.

mod archive;
pub mod dump;
mod error;
mod hints;
mod kept;
mod leases;
pub mod memory;
mod order;
mod report;
mod roster;
pub mod sled;
mod tally;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::mail::{
    ContentFacts, Customer, CustomerName, Domain, Envelope, Lease, Outcome, QueueId, Recipient,
    RecipientState, ReplyText, Timestamp,
};

pub use archive::{Archived, Malformed, Snapshot};
pub use error::{DirectoryError, StoreError};
pub use memory::Memory;
pub use report::Report;
pub use sled::{Options, SledStore};

/// What a call of the store gives back.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// One of several bodies, opened or not.
pub type Opened = Result<Box<dyn BodyReader>, StoreError>;

/// A body on its way in. Dropping it aborts: nothing of it will ever exist.
pub trait BodyWriter: Send {
    /// Takes the next octets of the content: CRLF line ends, no dot-stuffing.
    fn write<'a>(&'a mut self, chunk: &'a [u8]) -> Answer<'a, ()>;
    /// Octets taken so far.
    fn written(&self) -> u64;
    /// The engine's own type, for its `commit`.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

/// A body on its way out.
pub trait BodyReader: Send {
    /// The next octets, at most the engine's chunk size (64 KiB); empty at the end. The checksum of the record
    /// is checked before the last chunk is given: [`StoreError::Corrupt`] means that the body must not be
    /// finished towards anybody.
    fn read(&mut self) -> Answer<'_, Bytes>;
    /// Octets in all.
    fn size(&self) -> u64;
}

/// A message ready to be kept. The envelope holds all recipients of the transaction; `owners` says for each
/// recipient, at the same index, whose queue it enters (the domain of its forward-path).
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Made by the caller, unique; committing one id twice is the same as once.
    pub id: QueueId,
    /// Who and to whom.
    pub envelope: Envelope,
    /// The customer of each recipient; as long as `envelope.recipients`.
    pub owners: Vec<CustomerName>,
    /// What was found in the content.
    pub facts: ContentFacts,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When it is to be given up, per recipient, same length as `owners`.
    pub expires: Vec<Timestamp>,
}

/// Where a recipient stands inside a [`Head`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HeldRecipient {
    /// Its place among the recipients of the whole message: its name in [`Settlement`].
    pub index: u32,
    /// Address and DSN parameters.
    pub recipient: Recipient,
    /// Whose it is.
    pub owner: CustomerName,
    /// Queued, deferred or failed.
    pub state: RecipientState,
    /// Held by the operator: not offered.
    pub held: bool,
    /// When it is given up.
    pub expires: Timestamp,
    /// In how many drains it was offered and refused for now, or its line broke; once for each lease.
    pub attempts: u32,
}

/// A held message without its body, with the recipients that the question was about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Its id.
    pub id: QueueId,
    /// Envelope; its `recipients` is empty, they are in `recipients` below.
    pub envelope: Envelope,
    /// The recipients asked for, in the order of their RCPT commands.
    pub recipients: Vec<HeldRecipient>,
    /// What was found in the content.
    pub facts: ContentFacts,
    /// When it arrived.
    pub arrived: Timestamp,
    /// In how many drains the line broke while it was on its way; at three it goes last (`Position::rank` grows).
    pub line_breaks: u32,
    /// Its place in the order of the drain.
    pub position: Position,
}

/// A place in the order of a drain: messages that broke the line three times come last, otherwise by id, which
/// is by arrival.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// 0 for ordinary messages, 1 for those that broke the line three times.
    pub rank: u8,
    /// The id.
    pub id: QueueId,
}

/// A wish to drain.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Who.
    pub customer: CustomerName,
    /// Which queues; all of them or none are granted.
    pub domains: Vec<Domain>,
    /// Who holds it, for people: a session's label.
    pub owner: String,
    /// How long it lasts without `renew`; monotonic.
    pub lasts: Duration,
    /// A holder without progress (settle or renew) for this long is overthrown; monotonic.
    pub overthrow_after: Duration,
}

/// The answer to a [`LeaseRequest`].
#[derive(Debug)]
pub enum LeaseAnswer {
    /// Here it is. An overthrown holder can only fail from now on.
    Granted(Lease),
    /// Somebody drains one of these queues.
    Busy {
        /// `LeaseRequest::owner` of the holder.
        by: String,
        /// The queue at issue.
        domain: Domain,
    },
}

/// What became of one recipient of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The message.
    pub id: QueueId,
    /// [`HeldRecipient::index`].
    pub index: u32,
    /// Its fate.
    pub verdict: Verdict,
}

/// The fate of a recipient as the store records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the customer's server said.
    Said(Outcome),
    /// Delivered, and its sender wants to be told by us: kept without being offered until [`Store::conclude`].
    Relayed(ReplyText),
    /// The line broke after its content was sent and before the reply: kept, counted.
    InDoubt,
}

/// Messages, octets and age of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Count {
    /// Messages with at least one recipient here that is not failed: what a drain can still move, held ones
    /// included.
    pub messages: u64,
    /// Octets of those messages.
    pub bytes: u64,
    /// Of `messages`, those that a drain would be offered now: not held.
    pub ready: u64,
    /// Messages whose recipients here are all over: failed, or delivered with the report of it owed.
    pub failed: u64,
    /// Arrival of the oldest of `messages`.
    pub oldest: Option<Timestamp>,
}

/// Which messages a listing or an action means; every given condition must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only these ids (empty: any).
    pub ids: Vec<QueueId>,
    /// Recipients of this customer only.
    pub customer: Option<CustomerName>,
    /// Recipients of this domain only.
    pub domain: Option<Domain>,
    /// The reverse-path contains this text (case-insensitively); `<>` means null.
    pub sender: Option<String>,
    /// A forward-path contains this text (case-insensitively).
    pub recipient: Option<String>,
    /// Arrived before.
    pub before: Option<Timestamp>,
    /// Arrived at or after.
    pub since: Option<Timestamp>,
    /// At least this many octets.
    pub larger: Option<u64>,
    /// Recipients in this state only.
    pub state: Option<StateFilter>,
}

/// A state by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Waiting, never refused, not held.
    Queued,
    /// Waiting after a 4yz, not held.
    Deferred,
    /// Held by the operator.
    Held,
    /// Refused for good.
    Failed,
    /// Delivered, the report of it is owed.
    Relayed,
}

/// What an operator does to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueAction {
    /// Do not offer them until released.
    Hold,
    /// Offer them again: held ones, and failed ones too.
    Release,
    /// Forget the recipients that the filter means; the body goes with the last one.
    Remove,
}

/// Mail came for one of the domains that were asked about, or one was released. A hint: look and see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed;

/// How the engine is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// Why it takes no more mail, if so.
    pub broken: Option<String>,
    /// Free octets on its file system; `None` for an engine without files.
    pub free_bytes: Option<u64>,
    /// Octets of live mail.
    pub live_bytes: u64,
    /// Octets on disk, index included.
    pub disk_bytes: u64,
    /// Damaged records and index entries found, one line each.
    pub damage: Vec<String>,
    /// Duration of the last commit's syncs in microseconds.
    pub sync_micros: u64,
}

/// Held mail. See the module's head; errors are [`StoreError`] throughout.
pub trait Store: Send + Sync {
    /// Opens a body. `size_hint` is the declared SIZE or zero.
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>>;

    /// Makes the message exist in all its queues or in none. Returns only when it would survive a power cut.
    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()>;

    /// Asks for the sole right to drain.
    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer>;

    /// Starts the lease's clock anew. [`StoreError::LostLease`] if it is somebody else's by now.
    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()>;

    /// Hands the lease back; a lost one is ignored.
    fn release(&self, lease: Lease) -> Answer<'_, ()>;

    /// Up to `limit` messages of the leased queues after `after`, in the order of the drain, each with all its
    /// recipients in these queues that are neither held nor failed. Empty: there are no more now.
    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>>;

    /// Opens a body for reading from octet `offset` on.
    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>>;

    /// Opens several bodies from their beginning, each as [`Store::open_body`] does: an answer for each id, in
    /// their order. An engine whose calls are visits elsewhere makes one visit of all, so it is meant for small
    /// ones; the first chunk of each may be read along.
    fn open_bodies(&self, ids: Vec<QueueId>) -> BoxFuture<'_, Vec<Opened>> {
        Box::pin(async move {
            let mut opened = Vec::with_capacity(ids.len());
            for id in ids {
                opened.push(self.open_body(id, 0).await);
            }
            opened
        })
    }

    /// Records what became of recipients; returns when durable. Settling twice is the same as once. Recipients
    /// outside the lease's queues, and those that are gone or over, are passed over; but one that was given up
    /// and turns out delivered is forgotten. Under a lost lease, deliveries are recorded all the same (they did happen), everything else is not, and the
    /// call answers [`StoreError::LostLease`].
    fn settle<'a>(&'a self, lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()>;

    /// Ends recipients of one message for good: they are forgotten, and the report about them exists, both or
    /// neither, and durable when this returns. `states` are the recipients by [`HeldRecipient::index`] with the
    /// state that the report tells of. If one of them is gone or stands otherwise by now, nothing is done and the
    /// answer is false; so is a second call with the same states. Leases do not matter: nobody is offered a
    /// recipient that is over, and other states are refused with [`StoreError::Transient`].
    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool>;

    /// Messages and octets of one queue, in constant time.
    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count>;

    /// Messages and octets of all queues of a customer together, in the time of its number of queues; a message
    /// in two of them counts twice.
    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count>;

    /// All queues that hold anything, with their owners, after `after`.
    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>>;

    /// Up to `limit` messages that the filter means, by id, after `after`; each with the recipients meant.
    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>>;

    /// Does `action` to what the filter means, in batches; answers how many messages were touched. Safe to
    /// repeat after an interruption.
    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64>;

    /// Up to `limit` recipients whose time is over, oldest first. Failed ones wait for their report and held ones
    /// for the operator; neither is among them.
    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>>;

    /// A stream of hints for these domains. It never blocks a commit; hints may merge.
    fn changes(&self, domains: &[Domain]) -> futures::stream::BoxStream<'static, Changed>;

    /// How it is doing.
    fn health(&self) -> Answer<'_, Health>;

    /// A turn of background work: compaction, removal of empty segments.
    fn maintain(&self) -> Answer<'_, ()>;

    /// Everything as it stands at one moment during the call. Work goes on meanwhile.
    fn snapshot(&self) -> Answer<'_, Box<dyn Snapshot>> {
        Box::pin(std::future::ready(archive::unable()))
    }

    /// Makes a message exist as it stood elsewhere, with the states of its recipients; once it is durable. An id
    /// that is here already changes nothing.
    fn enter(&self, _message: Archived, _body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(std::future::ready(archive::unable()))
    }

    /// Compacts until nothing is worth it any more; answers how many files were, and tells `tell` of each.
    fn compact<'a>(&'a self, _tell: &'a mut (dyn FnMut(u64) + Send)) -> Answer<'a, u64> {
        Box::pin(async { self.maintain().await.map(|()| 0) })
    }

    /// Ends in order; the engine may be opened again afterwards. Calls that come later fail.
    fn close(&self) -> Answer<'_, ()>;
}

/// Customers, their domains and logins. Changes return when durable.
pub trait Directory: Send + Sync {
    /// The customer of this name. Cheap: engines keep the directory in memory.
    fn customer<'a>(
        &'a self,
        name: &'a CustomerName,
    ) -> Answer<'a, Option<std::sync::Arc<Customer>>>;

    /// Whose domain this is. Cheap as well.
    fn owner<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Option<std::sync::Arc<Customer>>>;

    /// Up to `limit` customers by name, after `after`.
    fn customers(
        &self,
        after: Option<CustomerName>,
        limit: usize,
    ) -> Answer<'_, Vec<std::sync::Arc<Customer>>>;

    /// Adds a customer.
    fn create(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>>;

    /// Replaces the record whose revision is `customer.revision`; the new one's is one higher.
    fn update(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>>;

    /// Removes the customer; its mail is not touched.
    fn remove<'a>(&'a self, name: &'a CustomerName) -> BoxFuture<'a, Result<(), DirectoryError>>;

    /// Keeps what was learnt about how to serve this customer, in place of what was kept before; `None` forgets it.
    /// It survives an orderly end, and the end of the process: at once if it is pressing, otherwise in a moment. A power
    /// cut may take it, since it can be learnt again.
    /// The text is the caller's own. With the customer it is forgotten, too.
    fn learn<'a>(
        &'a self,
        name: &'a CustomerName,
        lesson: Option<String>,
        is_pressing: bool,
    ) -> Answer<'a, ()>;

    /// All that was learnt.
    fn learnt(&self) -> Answer<'_, Vec<(CustomerName, String)>>;

    /// A random key of this store, made once and kept: the seed of salts for unknown users.
    fn server_key(&self) -> Answer<'_, [u8; 32]>;

    /// Gives a new store the key of another one; a key that is here already stays.
    fn take_server_key(&self, _key: [u8; 32]) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(async { Ok(archive::unable()?) })
    }
}
