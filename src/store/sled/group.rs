//! One group of operations between being asked and being answered: what each would change, seen one after the
//! other, before anything is durable.
//!
//! Called by the committer. Nothing in here is visible to readers before the committer applies it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::mail::{Domain, Outcome, QueueId};
use crate::store::kept::{Class, Kept};
use crate::store::roster::Roster;
use crate::store::{NewMessage, QueueAction, Settlement, StoreError, Verdict};

use super::body::Incoming;
use super::committer::{Committer, Failure, Op, Waiter};
use super::disk::DiskFile;
use super::frame::{self, BODY_BYTES_MAX, Tail};
use super::index::Entry;
use super::record::{Location, Mark};
use super::shared::{Shared, reading};
use super::spool::Lane;

/// A message before and after the group.
#[derive(Debug)]
pub(crate) struct Slot {
    /// As the index has it, with the digest of its value.
    pub(crate) before: Option<(Entry, u64)>,
    /// As it will be; without recipients it is gone.
    pub(crate) now: Entry,
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
    hints: BTreeSet<Domain>,
    dones: Vec<Done>,
    /// Answers that fail if the marks cannot be written.
    marked: Vec<Done>,
    small: Vec<u8>,
    in_small: Vec<(QueueId, Waiter<()>)>,
    room: Option<u64>,
}

/// Answers without doing anything.
pub(crate) fn refuse(op: Op, why: &str) {
    let error = || StoreError::Broken(why.to_owned());
    // Nobody may be waiting any more; that changes nothing.
    let _ = match op {
        Op::Commit { waiter, .. }
        | Op::Settle { waiter, .. }
        | Op::Moved { waiter, .. }
        | Op::Repeat { waiter, .. }
        | Op::Stop(waiter) => waiter.send(Err(error())).is_ok(),
        Op::Act { waiter, .. } => waiter.send(Err(error())).is_ok(),
        Op::Direct { waiter, .. } => waiter.send(Err(error().into())).is_ok(),
        Op::Abort(_) | Op::SetAside { .. } => true,
    };
}

