//! Housekeeping: checkpoints of the index, removal of empty segments, compaction, the journal's oldest file.
//!
//! Called by a thread of its own, and by `maintain` on a thread for blocking work. Everything that changes the
//! store goes through the committer; nothing in here holds anybody up.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;

use crate::mail::{QueueId, Timestamp};
use crate::store::StoreError;

use super::body::refusal;
use super::committer::{Op, Waiter};
use super::frame::{self, Tail};
use super::index::{Index, kind};
use super::reader::copy_frames;
use super::record::{Location, Mark};
use super::scan::{self, Bodies, Found};
use super::shared::{Shared, closed, locked, reading};
use super::spool::Lane;
use super::sync::{Ordering, Receiver, RecvTimeoutError, block_on};
use super::{Progress, Step, journal};

/// Time between two rounds of the thread.
const ROUND: Duration = Duration::from_millis(500);
/// Values of a large index read at once after it was opened: little enough to keep nobody waiting.
const CHECKED_AT_ONCE: usize = 100;
/// Lost messages that are reported one by one.
const LOST_NAMED_MAX: u64 = 100;
/// Segments compacted in one turn.
const COMPACTED_MAX: usize = 4;
/// Journal files above which the oldest is looked at.
const JOURNALS_MAX: usize = 4;
/// Copied octets that are written at once.
const COPY_BYTES: usize = 1024 * 1024;

/// Works until the other end of `stop` is gone.
pub(crate) fn run(shared: &Arc<Shared>, stop: &Receiver<()>, unchecked: bool) {
    if unchecked {
        // It reports what it finds by itself.
        let _ = check_values(shared, stop);
    }
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(ROUND) {
        if shared.check().is_err() {
            break;
        }
        let round = checkpoint(shared).and_then(|()| retire_empty(shared));
        if let Err(error) = round {
            log::warn!("housekeeping of the store: {error}");
        }
    }
}

/// Reads every value of a large index that was taken on trust.
fn check_values(shared: &Arc<Shared>, stop: &Receiver<()>) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = shared.ask(|index| {
            let page = index.page(after, CHECKED_AT_ONCE)?;
            for (id, _) in page.iter().filter(|(_, entry)| entry.is_none()) {
                report_entry(shared, *id, &StoreError::Corrupt(*id));
            }
            Ok(page.last().map(|(id, _)| *id))
        })?;
        if is_told(stop) {
            return Ok(());
        }
        if page.is_none() {
            break;
        }
        after = page;
    }
    find_lost(shared, stop)
}

/// Lets others go first, and says whether to stop.
fn is_told(stop: &Receiver<()>) -> bool {
    let told = stop.recv_timeout(Duration::from_millis(1));
    !matches!(told, Err(RecvTimeoutError::Timeout))
}

/// Reports messages that wait in a queue and are not in the index.
fn find_lost(shared: &Arc<Shared>, stop: &Receiver<()>) -> Result<(), StoreError> {
    let (mut after, mut lost) = (None, 0u64);
    loop {
        let due = reading(&shared.order).due(after, Timestamp(u64::MAX), CHECKED_AT_ONCE);
        let Some(last) = due.last().copied() else { return Ok(()) };
        let missing: Vec<_> = shared.ask(|index| {
            let is_lost = |id| matches!(index.entry(id), Ok(None));
            Ok(due.into_iter().filter(|(_, id)| is_lost(*id)).collect())
        })?;
        if !missing.is_empty() {
            // What is over leaves the index first and its queue when that is durable: whoever still waits has
            // been lost.
            let_all_be_counted(shared)?;
        }
        for (time, id) in missing {
            if !reading(&shared.order).deadlines().contains(&(time, id)) {
                continue;
            }
            lost += 1;
            if lost <= LOST_NAMED_MAX {
                shared.report(format!(
                    "the index has lost message {id}; `restante store rebuild` makes it again"
                ));
            } else if lost == LOST_NAMED_MAX + 1 {
                shared.report("the index has lost more messages than are named here".into());
            }
        }
        if is_told(stop) {
            return Ok(());
        }
        after = Some(last);
    }
}

/// Notes that the index has a value about a message which is not what was written.
pub(crate) fn report_entry(shared: &Shared, id: QueueId, error: &StoreError) {
    match error {
        StoreError::Broken(why) => shared.set_broken(why),
        _ => shared.report(format!(
            "the index's entry of message {id} is damaged; `restante store rebuild` makes it again"
        )),
    }
}

