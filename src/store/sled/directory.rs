//! The directory on disk: a log of whole customers, and a copy in the index.
//!
//! Called by the committer for changes and by recovery. The log is what counts; of the copy in the index only those
//! are taken of whom the log says nothing, or more if it is damaged. Customers are written as JSON, whose field names
//! are the interface's.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::mail::{Customer, CustomerName};
use crate::store::roster::Roster;
use crate::store::{DirectoryError, StoreError};

use super::body::refusal;
use super::disk::{Disk, DiskFile, read_whole, replace};
use super::frame::{self, FRAME_BYTES, Kind, Nonce, TAIL_BYTES_MAX};
use super::group::Group;
use super::index::{Index, kind, unsealed};
use super::shared::{Shared, locked, reading};

/// The log is no place that senders write to; its frames need no secret.
const NONCE: Nonce = *b"restante-people1";
/// The log is written anew at a start when this many of its entries are outdated.
const OUTDATED_MAX: usize = 1000;

/// A change that is asked for.
#[derive(Debug)]
pub(crate) enum Change {
    Create(Customer),
    Update(Customer),
    Remove(CustomerName),
    Key([u8; 32]),
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Line {
    Customer(Box<Customer>),
    Removed(CustomerName),
    Key([u8; 32]),
}

/// The log, open to be appended to.
#[derive(Debug)]
pub(crate) struct Log {
    file: Arc<dyn DiskFile>,
    end: u64,
}

/// What the log and the index say together.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) roster: Roster,
    pub(crate) key: Option<[u8; 32]>,
    pub(crate) damage: Vec<String>,
    /// Those that the log says were removed, and did not come again.
    removed: BTreeSet<CustomerName>,
}

fn key_of(kind: u8, name: &CustomerName) -> Vec<u8> {
    [&[kind], name.as_str().as_bytes()].concat()
}

/// Of whom a key of the index speaks.
fn name_of(key: &[u8]) -> Option<CustomerName> {
    CustomerName::parse(std::str::from_utf8(key.get(1..)?).ok()?).ok()
}

fn encoded(line: &Line) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(line).map_err(|e| StoreError::Transient(format!("the directory: {e}")))
}

