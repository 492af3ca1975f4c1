//! Messages that a drain was shown a moment ago, as the index has them: whatever becomes of them is likely to be
//! recorded soon, and then they need not be looked up and read once more.
//!
//! Filled by the pages of drains, used up by the committer. It may forget anything at any time.

use std::collections::HashMap;

use crate::mail::QueueId;

use super::index::Entry;
use super::shared::locked;
use super::sync::Mutex;

/// A message with more recipients is looked up again: memory is bounded by the small ones.
const RECIPIENTS_MAX: usize = 8;
/// Messages kept at most; when there would be more, all are forgotten.
const KEPT_MAX: usize = 16_384;

#[derive(Debug, Default)]
struct Inner {
    /// Raised after each change of the index: what was read before it may be old.
    generation: u64,
    entries: HashMap<QueueId, (Entry, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

impl Recent {
    /// To be asked for before the index is read.
    pub(crate) fn generation(&self) -> u64 {
        locked(&self.0).generation
    }

    /// Keeps what was read, each with the digest of its value, unless the index has changed since.
    pub(crate) fn keep(&self, generation: u64, read: Vec<(Entry, u64)>) {
        let mut inner = locked(&self.0);
        if inner.generation != generation {
            return;
        }
        if inner.entries.len() + read.len() > KEPT_MAX {
            inner.entries.clear();
        }
        let small = |(entry, _): &(Entry, u64)| entry.kept.recipients.len() <= RECIPIENTS_MAX;
        let small = read.into_iter().filter(small);
        inner.entries.extend(small.map(|(entry, sum)| (entry.kept.id, (entry, sum))));
    }

    /// The message as it stands. Only the committer, which alone changes anything, may rely on it.
    pub(crate) fn take(&self, id: QueueId) -> Option<(Entry, u64)> {
        locked(&self.0).entries.remove(&id)
    }

    /// The index was changed about these.
    pub(crate) fn changed<'a>(&self, ids: impl Iterator<Item = &'a QueueId>) {
        let mut inner = locked(&self.0);
        inner.generation += 1;
        if !inner.entries.is_empty() {
            ids.for_each(|id| drop(inner.entries.remove(id)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Location;
    use super::super::support::{id, message};
    use super::*;

    use crate::store::kept::Kept;

    fn entry(n: u64) -> (Entry, u64) {
        let kept = Kept::new(message(n, &[("b@bar.example", "bar")]), 1).expect("a message");
        (Entry { kept, at: Location { segment: 1, offset: 0, len: 1 } }, 5)
    }

    /// Its lock is one of the scheduler's.
    fn scheduled(test: fn()) {
        shuttle::check_random(test, 1);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        scheduled(|| {
            let recent = Recent::default();
            let before = recent.generation();
            recent.changed([id(7)].iter());
            recent.keep(before, vec![entry(7)]);
            assert_eq!(recent.take(id(7)), None, "read before the change");
            recent.keep(recent.generation(), vec![entry(7)]);
            recent.changed([id(8)].iter());
            assert_eq!(recent.take(id(7)), Some(entry(7)), "another message was changed");
            assert_eq!(recent.take(id(7)), None, "it is used up");
            recent.keep(recent.generation(), vec![entry(7)]);
            recent.changed([id(7)].iter());
            assert_eq!(recent.take(id(7)), None, "changed since");
        });
    }

    #[test]
    fn a_message_for_many_is_looked_up_again() {
        scheduled(|| {
            let to: Vec<_> = (0..=RECIPIENTS_MAX).map(|_| ("b@bar.example", "bar")).collect();
            let kept = Kept::new(message(1, &to), 1).expect("a message");
            let at = Location { segment: 1, offset: 0, len: 1 };
            let recent = Recent::default();
            recent.keep(recent.generation(), vec![(Entry { kept, at }, 5), entry(2)]);
            assert_eq!(recent.take(id(1)), None);
            assert!(recent.take(id(2)).is_some());
        });
    }

    #[test]
    fn it_does_not_grow_without_end() {
        scheduled(|| {
            let recent = Recent::default();
            for page in 0..60 {
                recent.keep(0, (0..500).map(|n| entry(page * 500 + n)).collect());
            }
            assert!(locked(&recent.0).entries.len() <= KEPT_MAX);
        });
    }
}
