//! Bringing the index up to what spool and journal say: from a checkpoint on, or from nothing.
//!
//! Called at a start that was not preceded by an orderly end, and to rebuild. A record counts if its tail is
//! sound and no mark says that it is dead; a copy counts if a mark says so. Applying it twice is the same as
//! once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::kept::Kept;

use super::disk::Disk;
use super::frame::Nonce;
use super::index::{Changes, Entry, Index, id_digest};
use super::journal::{self, Entry as Line};
use super::record::{Location, Mark, Standing, stand};
use super::scan::{self, Bodies, Found};
use super::shared::Applied;
use super::spool;
use super::{Progress, Step};

/// Changes that are kept back before the index is changed.
const CHANGES_MAX: usize = 3000;

#[derive(Debug)]
enum Said {
    /// `still`: it was dead before as well.
    Dead {
        id: QueueId,
        len: u64,
        still: bool,
    },
    Standing {
        id: QueueId,
        damaged: bool,
        left: Vec<Standing>,
    },
}

/// What the journal says in the end.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    said: HashMap<(u64, u64), Said>,
    born: BTreeSet<u64>,
    pub(crate) retired: BTreeSet<u64>,
    /// The greatest epoch in a file's head.
    pub(crate) epoch: u32,
    pub(crate) damage: Vec<String>,
}

impl Fold {
    /// What the sum over the ids in the index must be, if it was `since.ids` at the checkpoint, `alive` are the
    /// messages found behind it, and all that was said since is in here. `None`: nobody counted then.
    pub(crate) fn ids_expected(&self, since: &Applied, alive: &HashSet<QueueId>) -> Option<u64> {
        let mut ids = since.ids?;
        // Whoever has a record before the checkpoint that something was said of since was there at the checkpoint.
        let (mut old, mut standing) = (HashSet::new(), HashSet::new());
        for (&(segment, offset), said) in &self.said {
            if since.read_from(segment).is_some_and(|from| offset >= from) {
                continue;
            }
            match said {
                Said::Dead { still: true, .. } => {}
                Said::Dead { id, .. } => {
                    old.insert(*id);
                }
                Said::Standing { id, .. } => {
                    old.insert(*id);
                    standing.insert(*id);
                }
            }
        }
        for id in alive.difference(&old) {
            ids = ids.wrapping_add(id_digest(*id));
        }
        for id in old.iter().filter(|id| !alive.contains(id) && !standing.contains(id)) {
            ids = ids.wrapping_sub(id_digest(*id));
        }
        Some(ids)
    }

    /// Segments that must be there and are not.
    pub(crate) fn missing(&self, there: &BTreeMap<u64, Nonce>) -> Vec<u64> {
        let wanted = self.born.difference(&self.retired);
        wanted.filter(|number| !there.contains_key(number)).copied().collect()
    }

    /// The greatest number of a segment that was ever named.
    pub(crate) fn last_segment(&self) -> u64 {
        self.born.last().max(self.retired.last()).copied().unwrap_or(0)
    }

    /// Whether a record counts. If it does, it stands as the journal says.
    pub(crate) fn counts(&self, at: Location, copy: bool, kept: &mut Kept) -> bool {
        match self.said.get(&(at.segment, at.offset)) {
            Some(Said::Dead { .. }) => false,
            None => !copy,
            Some(Said::Standing { damaged, left, .. }) => {
                stand(kept, *damaged, left);
                true
            }
        }
    }

    /// Whether somebody was told that the unfinished record at `offset` is durable.
    pub(crate) fn was_told(&self, segment: u64, offset: u64, synced: u64) -> bool {
        offset < synced || matches!(self.said.get(&(segment, offset)), Some(Said::Standing { .. }))
    }

    /// What to say of octets that cannot be read; nothing if all of them were records that are dead.
    pub(crate) fn lost(
        &self,
        segment: u64,
        offset: u64,
        end: u64,
        id: Option<QueueId>,
    ) -> Option<String> {
        if self.covers(segment, offset, end) {
            return None;
        }
        let whose = id.map_or_else(|| "a message".to_owned(), |id| format!("message {id}"));
        Some(format!("segment {segment}: {whose} cannot be read (from octet {offset} on)"))
    }