impl Log {
    /// Writes a change behind the others, to be synced with its group.
    pub(crate) fn prepare(
        &mut self,
        shared: &Shared,
        group: &mut Group,
        change: Change,
    ) -> Result<(), DirectoryError> {
        let roster = group.roster.get_or_insert_with(|| reading(&shared.roster).clone());
        let line = match change {
            Change::Create(customer) => Line::Customer(Box::new(roster.created(customer)?)),
            Change::Update(customer) => Line::Customer(Box::new(roster.updated(customer)?)),
            Change::Remove(name) if roster.customer(&name).is_none() => {
                return Err(DirectoryError::Missing);
            }
            Change::Remove(name) => Line::Removed(name),
            // Somebody else was first.
            Change::Key(_) if group.server_key.or(*locked(&shared.server_key)).is_some() => {
                return Ok(());
            }
            Change::Key(key) => Line::Key(key),
        };
        self.append(&line)?;
        group.files.push(self.file.clone());
        match line {
            Line::Customer(customer) => {
                let content = serde_json::to_vec(&customer).unwrap_or_default();
                group.customers.push((key_of(kind::CUSTOMER, &customer.name), Some(content)));
                roster.put(*customer);
            }
            Line::Removed(name) => {
                group.customers.push((key_of(kind::CUSTOMER, &name), None));
                roster.remove(&name);
            }
            Line::Key(key) => group.server_key = Some(key),
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), StoreError> {
        let mut octets = Vec::new();
        let line = encoded(line)?;
        if line.len() > TAIL_BYTES_MAX {
            let why = format!(
                "a customer's record would have {} octets, and {TAIL_BYTES_MAX} is the most: shorten its list of recipients",
                line.len()
            );
            return Err(StoreError::Transient(why));
        }
        frame::put_mark(&mut octets, &NONCE, self.end, &line);
        if let Err(error) = self.file.write_at(&octets, self.end) {
            // What follows overwrites it.
            let _ = self.file.truncate(self.end);
            return Err(refusal(&error));
        }
        self.end += octets.len() as u64;
        Ok(())
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("directory.log")
}

/// Reads log and index, and opens the log to go on. `index` is `None` if it was not to be trusted.
pub(crate) fn open(
    disk: &dyn Disk,
    folder: &Path,
    index: Option<&Index>,
    clean: bool,
) -> Result<(Log, Read), StoreError> {
    let broken = |e: io::Error| StoreError::Broken(format!("directory.log: {e}"));
    let path = path(folder);
    let octets = read_whole(disk, &path).map_err(broken)?;
    let (mut read, sound, lines) = parse(octets.as_deref().unwrap_or_default());
    let whole = octets.as_ref().map_or(0, Vec::len) as u64;
    if clean && sound < whole {
        read.damage.push(format!("directory.log: octets {sound} to {whole} cannot be read"));
    }
    let damaged = !read.damage.is_empty();
    // One that was cut between two lines looks whole.
    let is_whole = octets.is_some() && sound == whole && !damaged;
    let found = index.map_or(Ok(0), |index| recover(&mut read, index, is_whole))?;
    if found > 0 {
        let how = if octets.is_none() { "was missing" } else { "was cut off or damaged" };
        read.damage.push(format!("directory.log {how}; {found} customers found in the index"));
    }
    let living = read.roster.page(None, usize::MAX).len();
    let rewrite = octets.is_none() || damaged || found > 0 || lines > living + OUTDATED_MAX;
    if let (Some(octets), true) = (&octets, damaged || found > 0) {
        // Kept for a person to look at. The log itself stays until another is in its place.
        replace(disk, &folder.join("directory.log.damaged"), octets).map_err(broken)?;
    }
    let end = if rewrite { write_anew(disk, &path, &read).map_err(broken)? } else { sound };
    let file = disk.open(&path).map_err(broken)?;
    if file.len().map_err(broken)? > end {
        file.truncate(end).map_err(broken)?;
    }
    Ok((Log { file, end }, read))
}

/// What the log says, without touching it.
pub(crate) fn look(disk: &dyn Disk, folder: &Path) -> Result<Read, StoreError> {
    let broken = |e: io::Error| StoreError::Broken(format!("directory.log: {e}"));
    let octets = read_whole(disk, &path(folder)).map_err(broken)?;
    Ok(parse(octets.as_deref().unwrap_or_default()).0)
}

/// What the log says, where its sound part ends, and how many entries it has.
fn parse(octets: &[u8]) -> (Read, u64, usize) {
    let mut read = Read::default();
    let (mut place, mut lines, mut sound) = (0, 0, 0);
    while place < octets.len() {
        let Some((line, end)) = line_at(octets, place) else {
            let next = (place + 1..octets.len()).find(|at| line_at(octets, *at).is_some());
            if let Some(next) = next {
                let line = format!("directory.log: octets {place} to {next} cannot be read");
                read.damage.push(line);
            }
            // Without a successor it is a change that was never finished.
            place = next.unwrap_or(octets.len());
            continue;
        };
        lines += 1;
        match line {
            Line::Customer(customer) => {
                read.removed.remove(&customer.name);
                read.roster.put(*customer);
            }
            Line::Removed(name) => {
                read.roster.remove(&name);
                read.removed.insert(name);
            }
            Line::Key(key) => read.key = Some(key),
        }
        (place, sound) = (end, end);
    }
    (read, sound as u64, lines)
}

fn line_at(octets: &[u8], place: usize) -> Option<(Line, usize)> {
    let rest = octets.get(place..)?;
    let Some(Kind::Mark(len)) = frame::kind(rest) else { return None };
    let whole = rest.get(..FRAME_BYTES + len)?;
    let said = frame::mark(whole, &NONCE, place as u64).ok()?;
    Some((serde_json::from_slice(said).ok()?, place + whole.len()))
}

/// Adds what only the index has and, where the log is whole, takes out of the index those whose removal it has forgotten.
/// Answers how many were added.
fn recover(read: &mut Read, index: &Index, is_whole: bool) -> Result<usize, StoreError> {
    let (mut found, mut forgotten) = (0, 0);
    for pair in index.of_kind(kind::CUSTOMER)? {
        let (key, value) = pair?;
        if let Some(name) = name_of(&key).filter(|_| is_whole) {
            if read.removed.contains(&name) {
                index.unset(&key)?;
                forgotten += 1;
                continue;
            }
            // The log is written first, so what it has of somebody is as new as what the index has.
            if read.roster.customer(&name).is_some() {
                continue;
            }
        }
        let content = unsealed(&key, &value).ok();
        let customer = content.and_then(|c| serde_json::from_slice::<Customer>(c).ok());
        let Some(customer) = customer else {
            read.damage.push("the index holds a customer that cannot be read".into());
            continue;
        };
        let known = read.roster.customer(&customer.name);
        if known.is_some_and(|known| known.revision >= customer.revision) {
            continue;
        }
        let owner = |domain| read.roster.owner(domain).filter(|owner| owner.name != customer.name);
        if let Some(owner) = customer.domains.iter().find_map(owner) {
            let (name, other) = (&customer.name, &owner.name);
            read.damage.push(format!(
                "the index holds customer {name}, who has a domain that directory.log says is {other}'s"
            ));
            continue;
        }
        read.roster.put(customer);
        found += 1;
    }
    if forgotten > 0 {
        // Before the log, which may be written anew, forgets it as well.
        index.flush()?;
    }
    Ok(found)
}

fn write_anew(disk: &dyn Disk, path: &Path, read: &Read) -> io::Result<u64> {
    let mut octets = Vec::new();
    let key = read.key.map(Line::Key);
    let customers = read.roster.page(None, usize::MAX);
    let customers = customers.iter().map(|c| Line::Customer(Box::new((**c).clone())));
    for line in key.into_iter().chain(customers) {
        let said = encoded(&line).map_err(io::Error::other)?;
        let place = octets.len() as u64;
        frame::put_mark(&mut octets, &NONCE, place, &said);
    }
    replace(disk, path, &octets)?;
    Ok(octets.len() as u64)
}

/// Keeps what was learnt about a customer; in the index alone, since it can be learnt again, and a power cut may take it.
pub(crate) fn learn(
    index: &Index,
    name: &CustomerName,
    lesson: Option<&str>,
) -> Result<(), StoreError> {
    let key = key_of(kind::LESSON, name);
    match lesson {
        Some(lesson) => index.set(&key, lesson.as_bytes()),
        None => index.unset(&key),
    }
}

/// All that was learnt. What cannot be read is passed over: it will be learnt again.
pub(crate) fn learnt(index: &Index) -> Result<Vec<(CustomerName, String)>, StoreError> {
    let mut all = Vec::new();
    for pair in index.of_kind(kind::LESSON)? {
        let (key, value) = pair?;
        let lesson =
            unsealed(&key, &value).ok().and_then(|said| String::from_utf8(said.into()).ok());
        all.extend(name_of(&key).zip(lesson));
    }
    Ok(all)
}

/// Writes the copy in the index anew.
pub(crate) fn copy_to_index(index: &Index, roster: &Roster) -> Result<(), StoreError> {
    for customer in roster.page(None, usize::MAX) {
        let content = serde_json::to_vec(&*customer).unwrap_or_default();
        index.set(&key_of(kind::CUSTOMER, &customer.name), &content)?;
    }
    Ok(())
}
