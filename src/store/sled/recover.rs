//! Opening a store: how much of the index may be believed, and making right what may not.
//!
//! Called by [`super::SledStore::open`]. Three ways lead in. After an orderly end the index and the counts are
//! taken as they are and checked. If only the process ended (the machine has not been started anew since), the
//! operating system still has everything that was written: spool and journal are replayed from the last
//! checkpoint on. In any other case, a power cut above all, nothing of the index is believed and it is made
//! again. No way in ever deletes what cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::store::StoreError;
use crate::store::order::Order;
use crate::store::roster::Roster;
use crate::store::tally::Tally;

use super::check::{self, Survey};
use super::directory::{self, Log};
use super::disk::Disk;
use super::frame::{FILE_HEAD_BYTES, Nonce, file_epoch};
use super::index::{Changes, Entry, Index, kind, message};
use super::replay::{self, Fold, Replayed};
use super::shared::Applied;
use super::spool::{self, Segment};
use super::state::{self, Clean, State};
use super::{Options, Progress, journal, ordered};

/// A store that can be used.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) tally: Tally,
    pub(crate) order: Order,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) last_segment: u64,
    pub(crate) next_journal: u64,
    pub(crate) epoch: u32,
    pub(crate) applied: Applied,
    pub(crate) damage: Vec<String>,
    pub(crate) log: Log,
    pub(crate) roster: Roster,
    pub(crate) key: Option<[u8; 32]>,
    /// The index is still to be read whole, by the keeper.
    pub(crate) unchecked: bool,
}

struct Opening<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    spool: PathBuf,
    options: &'a Options,
    damage: Vec<String>,
}

struct Counted {
    index: Index,
    tally: Tally,
    order: Order,
    segments: BTreeMap<u64, Segment>,
    applied: Applied,
    unchecked: bool,
    fold_epoch: u32,
    last_segment: u64,
}

/// Opens what is in `folder`, or begins there. With `rebuild` nothing of the index is believed.
pub(crate) fn recover(
    disk: &dyn Disk,
    folder: &Path,
    options: &Options,
    rebuild: bool,
    progress: Progress<'_>,
) -> Result<Recovered, StoreError> {
    let spool = folder.join("spool");
    let mut opening = Opening { disk, folder, spool, options, damage: Vec::new() };
    let state = state::read(disk, folder).map_err(|e| opening.broken("STATE", &e))?;
    let last_segment = match &state {
        Some(State::Clean(clean)) => clean.applied.last_segment,
        _ => 0,
    };
    let was_clean = matches!(state, Some(State::Clean(_)));
    let counted = match state {
        _ if rebuild => None,
        Some(State::Clean(clean)) => opening.believe(*clean, progress)?,
        Some(State::Running { machine }) if state::machine(folder).as_ref() == Some(&machine) => {
            opening.catch_up(progress)?
        }
        _ => None,
    };
    let counted = match counted {
        Some(counted) => counted,
        None => opening.rebuild(progress)?,
    };
    opening.finish(counted, last_segment, was_clean)
}

