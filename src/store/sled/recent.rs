//! Messages that came or that a drain was shown a moment ago, as the index has them: they are offered next, their bodies
//! are read, and whatever becomes of them is recorded soon, and then they need not be looked up and read once more.
//!
//! Filled by the committer and by the pages of drains, used up by the committer. It may forget anything at any time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::mail::{QueueId, RecipientState};
use crate::store::HeldRecipient;
use crate::store::kept::{Kept, KeptRecipient};

use super::index::Entry;
use super::shared::locked;
use super::sync::Mutex;

/// A message with more recipients is looked up again: better many small ones.
const RECIPIENTS_MAX: usize = 8;
/// Octets kept at most, more or less, in two halves: when the younger is full, the older is forgotten.
const KEPT_BYTES_MAX: usize = 24 << 20;
/// Changes that are remembered while somebody reads.
const CHANGES_MAX: usize = 16_384;

/// A message and the digest of its value.
pub(crate) type Found = (Arc<Entry>, u64);

#[derive(Debug, Default)]
struct Inner {
    younger: HashMap<QueueId, Found>,
    older: HashMap<QueueId, Found>,
    /// Octets that were put into the younger half.
    octets: usize,
    /// Raised with each change of the index.
    generation: u64,
    /// Readings that have begun and not ended.
    readings: usize,
    /// When a message was changed while somebody read: what was read before may be old.
    changed: HashMap<QueueId, u64>,
    /// Changes up to this generation are not remembered: a reading that began before it is worth nothing.
    forgotten: u64,
}

impl Inner {
    /// Answers what is forgotten for it, to be dropped when others need not wait for that.
    fn insert(&mut self, (entry, sum): Found) -> HashMap<QueueId, Found> {
        let mut forgotten = HashMap::new();
        if !(1..=RECIPIENTS_MAX).contains(&entry.kept.recipients.len()) {
            return forgotten;
        }
        if self.octets >= KEPT_BYTES_MAX / 2 {
            let younger = std::mem::take(&mut self.younger);
            forgotten = std::mem::replace(&mut self.older, younger);
            self.octets = 0;
        }
        self.octets += weight(&entry.kept);
        self.younger.insert(entry.kept.id, (entry, sum));
        forgotten
    }

    fn forget(&mut self, id: QueueId) -> Option<Found> {
        // One that was read twice may be in both, and then the younger is no older.
        let (younger, older) = (self.younger.remove(&id), self.older.remove(&id));
        younger.or(older)
    }
}

/// Octets of memory that a message takes, about.
fn weight(kept: &Kept) -> usize {
    let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    let recipient = |recipient: &KeptRecipient| {
        let HeldRecipient { recipient, state, owner, .. } = &recipient.seen;
        let said = match state {
            RecipientState::Queued => 0,
            RecipientState::Deferred(reply)
            | RecipientState::Failed(reply)
            | RecipientState::Relayed(reply) => reply.as_str().len(),
        };
        let path = recipient.forward_path.as_str().len();
        // The domain is kept once more, in its normal form.
        350 + 2 * path + owner.as_str().len() + text(&recipient.orcpt) + said
    };
    let Kept { envelope, facts, recipients, .. } = kept;
    let header = facts.message_id.as_deref().map_or(0, str::len);
    let reverse_path = envelope.reverse_path.as_str().len();
    let own = 350 + reverse_path + text(&envelope.dsn.envid) + header;
    own + recipients.iter().map(recipient).sum::<usize>()
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

/// A reading of the index that has begun.
pub(crate) struct Reading<'a> {
    recent: &'a Recent,
    generation: u64,
}

impl Recent {
    /// To be called before the index is read.
    pub(crate) fn begin(&self) -> Reading<'_> {
        let mut inner = locked(&self.0);
        inner.readings += 1;
        Reading { recent: self, generation: inner.generation }
    }

    /// The message as it stood a moment ago.
    pub(crate) fn get(&self, id: QueueId) -> Option<Arc<Entry>> {
        let inner = locked(&self.0);
        let (entry, _) = inner.younger.get(&id).or_else(|| inner.older.get(&id))?;
        Some(entry.clone())
    }

    /// The message as it stands. Only the committer, which alone changes anything, may rely on it.
    pub(crate) fn take(&self, id: QueueId) -> Option<Found> {
        locked(&self.0).forget(id)
    }

    /// Keeps what the index has been given now. For the committer, which alone changes anything.
    pub(crate) fn put(&self, came: impl Iterator<Item = Found>) {
        let mut inner = locked(&self.0);
        let forgotten: Vec<_> =
            came.map(|found| inner.insert(found)).filter(|some| !some.is_empty()).collect();
        drop(inner);
        drop(forgotten);
    }

    /// The index was changed about these.
    pub(crate) fn changed<'a>(&self, ids: impl Iterator<Item = &'a QueueId>) {
        let mut inner = locked(&self.0);
        inner.generation += 1;
        let generation = inner.generation;
        for id in ids {
            inner.forget(*id);
            if inner.readings > 0 {
                inner.changed.insert(*id, generation);
            }
        }
        if inner.changed.len() > CHANGES_MAX {
            inner.changed.clear();
            inner.forgotten = generation;
        }
    }
}

