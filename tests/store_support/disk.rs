//! A file system in memory that forgets what was never synced, and fails when it is told to.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use restante::store::sled::disk::{Disk, DiskFile};

/// Chance, the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A change of a file that was not synced yet.
#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Cut(u64),
}

#[derive(Clone, Debug, Default)]
struct Node {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

fn write(octets: &mut Vec<u8>, offset: u64, content: &[u8]) {
    let start = usize::try_from(offset).expect("small");
    let end = start + content.len();
    if octets.len() < end {
        octets.resize(end, 0);
    }
    octets[start..end].copy_from_slice(content);
}

/// A change of names that was not synced yet: this name means that file now.
type Naming = (PathBuf, Option<u64>);

/// All files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    nodes: HashMap<u64, Node>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    namings: Vec<Naming>,
    next: u64,
}

impl Files {
    fn name(&mut self, path: &Path, node: Option<u64>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.namings.push((path.to_owned(), node));
    }

    /// What a power cut may leave: of everything that was not synced some is there, some is not, some is torn.
    pub(crate) fn after_power_cut(&self, dice: &mut Dice) -> Self {
        let mut left = Self { next: self.next, ..Self::default() };
        let mut names = self.durable_names.clone();
        // Journalling file systems lose a tail of the changes of names; ours may lose any of them as well.
        let tail = dice.below(self.namings.len() as u64 + 1) as usize;
        let any = dice.one_in(3);
        for (place, (path, node)) in self.namings.iter().enumerate() {
            if if any { dice.one_in(2) } else { place < tail } {
                match node {
                    Some(node) => names.insert(path.clone(), *node),
                    None => names.remove(path),
                };
            }
        }
        for node in names.values() {
            let Some(old) = self.nodes.get(node) else { continue };
            let mut octets = old.durable.clone();
            let all = dice.one_in(4);
            for pending in &old.pending {
                let fate = if all { 0 } else { dice.below(3) };
                match pending {
                    Pending::Write(offset, content) if fate == 0 => {
                        write(&mut octets, *offset, content);
                    }
                    Pending::Write(offset, content) if fate == 1 => {
                        let some = dice.below(content.len() as u64 + 1) as usize;
                        write(&mut octets, *offset, &content[..some]);
                        if dice.one_in(2) {
                            // The length came through, the rest did not.
                            write(&mut octets, *offset, &vec![0; content.len()][..]);
                            write(&mut octets, *offset, &content[..some]);
                        }
                    }
                    Pending::Cut(len) if fate == 0 => {
                        octets.truncate(usize::try_from(*len).expect("small"));
                    }
                    _ => {}
                }
            }
            let node_left = Node { current: octets.clone(), durable: octets, pending: Vec::new() };
            left.nodes.insert(*node, node_left);
        }
        names.retain(|_, node| left.nodes.contains_key(node));
        left.names = names.clone();
        left.durable_names = names;
        left
    }

    /// The paths of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    /// Changes the octets of a file, durably.
    pub(crate) fn damage(&mut self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(node) = self.names.get(path).and_then(|n| self.nodes.get_mut(n)) else { return };
        change(&mut node.current);
        node.durable = node.current.clone();
        node.pending.clear();
    }

    /// Takes a file away, durably.
    pub(crate) fn lose(&mut self, path: &Path) {
        self.names.remove(path);
        self.durable_names = self.names.clone();
        self.namings.clear();
    }
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The call does nothing and says so; a sync that fails forgets what was to be synced.
    Error,
    /// A write stops in the middle.
    Short,
    /// No room; for writes and new files only.
    Full,
    /// The call takes its time, and then succeeds.
    Delay,
    /// The first sync of a file from there on fails; what was to be synced is forgotten.
    Sync,
}

type Watch = Box<dyn FnMut(&Files) + Send>;

#[derive(Default)]
struct State {
    files: Files,
    calls: u64,
    fault: Option<(u64, Fault)>,
    struck: bool,
    watch: Option<Watch>,
    room: Option<u64>,
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryDisk")
    }
}

impl MemoryDisk {
    pub(crate) fn of(files: Files) -> Self {
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }
    pub(crate) fn files(&self) -> Files {
        self.lock().files.clone()
    }
    /// Calls that change something so far.
    pub(crate) fn calls(&self) -> u64 {
        self.lock().calls
    }
    /// The `n`-th call from now on fails.
    pub(crate) fn fail_at(&self, n: u64, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.calls + n, fault));
    }
    /// Nothing fails any more. Answers whether something did.
    pub(crate) fn mend(&self) -> bool {
        let mut state = self.lock();
        state.fault = None;
        std::mem::take(&mut state.struck)
    }
    /// Shows the files after each call that changes something.
    pub(crate) fn watch(&self, watch: impl FnMut(&Files) + Send + 'static) {
        self.lock().watch = Some(Box::new(watch));
    }
    pub(crate) fn unwatch(&self) {
        self.lock().watch = None;
    }
    /// Octets that all files together may have.
    pub(crate) fn set_room(&self, room: u64) {
        self.lock().room = Some(room);
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
    fn file(&self, node: u64) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile { disk: self.clone(), node })
    }
}

