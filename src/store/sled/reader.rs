//! Bodies on their way out of the spool.
//!
//! Called through the traits, by compaction and by dumps. Every frame is checked before anything of it is given; all that
//! may wait for the disk happens on threads for blocking work.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes};

use crate::mail::QueueId;
use crate::store::{Answer, BodyReader, StoreError};

use super::body::refusal;
use super::committer::Op;
use super::disk::DiskFile;
use super::frame::{self, BODY_BYTES_MAX, FRAME_BYTES, Nonce};
use super::index::Entry;
use super::record::Location;
use super::shared::{Shared, closed};
use super::sync::off;

/// Frames read beyond the one that was asked for, in one visit to the blocking threads.
const AHEAD_FRAMES: usize = 2;

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
        self.take(waiting)
    }

    /// The same if the system has it in memory; `None` otherwise, and also if anything is wrong with it: who waits
    /// for the disk finds that out and says it.
    fn next_at_once(&mut self) -> Option<Bytes> {
        self.take(at_once).ok().flatten()
    }

    fn take(&mut self, read: Read) -> io::Result<Option<Bytes>> {
        let mut octets = vec![0; self.need()];
        let Some(part) = self.read_into(&mut octets, read)? else { return Ok(None) };
        let mut octets = Bytes::from(octets);
        octets.truncate(part.end);
        octets.advance(part.start);
        Ok(Some(octets))
    }

    /// Reads the next frame into `octets`, of which there are [`Frames::need`], and says which of them are content.
    fn read_into(&mut self, octets: &mut [u8], read: Read) -> io::Result<Option<Range<usize>>> {
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

/// A way of reading from a file.
type Read = fn(&dyn DiskFile, &mut [u8], u64) -> io::Result<usize>;

fn waiting(file: &dyn DiskFile, octets: &mut [u8], at: u64) -> io::Result<usize> {
    file.read_at(octets, at)
}

/// Reads what the system has in memory.
fn at_once(file: &dyn DiskFile, octets: &mut [u8], at: u64) -> io::Result<usize> {
    file.read_at_once(octets, at).ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// Frames, and what came of reading the first of them.
type Begun = (Frames, io::Result<Option<Bytes>>);

/// The engine's [`BodyReader`].
pub(crate) struct Reader {
    shared: Weak<Shared>,
    frames: Option<Frames>,
    /// Read along with the opening, so that a small message costs one visit to the blocking threads at most.
    first: Option<Bytes>,
    /// Read by later visits beyond what was asked for.
    ready: VecDeque<Bytes>,
    id: QueueId,
    size: u64,
}

impl Reader {
    /// Opens the body of `id` for reading from `offset`. Blocks.
    pub(crate) fn open(shared: &Arc<Shared>, id: QueueId, offset: u64) -> Result<Self, StoreError> {
        let mut frames = frames_of(shared, id, offset)?;
        let first = frames.next();
        Self::begun(shared, frames, first)
    }

    /// Opens these bodies. Blocks.
    pub(crate) fn open_all(shared: &Arc<Shared>, ids: &[QueueId]) -> Vec<Result<Self, StoreError>> {
        let frames = ids.iter().map(|id| frames_of(shared, *id, 0)).collect();
        let begun = read_all(shared, frames, waiting, false).into_iter();
        begun
            .map(|one| one.and_then(|(frames, first)| Self::begun(shared, frames, first)))
            .collect()
    }

    /// The first of these bodies: as many as the system has in memory, so that nothing waits for the disk. It ends also
    /// where anything is wrong: who waits for the disk finds that out and says it.
    pub(crate) fn open_at_hand(shared: &Arc<Shared>, ids: &[QueueId]) -> Vec<Self> {
        if shared.check().is_err() {
            return Vec::new();
        }
        let at_hand = |id: &QueueId| {
            let entry = shared.recent.get(*id)?;
            let (file, nonce) = shared.spool.open_file(entry.at.segment)?;
            let (at, size) = place(&entry).ok()?;
            Some(Ok(Frames { file, nonce, id: *id, at, size, place: 0 }))
        };
        let frames = ids.iter().map_while(at_hand).collect();
        let sound = |one: Result<Begun, StoreError>| {
            let (frames, first) = one.ok()?;
            Some(Self::of(shared, frames, first.ok()??))
        };
        read_all(shared, frames, at_once, true).into_iter().map_while(sound).collect()
    }

    /// Opens the body of a record wherever the message is by now. The segment must not go away meanwhile. Blocks.
    pub(crate) fn open_at(
        shared: &Arc<Shared>,
        id: QueueId,
        at: Location,
        size: u64,
    ) -> Result<Self, StoreError> {
        shared.check()?;
        let frames = frames_at(shared, id, (at, size), 0)?;
        let mut frames = frames.ok_or(StoreError::Corrupt(id))?;
        let first = frames.next();
        Self::begun(shared, frames, first)
    }

    fn begun(
        shared: &Arc<Shared>,
        frames: Frames,
        first: io::Result<Option<Bytes>>,
    ) -> Result<Self, StoreError> {
        let first = sound(&frames, &Arc::downgrade(shared), first)?;
        Ok(Self::of(shared, frames, first))
    }

    fn of(shared: &Arc<Shared>, frames: Frames, first: Bytes) -> Self {
        let (id, size) = (frames.id, frames.size);
        let (shared, first) = (Arc::downgrade(shared), Some(first));
        Self { shared, frames: Some(frames), first, ready: VecDeque::new(), id, size }
    }
}

/// The first frame of each, or of those before the first that cannot be read. They lie side by side in memory, since many
/// small pieces that one thread makes and another forgets are dear.
fn read_all(
    shared: &Shared,
    all: Vec<Result<Frames, StoreError>>,
    read: Read,
    ends_at_trouble: bool,
) -> Vec<Result<Begun, StoreError>> {
    let mut block = shared.blocks.take(all.iter().flatten().map(Frames::need).sum());
    let (mut parts, mut begin) = (Vec::with_capacity(all.len()), 0);
    for frames in all {
        let part = frames.map(|mut frames| {
            let place = &mut block.octets()[begin..begin + frames.need()];
            let (here, octets) = (begin, place.len());
            begin += octets;
            let part = frames.read_into(place, read);
            (frames, part.map(|part| part.map(|part| here + part.start..here + part.end)))
        });
        if ends_at_trouble && !matches!(part, Ok((_, Ok(Some(_))))) {
            break;
        }
        parts.push(part);
    }
    let whole = block.freeze();
    let sliced = parts.into_iter().map(|one| {
        let (frames, part) = one?;
        Ok((frames, part.map(|part| part.map(|part| whole.slice(part)))))
    });
    sliced.collect()
}

/// The frames of a body whose record is there, if its segment is.
fn frames_at(
    shared: &Shared,
    id: QueueId,
    (at, size): (Location, u64),
    place: u64,
) -> Result<Option<Frames>, StoreError> {
    let transient = |e| StoreError::Transient(format!("opening a body: {e}"));
    let found = shared.spool.file(at.segment).map_err(transient)?;
    Ok(found.map(|(file, nonce)| Frames { file, nonce, id, at, size, place }))
}

/// The frames of the body of `id`, from `offset` on.
fn frames_of(shared: &Shared, id: QueueId, offset: u64) -> Result<Frames, StoreError> {
    let mut record = place_of(shared, id)?;
    // A compaction may move the record between looking it up and opening its file.
    for _ in 0..8 {
        if let Some(frames) = frames_at(shared, id, record, offset)? {
            return Ok(frames);
        }
        record = place_in_index(shared, id)?;
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
