//! The order of the queues: which message waits where, oldest first, and when each is given up.
//!
//! Called by the engines with the places and deadlines of a message before and after a change. All of it is in memory, some
//! 100 octets for each message; it follows from the messages and can be made again from them at any time.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::mail::{CustomerName, Domain, QueueId, Timestamp};

use super::kept::{Class, Place};

/// The classes of a queue.
pub(crate) const CLASSES: [Class; 4] = [Class::Ready, Class::Late, Class::Held, Class::Failed];

/// The ids of one queue, by class.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queue {
    owner: CustomerName,
    classes: [BTreeSet<QueueId>; 4],
}

/// All queues that hold anything, and all deadlines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// The queues of a domain: one, unless the domain changed hands while mail waited.
    queues: HashMap<Domain, Vec<Queue>>,
    deadlines: BTreeSet<(Timestamp, QueueId)>,
}

impl Order {
    /// The message stood at `before` and stands at `after`.
    pub(crate) fn change(&mut self, id: QueueId, before: &[Place], after: &[Place]) {
        // In with the new first, so that a queue that only changes is not forgotten in between.
        for place in after.iter().filter(|place| !before.contains(place)) {
            self.enter(place, id);
        }
        for place in before.iter().filter(|place| !after.contains(place)) {
            self.leave(place, id);
        }
    }

    /// The message's deadlines were `before` and are `after`.
    pub(crate) fn retime(
        &mut self,
        id: QueueId,
        before: &BTreeSet<Timestamp>,
        after: &BTreeSet<Timestamp>,
    ) {
        for time in before.difference(after) {
            self.deadlines.remove(&(*time, id));
        }
        self.deadlines.extend(after.difference(before).map(|time| (*time, id)));
    }

    fn enter(&mut self, place: &Place, id: QueueId) {
        self.row(&place.domain, &place.owner, place.class).insert(id);
    }

    /// The ids of one class of a queue, which is made if there is none.
    fn row(
        &mut self,
        domain: &Domain,
        owner: &CustomerName,
        class: Class,
    ) -> &mut BTreeSet<QueueId> {
        let queues = self.queues.entry(domain.clone()).or_default();
        let at = queues.iter().position(|queue| queue.owner == *owner).unwrap_or_else(|| {
            queues.push(Queue { owner: owner.clone(), classes: Default::default() });
            queues.len() - 1
        });
        &mut queues[at].classes[class as usize]
    }

    fn leave(&mut self, place: &Place, id: QueueId) {
        let Some(queues) = self.queues.get_mut(&place.domain) else { return };
        let Some(at) = queues.iter().position(|queue| queue.owner == place.owner) else { return };
        queues[at].classes[place.class as usize].remove(&id);
        if queues[at].classes.iter().all(BTreeSet::is_empty) {
            queues.swap_remove(at);
        }
        if queues.is_empty() {
            self.queues.remove(&place.domain);
        }
    }

    fn queue(&self, domain: &Domain, owner: &CustomerName) -> Option<&Queue> {
        self.queues.get(domain)?.iter().find(|queue| queue.owner == *owner)
    }

    /// Ids of one class of one queue behind `after`, oldest first, at most `limit`.
    pub(crate) fn after(
        &self,
        domain: &Domain,
        owner: &CustomerName,
        class: Class,
        after: Option<QueueId>,
        limit: usize,
    ) -> Vec<QueueId> {
        let Some(queue) = self.queue(domain, owner) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ids = queue.classes[class as usize].range((from, Bound::Unbounded));
        ids.take(limit).copied().collect()
    }

    /// The oldest messages of a queue that are not over there, at most `limit`.
    pub(crate) fn oldest(
        &self,
        domain: &Domain,
        owner: &CustomerName,
        limit: usize,
    ) -> Vec<QueueId> {
        let Some(queue) = self.queue(domain, owner) else { return Vec::new() };
        let classes = [Class::Ready, Class::Late, Class::Held];
        let ids =
            classes.iter().flat_map(|class| queue.classes[*class as usize].iter().take(limit));
        let mut ids: Vec<QueueId> = ids.copied().collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids
    }