impl Reading<'_> {
    /// Keeps what was read, but for what has changed since it began.
    pub(crate) fn keep(self, read: Vec<Found>) {
        let mut inner = locked(&self.recent.0);
        if self.generation < inner.forgotten {
            return;
        }
        let mut forgotten = Vec::new();
        for (entry, sum) in read {
            let id = entry.kept.id;
            if inner.changed.get(&id).is_none_or(|at| *at <= self.generation) {
                forgotten.push(inner.insert((entry, sum)));
            }
        }
        drop(inner);
        drop(forgotten);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut inner = locked(&self.recent.0);
        inner.readings -= 1;
        if inner.readings == 0 {
            inner.changed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Location;
    use super::super::support::{id, message};
    use super::*;

    fn found(n: u64, to: &[(&str, &str)]) -> Found {
        let kept = Kept::new(message(n, to), 1).expect("a message");
        (Arc::new(Entry { kept, at: Location { segment: 1, offset: 0, len: 1 } }), 5)
    }

    fn entry(n: u64) -> Found {
        found(n, &[("b@bar.example", "bar")])
    }

    /// Its lock is one of the scheduler's.
    fn scheduled(test: fn()) {
        shuttle::check_random(test, 1);
    }

    #[test]
    fn what_was_read_before_its_change_is_not_kept() {
        scheduled(|| {
            let recent = Recent::default();
            let reading = recent.begin();
            recent.changed([id(7)].iter());
            let later = recent.begin();
            reading.keep(vec![entry(7), entry(8)]);
            assert_eq!(recent.take(id(7)), None, "read before the change");
            assert_eq!(recent.take(id(8)), Some(entry(8)), "another message was changed");
            later.keep(vec![entry(7)]);
            assert!(recent.get(id(7)).is_some());
            assert_eq!(recent.take(id(7)), Some(entry(7)), "read after the change");
            assert_eq!(recent.take(id(7)), None, "it is used up");
            recent.begin().keep(vec![entry(7)]);
            recent.changed([id(7)].iter());
            assert_eq!(recent.take(id(7)), None, "changed since");
            assert!(locked(&recent.0).changed.is_empty(), "nobody reads");
        });
    }

    #[test]
    fn a_reading_of_which_too_much_has_changed_is_worth_nothing() {
        scheduled(|| {
            let recent = Recent::default();
            let reading = recent.begin();
            let ids: Vec<QueueId> = (0..=CHANGES_MAX as u64).map(id).collect();
            recent.changed(ids.iter());
            assert!(locked(&recent.0).changed.is_empty(), "bounded");
            reading.keep(vec![entry(7)]);
            assert_eq!(recent.take(id(7)), None);
            recent.begin().keep(vec![entry(7)]);
            assert!(recent.take(id(7)).is_some());
        });
    }

    #[test]
    fn one_that_was_read_twice_is_forgotten_twice() {
        scheduled(|| {
            let recent = Recent::default();
            recent.begin().keep(vec![entry(7)]);
            locked(&recent.0).octets = KEPT_BYTES_MAX;
            recent.begin().keep(vec![entry(8)]);
            assert!(locked(&recent.0).older.contains_key(&id(7)));
            recent.put([entry(7)].into_iter());
            recent.changed([id(7)].iter());
            assert_eq!(recent.take(id(7)), None);
            assert!(recent.take(id(8)).is_some());
        });
    }

    #[test]
    fn what_came_is_kept_unless_it_is_gone_again() {
        scheduled(|| {
            let recent = Recent::default();
            let (mut gone, sum) = entry(2);
            Arc::make_mut(&mut gone).kept.recipients.clear();
            recent.put([entry(1), (gone, sum)].into_iter());
            assert_eq!(recent.take(id(1)), Some(entry(1)));
            assert_eq!(recent.take(id(2)), None, "nobody is left of it");
        });
    }

    #[test]
    fn a_message_for_many_is_looked_up_again() {
        scheduled(|| {
            let recent = Recent::default();
            let many = found(1, &[("b@bar.example", "bar"); RECIPIENTS_MAX + 1]);
            recent.begin().keep(vec![many, entry(2)]);
            assert_eq!(recent.take(id(1)), None);
            assert!(recent.take(id(2)).is_some());
        });
    }

    #[test]
    fn it_does_not_grow_without_end() {
        scheduled(|| {
            let recent = Recent::default();
            let long = "x".repeat(60);
            let long = format!("{long}@{long}.{long}.example");
            let to = [(long.as_str(), "bar"); RECIPIENTS_MAX];
            let each = weight(&found(0, &to).0.kept);
            let most = KEPT_BYTES_MAX / each + 2;
            for n in 0..2 * most as u64 {
                recent.begin().keep(vec![found(n, &to)]);
                let inner = locked(&recent.0);
                assert!(inner.younger.len() + inner.older.len() <= most);
            }
            assert!(recent.get(id(2 * most as u64 - 1)).is_some(), "the newest stays");
        });
    }
}
