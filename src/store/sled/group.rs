//! One group of operations between being asked and being answered: what each would change, seen one after the
//! other, before anything is durable.
//!
//! Called by the committer. Nothing in here is visible to readers before the committer applies it.

use std::collections::{BTreeSet, HashMap, hash_map};
use std::sync::Arc;

use crate::mail::{Domain, Outcome, QueueId};
use crate::store::kept::{Class, Kept};
use crate::store::roster::Roster;
use crate::store::{QueueAction, Settlement, StoreError, Verdict};

use super::committer::{Committer, Failure, Op, Waiter};
use super::disk::DiskFile;
use super::index::Entry;
use super::recent::Found;
use super::record::{Location, Mark};
use super::shared::{Shared, locked, reading};
use super::spool::Lane;

/// A message before and after the group.
#[derive(Debug)]
pub(crate) struct Slot {
    /// As the index has it, with the digest of its value.
    pub(crate) before: Option<Found>,
    /// As it will be; without recipients it is gone.
    pub(crate) now: Entry,
    /// The digest of that in the index, once it is there.
    pub(crate) digest: u64,
}

/// An answer that waits for the group's end.
type Done = Box<dyn FnOnce(Result<(), Failure>) + Send>;

/// See the module.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) slots: HashMap<QueueId, Slot>,
    /// Messages whose change needs a mark.
    pub(crate) changed: BTreeSet<QueueId>,
    pub(crate) marks: Vec<Mark>,
    /// Files to be synced.
    pub(crate) files: Vec<Arc<dyn DiskFile>>,
    /// Lanes that take records again afterwards.
    pub(crate) lanes: Vec<Lane>,
    /// Lanes that take no more.
    pub(crate) full: Vec<Lane>,
    pub(crate) roster: Option<Roster>,
    pub(crate) server_key: Option<[u8; 32]>,
    /// Keys of the index about customers.
    pub(crate) customers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The spool is to be synced before the journal is written.
    pub(crate) spool_first: bool,
    hints: BTreeSet<Domain>,
    /// Messages that a mark of their own changes, to be undone if it cannot be written.
    pub(super) moved: Vec<QueueId>,
    /// Reports that exist by a mark only.
    pub(super) reports: Vec<QueueId>,
    pub(super) dones: Vec<Done>,
    /// Answers that fail if the marks cannot be written.
    marked: Vec<Done>,
    pub(super) small: Vec<u8>,
    pub(super) in_small: Vec<(QueueId, Waiter<()>)>,
}

/// Answers without doing anything.
pub(crate) fn refuse(op: Op, why: &str) {
    let error = || StoreError::Broken(why.to_owned());
    // Nobody may be waiting any more; that changes nothing.
    let _ = match op {
        Op::Commit { waiter, .. }
        | Op::Enter { waiter, .. }
        | Op::Settle { waiter, .. }
        | Op::Moved { waiter, .. }
        | Op::Repeat { waiter, .. }
        | Op::Stop(waiter) => waiter.send(Err(error())).is_ok(),
        Op::Act { waiter, .. } => waiter.send(Err(error())).is_ok(),
        Op::Conclude { waiter, .. } => waiter.send(Err(error())).is_ok(),
        Op::Direct { waiter, .. } => waiter.send(Err(error().into())).is_ok(),
        Op::Abort(_) | Op::SetAside { .. } => true,
    };
}

/// A message as the index has it, with the digest of its value.
fn stored(shared: &Shared, id: QueueId) -> Option<Found> {
    if let Some(found) = shared.recent.take(id) {
        return Some(found);
    }
    let guard = reading(&shared.index);
    match guard.as_ref()?.entry(id) {
        Ok(found) => found.map(|(entry, digest)| (Arc::new(entry), digest)),
        Err(error) => {
            drop(guard);
            super::keeper::report_entry(shared, id, &error);
            None
        }
    }
}

pub(super) fn answer<T: Send + 'static>(waiter: Waiter<T>, value: T) -> Done {
    Box::new(move |outcome| {
        // As above.
        let _ = waiter.send(outcome.map(|()| value).map_err(Into::into));
    })
}

