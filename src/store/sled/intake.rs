//! Records on their way into the spool: messages that are committed, and reports.
//!
//! Called by the committer's group. Small bodies are collected and written with one call; the last frames and
//! the tail of a streamed one are written where the stream ended. Nothing counts before the group is synced.

use futures::channel::oneshot;

use crate::mail::{QueueId, RecipientState};
use crate::store::kept::Kept;
use crate::store::{NewMessage, StoreError};

use super::body::Incoming;
use super::committer::{Committer, Failure, Waiter};
use super::frame::{self, BODY_BYTES_MAX, Tail};
use super::group::{Group, Slot, answer};
use super::index::Entry;
use super::record::{Location, Mark};
use super::spool::Lane;

impl Group {
    pub(super) fn commit(
        &mut self,
        committer: &mut Committer,
        message: NewMessage,
        size: u64,
        body: Incoming,
        waiter: Waiter<()>,
    ) {
        let id = message.id;
        self.enter_record(committer, id, Kept::new(message, size), body, waiter);
    }

    /// Takes a record in, unless its id is here already.
    pub(super) fn enter_record(
        &mut self,
        committer: &mut Committer,
        id: QueueId,
        kept: Result<Kept, StoreError>,
        body: Incoming,
        waiter: Waiter<()>,
    ) {
        let is_new = id > committer.newest && !self.slots.contains_key(&id);
        let known =
            !is_new && self.slot(committer, id).is_some_and(|s| !s.now.kept.recipients.is_empty());
        let kept = if known { Ok(None) } else { kept.map(Some) };
        let (kept, lane) = match (kept, body.stream) {
            (Ok(Some(kept)), Some(stream)) => {
                let rest = body.rest;
                return self.streamed(committer, kept, stream, &rest, false, waiter);
            }
            (kept, stream) => (kept, stream.map(|s| s.lane)),
        };
        if let Some(lane) = lane {
            committer.shared.spool.cut_off(lane);
        }
        match kept {
            Ok(Some(kept)) => self.small(committer, kept, &body.rest, false, waiter),
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
        self.slots.insert(id, Slot { before, now, digest: 0 });
    }

    pub(super) fn small(
        &mut self,
        committer: &mut Committer,
        kept: Kept,
        body: &[u8],
        copy: bool,
        waiter: Waiter<()>,
    ) {
        let need = frame::record_bytes(kept.size) + 1024;
        if !committer.has_room(need) {
            // What was taken goes sooner or later, and then its segment must be able to go as well.
            self.write_small(committer);
            self.full.extend(committer.lane.take());
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
        let tail = Tail { synced: lane.synced, copy, kept };
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

    pub(super) fn streamed(
        &mut self,
        committer: &mut Committer,
        kept: Kept,
        stream: super::body::Stream,
        rest: &[u8],
        copy: bool,
        waiter: Waiter<()>,
    ) {
        let super::body::Stream { mut lane, cursor, frames } = stream;
        let id = kept.id;
        let mut octets = Vec::with_capacity(rest.len() + 4096);
        let frames = put_frames(&mut octets, &lane, id, frames, rest);
        let tail = Tail { synced: lane.synced, copy, kept };
        frame::put_tail(&mut octets, &lane.nonce, frames, &tail);
        let room = committer.has_room(octets.len() as u64);
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

    /// Takes recipients out that are over, and a report in. The report's record counts only by the mark that
    /// takes the recipients out.
    pub(super) fn conclude(
        &mut self,
        committer: &mut Committer,
        about: QueueId,
        states: &[(u32, RecipientState)],
        report: Option<(Box<NewMessage>, u64, Incoming)>,
    ) -> Result<bool, StoreError> {
        let old = self.slot(committer, about).map(|slot| slot.now.clone());
        let mut now = old.clone();
        let stands = now.as_mut().map_or(Ok(false), |now| now.kept.conclude(states));
        let (Some(mut now), Ok(true)) = (now, &stands) else {
            if let Some(stream) = report.and_then(|(_, _, body)| body.stream) {
                committer.shared.spool.cut_off(stream.lane);
            }
            return stands;
        };
        let mut marks = vec![Mark::about(&now.kept, now.at)];
        if let Some((message, size, body)) = report {
            let id = message.id;
            if self.report(committer, *message, size, body)?
                && let Some(slot) = self.slots.get(&id)
            {
                marks.push(Mark::about(&slot.now.kept, slot.now.at));
                self.reports.push(id);
                self.spool_first = true;
            }
        }
        if let Some(slot) = self.slots.get_mut(&about) {
            std::mem::swap(&mut slot.now, &mut now);
        }
        self.marks.push(Mark::Together(marks));
        self.moved.push(about);
        Ok(true)
    }

    /// Writes a report's record; false if the message exists already.
    fn report(
        &mut self,
        committer: &mut Committer,
        message: NewMessage,
        size: u64,
        body: Incoming,
    ) -> Result<bool, StoreError> {
        let known = self.slot(committer, message.id);
        let known = known.is_some_and(|slot| !slot.now.kept.recipients.is_empty());
        let kept = if known { Ok(None) } else { Kept::new(message, size).map(Some) };
        let (waiter, mut written) = oneshot::channel();
        match (kept, body.stream) {
            (Ok(Some(kept)), Some(stream)) => {
                self.streamed(committer, kept, stream, &body.rest, true, waiter);
            }
            (Ok(Some(kept)), None) => {
                self.small(committer, kept, &body.rest, true, waiter);
                self.write_small(committer);
            }
            (other, stream) => {
                if let Some(stream) = stream {
                    committer.shared.spool.cut_off(stream.lane);
                }
                return other.map(|_| false);
            }
        }
        match written.try_recv() {
            Ok(Some(Err(error))) => Err(error),
            // Written; the answer comes with the group's.
            _ => Ok(true),
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
