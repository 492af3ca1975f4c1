//! The one thread through which every change goes: it takes all that waits, writes it, syncs once, brings the
//! index up to date and answers all.
//!
//! Called through [`Op`]s. An answer of success is given only after the spool and the journal were synced and
//! the index shows the change. A sync that fails is final: the kernel may have dropped what it could not write,
//! so nothing is tried again and the store is broken until it is opened anew.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::channel::oneshot;

use crate::mail::{CustomerName, Domain, QueueId, RecipientState};
use crate::store::kept::Kept;
use crate::store::{DirectoryError, Filter, NewMessage, QueueAction, Settlement, StoreError};

use super::Durability;
use super::body::Incoming;
use super::directory::{Change, Log};
use super::disk::{DiskFile, is_full};
use super::group::Group;
use super::index::Entry;
use super::indexer::{Indexer, Sums, change_index};
use super::journal::Journal;
use super::record::{Location, Mark};
use super::shared::{Shared, locked, writing};
use super::spool::Lane;
use super::sync::{Ordering, Receiver, beside, scope};

/// Operations answered together at most.
const GROUP_OPS_MAX: usize = 4096;
/// Messages that are worth a thread for the sync while the index changes.
const BESIDE_MIN: usize = 4;
/// Room on the disk of which a moment's intake is a small part.
const ROOM_PLENTY: u64 = 4 << 30;
/// How long an answer of the disk is believed where there is plenty.
const ROOM_HOLDS: Duration = Duration::from_millis(100);
/// Octets of small bodies in one group at most.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whoever waits for an answer.
pub(crate) type Waiter<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the committer is asked to do.
pub(crate) enum Op {
    /// Keep a message.
    Commit { message: Box<NewMessage>, size: u64, body: Incoming, waiter: Waiter<()> },
    /// Keep a message as it stood elsewhere.
    Enter { kept: Box<Kept>, body: Incoming, waiter: Waiter<()> },
    /// Forget the unfinished record in a lane.
    Abort(Lane),
    /// Record verdicts; `valid` says whether the lease still held when the call was made.
    Settle {
        customer: CustomerName,
        domains: Vec<Domain>,
        token: u64,
        settlements: Vec<Settlement>,
        valid: bool,
        waiter: Waiter<()>,
    },
    /// Do what the operator wants to these messages; answers how many changed.
    Act { filter: Filter, action: QueueAction, ids: Vec<QueueId>, waiter: Waiter<u64> },
    /// Forget recipients that are over, and keep the report about them, both or neither.
    Conclude {
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<(Box<NewMessage>, u64, Incoming)>,
        waiter: Waiter<bool>,
    },
    /// A message's body cannot be read.
    SetAside { id: QueueId, why: String },
    /// Records were copied into a lane, which ends at `end` now.
    Moved { lane: Lane, end: u64, moves: Vec<(QueueId, Location, Location)>, waiter: Waiter<()> },
    /// Say again in the newest journal file what an old one says.
    Repeat { marks: Vec<Mark>, ids: Vec<QueueId>, waiter: Waiter<()> },
    /// Change the directory.
    Direct { change: Change, waiter: oneshot::Sender<Result<(), DirectoryError>> },
    /// End. The answer comes when nothing runs any more.
    Stop(Waiter<()>),
}

/// Why a whole group fails.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Full,
    Transient(String),
    Broken(String),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full("the disk".into()),
            Failure::Transient(why) => Self::Transient(why),
            Failure::Broken(why) => Self::Broken(why),
        }
    }
}

impl Failure {
    /// A write that did not happen.
    pub(crate) fn of_write(error: &io::Error) -> Self {
        if is_full(error) { Self::Full } else { Self::Transient(format!("writing: {error}")) }
    }
}

/// The committer's own parts.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) journal: Journal,
    pub(crate) log: Log,
    pub(crate) lane: Option<Lane>,
    /// Octets given back to the file system when a mark finds no room.
    pub(crate) reserve: super::reserve::Reserve,
    pub(crate) indexer: Indexer,
    /// No id in the index is greater: what is greater need not be looked up.
    pub(crate) newest: QueueId,
    /// Room beyond what is kept back, less what was used since, and when the disk was asked.
    pub(crate) room: Option<(u64, Instant)>,
}