impl State {
    /// Counts a call; the fault that strikes it, if one does.
    fn call(&mut self) -> Option<Fault> {
        self.calls += 1;
        let (_, fault) = self.fault.filter(|(at, _)| *at == self.calls)?;
        if fault == Fault::Delay {
            self.struck = true;
            // Long for a disk; whoever waits for it waits, and nobody takes it for an error.
            std::thread::sleep(std::time::Duration::from_millis(30));
            return None;
        }
        self.struck |= fault != Fault::Sync;
        Some(fault).filter(|fault| *fault != Fault::Sync)
    }
    fn seen(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch(&self.files);
        }
    }
    fn used(&self) -> u64 {
        let nodes = self.files.names.values().filter_map(|n| self.files.nodes.get(n));
        nodes.map(|node| node.current.len() as u64).sum()
    }
}

/// The path below the store's folder, so that the same files can stand for a store elsewhere.
fn below(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| p.ends_with("spool"));
    let name = path.file_name().unwrap_or_default();
    folder.map_or_else(|| PathBuf::from(name), |_| Path::new("spool").join(name))
}

fn failed() -> io::Error {
    io::Error::other("the disk says no")
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn make_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let path = &below(path);
        let mut state = self.lock();
        match state.call() {
            Some(Fault::Full) => return Err(full()),
            Some(_) => return Err(failed()),
            None => {}
        }
        if state.files.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.next += 1;
        let node = state.files.next;
        state.files.nodes.insert(node, Node::default());
        state.files.name(path, Some(node));
        state.seen();
        drop(state);
        Ok(self.file(node))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let path = &below(path);
        let node = self.lock().files.names.get(path).copied().ok_or_else(missing)?;
        Ok(self.file(node))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let folder = if folder.ends_with("spool") { Path::new("spool") } else { Path::new("") };
        let state = self.lock();
        let inside = state.files.names.keys().filter(|path| path.parent() == Some(folder));
        let names =
            inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(names.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (&below(from), &below(to));
        let mut state = self.lock();
        if state.call().is_some() {
            return Err(failed());
        }
        let node = state.files.names.get(from).copied().ok_or_else(missing)?;
        state.files.name(to, Some(node));
        state.files.name(from, None);
        state.seen();
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = &below(path);
        let mut state = self.lock();
        if !state.files.names.contains_key(path) {
            return Err(missing());
        }
        if state.call().is_some() {
            return Err(failed());
        }
        state.files.name(path, None);
        state.seen();
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = if folder.ends_with("spool") { Path::new("spool") } else { Path::new("") };
        let mut state = self.lock();
        if state.call().is_some() {
            return Err(failed());
        }
        let files = &mut state.files;
        for (path, node) in std::mem::take(&mut files.namings) {
            if path.parent() != Some(folder) {
                files.namings.push((path, node));
                continue;
            }
            match node {
                Some(node) => files.durable_names.insert(path, node),
                None => files.durable_names.remove(&path),
            };
        }
        state.seen();
        Ok(())
    }

    fn space(&self, _folder: &Path) -> io::Result<(u64, u64)> {
        let state = self.lock();
        let total = state.room.unwrap_or(1 << 40);
        Ok((total.saturating_sub(state.used()), total))
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    node: u64,
}

impl DiskFile for MemoryFile {
    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fault = state.call();
        let fits = state.room.is_none_or(|room| state.used() + octets.len() as u64 <= room);
        let fault = if fits { fault } else { Some(Fault::Full) };
        let written = match fault {
            None => octets,
            Some(Fault::Error) => &[],
            Some(_) => &octets[..octets.len() / 2],
        };
        let node = state.files.nodes.get_mut(&self.node).ok_or_else(missing)?;
        if !written.is_empty() {
            write(&mut node.current, offset, written);
            node.pending.push(Pending::Write(offset, written.to_vec()));
        }
        state.seen();
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(full()),
            Some(_) => Err(failed()),
        }
    }

    fn read_at(&self, octets: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let node = state.files.nodes.get(&self.node).ok_or_else(missing)?;
        let start = usize::try_from(offset).expect("small").min(node.current.len());
        let end = node.current.len().min(start + octets.len());
        octets[..end - start].copy_from_slice(&node.current[start..end]);
        Ok(end - start)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let mut fault = state.call();
        if state.fault.is_some_and(|(at, fault)| fault == Fault::Sync && at <= state.calls) {
            state.struck = true;
            fault = state.fault.take().map(|(_, fault)| fault);
        }
        let node = state.files.nodes.get_mut(&self.node).ok_or_else(missing)?;
        if fault.is_some() {
            // The kernel says so once and drops the pages: what a careless program would then believe in.
            node.pending.clear();
            node.current = node.durable.clone();
            return Err(failed());
        }
        node.durable = node.current.clone();
        node.pending.clear();
        state.seen();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if state.call().is_some() {
            return Err(failed());
        }
        let node = state.files.nodes.get_mut(&self.node).ok_or_else(missing)?;
        node.current.resize(usize::try_from(len).expect("small"), 0);
        node.pending.push(Pending::Cut(len));
        state.seen();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        Ok(state.files.nodes.get(&self.node).ok_or_else(missing)?.current.len() as u64)
    }
}
