//! Bodies on their way into the spool and out of it.
//!
//! Called through the traits. A small body waits in memory for the committer, which writes many of them at
//! once; a larger one streams into a lane of its own as it comes. All file access happens on threads for
//! blocking work. A body without its tail is nothing, so nothing has to be undone after a crash.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes};

use crate::mail::QueueId;
use crate::store::{Answer, BodyReader, BodyWriter, StoreError};

use super::committer::Op;
use super::disk::{DiskFile, is_full};
use super::frame::{self, BODY_BYTES_MAX, FRAME_BYTES, HEAD_BYTES, Nonce};
use super::index::Entry;
use super::record::Location;
use super::shared::{Shared, closed};
use super::spool::Lane;
use super::sync::{Ordering, off};

/// Bodies up to this wait in memory; also what a stream collects before it writes.
const SMALL_BYTES_MAX: usize = 256 * 1024;
/// The same while many bodies are on their way.
const SMALL_BYTES_PRESSED: usize = 32 * 1024;
/// All bodies in memory together, above which each may hold little.
const BUFFERED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Frames read beyond the one that was asked for, in one visit to the blocking threads.
const AHEAD_FRAMES: usize = 2;

/// A body that streams.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) lane: Lane,
    /// Where the next frame goes.
    pub(crate) cursor: u64,
    /// Frames written.
    pub(crate) frames: u64,
}

/// What the committer gets.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Octets not written yet.
    pub(crate) rest: Vec<u8>,
    /// Where the others are, if any.
    pub(crate) stream: Option<Stream>,
}

/// The engine's [`BodyWriter`].
pub(crate) struct Writer {
    shared: Arc<Shared>,
    id: QueueId,
    hint: u64,
    written: u64,
    counted: u64,
    /// `None` after an error: nothing more is taken.
    incoming: Option<Incoming>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, id: QueueId, hint: u64) -> Self {
        let incoming = Some(Incoming { rest: Vec::new(), stream: None });
        Self { shared, id, hint, written: 0, counted: 0, incoming }
    }

    /// Hands the body over; the id and the number of octets are checked against it.
    pub(crate) fn finish(mut self) -> Option<(Arc<Shared>, QueueId, u64, Incoming)> {
        let incoming = self.incoming.take()?;
        Some((self.shared.clone(), self.id, self.written, incoming))
    }

    fn recount(&mut self) {
        let holds = self.incoming.as_ref().map_or(0, |i| i.rest.len() as u64);
        let buffered = &self.shared.buffered;
        buffered.fetch_add(holds, Ordering::Relaxed);
        buffered.fetch_sub(self.counted, Ordering::Relaxed);
        self.counted = holds;
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.shared.check()?;
        let Some(incoming) = self.incoming.as_mut() else {
            return Err(StoreError::Transient("the body could not be written".into()));
        };
        incoming.rest.extend_from_slice(chunk);
        self.written += chunk.len() as u64;
        let pressed = self.shared.buffered.load(Ordering::Relaxed) > BUFFERED_BYTES_MAX;
        let most = if pressed { SMALL_BYTES_PRESSED } else { SMALL_BYTES_MAX };
        if incoming.rest.len() <= most || incoming.rest.len() < BODY_BYTES_MAX {
            self.recount();
            return Ok(());
        }
        let Some(mut incoming) = self.incoming.take() else { return Ok(()) };
        let (shared, id, hint) = (self.shared.clone(), self.id, self.hint.max(self.written));
        let (incoming, done) = off(move || {
            let done = spill(&shared, &mut incoming, id, hint);
            (incoming, done)
        })
        .await;
        match done {
            Ok(()) => self.incoming = Some(incoming),
            Err(_) => abort(&self.shared, incoming),
        }
        self.recount();
        done.map_err(|e| refusal(&e))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            abort(&self.shared, incoming);
        }
        self.recount();
    }
}

/// Forgets what was written.
pub(crate) fn abort(shared: &Shared, incoming: Incoming) {
    if let Some(stream) = incoming.stream {
        // After the end of the committer there is nobody to cut, and nothing to cut for.
        let _ = shared.ops.send(Op::Abort(stream.lane));
    }
}

