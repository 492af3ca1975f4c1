//! A thread that changes the index for the committer while the committer waits for the disk.
//!
//! Called by the committer, one group at a time. It decides nothing.

use std::io;
use std::sync::Arc;

use super::committer::Failure;
use super::group::Group;
use super::index::{Changes, id_digest};
use super::shared::{Shared, reading};
use super::sync::{Builder, JoinHandle, Receiver, Sender, channel};

/// What a group does to the sums over the index.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) entries: u64,
    pub(crate) digest: u64,
    pub(crate) ids: u64,
}

type Changed = (Group, Result<Sums, Failure>);

/// The committer's end of the thread.
pub(crate) struct Indexer {
    groups: Option<Sender<Group>>,
    changed: Receiver<Changed>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    pub(crate) fn begin(shared: Arc<Shared>) -> io::Result<Self> {
        let (groups, inbox) = channel::<Group>();
        let (outbox, changed) = channel();
        let thread = Builder::new().name("store-indexer".into()).spawn(move || {
            while let Ok(mut group) = inbox.recv() {
                let sums = change_index(&shared, &mut group);
                if outbox.send((group, sums)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { groups: Some(groups), changed, thread: Some(thread) })
    }

    /// Changes the index, and does `meanwhile` on this thread.
    pub(crate) fn beside<T>(
        &self,
        group: Group,
        meanwhile: impl FnOnce() -> T,
    ) -> (T, Option<Changed>) {
        let sent = self.groups.as_ref().is_some_and(|groups| groups.send(group).is_ok());
        let done = meanwhile();
        (done, if sent { self.changed.recv().ok() } else { None })
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.groups = None;
        // If it panicked the committer was told.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Applies a group.
pub(crate) fn change_index(shared: &Shared, group: &mut Group) -> Result<Sums, Failure> {
    let stood = group.slots.iter().map(|(id, s)| (*id, s.before.as_ref().map(|(e, _)| &**e)));
    let _moment = shared.snapshots.note(stood);
    let mut changes = Changes::default();
    let mut sums = Sums::default();
    for (id, slot) in &mut group.slots {
        let before = slot.before.as_ref().map(|(entry, _)| &**entry);
        let now = (!slot.now.kept.recipients.is_empty()).then_some(&slot.now);
        if before == now {
            continue;
        }
        let sum = changes.replace(before, now);
        slot.digest = sum;
        let old = slot.before.as_ref().map_or(0, |(_, digest)| *digest);
        sums.digest = sums.digest.wrapping_add(sum).wrapping_sub(old);
        sums.entries = sums
            .entries
            .wrapping_add(u64::from(now.is_some()))
            .wrapping_sub(u64::from(before.is_some()));
        sums.ids = match (before, now) {
            (None, Some(_)) => sums.ids.wrapping_add(id_digest(*id)),
            (Some(_), None) => sums.ids.wrapping_sub(id_digest(*id)),
            _ => sums.ids,
        };
    }
    for (key, content) in group.customers.drain(..) {
        match content {
            Some(content) => changes.insert(&key, &content),
            None => changes.remove(&key),
        }
    }
    if changes.len() > 0 {
        let guard = reading(&shared.index);
        let applied = guard.as_ref().map(|index| index.apply(changes));
        applied.unwrap_or(Ok(())).map_err(|e| Failure::Broken(e.to_string()))?;
        shared.recent.changed(group.slots.keys());
    }
    Ok(sums)
}