impl Group {
    /// Takes an operation in.
    pub(crate) fn prepare(&mut self, committer: &mut Committer, op: Op) {
        match op {
            Op::Commit { message, size, body, waiter } => {
                self.commit(committer, *message, size, body, waiter);
            }
            Op::Enter { kept, body, waiter } => {
                self.enter_record(committer, kept.id, Ok(*kept), body, waiter);
            }
            Op::Abort(lane) => committer.shared.spool.cut_off(lane),
            Op::Settle { customer, domains, token, settlements, valid, waiter } => {
                // It may have been lost on the way here.
                let now = committer.shared.now();
                let valid = valid && locked(&committer.shared.leases).is_valid(token, now);
                for Settlement { id, index, verdict } in settlements {
                    let told = matches!(
                        verdict,
                        Verdict::Said(Outcome::Delivered(_)) | Verdict::Relayed(_)
                    );
                    if valid || told {
                        self.change(committer, id, |kept| {
                            kept.settle(index, &verdict, &customer, &domains, token)
                        });
                    }
                }
                self.marked.push(Box::new(move |outcome| {
                    let lost = if valid { Ok(()) } else { Err(StoreError::LostLease) };
                    let _ = waiter.send(outcome.map_err(StoreError::from).and(lost));
                }));
            }
            Op::Act { filter, action, ids, waiter } => {
                let mut touched = 0;
                for id in ids {
                    if self.change(committer, id, |kept| kept.act(&filter, action)) {
                        touched += 1;
                        if action == QueueAction::Release {
                            self.hint(id);
                        }
                    }
                }
                self.marked.push(answer(waiter, touched));
            }
            Op::Conclude { about, states, report, waiter } => {
                match self.conclude(committer, about, &states, report) {
                    Ok(true) => self.marked.push(answer(waiter, true)),
                    other => {
                        let _ = waiter.send(other);
                    }
                }
            }
            Op::SetAside { id, why } => {
                let set = |kept: &mut Kept| !std::mem::replace(&mut kept.damaged, true);
                if self.change(committer, id, set) {
                    committer.shared.report(format!("message {id} was set aside: {why}"));
                }
            }
            Op::Moved { lane, end, moves, waiter } => {
                self.moved(committer, lane, end, moves);
                self.marked.push(answer(waiter, ()));
            }
            Op::Repeat { marks, ids, waiter } => {
                self.marks.extend(marks);
                for id in ids {
                    if self.slot(committer, id).is_some() {
                        self.changed.insert(id);
                    }
                }
                self.marked.push(answer(waiter, ()));
            }
            Op::Direct { change, waiter } => {
                let done = committer.log.prepare(&committer.shared, self, change);
                match done {
                    Ok(()) => self.dones.push(Box::new(move |outcome| {
                        let _ = waiter.send(outcome.map_err(|f| StoreError::from(f).into()));
                    })),
                    Err(error) => {
                        let _ = waiter.send(Err(error));
                    }
                }
            }
            // The committer keeps it for itself.
            Op::Stop(_) => {}
        }
    }

    /// The message as the group sees it.
    pub(super) fn slot(&mut self, committer: &Committer, id: QueueId) -> Option<&mut Slot> {
        if let hash_map::Entry::Vacant(place) = self.slots.entry(id) {
            let (entry, digest) = stored(&committer.shared, id)?;
            place.insert(Slot { now: (*entry).clone(), before: Some((entry, digest)), digest });
        }
        self.slots.get_mut(&id)
    }

    fn change(
        &mut self,
        committer: &Committer,
        id: QueueId,
        work: impl FnOnce(&mut Kept) -> bool,
    ) -> bool {
        let Some(slot) = self.slot(committer, id) else { return false };
        let changed = work(&mut slot.now.kept);
        if changed {
            self.changed.insert(id);
        }
        changed
    }

    pub(super) fn hint(&mut self, id: QueueId) {
        let Some(slot) = self.slots.get(&id) else { return };
        let places = slot.now.kept.places().into_iter();
        self.hints.extend(places.filter(|p| p.class <= Class::Late).map(|p| p.domain));
    }

    fn moved(
        &mut self,
        committer: &Committer,
        mut lane: Lane,
        end: u64,
        moves: Vec<(QueueId, Location, Location)>,
    ) {
        lane.end = end;
        self.files.push(lane.file.clone());
        committer.shared.spool.grown(&lane);
        self.lanes.push(lane);
        for (id, from, to) in moves {
            match self.slot(committer, id) {
                Some(slot) if slot.now.at == from && !slot.now.kept.recipients.is_empty() => {
                    slot.now.at = to;
                    let there = Mark::about(&slot.now.kept, to);
                    self.marks.push(Mark::Together(vec![Mark::Dead { id, at: from }, there]));
                    self.moved.push(id);
                }
                // Settled in the meantime; a copy without a mark does not count.
                _ => {}
            }
        }
    }

    /// The marks could not be written: what needed them is undone and answered.
    pub(crate) fn revert(&mut self, failure: &Failure) {
        for id in self.reports.drain(..) {
            self.slots.remove(&id);
        }
        for id in std::mem::take(&mut self.changed).into_iter().chain(self.moved.drain(..)) {
            if let Some(slot) = self.slots.get_mut(&id)
                && let Some((before, _)) = &slot.before
            {
                slot.now = (**before).clone();
            }
        }
        for done in self.marked.drain(..) {
            done(Err(failure.clone()));
        }
    }

    /// Answers all.
    pub(crate) fn finish(self, shared: &Shared, outcome: Result<(), Failure>) {
        if outcome.is_ok() {
            for domain in &self.hints {
                shared.hints.tell(domain);
            }
        }
        for done in self.dones.into_iter().chain(self.marked) {
            done(outcome.clone());
        }
    }
}
