//! Questions to the index: pages of a drain, listings, what is overdue.
//!
//! Called on threads for blocking work. It reads beside the committer: an entry of a queue whose message is
//! gone by the time it is looked up is passed over. It changes nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use crate::mail::{CustomerName, Domain, QueueId, Timestamp};
use crate::store::kept::Class;
use crate::store::tally::plus;
use crate::store::{Count, Filter, Head, Position, StoreError};

use super::index::{Entry, Ids, Index, deadline_key, kind, message, message_id};
use super::keeper::report_entry;
use super::shared::{Shared, reading};

/// Several rows of ids as one, in order, each id once.
struct Merged {
    rows: Vec<Ids>,
    heads: BinaryHeap<Reverse<(QueueId, usize)>>,
    last: Option<QueueId>,
}

impl Merged {
    fn new(rows: Vec<Ids>) -> Result<Self, StoreError> {
        let mut merged = Self { rows, heads: BinaryHeap::new(), last: None };
        for row in 0..merged.rows.len() {
            merged.refill(row)?;
        }
        Ok(merged)
    }

    fn refill(&mut self, row: usize) -> Result<(), StoreError> {
        if let Some((id, _)) = self.rows[row].next().transpose()? {
            self.heads.push(Reverse((id, row)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<QueueId>, StoreError> {
        while let Some(Reverse((id, row))) = self.heads.pop() {
            self.refill(row)?;
            if self.last != Some(id) {
                self.last = Some(id);
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// The message, unless it is gone; a damaged entry is reported and passed over.
fn entry(shared: &Shared, index: &Index, id: QueueId) -> Result<Option<Entry>, StoreError> {
    match index.entry(id) {
        Ok(found) => Ok(found.map(|(entry, _)| entry)),
        Err(StoreError::Corrupt(id)) => {
            report_entry(shared, id, &StoreError::Corrupt(id));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A page of a drain.
pub(crate) fn next(
    shared: &Shared,
    customer: &CustomerName,
    domains: &[Domain],
    after: Option<Position>,
    limit: usize,
) -> Result<Vec<Head>, StoreError> {
    shared.ask(|index| {
        let mut heads = Vec::new();
        for (rank, class) in [(0u8, Class::Ready), (1, Class::Late)] {
            let start = match after {
                Some(position) if position.rank > rank => continue,
                Some(position) if position.rank == rank => Some(position.id),
                _ => None,
            };
            let rows = domains.iter().map(|d| index.ids(d, customer, class, start));
            let mut ids = Merged::new(rows.collect::<Result<_, _>>()?)?;
            while heads.len() < limit {
                let Some(id) = ids.next()? else { break };
                let Some(Entry { kept, .. }) = entry(shared, index, id)? else { continue };
                let offer = kept.offer(customer, domains);
                // One that is late in another of these queues is late in all.
                if let Some(head) = offer.filter(|head| head.position.rank == rank) {
                    heads.push(head);
                }
            }
        }
        Ok(heads)
    })
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
                heads.extend(entry(shared, index, id)?.and_then(|e| e.kept.meant(filter)));
            }
        } else if let Some(queues) = queues {
            let classes = [Class::Ready, Class::Late, Class::Held, Class::Failed];
            let rows = queues.iter().flat_map(|(domain, owner)| {
                classes.map(|class| index.ids(domain, owner, class, after))
            });
            let mut ids = Merged::new(rows.collect::<Result<_, _>>()?)?;
            while heads.len() < limit {
                let Some(id) = ids.next()? else { break };
                heads.extend(entry(shared, index, id)?.and_then(|e| e.kept.meant(filter)));
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
    let end = deadline_key(Timestamp(now.0.saturating_add(1)), QueueId::from_bits(0));
    shared.ask(|index| {
        let (mut heads, mut left, mut seen) = (Vec::new(), limit, HashSet::new());
        for pair in index.of_kind(kind::DEADLINE)? {
            let (key, _) = pair?;
            if left == 0 || (key.as_ref() >= &end[..] && now.0 < u64::MAX) {
                break;
            }
            let bits = key.get(9..25).and_then(|b| b.try_into().ok()).unwrap_or([0; 16]);
            let id = QueueId::from_bits(u128::from_be_bytes(bits));
            if !seen.insert(id) {
                continue;
            }
            let head = entry(shared, index, id)?.and_then(|e| e.kept.overdue(now, left));
            left -= head.as_ref().map_or(0, |h| h.recipients.len());
            heads.extend(head);
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