/// What a writer is told when the disk refuses.
pub(crate) fn refusal(error: &io::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full("the disk".into())
    } else {
        StoreError::Transient(format!("writing to the spool: {error}"))
    }
}

/// Writes all whole frames of what waits.
fn spill(shared: &Shared, incoming: &mut Incoming, id: QueueId, hint: u64) -> io::Result<()> {
    let stream = match &mut incoming.stream {
        Some(stream) => stream,
        none => {
            let lane = shared.spool.take_lane(frame::record_bytes(hint))?;
            none.insert(Stream { cursor: lane.end, lane, frames: 0 })
        }
    };
    let whole = incoming.rest.len() / BODY_BYTES_MAX * BODY_BYTES_MAX;
    let mut octets = Vec::with_capacity(whole + whole / 1024 + HEAD_BYTES);
    if stream.frames == 0 {
        frame::put_head(&mut octets, &stream.lane.nonce, id);
    }
    for content in incoming.rest[..whole].chunks(BODY_BYTES_MAX) {
        frame::put_body(&mut octets, &stream.lane.nonce, id, stream.frames, content);
        stream.frames += 1;
    }
    let (free, total) = shared.disk.space(&shared.spool.folder)?;
    if free.saturating_sub(Shared::reserve_bytes(total)) < octets.len() as u64 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    stream.lane.file.write_at(&octets, stream.cursor)?;
    stream.cursor += octets.len() as u64;
    // What is left is less than a frame; give the rest of the memory back.
    incoming.rest = incoming.rest.split_off(whole);
    Ok(())
}

impl BodyWriter for Writer {
    fn write<'a>(&'a mut self, chunk: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(self.take(chunk))
    }
    fn written(&self) -> u64 {
        self.written
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

/// Reads the frames of a record one by one.
#[derive(Debug)]
pub(crate) struct Frames {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) nonce: Nonce,
    pub(crate) id: QueueId,
    pub(crate) at: Location,
    pub(crate) size: u64,
    /// The next octet of the body.
    pub(crate) place: u64,
}

impl Frames {
    /// Octets of memory that reading the next frame takes.
    fn need(&self) -> usize {
        let begin = self.place / BODY_BYTES_MAX as u64 * BODY_BYTES_MAX as u64;
        match self.size.saturating_sub(begin) {
            _ if self.place >= self.size => 0,
            left => FRAME_BYTES + usize::try_from(left).unwrap_or(usize::MAX).min(BODY_BYTES_MAX),
        }
    }

