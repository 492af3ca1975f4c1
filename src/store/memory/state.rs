//! What the engine in memory holds, and how one change moves through its indexes.
//!
//! Called by the engine with its lock held; it never waits and knows no clock.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::mail::{CustomerName, Domain, Lease, Outcome, QueueId, Timestamp};
use crate::store::kept::{Class, Kept};
use crate::store::leases::Leases;
use crate::store::order::Order;
use crate::store::roster::Roster;
use crate::store::tally::Tally;
use crate::store::{Count, Filter, Head, Position, Settlement, Verdict};

/// All there is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) messages: BTreeMap<QueueId, (Kept, Bytes)>,
    order: Order,
    pub(super) tally: Tally,
    pub(super) leases: Leases,
    pub(super) roster: Roster,
    pub(super) server_key: Option<[u8; 32]>,
    pub(super) learnt: BTreeMap<CustomerName, String>,
    pub(super) closed: bool,
}

impl State {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            messages: BTreeMap::new(),
            order: Order::default(),
            tally: Tally::default(),
            leases: Leases::new(1),
            roster: Roster::default(),
            server_key: None,
            learnt: BTreeMap::new(),
            closed: false,
        }
    }

    /// Puts `kept` in the place of the old record, or drops it when nobody is left; all indexes follow.
    pub(super) fn replace(&mut self, kept: Kept, body: Bytes) {
        let id = kept.id;
        let old = self.messages.remove(&id);
        let before = old.as_ref().map(|(k, _)| k.places()).unwrap_or_default();
        let times = old.map(|(k, _)| k.deadlines()).unwrap_or_default();
        let after = kept.places();
        self.tally.change(&before, &after, kept.size);
        self.order.change(id, &before, &after);
        self.order.retime(id, &times, &kept.deadlines());
        if !kept.recipients.is_empty() {
            self.messages.insert(id, (kept, body));
        }
    }

    pub(super) fn with_oldest(
        &self,
        domain: &Domain,
        owner: &CustomerName,
        mut count: Count,
    ) -> Count {
        let oldest = self.order.oldest(domain, owner, 1);
        let oldest = oldest.first().and_then(|id| self.messages.get(id));
        count.oldest = oldest.map(|(kept, _)| kept.arrived);
        count
    }

    pub(super) fn next(&self, lease: &Lease, after: Option<Position>, limit: usize) -> Vec<Head> {
        let mut heads = Vec::new();
        for (rank, class) in [(0u8, Class::Ready), (1, Class::Late)] {
            let mut start = match after {
                Some(position) if position.rank > rank => continue,
                Some(position) if position.rank == rank => Some(position.id),
                _ => None,
            };
            while heads.len() < limit {
                let ids: BTreeSet<QueueId> = lease
                    .domains()
                    .iter()
                    .flat_map(|d| self.order.after(d, lease.customer(), class, start, limit))
                    .collect();
                // Each queue gave its first ones, so the first of all of them are the right ones.
                let ids: Vec<QueueId> = ids.into_iter().take(limit).collect();
                let Some(last) = ids.last() else { break };
                start = Some(*last);
                let offers = ids.iter().filter_map(|id| {
                    self.messages.get(id)?.0.offer(lease.customer(), lease.domains())
                });
                // One that is late in another of these queues is late in all.
                heads.extend(offers.filter(|head| head.position.rank == rank));
            }
        }
        heads.truncate(limit);
        heads
    }

    pub(super) fn settle(&mut self, lease: &Lease, settlements: &[Settlement], valid: bool) {
        for Settlement { id, index, verdict } in settlements {
            let delivered =
                matches!(verdict, Verdict::Said(Outcome::Delivered(_)) | Verdict::Relayed(_));
            if !valid && !delivered {
                continue;
            }
            let Some((kept, body)) = self.messages.get(id) else { continue };
            let (mut kept, body) = (kept.clone(), body.clone());
            if kept.settle(*index, verdict, lease.customer(), lease.domains(), lease.token()) {
                self.replace(kept, body);
            }
        }
    }

    pub(super) fn query(&self, filter: &Filter, after: Option<QueueId>, limit: usize) -> Vec<Head> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.messages.range((from, Bound::Unbounded));
        all.filter_map(|(_, (kept, _))| kept.meant(filter)).take(limit).collect()
    }

    pub(super) fn overdue(&self, now: Timestamp, limit: usize) -> Vec<Head> {
        let (mut heads, mut left, mut seen) = (Vec::new(), limit, BTreeSet::new());
        for (_, id) in self.order.due(None, now, usize::MAX) {
            if left == 0 {
                break;
            }
            if !seen.insert(id) {
                continue;
            }
            let head = self.messages.get(&id).and_then(|(kept, _)| kept.overdue(now, left));
            left -= head.as_ref().map_or(0, |h| h.recipients.len());
            heads.extend(head);
        }
        heads
    }
}
