//! Messages and octets of every queue, kept up to date with each change, so that counting costs nothing.
//!
//! Called by the engines with the places of a message before and after a change. The age of the oldest message
//! is not in here; an engine reads it from its queue.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::mail::{CustomerName, Domain};

use super::Count;
use super::kept::{Class, Place};

/// All queues that hold anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    queues: BTreeMap<Domain, BTreeMap<CustomerName, Count>>,
    customers: BTreeMap<CustomerName, BTreeSet<Domain>>,
    live_bytes: u64,
}

impl Tally {
    /// Takes in that a message of `size` octets stood at `before` and stands at `after`.
    pub(crate) fn change(&mut self, before: &[Place], after: &[Place], size: u64) {
        // In with the new first, so that a queue that only changes is not forgotten in between.
        for place in after {
            self.enter(place, size);
        }
        for place in before {
            self.leave(place, size);
        }
        match (before.is_empty(), after.is_empty()) {
            (true, false) => self.live_bytes = self.live_bytes.saturating_add(size),
            (false, true) => self.live_bytes = self.live_bytes.saturating_sub(size),
            _ => {}
        }
    }

    fn enter(&mut self, place: &Place, size: u64) {
        let owners = self.queues.entry(place.domain.clone()).or_default();
        let count = owners.entry(place.owner.clone()).or_default();
        if count.messages == 0 && count.failed == 0 {
            self.customers.entry(place.owner.clone()).or_default().insert(place.domain.clone());
        }
        if place.class == Class::Failed {
            count.failed += 1;
        } else {
            count.messages += 1;
            count.bytes = count.bytes.saturating_add(size);
            count.ready += u64::from(place.class <= Class::Late);
        }
    }

    fn leave(&mut self, place: &Place, size: u64) {
        let Some(owners) = self.queues.get_mut(&place.domain) else { return };
        let Some(count) = owners.get_mut(&place.owner) else { return };
        if place.class == Class::Failed {
            count.failed = count.failed.saturating_sub(1);
        } else {
            count.messages = count.messages.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(size);
            count.ready = count.ready.saturating_sub(u64::from(place.class <= Class::Late));
        }
        if count.messages > 0 || count.failed > 0 {
            return;
        }
        owners.remove(&place.owner);
        if owners.is_empty() {
            self.queues.remove(&place.domain);
        }
        if let Some(domains) = self.customers.get_mut(&place.owner) {
            domains.remove(&place.domain);
            if domains.is_empty() {
                self.customers.remove(&place.owner);
            }
        }
    }

    /// Octets of all messages, each once.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Sets what is counted once for each message, for an engine that knows it from its last end.
    pub(crate) fn set_live_bytes(&mut self, live_bytes: u64) {
        self.live_bytes = live_bytes;
    }

    /// Puts in a queue's count as it was, for an engine that knows it from its last end.
    pub(crate) fn set(&mut self, domain: Domain, owner: CustomerName, count: Count) {
        self.customers.entry(owner.clone()).or_default().insert(domain.clone());
        self.queues.entry(domain).or_default().insert(owner, count);
    }

    /// The queues of one domain: one, unless the domain changed hands while mail waited.
    pub(crate) fn of_domain(&self, domain: &Domain) -> Vec<(CustomerName, Count)> {
        let owners = self.queues.get(domain).into_iter().flatten();
        owners.map(|(owner, count)| (owner.clone(), *count)).collect()
    }

    /// The queues of one customer.
    pub(crate) fn of_customer(&self, name: &CustomerName) -> Vec<(Domain, Count)> {
        let domains = self.customers.get(name).into_iter().flatten();
        domains.filter_map(|d| Some((d.clone(), *self.queues.get(d)?.get(name)?))).collect()
    }

    /// The queues after `after`, whole domains, until there are `limit`.
    pub(crate) fn page(
        &self,
        after: Option<&Domain>,
        limit: usize,
    ) -> Vec<(Domain, CustomerName, Count)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::new();
        for (domain, owners) in self.queues.range::<Domain, _>((from, Bound::Unbounded)) {
            if page.len() >= limit {
                break;
            }
            page.extend(owners.iter().map(|(o, c)| (domain.clone(), o.clone(), *c)));
        }
        page
    }
}

/// The sum of two counts.
pub(crate) fn plus(one: Count, other: Count) -> Count {
    Count {
        messages: one.messages + other.messages,
        bytes: one.bytes.saturating_add(other.bytes),
        ready: one.ready + other.ready,
        failed: one.failed + other.failed,
        oldest: [one.oldest, other.oldest].into_iter().flatten().min(),
    }
}
