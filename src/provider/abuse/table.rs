//! A table that forgets: bounded, oldest out first.
//!
//! Used by the memory of failures only. It never grows over its limit, whatever strangers do.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use super::REMEMBERED_MAX;

/// Values by key, with the moment each was last written.
pub(super) struct Table<K, V> {
    entries: HashMap<K, (Duration, V)>,
    by_age: BTreeSet<(Duration, K)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), by_age: BTreeSet::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord, V> Table<K, V> {
    /// The value, if it was written less than `lasts` ago.
    pub(super) fn find(&self, key: &K, now: Duration, lasts: Duration) -> Option<&V> {
        let (when, value) = self.entries.get(key)?;
        (now.saturating_sub(*when) < lasts).then_some(value)
    }

    /// The value to be written; a new one if there is none, or it is older than `lasts`.
    pub(super) fn take(&mut self, key: K, now: Duration, lasts: Duration) -> &mut V
    where
        V: Default,
    {
        self.take_or(key, now, lasts, V::default())
    }

    /// As [`Table::take`], with another new value.
    pub(super) fn take_or(&mut self, key: K, now: Duration, lasts: Duration, new: V) -> &mut V {
        let known = self.entries.remove(&key);
        if let Some((when, _)) = &known {
            self.by_age.remove(&(*when, key.clone()));
        }
        while self.entries.len() >= REMEMBERED_MAX {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.entries.remove(&oldest);
        }
        let kept = known.filter(|(when, _)| now.saturating_sub(*when) < lasts);
        let value = kept.map_or(new, |(_, value)| value);
        self.by_age.insert((now, key.clone()));
        &mut self.entries.entry(key).insert_entry((now, value)).into_mut().1
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.entries.len(), self.by_age.len());
        self.entries.len()
    }
}