/// Hands the index to the system and notes how far it goes.
pub(crate) fn checkpoint(shared: &Shared) -> Result<(), StoreError> {
    // One at a time: a later one must not be overwritten by an earlier one.
    let mut last = locked(&shared.checkpointed);
    let applied = locked(&shared.applied).clone();
    let has_lessons = shared.has_lessons.swap(false, Ordering::AcqRel);
    if last.as_ref() == Some(&applied) {
        return if has_lessons { shared.ask(Index::flush) } else { Ok(()) };
    }
    let said = serde_json::to_vec(&applied)
        .map_err(|e| StoreError::Transient(format!("a checkpoint: {e}")))?;
    shared.ask(|index: &Index| {
        index.flush()?;
        // Written after the flush, it can only be found together with all that it speaks of.
        index.set(&[kind::CHECKPOINT], &said)?;
        index.flush()
    })?;
    if let Some(last) = &*last {
        *locked(&shared.flushed) = last.journal;
    }
    *last = Some(applied);
    Ok(())
}

fn wait<T>(receiver: oneshot::Receiver<Result<T, StoreError>>) -> Result<T, StoreError> {
    block_on(receiver).unwrap_or_else(|_| Err(closed()))
}

fn ask<T>(shared: &Shared, op: impl FnOnce(Waiter<T>) -> Op) -> Result<T, StoreError> {
    let (waiter, receiver) = oneshot::channel();
    shared.ops.send(op(waiter)).map_err(|_| closed())?;
    wait(receiver)
}

/// Waits until the committer has been round: all that was written before is counted then.
fn let_all_be_counted(shared: &Shared) -> Result<(), StoreError> {
    ask(shared, |waiter| Op::Repeat { marks: Vec::new(), ids: Vec::new(), waiter })
}

/// Removes sealed segments in which nothing lives.
pub(crate) fn retire_empty(shared: &Shared) -> Result<(), StoreError> {
    let over = || -> Vec<u64> {
        let segments = shared.spool.segments().into_iter();
        segments.filter(|(_, s)| s.is_over()).map(|(number, _)| number).collect()
    };
    shared.spool.seal_empty();
    if over().is_empty() {
        return Ok(());
    }
    // Those that are sealed take no more records, so what is empty afterwards stays so.
    let_all_be_counted(shared)?;
    let empty = over();
    // Whoever copies the store still reads what was settled since.
    if empty.is_empty() || shared.snapshots.is_pinned() {
        return Ok(());
    }
    let marks = empty.iter().map(|number| Mark::Retired(*number)).collect();
    ask(shared, |waiter| Op::Repeat { marks, ids: Vec::new(), waiter })?;
    let failed = |e: io::Error| StoreError::Transient(format!("removing a segment: {e}"));
    for number in empty {
        shared.spool.retire(number).map_err(failed)?;
    }
    shared.disk.sync_folder(&shared.spool.folder).map_err(failed)
}

/// One turn: a checkpoint, then compacts what is mostly dead and removes what is empty.
pub(crate) fn maintain(
    shared: &Arc<Shared>,
    most: usize,
    progress: Progress<'_>,
) -> Result<u64, StoreError> {
    let Ok(_alone) = shared.compacting.try_lock() else { return Ok(0) };
    checkpoint(shared)?;
    let mut done = 0;
    for number in worth_compacting(shared).into_iter().take(most.min(COMPACTED_MAX)) {
        progress(Step { name: "compacting", done, total: 0 });
        done += u64::from(compact(shared, number)?);
    }
    retire_empty(shared)?;
    shorten_journal(shared)?;
    Ok(done)
}

/// Segments under a quarter alive, the emptiest first; and small ones, when there are many.
fn worth_compacting(shared: &Shared) -> Vec<u64> {
    let segments = shared.spool.segments();
    let usable = segments.iter().filter(|(_, s)| s.sealed && s.live > 0 && !s.damaged);
    let small = |len: u64| len < shared.spool.segment_bytes / 8;
    let many = usable.clone().filter(|(_, s)| small(s.len)).count() > 8;
    let mut worth: Vec<(u64, u64)> = usable
        .filter(|(_, s)| s.live_bytes.saturating_mul(4) < s.len || (many && small(s.len)))
        .map(|(number, s)| (s.live_bytes, *number))
        .collect();
    worth.sort_unstable();
    worth.into_iter().map(|(_, number)| number).collect()
}