    /// Whether all of these octets were records that are dead.
    fn covers(&self, segment: u64, offset: u64, end: u64) -> bool {
        let mut place = offset;
        while place < end {
            match self.said.get(&(segment, place)) {
                Some(Said::Dead { len, .. }) if *len > 0 => place += len,
                _ => return false,
            }
        }
        true
    }
}

/// Reads the journal. Marks about records count from `since` on; those about segments, all.
pub(crate) fn fold(disk: &dyn Disk, folder: &Path, since: (u64, u64)) -> Result<Fold, StoreError> {
    let broken = |e| StoreError::Broken(format!("reading the journal: {e}"));
    let mut fold = Fold::default();
    let files = journal::list(disk, folder).map_err(broken)?;
    let mut expected = None;
    for (number, nonce) in files {
        if expected.is_some_and(|n| n != number) {
            fold.damage.push(format!(
                "a journal file before {number} is missing: mail that was delivered may come again"
            ));
        }
        expected = Some(number + 1);
        let path = folder.join(journal::file_name(number, &nonce));
        let mut damage = Vec::new();
        let mut marks = Vec::new();
        let epoch = journal::read(disk, &path, &nonce, &mut |line| match line {
            Line::Mark(offset, mark) => marks.push((offset, mark)),
            Line::Unreadable { offset, len } => damage.push(format!(
                "journal file {number}: {len} octets from {offset} cannot be read: mail that was \
                 delivered may come again"
            )),
            // The last write before a crash; nobody was told that it had happened.
            Line::Unfinished { .. } => {}
        });
        fold.epoch = fold.epoch.max(epoch.map_err(broken)?.unwrap_or(0));
        fold.damage.extend(damage);
        for (offset, mark) in marks {
            fold.take(mark, (number, offset) >= since);
        }
    }
    Ok(fold)
}

impl Fold {
    fn take(&mut self, mark: Mark, counts: bool) {
        let (at, said) = match mark {
            Mark::Born(number) => {
                self.born.insert(number);
                return;
            }
            Mark::Retired(number) => {
                self.retired.insert(number);
                return;
            }
            Mark::Together(marks) => {
                marks.into_iter().for_each(|mark| self.take(mark, counts));
                return;
            }
            Mark::Dead { id, at } => (at, Said::Dead { id, len: at.len, still: false }),
            Mark::StillDead { id, at } => {
                let known = self.said.get(&(at.segment, at.offset));
                let died_since = matches!(known, Some(Said::Dead { still: false, .. }));
                (at, Said::Dead { id, len: at.len, still: !died_since })
            }
            Mark::Standing { id, at, damaged, left } => (at, Said::Standing { id, damaged, left }),
        };
        if counts {
            self.said.insert((at.segment, at.offset), said);
        }
    }
}

/// What a replay came upon.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) damage: Vec<String>,
    /// Segments with octets that nobody can read.
    pub(crate) damaged: BTreeSet<u64>,
    /// Length of each segment that was read.
    pub(crate) lens: BTreeMap<u64, u64>,
    /// Messages whose records count and lie behind the checkpoint.
    pub(crate) alive: HashSet<QueueId>,
}

struct Player<'a> {
    index: &'a Index,
    fold: &'a Fold,
    changes: Changes,
    fresh: HashMap<QueueId, Entry>,
    result: Replayed,
}