impl Opening<'_> {
    fn broken(&self, what: &str, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Broken(format!("{}: {what}: {error}", self.folder.display()))
    }

    fn list(&self) -> Result<BTreeMap<u64, Nonce>, StoreError> {
        let listed = spool::list(self.disk, &self.spool);
        Ok(listed.map_err(|e| self.broken("spool", &e))?.0)
    }

    fn open_index(&self) -> Result<Index, StoreError> {
        Index::open(&self.folder.join("index"), self.options.cache_bytes)
    }

    /// After an orderly end. `None`: it is not to be believed after all.
    fn believe(
        &mut self,
        clean: Clean,
        progress: Progress<'_>,
    ) -> Result<Option<Counted>, StoreError> {
        self.damage.extend(clean.damage.iter().cloned());
        let there = self.list()?;
        let known: BTreeMap<u64, Segment> = clean.segments.iter().copied().collect();
        if there.keys().any(|number| !known.contains_key(number)) {
            self.damage.push("the spool has segments that the last run did not know".into());
            return Ok(None);
        }
        for (number, segment) in &known {
            self.compare(*number, segment, &there);
        }
        let index = match self.open_index() {
            Ok(index) => index,
            Err(error) => {
                self.damage.push(format!("{error}; it was made again"));
                return Ok(None);
            }
        };
        let mut ids = clean.applied.ids;
        let large = clean.order.filter(|_| clean.applied.entries > self.options.read_at_open_max);
        let order = large.and_then(|crc| ordered::read(self.disk, self.folder, crc));
        let unchecked = order.is_some();
        if unchecked && index.messages(None)?.next().is_none() {
            self.damage.push("the index was empty and was made again".into());
            return Ok(None);
        }
        let (tally, order) = if let Some(order) = order {
            (clean.tally(), order)
        } else {
            let survey = check::survey(&index, progress);
            let same = survey.as_ref().is_ok_and(|s| {
                let counts = (s.entries, s.digest);
                s.is_sound() && counts == (clean.applied.entries, clean.applied.digest)
            });
            let Some(survey) = survey.ok().filter(|_| same) else {
                self.damage.push("the index was damaged and was made again".into());
                return Ok(None);
            };
            ids = Some(survey.ids);
            (survey.tally, survey.order)
        };
        let mut segments = known;
        // A body that was never finished may have begun one which no group knows of.
        let newest = segments.keys().last().copied().unwrap_or(0);
        let last_segment = clean.applied.last_segment.max(newest);
        segments.values_mut().for_each(|segment| segment.sealed = true);
        let applied = Applied { ids, ..clean.applied };
        let fold_epoch = 0;
        Ok(Some(Counted {
            index,
            tally,
            order,
            segments,
            applied,
            unchecked,
            fold_epoch,
            last_segment,
        }))
    }

    /// Says whether a segment is as long as it was.
    fn compare(&mut self, number: u64, segment: &Segment, there: &BTreeMap<u64, Nonce>) {
        let Some(nonce) = there.get(&number) else { return };
        let path = self.spool.join(spool::file_name(number, nonce));
        let len = self.disk.open(&path).and_then(|file| file.len());
        match len {
            // One in which nobody lives may never have been synced.
            Ok(len) if len >= segment.len || segment.live == 0 => {}
            Ok(len) => self.damage.push(format!(
                "segment {number} has {len} octets instead of {}: messages in it are lost",
                segment.len
            )),
            Err(error) => self.damage.push(format!("segment {number} cannot be opened: {error}")),
        }
    }

    /// After the end of the process alone. `None`: there is no checkpoint to go on from.
    fn catch_up(&mut self, progress: Progress<'_>) -> Result<Option<Counted>, StoreError> {
        let Ok(index) = self.open_index() else { return Ok(None) };
        let said = index.value(&[kind::CHECKPOINT])?;
        let since = said.and_then(|s| serde_json::from_slice::<Applied>(&s).ok());
        let Some(since) = since else { return Ok(None) };
        let fold = replay::fold(self.disk, &self.spool, since.journal)?;
        let replayed =
            replay::replay(self.disk, &self.spool, &index, &fold, Some(&since), progress);
        let survey = replayed.and_then(|r| Ok((r, check::survey(&index, progress)?)));
        match survey {
            Ok((replayed, survey)) if is_whole(&fold, &since, &replayed, &survey) => {
                self.count(index, survey, &fold, &replayed).map(Some)
            }
            Ok(_) | Err(_) => {
                self.damage.push("the index was damaged and was made again".into());
                Ok(None)
            }
        }
    }

    /// From nothing but spool and journal.
    fn rebuild(&mut self, progress: Progress<'_>) -> Result<Counted, StoreError> {
        let folder = self.folder.join("index");
        // A rebuild that does not come to its end must be begun again, and what is there then not be believed.
        state::write_running(self.disk, self.folder, String::new())
            .map_err(|e| self.broken("STATE", &e))?;
        // It holds nothing that is not elsewhere.
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(self.broken("index", &e));
            }
            _ => {}
        }
        let index = self.open_index()?;
        let fold = replay::fold(self.disk, &self.spool, (0, 0))?;
        let replayed = replay::replay(self.disk, &self.spool, &index, &fold, None, progress)?;
        let survey = check::survey(&index, progress)?;
        if !survey.is_sound() {
            return Err(self.broken("index", &"it is damaged again right after it was made"));
        }
        self.count(index, survey, &fold, &replayed)
    }

    fn count(
        &mut self,
        index: Index,
        survey: Survey,
        fold: &Fold,
        replayed: &replay::Replayed,
    ) -> Result<Counted, StoreError> {
        self.damage.extend(fold.damage.iter().cloned());
        self.damage.extend(replayed.damage.iter().cloned());
        let there = self.list()?;
        for number in fold.missing(&there) {
            self.damage.push(format!("segment {number} is missing"));
        }
        let mut segments = BTreeMap::new();
        for (number, nonce) in &there {
            let len = match replayed.lens.get(number) {
                Some(len) => *len,
                None => {
                    let path = self.spool.join(spool::file_name(*number, nonce));
                    self.disk.open(&path).and_then(|file| file.len()).unwrap_or(0)
                }
            };
            let (live, live_bytes) = survey.live.get(number).copied().unwrap_or_default();
            let damaged = replayed.damaged.contains(number) || self.was_damaged(&index, *number);
            let segment = Segment { nonce: *nonce, len, live, live_bytes, sealed: true, damaged };
            segments.insert(*number, segment);
        }
        for number in &replayed.damaged {
            index.set(&damage_key(*number), b"")?;
        }
        let last_segment = there.keys().last().copied().unwrap_or(0).max(fold.last_segment());
        let applied = Applied {
            entries: survey.entries,
            digest: survey.digest,
            ids: Some(survey.ids),
            ..Applied::default()
        };
        let live = survey.live;
        let lost: BTreeSet<u64> =
            live.keys().filter(|number| !there.contains_key(number)).copied().collect();
        let mut counted = Counted {
            index,
            tally: survey.tally,
            order: survey.order,
            segments,
            applied,
            unchecked: false,
            fold_epoch: fold.epoch,
            last_segment,
        };
        self.set_aside(&mut counted, &lost)?;
        Ok(counted)
    }

    fn was_damaged(&self, index: &Index, number: u64) -> bool {
        index.value(&damage_key(number)).ok().flatten().is_some()
    }

    /// Sets aside the messages whose segments are gone.
    fn set_aside(&mut self, counted: &mut Counted, lost: &BTreeSet<u64>) -> Result<(), StoreError> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut changes = Changes::default();
        let applied = &mut counted.applied;
        for pair in counted.index.messages(None)? {
            let (key, value) = pair?;
            let Ok(entry) = message(&key, &value) else { continue };
            if !lost.contains(&entry.at.segment) || entry.kept.damaged {
                continue;
            }
            let (id, segment) = (entry.kept.id, entry.at.segment);
            self.damage.push(format!("message {id} was lost with segment {segment}"));
            let mut now = Entry { kept: entry.kept.clone(), at: entry.at };
            now.kept.damaged = true;
            let (old, new) = (entry.kept.places(), now.kept.places());
            counted.tally.change(&old, &new, entry.kept.size);
            counted.order.change(id, &old, &new);
            let sum = changes.replace(Some(&entry), Some(&now));
            let old = super::index::digest(&key, &value);
            applied.digest = applied.digest.wrapping_add(sum).wrapping_sub(old);
        }
        counted.index.apply(changes)
    }

    fn finish(
        mut self,
        mut counted: Counted,
        last_segment: u64,
        was_clean: bool,
    ) -> Result<Recovered, StoreError> {
        let there = self.list()?;
        let known = counted.segments.iter();
        let lost: BTreeSet<u64> = known
            .filter(|(number, segment)| segment.live > 0 && !there.contains_key(number))
            .map(|(number, _)| *number)
            .collect();
        for number in &lost {
            self.damage.push(format!("segment {number} is missing"));
        }
        self.set_aside(&mut counted, &lost)?;
        counted.segments.retain(|number, _| there.contains_key(number));
        let (log, read) = directory::open(self.disk, self.folder, Some(&counted.index), was_clean)?;
        self.damage.extend(read.damage);
        directory::copy_to_index(&counted.index, &read.roster)?;
        let journals = journal::list(self.disk, &self.spool);
        let journals = journals.map_err(|e| self.broken("journal", &e))?;
        let mut seen = counted.fold_epoch;
        for (number, nonce) in &journals {
            let file = self.disk.open(&self.spool.join(journal::file_name(*number, nonce)));
            let mut head = [0; FILE_HEAD_BYTES];
            let read = file.and_then(|file| file.read_at(&mut head, 0));
            seen = seen.max(read.ok().and_then(|_| file_epoch(&head)).unwrap_or(0));
        }
        let epoch = state::next_epoch(self.disk, self.folder, seen);
        let mut told = BTreeSet::new();
        self.damage.retain(|line| told.insert(line.clone()));
        Ok(Recovered {
            tally: counted.tally,
            order: counted.order,
            last_segment: counted.last_segment.max(last_segment),
            next_journal: journals.keys().last().copied().unwrap_or(0) + 1,
            epoch: epoch.map_err(|e| self.broken("EPOCH", &e))?,
            applied: counted.applied,
            damage: self.damage,
            log,
            roster: read.roster,
            key: read.key,
            unchecked: counted.unchecked,
            segments: counted.segments,
            index: counted.index,
        })
    }
}

/// Whether the index, brought up to date, holds exactly the messages that it should.
fn is_whole(fold: &Fold, since: &Applied, replayed: &Replayed, survey: &Survey) -> bool {
    let expected = fold.ids_expected(since, &replayed.alive);
    survey.is_sound() && expected.is_none_or(|ids| ids == survey.ids)
}

fn damage_key(number: u64) -> Vec<u8> {
    let mut key = vec![kind::DAMAGE];
    key.extend_from_slice(&number.to_be_bytes());
    key
}