fn answer<T: Send + 'static>(waiter: Waiter<T>, value: T) -> Done {
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
            Op::Abort(lane) => committer.shared.spool.cut_off(lane),
            Op::Settle { customer, domains, token, settlements, valid, waiter } => {
                for Settlement { id, index, verdict } in settlements {
                    let told = matches!(verdict, Verdict::Said(Outcome::Delivered(_)));
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
    fn slot(&mut self, committer: &Committer, id: QueueId) -> Option<&mut Slot> {
        if !self.slots.contains_key(&id) {
            let guard = reading(&committer.shared.index);
            let found = guard.as_ref().map(|index| index.entry(id));
            drop(guard);
            let (entry, digest) = match found? {
                Ok(found) => found?,
                Err(error) => {
                    super::keeper::report_entry(&committer.shared, id, &error);
                    return None;
                }
            };
            self.slots.insert(id, Slot { before: Some((entry.clone(), digest)), now: entry });
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

    fn hint(&mut self, id: QueueId) {
        let Some(slot) = self.slots.get(&id) else { return };
        let places = slot.now.kept.places().into_iter();
        self.hints.extend(places.filter(|p| p.class <= Class::Late).map(|p| p.domain));
    }

    fn commit(
        &mut self,
        committer: &mut Committer,
        message: NewMessage,
        size: u64,
        body: Incoming,
        waiter: Waiter<()>,
    ) {
        let id = message.id;
        let known = self.slot(committer, id).is_some_and(|s| !s.now.kept.recipients.is_empty());
        let kept = if known { Ok(None) } else { Kept::new(message, size).map(Some) };
        let (kept, lane) = match (kept, body.stream) {
            (Ok(Some(kept)), Some(stream)) => {
                let rest = body.rest;
                return self.streamed(committer, kept, stream, &rest, waiter);
            }
            (kept, stream) => (kept, stream.map(|s| s.lane)),
        };
        if let Some(lane) = lane {
            committer.shared.spool.cut_off(lane);
        }
        match kept {
            Ok(Some(kept)) => self.small(committer, kept, &body.rest, waiter),
            // It is durable when this group is, if it is not already.
            Ok(None) if self.in_small.iter().any(|(small, _)| *small == id) => {
                self.in_small.push((id, waiter));
            }
            Ok(None) => self.dones.push(answer(waiter, ())),
            Err(error) => {
                let _ = waiter.send(Err(error));
            }
        }
    }

    fn enter(&mut self, now: Entry) {
        let id = now.kept.id;
        let before = self.slots.remove(&id).and_then(|slot| slot.before);
        self.changed.remove(&id);
        if let Some((old, _)) = &before {
            self.marks.push(Mark::Dead { id, at: old.at });
        }
        self.slots.insert(id, Slot { before, now });
    }

    /// Whether `need` octets may be written without touching what is kept back.
    fn has_room(&mut self, shared: &Shared, need: u64) -> bool {
        let room = self.room.get_or_insert_with(|| {
            let space = shared.disk.space(&shared.spool.folder);
            space
                .map_or(u64::MAX, |(free, total)| free.saturating_sub(Shared::reserve_bytes(total)))
        });
        if *room < need {
            return false;
        }
        *room -= need;
        true
    }

    fn small(&mut self, committer: &mut Committer, kept: Kept, body: &[u8], waiter: Waiter<()>) {
        let need = frame::record_bytes(kept.size) + 1024;
        if !self.has_room(&committer.shared, need) {
            let _ = waiter.send(Err(StoreError::Full("the disk".into())));
            return;
        }
        let written = self.small.len() as u64;
        let full = committer
            .lane
            .as_ref()
            .is_some_and(|lane| lane.end + written + need > committer.shared.spool.segment_bytes);
        if full {
            self.write_small(committer);
            self.full.extend(committer.lane.take());
        }
        let lane = match &mut committer.lane {
            Some(lane) => lane,
            none => match committer.shared.spool.take_lane(need) {
                Ok(lane) => none.insert(lane),
                Err(error) => {
                    let _ = waiter.send(Err(Failure::of_write(&error).into()));
                    return;
                }
            },
        };
        let offset = lane.end + self.small.len() as u64;
        let id = kept.id;
        frame::put_head(&mut self.small, &lane.nonce, id);
        let frames = put_frames(&mut self.small, lane, id, 0, body);
        let tail = Tail { synced: lane.synced, copy: false, kept };
        frame::put_tail(&mut self.small, &lane.nonce, frames, &tail);
        let len = lane.end + self.small.len() as u64 - offset;
        let at = Location { segment: lane.number, offset, len };
        self.enter(Entry { kept: tail.kept, at });
        self.hint(id);
        self.in_small.push((id, waiter));
    }

    /// Writes the small bodies that were collected.
    pub(crate) fn write_small(&mut self, committer: &mut Committer) {
        let octets = std::mem::take(&mut self.small);
        let Some(lane) = committer.lane.as_mut().filter(|_| !octets.is_empty()) else { return };
        match lane.file.write_at(&octets, lane.end) {
            Ok(()) => {
                lane.end += octets.len() as u64;
                self.files.push(lane.file.clone());
                committer.shared.spool.grown(lane);
                let waiters = self.in_small.drain(..);
                self.dones.extend(waiters.map(|(_, waiter)| answer(waiter, ())));
            }
            Err(error) => {
                let failure = Failure::of_write(&error);
                for (id, waiter) in self.in_small.drain(..) {
                    self.slots.remove(&id);
                    let _ = waiter.send(Err(failure.clone().into()));
                }
                if let Some(lane) = committer.lane.take() {
                    committer.shared.spool.cut_off(lane);
                }
            }
        }
    }

    fn streamed(
        &mut self,
        committer: &Committer,
        kept: Kept,
        stream: super::body::Stream,
        rest: &[u8],
        waiter: Waiter<()>,
    ) {
        let super::body::Stream { mut lane, cursor, frames } = stream;
        let id = kept.id;
        let mut octets = Vec::with_capacity(rest.len() + 4096);
        let frames = put_frames(&mut octets, &lane, id, frames, rest);
        let tail = Tail { synced: lane.synced, copy: false, kept };
        frame::put_tail(&mut octets, &lane.nonce, frames, &tail);
        let room = self.has_room(&committer.shared, octets.len() as u64);
        let written = if room {
            lane.file.write_at(&octets, cursor).map_err(|e| Failure::of_write(&e))
        } else {
            Err(Failure::Full)
        };
        if let Err(failure) = written {
            committer.shared.spool.cut_off(lane);
            let _ = waiter.send(Err(failure.into()));
            return;
        }
        let offset = lane.end;
        lane.end = cursor + octets.len() as u64;
        let at = Location { segment: lane.number, offset, len: lane.end - offset };
        self.enter(Entry { kept: tail.kept, at });
        self.hint(id);
        self.files.push(lane.file.clone());
        committer.shared.spool.grown(&lane);
        self.lanes.push(lane);
        self.dones.push(answer(waiter, ()));
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
                    self.changed.insert(id);
                    self.marks.push(Mark::Dead { id, at: from });
                }
                // Settled in the meantime; a copy without a mark does not count.
                _ => {}
            }
        }
    }

    /// The marks could not be written: what needed them is undone and answered.
    pub(crate) fn revert(&mut self, failure: &Failure) {
        for id in std::mem::take(&mut self.changed) {
            if let Some(slot) = self.slots.get_mut(&id)
                && let Some((before, _)) = &slot.before
            {
                slot.now = before.clone();
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

/// Adds `body` as frames from number `first` on; answers the number of the next one.
fn put_frames(out: &mut Vec<u8>, lane: &Lane, id: QueueId, first: u64, body: &[u8]) -> u64 {
    let mut number = first;
    for content in body.chunks(BODY_BYTES_MAX) {
        frame::put_body(out, &lane.nonce, id, number, content);
        number += 1;
    }
    number
}