    /// Deadlines behind `after` up to `now`, earliest first, at most `limit`.
    pub(crate) fn due(
        &self,
        after: Option<(Timestamp, QueueId)>,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(Timestamp, QueueId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = Bound::Included((now, QueueId::from_bits(u128::MAX)));
        if after.is_some_and(|(time, _)| time > now) {
            return Vec::new();
        }
        self.deadlines.range((from, to)).take(limit).copied().collect()
    }

    /// All rows of ids that are not empty, in no order.
    pub(crate) fn rows(
        &self,
    ) -> impl Iterator<Item = (&Domain, &CustomerName, Class, &BTreeSet<QueueId>)> {
        let queues = self.queues.iter().flat_map(|(d, queues)| queues.iter().map(move |q| (d, q)));
        queues
            .flat_map(|(domain, queue)| {
                CLASSES.map(|class| (domain, &queue.owner, class, &queue.classes[class as usize]))
            })
            .filter(|(.., ids)| !ids.is_empty())
    }

    /// All deadlines, earliest first.
    pub(crate) fn deadlines(&self) -> &BTreeSet<(Timestamp, QueueId)> {
        &self.deadlines
    }

    /// Puts in a row as it was, for an engine that knows it from its last end.
    pub(crate) fn set_row(&mut self, place: &Place, ids: BTreeSet<QueueId>) {
        if !ids.is_empty() {
            *self.row(&place.domain, &place.owner, place.class) = ids;
        }
    }

    /// Puts in the deadlines as they were, for an engine that knows them from its last end.
    pub(crate) fn set_deadlines(&mut self, deadlines: BTreeSet<(Timestamp, QueueId)>) {
        self.deadlines = deadlines;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn place(number: u8) -> Place {
        let domain = Domain::parse(&format!("d{}.example", number % 3)).expect("a domain");
        let owner = CustomerName::parse(&format!("c{}", number / 3 % 2)).expect("a name");
        Place { domain, owner, class: CLASSES[usize::from(number / 6 % 4)] }
    }

    /// Where a message stands and when it is given up, by its id: the order as a table.
    type Table = std::collections::BTreeMap<QueueId, (Vec<Place>, BTreeSet<Timestamp>)>;

    fn wanted(table: &Table, at: &Place, after: Option<QueueId>) -> Vec<QueueId> {
        let there = table.iter().filter(|(_, (places, _))| places.contains(at));
        there.map(|(id, _)| *id).filter(|id| Some(*id) > after).collect()
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_table(
            steps in proptest::collection::vec(
                (0..12u128, proptest::collection::btree_set(0..24u8, 0..3), proptest::collection::btree_set(0..9u64, 0..3)),
                0..60,
            ),
            limit in 0..5usize,
            now in 0..9u64,
        ) {
            let (mut order, mut table) = (Order::default(), Table::new());
            for (id, places, times) in steps {
                let id = QueueId::from_bits(id);
                let places: Vec<Place> = places.into_iter().map(place).collect();
                let times: BTreeSet<Timestamp> = times.into_iter().map(Timestamp).collect();
                let old = table.insert(id, (places.clone(), times.clone())).unwrap_or_default();
                order.change(id, &old.0, &places);
                order.retime(id, &old.1, &times);
            }
            for number in 0..24 {
                let at = place(number);
                for after in [None, Some(QueueId::from_bits(4))] {
                    let mut ids = wanted(&table, &at, after);
                    ids.truncate(limit);
                    prop_assert_eq!(order.after(&at.domain, &at.owner, at.class, after, limit), ids);
                }
                let alive = |p: &Place| p.domain == at.domain && p.owner == at.owner && p.class != Class::Failed;
                let there = table.iter().flat_map(|(id, (places, _))| {
                    places.iter().filter(|p| alive(p)).map(|_| *id)
                });
                let oldest: Vec<QueueId> = there.take(limit).collect();
                prop_assert_eq!(order.oldest(&at.domain, &at.owner, limit), oldest);
            }
            let mut due: Vec<_> = table
                .iter()
                .flat_map(|(id, (_, times))| times.iter().map(|time| (*time, *id)))
                .filter(|(time, _)| time.0 <= now)
                .collect();
            due.sort_unstable();
            prop_assert_eq!(order.due(None, Timestamp(now), 100), due.clone());
            let rest: Vec<_> = due.iter().skip(2).copied().collect();
            if let Some(second) = due.get(1) {
                prop_assert_eq!(order.due(Some(*second), Timestamp(now), 100), rest);
            }
            let emptied: Vec<QueueId> = table.keys().copied().collect();
            for id in emptied {
                let (places, times) = table.remove(&id).unwrap_or_default();
                order.change(id, &places, &[]);
                order.retime(id, &times, &BTreeSet::new());
            }
            prop_assert_eq!(order, Order::default());
        }
    }
}
