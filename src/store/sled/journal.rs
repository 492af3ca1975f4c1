//! The journal: what changed about messages since their records were written, in the order of the changes.
//!
//! Called by the committer, which appends and syncs, by recovery, which reads all of it, and by the keeper,
//! which rewrites the oldest file when most of it says nothing any more. It never looks into the spool.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, read_whole};
use super::frame::{self, FILE_HEAD_BYTES, FRAME_BYTES, Kind, Nonce};
use super::octets::Out;
use super::record::Mark;

const MAGIC: [u8; 8] = *b"RSTNJNL1";
/// A journal file is followed by the next one when it reaches this.
pub(crate) const JOURNAL_BYTES: u64 = 16 * 1024 * 1024;

/// The name of journal file `number`.
pub(crate) fn file_name(number: u64, nonce: &Nonce) -> String {
    format!("log-{number:010}-{:032x}.journal", u128::from_be_bytes(*nonce))
}

/// Number and nonce in a name of the form `before NUMBER - NONCE after`.
pub(crate) fn parse(name: &str, before: &str, after: &str) -> Option<(u64, Nonce)> {
    let middle = name.strip_prefix(before)?.strip_suffix(after)?;
    let (number, nonce) = middle.split_once('-')?;
    if number.len() < 10 || nonce.len() != 32 {
        return None;
    }
    Some((number.parse().ok()?, u128::from_str_radix(nonce, 16).ok()?.to_be_bytes()))
}

/// The journal's files.
pub(crate) fn list(disk: &dyn Disk, folder: &Path) -> io::Result<BTreeMap<u64, Nonce>> {
    let names = disk.list(folder)?;
    Ok(names.iter().filter_map(|name| parse(name, "log-", ".journal")).collect())
}

/// Where the journal is appended to.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    epoch: u32,
    number: u64,
    nonce: Nonce,
    file: Arc<dyn DiskFile>,
    end: u64,
    waiting: Vec<u8>,
}

impl Journal {
    /// Begins file `number`.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        number: u64,
        epoch: u32,
    ) -> io::Result<Self> {
        let (nonce, file) = begin_file(&*disk, &folder, number, epoch)?;
        let end = FILE_HEAD_BYTES as u64;
        Ok(Self { disk, folder, epoch, number, nonce, file, end, waiting: Vec::new() })
    }

    /// Number of the file, and where its sound part ends.
    pub(crate) fn position(&self) -> (u64, u64) {
        (self.number, self.end)
    }

    /// Puts a mark behind those that wait to be written.
    pub(crate) fn add(&mut self, mark: &Mark) {
        let mut said = Out::default();
        mark.put(&mut said);
        let place = self.end + self.waiting.len() as u64;
        frame::put_mark(&mut self.waiting, &self.nonce, place, &said.0);
    }

    /// Whether marks wait to be written.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The marks that wait, as they will be written.
    pub(crate) fn waiting(&self) -> Vec<u8> {
        self.waiting.clone()
    }

    /// Lets marks wait again that could not be written; nothing was added since.
    pub(crate) fn wait_again(&mut self, marks: Vec<u8>) {
        self.waiting = marks;
    }

    /// Writes the marks that wait; not durable before the file is synced. After an error none of them counts.
    pub(crate) fn write(&mut self) -> io::Result<Arc<dyn DiskFile>> {
        if let Err(error) = self.file.write_at(&self.waiting, self.end) {
            self.waiting.clear();
            self.file.truncate(self.end)?;
            return Err(error);
        }
        self.end += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(self.file.clone())
    }

    /// Goes on in a new file if this one is full. Call with nothing waiting and everything synced.
    pub(crate) fn turn_over(&mut self) -> io::Result<bool> {
        if self.end < JOURNAL_BYTES {
            return Ok(false);
        }
        let (nonce, file) = begin_file(&*self.disk, &self.folder, self.number + 1, self.epoch)?;
        (self.number, self.nonce, self.file) = (self.number + 1, nonce, file);
        self.end = FILE_HEAD_BYTES as u64;
        Ok(true)
    }
}

fn begin_file(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    epoch: u32,
) -> io::Result<(Nonce, Arc<dyn DiskFile>)> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let path = folder.join(file_name(number, &nonce));
    let file = disk.create(&path)?;
    let head = frame::file_head(MAGIC, number, &nonce, epoch);
    let begun = file.write_at(&head, 0).and_then(|()| file.sync());
    if let Err(error) = begun.and_then(|()| disk.sync_folder(folder)) {
        // Without marks it says nothing.
        let _ = disk.remove(&path);
        return Err(error);
    }
    Ok((nonce, file))
}

/// What reading a journal file found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A mark, and where it begins.
    Mark(u64, Mark),
    /// Octets that are no mark, with more marks behind them.
    Unreadable { offset: u64, len: u64 },
    /// The file ends inside a mark.
    Unfinished { offset: u64 },
}

/// Tells `tell` everything in a journal file, in order; answers the epoch in its head.
pub(crate) fn read(
    disk: &dyn Disk,
    path: &Path,
    nonce: &Nonce,
    tell: &mut dyn FnMut(Entry),
) -> io::Result<Option<u32>> {
    let octets = read_whole(disk, path)?.unwrap_or_default();
    let mut place = FILE_HEAD_BYTES;
    while place < octets.len() {
        if let Some((mark, end)) = mark_at(&octets, nonce, place) {
            match mark {
                Mark::Together(marks) => {
                    marks.into_iter().for_each(|mark| tell(Entry::Mark(place as u64, mark)));
                }
                mark => tell(Entry::Mark(place as u64, mark)),
            }
            place = end;
            continue;
        }
        let mut next = frame::find_mark(&octets, place + 1);
        while let Some(at) = next.filter(|at| mark_at(&octets, nonce, *at).is_none()) {
            next = frame::find_mark(&octets, at + 1);
        }
        tell(match next {
            Some(at) => Entry::Unreadable { offset: place as u64, len: (at - place) as u64 },
            None => Entry::Unfinished { offset: place as u64 },
        });
        place = next.unwrap_or(octets.len());
    }
    Ok(frame::file_epoch(&octets))
}

fn mark_at(octets: &[u8], nonce: &Nonce, place: usize) -> Option<(Mark, usize)> {
    let rest = octets.get(place..)?;
    let Some(Kind::Mark(len)) = frame::kind(rest) else { return None };
    let end = FRAME_BYTES + len;
    let said = frame::mark(rest.get(..end)?, nonce, place as u64).ok()?;
    Some((Mark::take(said).ok()?, place + end))
}