/// Copies what lives in a segment to another one. Says whether anything could be moved.
fn compact(shared: &Arc<Shared>, number: u64) -> Result<bool, StoreError> {
    let failed = |e: io::Error| StoreError::Transient(format!("compacting: {e}"));
    let Some(segment) = shared.spool.segment(number) else { return Ok(false) };
    let Some((file, nonce)) = shared.spool.file(number).map_err(failed)? else { return Ok(false) };
    let mut records: Vec<(QueueId, Location)> = Vec::new();
    scan::segment(&*file, number, &nonce, 0, Bodies::Skipped, &mut |found| {
        if let Found::Record { at, tail, .. } = found {
            records.push((tail.kept.id, at));
        }
    })
    .map_err(failed)?;
    let mut lane = shared.spool.take_lane(segment.live_bytes).map_err(|e| refusal(&e))?;
    let begun = lane.end;
    match copy_all(shared, &mut lane, records) {
        Ok((_, moves, is_damaged)) if moves.is_empty() => {
            shared.spool.cut_off(lane);
            // What lives in it was set aside: it stays, for a person to look at.
            if is_damaged {
                shared.spool.set_damaged(number);
            }
            Ok(false)
        }
        Ok((end, moves, _)) => {
            // The copies are durable before the originals are declared dead.
            let synced =
                lane.file.sync().and_then(|()| shared.disk.sync_folder(&shared.spool.folder));
            if let Err(error) = synced {
                shared.set_broken(&format!("a sync failed: {error}"));
                return Err(failed(error));
            }
            if end > begun && moves.len() < usize::try_from(segment.live).unwrap_or(usize::MAX) {
                log::debug!("segment {number}: some records were settled while they were copied");
            }
            ask(shared, |waiter| Op::Moved { lane, end, moves, waiter }).map(|()| true)
        }
        Err(error) => {
            if matches!(error, StoreError::Corrupt(_)) {
                shared.spool.set_damaged(number);
            }
            shared.spool.cut_off(lane);
            Err(error)
        }
    }
}

type Moves = Vec<(QueueId, Location, Location)>;

fn copy_all(
    shared: &Arc<Shared>,
    lane: &mut Lane,
    records: Vec<(QueueId, Location)>,
) -> Result<(u64, Moves, bool), StoreError> {
    let mut moves = Vec::new();
    let mut is_damaged = false;
    let mut cursor = lane.end;
    let mut octets = Vec::with_capacity(COPY_BYTES + 128 * 1024);
    for (id, from) in records {
        let Some((entry, _)) = shared.ask(|index| index.entry(id))? else { continue };
        if entry.at != from {
            continue;
        }
        if entry.kept.damaged {
            is_damaged = true;
            continue;
        }
        let offset = cursor + octets.len() as u64;
        frame::put_head(&mut octets, &lane.nonce, id);
        let mut number = 0;
        copy_frames(shared, id, from, entry.kept.size, &mut |content| {
            frame::put_body(&mut octets, &lane.nonce, id, number, &content);
            number += 1;
            if octets.len() >= COPY_BYTES {
                lane.file.write_at(&octets, cursor)?;
                cursor += octets.len() as u64;
                octets.clear();
            }
            Ok(())
        })?;
        let tail = Tail { synced: lane.synced, copy: true, kept: entry.kept };
        frame::put_tail(&mut octets, &lane.nonce, number, &tail);
        let len = cursor + octets.len() as u64 - offset;
        moves.push((id, from, Location { segment: lane.number, offset, len }));
    }
    lane.file.write_at(&octets, cursor).map_err(|e| refusal(&e))?;
    Ok((cursor + octets.len() as u64, moves, is_damaged))
}

/// Says again what the oldest journal file says and still matters, and removes it.
fn shorten_journal(shared: &Shared) -> Result<(), StoreError> {
    let failed = |e: io::Error| StoreError::Transient(format!("shortening the journal: {e}"));
    let folder = &shared.spool.folder;
    let files = journal::list(&*shared.disk, folder).map_err(failed)?;
    let flushed = locked(&shared.flushed).0;
    if files.len() <= JOURNALS_MAX {
        return Ok(());
    }
    let Some((number, nonce)) = files.into_iter().next().filter(|(n, _)| *n < flushed) else {
        return Ok(());
    };
    let path = folder.join(journal::file_name(number, &nonce));
    let segments = shared.spool.segments();
    let (mut marks, mut ids) = (Vec::new(), Vec::new());
    journal::read(&*shared.disk, &path, &nonce, &mut |line| {
        let journal::Entry::Mark(_, mark) = line else { return };
        match mark {
            Mark::Dead { id, at } | Mark::StillDead { id, at }
                if segments.contains_key(&at.segment) =>
            {
                marks.push(Mark::StillDead { id, at });
            }
            Mark::Born(segment) if segments.contains_key(&segment) => marks.push(mark),
            Mark::Standing { id, at, .. } if segments.contains_key(&at.segment) => ids.push(id),
            _ => {}
        }
    })
    .map_err(failed)?;
    ids.sort_unstable();
    ids.dedup();
    ask(shared, |waiter| Op::Repeat { marks, ids, waiter })?;
    shared.disk.remove(&path).map_err(failed)?;
    shared.disk.sync_folder(folder).map_err(failed)
}
