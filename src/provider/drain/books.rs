//! The books of a drain: what is on the way, what became of it, and what the store has recorded.
//!
//! Called by the drain. A message is in the window from the moment when it is handed to the sender until its
//! outcomes are durable; so after any cut, at most the window may come twice. Outcomes are settled in batches:
//! while one is being made durable, the next gathers, and waits at the store if it is worth it. It never sends anything.
//!
//! Keeps RFC 5321 §6.1 (a message is ours until another took it) and §4.5.3.2.6 (no reply means unknown).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use super::feed::Parcel;
use super::lines::{self, Told};
use crate::mail::{
    ForwardPath, Lease, Outcome, QueueId, Recipient, RejectPolicy, ReplyText, Timestamp,
};
use crate::provider::office::Office;
use crate::provider::policy::Window;
use crate::provider::report::is_told_of_relaying;
use crate::smtp::sender::Fate;
use crate::store::{Settlement, StoreError, Verdict};

/// Recipients deferred or in doubt in one drain that are remembered, so as not to be offered twice. With more, the
/// drain ends when the queues have been seen once.
const KEPT_MAX: usize = 10_000;
/// Messages newly deferred in a row, after which the drain gives up until the next call. Those that an earlier drain
/// met deferred do not count: they stand in front, and would keep all behind them from being offered ever.
const DEFERRED_IN_A_ROW_MAX: u32 = 100;

/// A parcel that the sender has.
struct Flight {
    id: QueueId,
    size: u64,
    recipients: Vec<(u32, ForwardPath)>,
    /// Whether we have to report its delivery, since the server will not; empty if that is so for nobody.
    told_of_relaying: Vec<bool>,
    arrived: Timestamp,
    message_id: Option<Arc<str>>,
    /// Deferred already when the drain came upon it.
    was_deferred: bool,
    /// No recipient had a fate other than `Later`.
    is_deferred_whole: bool,
    /// The line broke while it was on its way.
    is_broken: bool,
}

/// What is known of a message that was offered in this drain.
#[derive(Default)]
struct Seen {
    /// Parcels not yet settled.
    open: u32,
    /// Parcels not yet opened; they need not come in order.
    left: u32,
    /// Somebody of it stays in the queue.
    stays: bool,
    /// Counted as delivered.
    is_counted: bool,
}

/// Something to be recorded.
enum Entry {
    Fate {
        settlement: Settlement,
        told: Told,
    },
    /// The last of a parcel; with it the parcel leaves the window.
    Closed {
        id: QueueId,
        size: u64,
    },
}

/// A batch, and whether it is durable.
type Recorded = (Vec<Entry>, Result<(), StoreError>);

/// Batches on their way to being durable at most: while the store is busy with one, the next lies ready.
const RECORDINGS_MAX: usize = 2;
/// Entries that are worth a batch of their own while another one is on its way.
const BATCH_MIN: usize = 64;

/// Sums for the end of the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) delivered: u64,
    pub(super) deferred: u64,
    pub(super) failed: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// See the module's head.
pub(super) struct Books {
    office: Arc<Office>,
    lease: Arc<Lease>,
    window: Window,
    rejects: RejectPolicy,
    path: &'static str,
    // Both grow at one end and shrink at the other, more or less, so neighbours lie together.
    flights: BTreeMap<u64, Flight>,
    seen: BTreeMap<QueueId, Seen>,
    kept: usize,
    /// In the window: parcels and octets.
    parcels: u64,
    octets: u64,
    fresh: Vec<Entry>,
    settling: FuturesOrdered<BoxFuture<'static, Recorded>>,
    pub(super) sums: Sums,
    deferred_in_a_row: u32,
    /// A message was counted as the one that was on its way when the line broke.
    has_counted_break: bool,
}

impl Books {
    pub(super) fn new(
        office: Arc<Office>,
        lease: Arc<Lease>,
        window: Window,
        rejects: RejectPolicy,
        path: &'static str,
    ) -> Self {
        Self {
            office,
            lease,
            window,
            rejects,
            path,
            flights: BTreeMap::new(),
            seen: BTreeMap::new(),
            kept: 0,
            parcels: 0,
            octets: 0,
            fresh: Vec::new(),
            settling: FuturesOrdered::new(),
            sums: Sums::default(),
            deferred_in_a_row: 0,
            has_counted_break: false,
        }
    }

    /// Whether a message of this size fits into the window. The first always does.
    pub(super) fn has_room(&self, size: u64) -> bool {
        self.parcels == 0
            || (self.parcels < self.window.messages.max(1)
                && self.octets.saturating_add(size) <= self.window.bytes)
    }

    /// Whether this message was offered in this drain and may not be offered again.
    pub(super) fn knows(&self, id: QueueId) -> bool {
        self.seen.contains_key(&id)
    }

    /// Whether everything is recorded.
    pub(super) fn is_settled(&self) -> bool {
        self.parcels == 0 && self.fresh.is_empty() && self.settling.is_empty()
    }

