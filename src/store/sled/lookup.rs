//! Questions to the index: pages of a drain, listings, what is overdue.
//!
//! Called on threads for blocking work, but for [`Wanted::at_hand`]. It reads beside the committer: an entry of a queue
//! whose message is gone by the time it is looked up is passed over. It changes nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use crate::mail::{CustomerName, Domain, QueueId, Timestamp};
use crate::store::kept::Class;
use crate::store::order::CLASSES;
use crate::store::tally::plus;
use crate::store::{Count, Filter, Head, Position, StoreError};

use super::index::{Entry, Index, message, message_id};
use super::keeper::report_entry;
use super::shared::{Shared, reading};

/// Ids taken from a row at once: few at first, since many a question wants one.
const ROW_IDS: (usize, usize) = (4, 256);

/// One class of one queue, a little of it at a time, so that nobody waits for the reader.
struct Row<'a> {
    shared: &'a Shared,
    domain: &'a Domain,
    owner: &'a CustomerName,
    class: Class,
    last: Option<QueueId>,
    ahead: std::vec::IntoIter<QueueId>,
    take: usize,
}

impl<'a> Row<'a> {
    fn new(
        shared: &'a Shared,
        domain: &'a Domain,
        owner: &'a CustomerName,
        class: Class,
        after: Option<QueueId>,
    ) -> Self {
        let ahead = Vec::new().into_iter();
        Self { shared, domain, owner, class, last: after, ahead, take: ROW_IDS.0 }
    }
}

impl Iterator for Row<'_> {
    type Item = QueueId;

    fn next(&mut self) -> Option<QueueId> {
        if self.ahead.as_slice().is_empty() && self.take > 0 {
            let order = reading(&self.shared.order);
            let ids = order.after(self.domain, self.owner, self.class, self.last, self.take);
            self.last = ids.last().copied().or(self.last);
            // The row is at its end if it gave less than was asked for.
            self.take = if ids.len() < self.take { 0 } else { (self.take * 8).min(ROW_IDS.1) };
            self.ahead = ids.into_iter();
        }
        self.ahead.next()
    }
}

/// Several rows of ids as one, in order, each id once.
struct Merged<'a> {
    rows: Vec<Row<'a>>,
    heads: BinaryHeap<Reverse<(QueueId, usize)>>,
    last: Option<QueueId>,
}

impl<'a> Merged<'a> {
    fn new(rows: Vec<Row<'a>>) -> Self {
        let mut merged = Self { rows, heads: BinaryHeap::new(), last: None };
        for row in 0..merged.rows.len() {
            merged.refill(row);
        }
        merged
    }