impl Committer {
    /// Works until it is told to stop.
    pub(crate) fn run(mut self, ops: &Receiver<Op>) {
        let mut stop = None;
        while stop.is_none() {
            let Ok(first) = ops.recv() else { break };
            let mut waiting = Vec::with_capacity(64);
            let mut octets = 0;
            let mut next = Some(first);
            while let Some(op) = next {
                match op {
                    Op::Stop(waiter) => stop = Some(waiter),
                    Op::Commit { ref body, .. } | Op::Enter { ref body, .. } => {
                        octets += body.rest.len();
                        waiting.push(op);
                    }
                    op => waiting.push(op),
                }
                let full = waiting.len() >= GROUP_OPS_MAX || octets >= GROUP_BYTES_MAX;
                next = if full || stop.is_some() { None } else { ops.try_recv().ok() };
            }
            self.process(waiting);
        }
        let ended = self.end();
        if let Some(waiter) = stop {
            // Whoever asked may have gone.
            let _ = waiter.send(ended);
        }
    }

    /// One group from beginning to end.
    fn process(&mut self, ops: Vec<Op>) {
        if ops.is_empty() {
            return;
        }
        let mut group = Group::default();
        if let Err(error) = self.shared.check() {
            for op in ops {
                super::group::refuse(op, &error.to_string());
            }
            return;
        }
        // With plenty of room the disk is not asked for each group.
        self.room = self.room.filter(|(room, at)| *room > ROOM_PLENTY && at.elapsed() < ROOM_HOLDS);
        for op in ops {
            group.prepare(self, op);
        }
        group.write_small(self);
        let born = self.shared.spool.born();
        // A mark that brings a record to life must not be durable before the record is, and one that says that a
        // segment must be there not before its name is.
        let first = group.spool_first || !born.is_empty();
        let outcome = if first { self.sync(&std::mem::take(&mut group.files)) } else { Ok(()) };
        let outcome = outcome.and_then(|()| self.write_marks(&mut group, born));
        self.newest = group.slots.keys().copied().fold(self.newest, Ord::max);
        let (group, outcome) = match outcome {
            Ok(()) => self.sync_and_change(group),
            Err(failure) => (Some(group), Err(failure)),
        };
        if let Err(Failure::Broken(why)) = &outcome {
            self.shared.set_broken(why);
        }
        // One that is gone has dropped its answers, which says enough.
        if let Some(group) = group {
            group.finish(&self.shared, outcome);
        }
        self.reserve.refill_if_room(&*self.shared.disk);
        if let Err(error) = self.journal.turn_over() {
            log::warn!("the journal goes on in its old file: {error}");
        }
    }

    /// The index changes while the disk is busy, if there is enough to do for two. Spool and journal, which decide after
    /// a power cut, were written before; and a message is in no queue, and nobody is answered, before the sync has
    /// ended. If it fails the store is broken, and the next start finds what the index has too much.
    fn sync_and_change(&mut self, mut group: Group) -> (Option<Group>, Result<(), Failure>) {
        let files = std::mem::take(&mut group.files);
        let syncs = self.shared.options.durability == Durability::Fsync;
        let (synced, changed) = if syncs && group.slots.len() >= BESIDE_MIN {
            self.indexer.beside(group, || self.sync(&files))
        } else {
            let synced = self.sync(&files);
            let sums = if synced.is_ok() {
                change_index(&self.shared, &mut group)
            } else {
                Ok(Sums::default())
            };
            (synced, Some((group, sums)))
        };
        let Some((mut group, sums)) = changed else {
            return (None, Err(Failure::Broken("changing the index panicked".into())));
        };
        let outcome = synced.and(sums).map(|sums| self.account(&mut group, sums));
        (Some(group), outcome)
    }

    /// Whether `need` octets may be written without touching what is kept back; if so they count as used.
    pub(crate) fn has_room(&mut self, need: u64) -> bool {
        let shared = &self.shared;
        let (room, _) = self.room.get_or_insert_with(|| {
            let space = shared.disk.space(&shared.spool.folder);
            let room = space.map_or(u64::MAX, |(free, total)| {
                free.saturating_sub(Shared::reserve_bytes(total))
            });
            (room, Instant::now())
        });
        if *room < need {
            return false;
        }
        *room -= need;
        true
    }

    fn write_marks(&mut self, group: &mut Group, born: Vec<u64>) -> Result<(), Failure> {
        for number in &born {
            self.journal.add(&Mark::Born(*number));
        }
        for mark in std::mem::take(&mut group.marks) {
            self.journal.add(&mark);
        }
        // The last word about each, so after all others.
        for id in &group.changed {
            if let Some(slot) = group.slots.get(id) {
                self.journal.add(&Mark::about(&slot.now.kept, slot.now.at));
            }
        }
        if !self.journal.has_waiting() {
            return Ok(());
        }
        let marks = self.journal.waiting();
        let mut written = self.journal.write();
        if written.as_ref().is_err_and(is_full) && self.reserve.give(&*self.shared.disk) {
            self.journal.wait_again(marks);
            written = self.journal.write();
        }
        match written {
            Ok(file) => group.files.push(file),
            Err(error) => {
                // What was to change stays as it was; what was to be kept needs no mark.
                self.shared.spool.born_again(born);
                group.revert(&Failure::of_write(&error));
            }
        }
        Ok(())
    }