    /// Gives back the room of what was recorded.
    pub(super) fn rest(&mut self) {
        self.fresh.shrink_to_fit();
        // An empty tree keeps the room of its first branch.
        if self.flights.is_empty() {
            self.flights = BTreeMap::new();
        }
        if self.seen.is_empty() {
            self.seen = BTreeMap::new();
        }
    }

    /// Whether so much was deferred that going on makes no sense.
    pub(super) fn is_flooded(&self) -> bool {
        self.deferred_in_a_row >= DEFERRED_IN_A_ROW_MAX
    }

    /// Whether the queues may be looked through once more: what stays is remembered.
    pub(super) fn can_look_again(&self) -> bool {
        self.kept <= KEPT_MAX
    }

    /// A parcel goes to the sender. `has_dsn`: the server sees to reports of delivery itself.
    pub(super) fn open(&mut self, parcel: &mut Parcel, has_dsn: bool) {
        let size = parcel.outgoing.size;
        let envelope = &parcel.outgoing.envelope;
        let is_told =
            |r: &Recipient| !has_dsn && is_told_of_relaying(&envelope.reverse_path, r.notify);
        let told_of_relaying = match envelope.recipients.iter().any(is_told) {
            true => envelope.recipients.iter().map(is_told).collect(),
            false => Vec::new(),
        };
        self.parcels += 1;
        self.octets += size;
        let whole = Seen { left: parcel.parts, ..Seen::default() };
        let seen = self.seen.entry(parcel.id).or_insert(whole);
        seen.open += 1;
        seen.left = seen.left.saturating_sub(1);
        self.office.board.offered(parcel.id);
        self.flights.insert(
            parcel.outgoing.tag,
            Flight {
                id: parcel.id,
                size,
                recipients: std::mem::take(&mut parcel.recipients),
                told_of_relaying,
                arrived: parcel.arrived,
                message_id: parcel.outgoing.facts.message_id.take(),
                was_deferred: parcel.was_deferred,
                is_deferred_whole: true,
                is_broken: false,
            },
        );
    }

    /// All recipients of a parcel that never went to the sender get this outcome.
    pub(super) fn decide(&mut self, mut parcel: Parcel, outcome: &Outcome) {
        let (tag, recipients) = (parcel.outgoing.tag, parcel.recipients.len());
        self.open(&mut parcel, true);
        for recipient in 0..recipients {
            self.fate(tag, recipient, Fate::Said(outcome.clone()));
        }
        // The server never saw it, so this says nothing about the server.
        let deferred_in_a_row = self.deferred_in_a_row;
        self.close(tag);
        self.deferred_in_a_row = deferred_in_a_row;
    }

    /// This message is not to be offered again in this drain; nothing is recorded.
    pub(super) fn skip(&mut self, id: QueueId) {
        let seen = self.seen.entry(id).or_default();
        self.kept += usize::from(!seen.stays);
        seen.stays = true;
    }

    pub(super) fn fate(&mut self, tag: u64, recipient: usize, fate: Fate) {
        let Some(flight) = self.flights.get_mut(&tag) else { return };
        let Some((index, to)) = flight.recipients.get(recipient) else { return };
        let verdict = match fate {
            Fate::Said(Outcome::Failed(reply)) if self.rejects == RejectPolicy::Retry => {
                Verdict::Said(Outcome::Later(reply))
            }
            Fate::Said(Outcome::Delivered(reply))
                if flight.told_of_relaying.get(recipient) == Some(&true) =>
            {
                Verdict::Relayed(reply)
            }
            Fate::Said(outcome) => Verdict::Said(outcome),
            Fate::InDoubt | Fate::Interrupted => {
                flight.is_deferred_whole = false;
                if !std::mem::replace(&mut flight.is_broken, true) {
                    let doubt = fate == Fate::InDoubt;
                    lines::broken(doubt, flight.id, &self.lease, flight.message_id.as_deref());
                }
                // Only the message at the head of the line may have broken it; the others just stood behind.
                if self.has_counted_break {
                    return;
                }
                Verdict::InDoubt
            }
            Fate::Untouched => {
                flight.is_deferred_whole = false;
                return;
            }
        };
        if !matches!(verdict, Verdict::Said(Outcome::Later(_))) {
            flight.is_deferred_whole = false;
        }
        let settlement = Settlement { id: flight.id, index: *index, verdict };
        let told = Told { to: to.clone(), arrived: flight.arrived, size: flight.size };
        self.fresh.push(Entry::Fate { settlement, told });
    }

    /// The sender is done with a parcel.
    pub(super) fn close(&mut self, tag: u64) {
        let Some(flight) = self.flights.remove(&tag) else { return };
        self.has_counted_break |= flight.is_broken;
        self.deferred_in_a_row = match (flight.is_deferred_whole, flight.was_deferred) {
            (true, true) => self.deferred_in_a_row,
            (true, false) => self.deferred_in_a_row + 1,
            (false, _) => 0,
        };
        self.fresh.push(Entry::Closed { id: flight.id, size: flight.size });
    }