/// Replays the segments after the checkpoint, then the marks. `all` means from nothing: bodies are checked too.
pub(crate) fn replay(
    disk: &dyn Disk,
    folder: &Path,
    index: &Index,
    fold: &Fold,
    since: Option<&Applied>,
    progress: Progress<'_>,
) -> Result<Replayed, StoreError> {
    let broken = |e| StoreError::Broken(format!("reading the spool: {e}"));
    let (segments, strange) = spool::list(disk, folder).map_err(broken)?;
    let (changes, result) = (Changes::default(), Replayed::default());
    let mut player = Player { index, fold, changes, fresh: HashMap::new(), result };
    let strange = strange.iter().filter(|n| journal::parse(n, "log-", ".journal").is_none());
    for name in strange {
        player.result.damage.push(format!("spool: {name} is no segment"));
    }
    let bodies = if since.is_none() { Bodies::Checked } else { Bodies::Skipped };
    let total = segments.len() as u64;
    for (done, (number, nonce)) in segments.into_iter().enumerate() {
        progress(Step { name: "reading the spool", done: done as u64, total });
        let from = match since {
            None => 0,
            Some(applied) => match applied.read_from(number) {
                Some(from) => from,
                None => continue,
            },
        };
        if fold.retired.contains(&number) {
            continue;
        }
        let path = folder.join(spool::file_name(number, &nonce));
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) => {
                player.result.damage.push(format!("segment {number} cannot be opened: {error}"));
                continue;
            }
        };
        let mut failure = None;
        let mut synced = 0;
        scan::segment(&*file, number, &nonce, from, bodies, &mut |found| {
            if let Found::Record { tail, .. } = &found {
                synced = synced.max(tail.synced);
            }
            if failure.is_none() {
                failure = player.take(number, found, since.is_none(), synced).err();
            }
        })
        .map_err(broken)?;
        if let Some(error) = failure {
            return Err(error);
        }
        player.result.lens.insert(number, file.len().map_err(broken)?);
    }
    player.apply()?;
    if since.is_some() {
        player.marks()?;
    }
    Ok(player.result)
}

impl Player<'_> {
    fn take(
        &mut self,
        number: u64,
        found: Found,
        all: bool,
        synced: u64,
    ) -> Result<(), StoreError> {
        match found {
            Found::Record { at, tail, sound_body } => {
                let mut kept = tail.kept;
                if !self.fold.counts(at, tail.copy, &mut kept) {
                    return Ok(());
                }
                if !sound_body && !kept.damaged {
                    kept.damaged = true;
                    let line =
                        format!("message {}: its body in segment {number} is damaged", kept.id);
                    self.result.damage.push(line);
                }
                if !all {
                    self.result.alive.insert(kept.id);
                }
                self.put(Entry { kept, at }, all)
            }
            Found::Unreadable { offset, len, id } => {
                self.unreadable(number, offset, offset + len, id);
                Ok(())
            }
            Found::Unfinished { offset, id } => {
                if self.fold.was_told(number, offset, synced) {
                    self.unreadable(number, offset, offset + 1, id);
                }
                Ok(())
            }
        }
    }

    fn unreadable(&mut self, number: u64, offset: u64, end: u64, id: Option<QueueId>) {
        let Some(line) = self.fold.lost(number, offset, end, id) else { return };
        self.result.damage.push(line);
        self.result.damaged.insert(number);
    }

    fn put(&mut self, entry: Entry, all: bool) -> Result<(), StoreError> {
        let id = entry.kept.id;
        let known = match self.fresh.get(&id) {
            Some(known) => Some(known.clone()),
            None if all => self.index.entry(id).ok().flatten().map(|(entry, _)| entry),
            None => self.index.entry(id)?.map(|(entry, _)| entry),
        };
        if known.as_ref().is_some_and(|known| known.at == entry.at && all) {
            return Ok(());
        }
        self.changes.replace(known.as_ref(), Some(&entry));
        self.fresh.insert(id, entry);
        if self.changes.len() >= CHANGES_MAX { self.apply() } else { Ok(()) }
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        self.fresh.clear();
        self.index.apply(std::mem::take(&mut self.changes))
    }

    /// What the marks say about messages that are in the index already.
    fn marks(&mut self) -> Result<(), StoreError> {
        let said = self.fold.said.iter();
        for (&(segment, offset), said) in said {
            let (Said::Dead { id, .. } | Said::Standing { id, .. }) = said;
            let Some((entry, _)) = self.index.entry(*id)? else { continue };
            let Location { segment: in_segment, offset: at_offset, .. } = entry.at;
            if (in_segment, at_offset) != (segment, offset) {
                continue;
            }
            match said {
                Said::Dead { .. } => {
                    self.changes.replace(Some(&entry), None);
                }
                Said::Standing { damaged, left, .. } => {
                    let mut now = entry.clone();
                    stand(&mut now.kept, *damaged, left);
                    self.changes.replace(Some(&entry), Some(&now));
                }
            }
            if self.changes.len() >= CHANGES_MAX {
                self.apply()?;
            }
        }
        self.apply()
    }
}