    /// Makes what was written to these files durable, and their names.
    fn sync(&self, written: &[Arc<dyn DiskFile>]) -> Result<(), Failure> {
        if self.shared.options.durability == Durability::Relaxed {
            return Ok(());
        }
        let begun = Instant::now();
        let mut files: Vec<Arc<dyn DiskFile>> = Vec::new();
        for file in written {
            if !files.iter().any(|known| Arc::ptr_eq(known, file)) {
                files.push(file.clone());
            }
        }
        let folder = self.shared.spool.folder_was_changed();
        sync_files(&files)
            .and_then(|()| {
                if folder {
                    self.shared.disk.sync_folder(&self.shared.spool.folder)
                } else {
                    Ok(())
                }
            })
            .map_err(|e| Failure::Broken(format!("a sync failed: {e}")))?;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        if !files.is_empty() {
            self.shared.sync_micros.store(micros, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Brings the counts in memory up to date, and keeps what came at hand; the group's messages are used up by it.
    fn account(&mut self, group: &mut Group, sums: Sums) {
        self.tell_counts(group);
        // A customer that waits for it asks for it next.
        let came = group.slots.drain().map(|(_, slot)| slot).filter(|slot| slot.before.is_none());
        self.shared.recent.put(came.map(|slot| (Arc::new(slot.now), slot.digest)));
        let open = self.shared.spool.open_ends();
        let mut applied = locked(&self.shared.applied);
        applied.journal = self.journal.position();
        applied.last_segment = self.shared.spool.last_number();
        applied.open = open;
        applied.entries = applied.entries.wrapping_add(sums.entries);
        applied.digest = applied.digest.wrapping_add(sums.digest);
        applied.ids = applied.ids.map(|ids| ids.wrapping_add(sums.ids));
    }

    fn tell_counts(&mut self, group: &mut Group) {
        let spool = &self.shared.spool;
        let mut tally = writing(&self.shared.tally);
        let mut order = writing(&self.shared.order);
        for (id, slot) in &group.slots {
            let before = slot.before.as_ref().map(|(entry, _)| &**entry);
            let places = |e: &Entry| e.kept.places();
            let times = |e: &Entry| e.kept.deadlines();
            let now = &slot.now;
            let (old, new) = (before.map(places).unwrap_or_default(), places(now));
            tally.change(&old, &new, now.kept.size);
            order.change(*id, &old, &new);
            order.retime(*id, &before.map(times).unwrap_or_default(), &times(now));
            // In before out: a segment must not look empty in between.
            if !now.kept.recipients.is_empty() {
                spool.enter(now.at);
            }
            if let Some(before) = before {
                spool.leave(before.at);
            }
        }
        drop((tally, order));
        // Only now: a sealed segment in which nothing lives may be removed at once.
        for mut lane in group.lanes.drain(..) {
            lane.synced = lane.end;
            spool.give_back(lane);
        }
        for lane in group.full.drain(..) {
            spool.seal(&lane);
        }
        if let Some(lane) = &mut self.lane {
            lane.synced = lane.end;
            spool.grown(lane);
        }
        if let Some(roster) = group.roster.take() {
            *writing(&self.shared.roster) = roster;
        }
        if let Some(key) = group.server_key.take() {
            *locked(&self.shared.server_key) = Some(key);
        }
    }

    /// Leaves everything so that the next start can trust it.
    fn end(self) -> Result<(), StoreError> {
        let index = writing(&self.shared.index).take();
        if let Some(lane) = &self.lane {
            self.shared.spool.seal(lane);
        }
        self.shared.check()?;
        let Some(index) = index else { return Ok(()) };
        index.sync().inspect_err(|e| self.shared.set_broken(&e.to_string()))?;
        super::state::write_clean(&self.shared)
            .map_err(|e| StoreError::Transient(format!("noting the orderly end: {e}")))
    }
}

/// Syncs files side by side: the device takes several at once.
fn sync_files(files: &[Arc<dyn DiskFile>]) -> io::Result<()> {
    match files {
        [] => Ok(()),
        [only] => only.sync(),
        [first, others @ ..] => scope(|scope| {
            let beside: Vec<_> =
                others.iter().map(|file| (file, beside(scope, move || file.sync()))).collect();
            let mut result = first.sync();
            for (file, thread) in beside {
                let panicked = |_| Err(io::Error::other("panicked"));
                let other = match thread {
                    Some(thread) => thread.join().unwrap_or_else(panicked),
                    None => file.sync(),
                };
                result = result.and(other);
            }
            result
        }),
    }
}