    /// Records on; true if something moved.
    ///
    /// # Errors
    /// The batch could not be recorded; [`StoreError::LostLease`] means that its deliveries were.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Result<bool, StoreError> {
        let enough = match self.settling.len() {
            0 => 1,
            1..RECORDINGS_MAX => BATCH_MIN,
            _ => usize::MAX,
        };
        if self.fresh.len() >= enough {
            let batch = std::mem::take(&mut self.fresh);
            let recording = self.settle(batch);
            self.settling.push_back(recording);
        }
        let Poll::Ready(Some((batch, answer))) = self.settling.poll_next_unpin(context) else {
            return Ok(false);
        };
        self.recorded(batch, &answer);
        answer.map(|()| true)
    }

    /// Trouble that may pass is given some seconds to pass.
    fn settle(&self, batch: Vec<Entry>) -> BoxFuture<'static, Recorded> {
        let settlements: Vec<Settlement> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Fate { settlement, .. } => Some(settlement.clone()),
                Entry::Closed { .. } => None,
            })
            .collect();
        if settlements.is_empty() {
            return futures::future::ready((batch, Ok(()))).boxed();
        }
        let (office, lease) = (self.office.clone(), self.lease.clone());
        async move {
            for seconds in [1, 2, 4] {
                match office.store.settle(&lease, settlements.clone()).await {
                    Err(StoreError::Transient(_)) => {
                        office.world.wait(Duration::from_secs(seconds)).await;
                    }
                    answer => return (batch, answer),
                }
            }
            let answer = office.store.settle(&lease, settlements).await;
            (batch, answer)
        }
        .boxed()
    }

    fn recorded(&mut self, batch: Vec<Entry>, answer: &Result<(), StoreError>) {
        for entry in batch {
            match entry {
                Entry::Fate { settlement, told } => self.account(settlement, &told, answer),
                Entry::Closed { id, size } => {
                    self.parcels -= 1;
                    self.octets -= size;
                    self.leave(id);
                }
            }
        }
    }

    fn account(&mut self, settlement: Settlement, told: &Told, answer: &Result<(), StoreError>) {
        let Settlement { id, verdict, .. } = settlement;
        let is_delivered =
            matches!(verdict, Verdict::Said(Outcome::Delivered(_)) | Verdict::Relayed(_));
        let is_recorded = match answer {
            Ok(()) => true,
            Err(StoreError::LostLease) => is_delivered,
            Err(_) => false,
        };
        if !is_recorded {
            if is_delivered {
                lines::broken(true, id, &self.lease, None);
            }
            return self.skip(id);
        }
        let stays = matches!(verdict, Verdict::InDoubt | Verdict::Said(Outcome::Later(_)));
        match &verdict {
            Verdict::Said(Outcome::Delivered(_)) | Verdict::Relayed(_) => self.sums.delivered += 1,
            Verdict::Said(Outcome::Later(_)) => self.sums.deferred += 1,
            Verdict::Said(Outcome::Failed(_)) => self.sums.failed += 1,
            Verdict::InDoubt => {}
        }
        let outcome = match &verdict {
            Verdict::Said(outcome) => Some(outcome.clone()),
            Verdict::Relayed(reply) => Some(Outcome::Delivered(reply.clone())),
            Verdict::InDoubt => None,
        };
        if let Some(outcome) = &outcome {
            let now = self.office.world.now();
            lines::outcome(outcome, id, told, &self.lease, self.path, now);
        }
        if matches!(verdict, Verdict::Relayed(_) | Verdict::Said(Outcome::Failed(_))) {
            self.office.owed.ring(id);
        }
        if stays {
            return self.skip(id);
        }
        let seen = self.seen.entry(id).or_default();
        if is_delivered && !seen.is_counted {
            seen.is_counted = true;
            self.sums.messages += 1;
            self.sums.bytes += told.size;
        }
    }

    fn leave(&mut self, id: QueueId) {
        let Some(seen) = self.seen.get_mut(&id) else { return };
        seen.open -= 1;
        if seen.open > 0 {
            return;
        }
        self.office.board.settled(id);
        if !seen.stays && seen.left == 0 {
            // No page names it any more: the queues are looked through again only when all is recorded.
            self.seen.remove(&id);
        }
    }

    /// Makes everything durable that is known, whatever happened.
    pub(super) async fn finish(&mut self) -> Result<(), StoreError> {
        let mut worst = Ok(());
        // A few batches at most: those under way, and what gathered meanwhile.
        while !self.settling.is_empty() || !self.fresh.is_empty() {
            let step = futures::future::poll_fn(|context| match self.poll(context) {
                Ok(false) => Poll::Pending,
                Ok(true) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(error)),
            });
            if let Err(error) = step.await {
                worst = Err(error);
            }
        }
        worst
    }

    /// What an unfit message is told as: our own words, which begin with an enhanced code and not with a reply
    /// code, since no server said them.
    pub(super) fn unfit(is_final: bool, code: &str, reason: &str) -> Outcome {
        if is_final {
            Outcome::Failed(ReplyText::clean(&format!("5.{code} {reason}")))
        } else {
            Outcome::Later(ReplyText::clean(&format!("4.{code} {reason}")))
        }
    }
}