    /// The rest of the frame that holds `place`; nothing at the end. `Ok(None)`: not what was written.
    pub(crate) fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.take(|file, octets, offset| file.read_at(octets, offset))
    }

    /// The same if the system has it in memory; `None` otherwise, and also if anything is wrong with it: who waits
    /// for the disk finds that out and says it.
    fn next_at_once(&mut self) -> Option<Bytes> {
        let waits = || io::Error::from(io::ErrorKind::WouldBlock);
        self.take(|file, octets, at| file.read_at_once(octets, at).ok_or_else(waits)).ok().flatten()
    }

    fn take(
        &mut self,
        read: impl Fn(&dyn DiskFile, &mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Option<Bytes>> {
        let mut octets = vec![0; self.need()];
        let Some(part) = self.read_into(&mut octets, read)? else { return Ok(None) };
        let mut octets = Bytes::from(octets);
        octets.truncate(part.end);
        octets.advance(part.start);
        Ok(Some(octets))
    }

    /// Reads the next frame into `octets`, of which there are [`Frames::need`], and says which of them are content.
    fn read_into(
        &mut self,
        octets: &mut [u8],
        read: impl Fn(&dyn DiskFile, &mut [u8], u64) -> io::Result<usize>,
    ) -> io::Result<Option<Range<usize>>> {
        if octets.is_empty() {
            return Ok(Some(0..0));
        }
        let number = self.place / BODY_BYTES_MAX as u64;
        let begin = number * BODY_BYTES_MAX as u64;
        let got = read(&*self.file, octets, self.at.offset + frame::body_offset(number))?;
        let content = octets.len() - FRAME_BYTES;
        match frame::body(&octets[..got], &self.nonce, self.id, number) {
            Ok(sound) if sound.len() == content => {}
            _ => return Ok(None),
        }
        let skip = usize::try_from(self.place - begin).unwrap_or(usize::MAX);
        self.place = begin + content as u64;
        Ok(Some(FRAME_BYTES + skip..octets.len()))
    }

    /// A few frames more. What is wrong with one is found out, and said, when that one is asked for.
    fn ahead(&mut self) -> VecDeque<Bytes> {
        let mut ready = VecDeque::new();
        while ready.len() < AHEAD_FRAMES && self.place < self.size {
            match self.next() {
                Ok(Some(octets)) => ready.push_back(octets),
                _ => break,
            }
        }
        ready
    }
}

/// The engine's [`BodyReader`].
pub(crate) struct Reader {
    shared: Weak<Shared>,
    frames: Option<Frames>,
    /// Read along with the opening, so that a small message costs one visit to the blocking threads.
    first: Option<Bytes>,
    /// Read by later visits beyond what was asked for.
    ready: VecDeque<Bytes>,
    id: QueueId,
    size: u64,
}

impl Reader {
    /// Opens the body of `id` for reading from `offset`. Blocks.
    pub(crate) fn open(shared: &Arc<Shared>, id: QueueId, offset: u64) -> Result<Self, StoreError> {
        let mut frames = frames_of(shared, id, place_of(shared, id)?, offset)?;
        let first = frames.next();
        Self::begun(shared, frames, first)
    }

    /// Opens these bodies. What is read of them at once lies side by side in memory, since many small pieces that
    /// one thread makes and another forgets are dear. Blocks.
    pub(crate) fn open_all(shared: &Arc<Shared>, ids: &[QueueId]) -> Vec<Result<Self, StoreError>> {
        let frames = |id: &QueueId| frames_of(shared, *id, place_of(shared, *id)?, 0);
        let all: Vec<Result<Frames, StoreError>> = ids.iter().map(frames).collect();
        let mut block = shared.blocks.take(all.iter().flatten().map(Frames::need).sum());
        let (mut read, mut begin) = (Vec::with_capacity(all.len()), 0);
        for frames in all {
            read.push(frames.map(|mut frames| {
                let place = &mut block.octets()[begin..begin + frames.need()];
                let (here, octets) = (begin, place.len());
                begin += octets;
                let part = frames.read_into(place, |file, octets, at| file.read_at(octets, at));
                (frames, part.map(|part| part.map(|part| here + part.start..here + part.end)))
            }));
        }
        let whole = block.freeze();
        let begun = read.into_iter().map(|one| {
            let (frames, part) = one?;
            Self::begun(shared, frames, part.map(|part| part.map(|part| whole.slice(part))))
        });
        begun.collect()
    }

    /// Opens the body of a record wherever the message is by now. The segment must not go away meanwhile. Blocks.
    pub(crate) fn open_at(
        shared: &Arc<Shared>,
        id: QueueId,
        at: Location,
        size: u64,
    ) -> Result<Self, StoreError> {
        shared.check()?;
        let (file, nonce) = opened(shared, at)?.ok_or(StoreError::Corrupt(id))?;
        let mut frames = Frames { file, nonce, id, at, size, place: 0 };
        let first = frames.next();
        Self::begun(shared, frames, first)
    }

    fn begun(
        shared: &Arc<Shared>,
        frames: Frames,
        first: io::Result<Option<Bytes>>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::downgrade(shared);
        let first = Some(sound(&frames, &shared, first)?);
        let (id, size) = (frames.id, frames.size);
        Ok(Self { shared, frames: Some(frames), first, ready: VecDeque::new(), id, size })
    }
}

/// The file of the segment of a record, if it is there.
fn opened(shared: &Shared, at: Location) -> Result<Option<(Arc<dyn DiskFile>, Nonce)>, StoreError> {
    let transient = |e| StoreError::Transient(format!("opening a body: {e}"));
    shared.spool.file(at.segment).map_err(transient)
}

/// The frames of a body, from `offset` on.
fn frames_of(
    shared: &Shared,
    id: QueueId,
    (mut at, size): (Location, u64),
    place: u64,
) -> Result<Frames, StoreError> {
    // A compaction may move the record between looking it up and opening its file.
    for _ in 0..8 {
        if let Some((file, nonce)) = opened(shared, at)? {
            return Ok(Frames { file, nonce, id, at, size, place });
        }
        (at, _) = place_in_index(shared, id)?;
    }
    let why = "its segment is missing".to_owned();
    let _ = shared.ops.send(Op::SetAside { id, why });
    Err(StoreError::Corrupt(id))
}

/// Where the record of `id` is or was a moment ago, and how many octets its body has.
fn place_of(shared: &Shared, id: QueueId) -> Result<(Location, u64), StoreError> {
    shared.check()?;
    shared.recent.get(id).map_or_else(|| place_in_index(shared, id), |entry| place(&entry))
}

fn place_in_index(shared: &Shared, id: QueueId) -> Result<(Location, u64), StoreError> {
    let (entry, _) = shared.ask(|index| index.entry(id))?.ok_or(StoreError::Missing)?;
    place(&entry)
}

fn place(entry: &Entry) -> Result<(Location, u64), StoreError> {
    if entry.kept.damaged {
        return Err(StoreError::Corrupt(entry.kept.id));
    }
    Ok((entry.at, entry.kept.size))
}

fn read(frames: &mut Frames, shared: &Weak<Shared>) -> Result<Bytes, StoreError> {
    let octets = frames.next();
    sound(frames, shared, octets)
}

/// What was read, if it is what was written; otherwise the message is set aside.
fn sound(
    frames: &Frames,
    shared: &Weak<Shared>,
    read: io::Result<Option<Bytes>>,
) -> Result<Bytes, StoreError> {
    match read {
        Ok(Some(octets)) => Ok(octets),
        Ok(None) => {
            if let Some(shared) = shared.upgrade() {
                let why = format!("its body in segment {} is damaged", frames.at.segment);
                let _ = shared.ops.send(Op::SetAside { id: frames.id, why });
            }
            Err(StoreError::Corrupt(frames.id))
        }
        Err(error) => Err(StoreError::Transient(format!("reading a body: {error}"))),
    }
}

impl BodyReader for Reader {
    fn read(&mut self) -> Answer<'_, Bytes> {
        Box::pin(async {
            if let Some(octets) = self.first.take().or_else(|| self.ready.pop_front()) {
                return Ok(octets);
            }
            let Some(mut frames) = self.frames.take() else {
                return Err(StoreError::Corrupt(self.id));
            };
            if frames.place >= frames.size {
                self.frames = Some(frames);
                return Ok(Bytes::new());
            }
            // What is in memory is not worth a visit to another thread.
            if let Some(octets) = frames.next_at_once() {
                self.frames = Some(frames);
                return Ok(octets);
            }
            let shared = self.shared.clone();
            let (frames, octets, ready) = off(move || {
                let octets = read(&mut frames, &shared);
                let ready = if octets.is_ok() { frames.ahead() } else { VecDeque::new() };
                (frames, octets, ready)
            })
            .await;
            self.ready = ready;
            // After damage nothing more is given; after a passing error the same place is tried again.
            if !matches!(octets, Err(StoreError::Corrupt(_))) {
                self.frames = Some(frames);
            }
            octets
        })
    }
    fn size(&self) -> u64 {
        self.size
    }
}

/// The whole body as frames, for compaction and dumps that run on their own threads.
pub(crate) fn copy_frames(
    shared: &Arc<Shared>,
    id: QueueId,
    at: Location,
    size: u64,
    take: &mut dyn FnMut(Bytes) -> io::Result<()>,
) -> Result<(), StoreError> {
    let transient = |e: io::Error| StoreError::Transient(format!("moving a body: {e}"));
    let (file, nonce) = shared.spool.file(at.segment).map_err(transient)?.ok_or_else(closed)?;
    let mut frames = Frames { file, nonce, id, at, size, place: 0 };
    loop {
        let octets = read(&mut frames, &Arc::downgrade(shared))?;
        if octets.is_empty() {
            return Ok(());
        }
        take(octets).map_err(|e| refusal(&e))?;
    }
}