    fn refill(&mut self, row: usize) {
        if let Some(id) = self.rows[row].next() {
            self.heads.push(Reverse((id, row)));
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = QueueId;

    fn next(&mut self) -> Option<QueueId> {
        while let Some(Reverse((id, row))) = self.heads.pop() {
            self.refill(row);
            if self.last != Some(id) {
                self.last = Some(id);
                return Some(id);
            }
        }
        None
    }
}

/// The message and the digest of its value, unless it is gone; a damaged entry is reported and passed over.
fn entry(shared: &Shared, index: &Index, id: QueueId) -> Result<Option<(Entry, u64)>, StoreError> {
    match index.entry(id) {
        Ok(found) => Ok(found),
        Err(StoreError::Corrupt(id)) => {
            report_entry(shared, id, &StoreError::Corrupt(id));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a drain asks: a page of these queues behind a position.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) customer: CustomerName,
    pub(crate) domains: Vec<Domain>,
    pub(crate) after: Option<Position>,
    pub(crate) limit: usize,
}

/// A message cannot be told of without reading the index.
struct NotAtHand;

impl Wanted {
    /// Goes through the queues until there are enough heads. `find` tells of a message, unless it is gone.
    fn collect<E>(
        &self,
        shared: &Shared,
        heads: &mut Vec<Head>,
        mut find: impl FnMut(QueueId) -> Result<Option<Arc<Entry>>, E>,
    ) -> Result<(), E> {
        let Self { customer, domains, limit, .. } = self;
        let after = heads.last().map(|head| head.position).or(self.after);
        for (rank, class) in [(0u8, Class::Ready), (1, Class::Late)] {
            if heads.len() >= *limit {
                break;
            }
            let start = match after {
                Some(position) if position.rank > rank => continue,
                Some(position) if position.rank == rank => Some(position.id),
                _ => None,
            };
            let rows = domains.iter().map(|d| Row::new(shared, d, customer, class, start));
            let mut ids = Merged::new(rows.collect());
            while heads.len() < *limit {
                let Some(id) = ids.next() else { break };
                let Some(found) = find(id)? else { continue };
                let offer = found.kept.offer(customer, domains);
                // One that is late in another of these queues is late in all.
                heads.extend(offer.filter(|head| head.position.rank == rank));
            }
        }
        Ok(())
    }

    /// The page as far as it is at hand, for which nobody waits for the disk; and whether that is all of it.
    pub(crate) fn at_hand(&self, shared: &Shared) -> (Vec<Head>, bool) {
        let mut heads = Vec::new();
        let find = |id| shared.recent.get(id).map(Some).ok_or(NotAtHand);
        let is_whole = self.collect(shared, &mut heads, find).is_ok();
        (heads, is_whole)
    }

    /// The page, of which these are the first.
    pub(crate) fn rest(
        &self,
        shared: &Shared,
        mut heads: Vec<Head>,
    ) -> Result<Vec<Head>, StoreError> {
        shared.ask(|index| {
            let begun = shared.recent.begin();
            let mut read = Vec::new();
            let find = |id| {
                if let Some(found) = shared.recent.get(id) {
                    return Ok(Some(found));
                }
                let Some((found, sum)) = entry(shared, index, id)? else { return Ok(None) };
                let found = Arc::new(found);
                // Some may not be offered after all, and what is kept has a bound.
                if read.len() < self.limit {
                    read.push((found.clone(), sum));
                }
                Ok::<_, StoreError>(Some(found))
            };
            self.collect(shared, &mut heads, find)?;
            begun.keep(read);
            Ok(heads)
        })
    }
}

/// A page of a listing.
pub(crate) fn query(
    shared: &Shared,
    filter: &Filter,
    after: Option<QueueId>,
    limit: usize,
) -> Result<Vec<Head>, StoreError> {
    let queues = queues_of(shared, filter);
    shared.ask(|index| {
        let mut heads = Vec::new();
        if !filter.ids.is_empty() {
            let mut ids: Vec<QueueId> =
                filter.ids.iter().copied().filter(|id| Some(*id) > after).collect();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                if heads.len() >= limit {
                    break;
                }
                heads.extend(entry(shared, index, id)?.and_then(|(e, _)| e.kept.meant(filter)));
            }
        } else if let Some(queues) = queues {
            let rows = queues.iter().flat_map(|(domain, owner)| {
                CLASSES.map(|class| Row::new(shared, domain, owner, class, after))
            });
            let mut ids = Merged::new(rows.collect());
            while heads.len() < limit {
                let Some(id) = ids.next() else { break };
                heads.extend(entry(shared, index, id)?.and_then(|(e, _)| e.kept.meant(filter)));
            }
        } else {
            for pair in index.messages(after)? {
                if heads.len() >= limit {
                    break;
                }
                let (key, value) = pair?;
                match message(&key, &value) {
                    Ok(entry) => heads.extend(entry.kept.meant(filter)),
                    Err(_) => {
                        let id = message_id(&key);
                        report_entry(shared, id, &StoreError::Corrupt(id));
                    }
                }
            }
        }
        Ok(heads)
    })
}

/// The queues that a filter names, if it names any.
fn queues_of(shared: &Shared, filter: &Filter) -> Option<Vec<(Domain, CustomerName)>> {
    let tally = reading(&shared.tally);
    let mut queues: Vec<(Domain, CustomerName)> = match (&filter.domain, &filter.customer) {
        (Some(domain), _) => {
            tally.of_domain(domain).into_iter().map(|(o, _)| (domain.clone(), o)).collect()
        }
        (None, Some(name)) => {
            tally.of_customer(name).into_iter().map(|(d, _)| (d, name.clone())).collect()
        }
        (None, None) => return None,
    };
    queues.retain(|(_, owner)| filter.customer.as_ref().is_none_or(|name| name == owner));
    Some(queues)
}

/// What is overdue, oldest first.
pub(crate) fn overdue(
    shared: &Shared,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Head>, StoreError> {
    shared.ask(|index| {
        let (mut heads, mut left, mut seen) = (Vec::new(), limit, HashSet::new());
        let mut after = None;
        while left > 0 {
            let due = reading(&shared.order).due(after, now, ROW_IDS.1);
            let Some(last) = due.last() else { break };
            after = Some(*last);
            for (_, id) in due {
                if left == 0 || !seen.insert(id) {
                    continue;
                }
                let head = entry(shared, index, id)?.and_then(|(e, _)| e.kept.overdue(now, left));
                left -= head.as_ref().map_or(0, |h| h.recipients.len());
                heads.extend(head);
            }
        }
        Ok(heads)
    })
}

/// One queue's count.
pub(crate) fn count(shared: &Shared, domain: &Domain) -> Result<Count, StoreError> {
    let owners = reading(&shared.tally).of_domain(domain);
    sum(shared, owners.into_iter().map(|(owner, count)| (domain.clone(), owner, count)))
}

/// One customer's count.
pub(crate) fn usage(shared: &Shared, name: &CustomerName) -> Result<Count, StoreError> {
    let queues = reading(&shared.tally).of_customer(name);
    sum(shared, queues.into_iter().map(|(domain, count)| (domain, name.clone(), count)))
}

fn sum(
    shared: &Shared,
    queues: impl Iterator<Item = (Domain, CustomerName, Count)>,
) -> Result<Count, StoreError> {
    shared.ask(|index| {
        let mut whole = Count::default();
        for (domain, owner, count) in queues {
            whole = plus(whole, shared.with_oldest(index, &domain, &owner, count)?);
        }
        Ok(whole)
    })
}

/// A page of queues.
pub(crate) fn queues(
    shared: &Shared,
    after: Option<&Domain>,
    limit: usize,
) -> Result<Vec<(Domain, CustomerName, Count)>, StoreError> {
    let mut page = reading(&shared.tally).page(after, limit);
    shared.ask(|index| {
        for (domain, owner, count) in &mut page {
            *count = shared.with_oldest(index, domain, owner, *count)?;
        }
        Ok(())
    })?;
    Ok(page)
}
