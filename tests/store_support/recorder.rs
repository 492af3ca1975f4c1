//! A block device whose writes and flushes are written down, and what is left of it when the power goes.
//!
//! A process of its own serves one file through FUSE; a loop device lies on that file, a real file system on the
//! loop device. Each write that the kernel's block layer sends down, and each flush, is in the log before it is
//! answered. From the log any moment can be brought back: everything up to the last flush, and of what came
//! after it whole writes, single sectors, or nothing. Needs root, /dev/fuse and loop devices.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Lines, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::disk::Dice;

/// Octets that a disk writes whole or not at all.
const SECTOR: usize = 512;
const BLOCK: usize = 4096;

// From the kernel's include/uapi/linux/fuse.h, protocol 7.31.
const LOOKUP_FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOSYS: i32 = 38;
const WRITE_MAX: usize = 128 * 1024;

/// Runs a command to its end; its complaint if it fails.
pub(crate) fn run(command: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new(command).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|e| format!("{command}: {e}"))?;
    let said = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
    if done.status.success() {
        Ok(said(&done.stdout))
    } else {
        Err(format!("{command} {}: {}", arguments.join(" "), said(&done.stderr)))
    }
}

fn number<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    octets[at..at + N].try_into().expect("the kernel sends whole structures")
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(number(octets, at))
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(number(octets, at))
}

/// The process that serves the file and keeps the log. `folder` holds `base`, the device's first octets; it gets
/// `log`, and `device` to lay a loop device on. Ends when nobody holds its standard input open any more.
pub(crate) fn serve(folder: &Path) -> Result<(), String> {
    let image = std::fs::read(folder.join("base")).map_err(|e| format!("base: {e}"))?;
    let log = File::create(folder.join("log")).map_err(|e| format!("log: {e}"))?;
    let device = folder.join("device");
    File::create(&device).map_err(|e| format!("device: {e}"))?;
    let mut options = OpenOptions::new();
    let fuse = options.read(true).write(true).open("/dev/fuse");
    let fuse = fuse.map_err(|e| format!("/dev/fuse: {e}"))?;
    let handed = fuse.try_clone().map_err(|e| e.to_string())?;
    let mut served = Served { image, log, fuse, mounted: false };
    let thread = std::thread::spawn(move || served.run());
    let mounted = Command::new("mount")
        .args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=100600,user_id=0,group_id=0"])
        .args(["restante-recorder".as_ref(), device.as_os_str()])
        .stdin(Stdio::from(handed))
        .output()
        .map_err(|e| format!("mount: {e}"))?;
    if !mounted.status.success() {
        return Err(format!("mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
    }
    println!("\nserving");
    // Whoever started us is done or dead when this ends.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let _ = run("umount", &["-l", &device.to_string_lossy()]);
    drop(thread);
    Ok(())
}

struct Served {
    image: Vec<u8>,
    log: File,
    fuse: File,
    /// A request came.
    mounted: bool,
}

impl Served {
    fn run(&mut self) {
        let mut octets = vec![0; WRITE_MAX + 64 * 1024];
        loop {
            let got = match self.fuse.read(&mut octets) {
                Ok(got) => got,
                // ENODEV: unmounted. ENOENT: a request that was taken back.
                Err(e) if e.raw_os_error() == Some(19) => return,
                Err(e) if e.raw_os_error() == Some(2) || e.kind() == io::ErrorKind::Interrupted => {
                    continue;
                }
                // EPERM: not mounted yet. The mounting itself may ask, so this must run before it is done.
                Err(e) if e.raw_os_error() == Some(1) && !self.mounted => {
                    std::thread::yield_now();
                    continue;
                }
                Err(e) => panic!("/dev/fuse: {e}"),
            };
            self.mounted = true;
            let request = &octets[..got];
            let (opcode, unique) = (u32_at(request, 4), u64_at(request, 8));
            if matches!(opcode, LOOKUP_FORGET | BATCH_FORGET | INTERRUPT) {
                continue;
            }
            let (error, said) = match self.answer(opcode, &request[40..]) {
                Ok(said) => (0, said),
                Err(error) => (-error, Vec::new()),
            };
            let mut reply = Vec::with_capacity(16 + said.len());
            reply.extend_from_slice(&(16 + said.len() as u32).to_ne_bytes());
            reply.extend_from_slice(&error.to_ne_bytes());
            reply.extend_from_slice(&unique.to_ne_bytes());
            reply.extend_from_slice(&said);
            // A request that was taken back has nobody who reads the answer.
            let _ = self.fuse.write(&reply);
        }
    }

    fn answer(&mut self, opcode: u32, said: &[u8]) -> Result<Vec<u8>, i32> {
        match opcode {
            INIT => {
                let mut out = Vec::new();
                for word in [7u32, 31, 0x20000, 1 << 5 | 1 << 22] {
                    out.extend_from_slice(&word.to_ne_bytes());
                }
                out.extend_from_slice(&16u16.to_ne_bytes());
                out.extend_from_slice(&12u16.to_ne_bytes());
                out.extend_from_slice(&(WRITE_MAX as u32).to_ne_bytes());
                out.extend_from_slice(&1u32.to_ne_bytes());
                out.extend_from_slice(&((WRITE_MAX / BLOCK) as u16).to_ne_bytes());
                out.resize(64, 0);
                Ok(out)
            }
            GETATTR | SETATTR => Ok(self.attributes()),
            OPEN => Ok(vec![0; 16]),
            RELEASE | FLUSH => Ok(Vec::new()),
            READ => {
                let from = usize::try_from(u64_at(said, 8)).expect("small").min(self.image.len());
                let to = (from + u32_at(said, 16) as usize).min(self.image.len());
                Ok(self.image[from..to].to_vec())
            }
            WRITE => {
                let (offset, len) = (u64_at(said, 8), u32_at(said, 16));
                let content = &said[40..40 + len as usize];
                self.log(1, offset, content);
                let from = usize::try_from(offset).expect("small");
                self.image[from..from + content.len()].copy_from_slice(content);
                Ok([len.to_ne_bytes(), [0; 4]].concat())
            }
            FSYNC => {
                self.log(2, 0, &[]);
                Ok(Vec::new())
            }
            STATFS => Ok(vec![0; 80]),
            _ => Err(ENOSYS),
        }
    }

    /// Before the answer, so that whoever has it finds the log as long as it must be.
    fn log(&mut self, kind: u8, offset: u64, content: &[u8]) {
        let mut line = vec![kind];
        line.extend_from_slice(&offset.to_be_bytes());
        line.extend_from_slice(&(content.len() as u32).to_be_bytes());
        line.extend_from_slice(content);
        self.log.write_all(&line).expect("room for the log");
    }

    fn attributes(&self) -> Vec<u8> {
        let size = self.image.len() as u64;
        let mut out = vec![0; 16];
        for word in [1, size, size / 512, 0, 0, 0] {
            out.extend_from_slice(&u64::to_ne_bytes(word));
        }
        for word in [0, 0, 0, 0o100_600, 1, 0, 0, 0, BLOCK as u32, 0] {
            out.extend_from_slice(&u32::to_ne_bytes(word));
        }
        out
    }
}

/// A file system on a recorded device, mounted.
pub(crate) struct Recorded {
    folder: tempfile::TempDir,
    recorder: Child,
    /// What it prints; it must not find the other end closed.
    _said: Lines<BufReader<ChildStdout>>,
    mounted: Option<Mounted>,
}

/// Something mounted, until it is dropped.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let place = self.0.to_string_lossy().into_owned();
        if run("umount", &[&place]).is_err() {
            let _ = run("umount", &["-l", &place]);
        }
    }
}

/// Mounts the file system in a file.
pub(crate) fn mount(image: &Path, at: &Path, options: &str) -> Result<Mounted, String> {
    std::fs::create_dir_all(at).map_err(|e| e.to_string())?;
    run("mount", &["-o", options, &image.to_string_lossy(), &at.to_string_lossy()])?;
    Ok(Mounted(at.to_owned()))
}

/// Makes a file of `octets` and a file system in it.
pub(crate) fn format(image: &Path, octets: u64, make: &[&str]) -> Result<(), String> {
    let file = File::create(image).map_err(|e| e.to_string())?;
    file.set_len(octets).map_err(|e| e.to_string())?;
    let place = image.to_string_lossy();
    let arguments: Vec<&str> = make[1..].iter().copied().chain([&*place]).collect();
    run(make[0], &arguments).map(|_| ())
}

impl Recorded {
    /// `make` is the command that makes the file system, without the file; `server` starts [`serve`] for a folder.
    pub(crate) fn start(
        folder: tempfile::TempDir,
        octets: u64,
        make: &[&str],
        mut server: Command,
    ) -> Result<Self, String> {
        format(&folder.path().join("base"), octets, make)?;
        let started = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut recorder = started.map_err(|e| e.to_string())?;
        let out = recorder.stdout.take().expect("piped");
        let mut lines = BufReader::new(out).lines();
        let serves = lines.by_ref().map_while(Result::ok).any(|line| line == "serving");
        let mut recorded = Self { folder, recorder, _said: lines, mounted: None };
        if !serves {
            return Err("the recorder does not start".into());
        }
        let at = recorded.folder.path().join("mounted");
        recorded.mounted = Some(mount(&recorded.folder.path().join("device"), &at, "loop")?);
        Ok(recorded)
    }

    /// Where the file system is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The device's history so far.
    pub(crate) fn history(&self) -> History {
        History::read(&self.folder.path().join("base"), &self.log())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.mounted = None;
        // Its input ends, it unmounts what it served, and goes.
        drop(self.recorder.stdin.take());
        let _ = self.recorder.wait();
    }
}

/// A write, or a flush without octets.
struct Event {
    /// Where the log ended after it.
    place: u64,
    offset: u64,
    content: Vec<u8>,
    is_flush: bool,
}

/// A device and what happened to it.
pub(crate) struct History {
    octets: u64,
    /// Blocks that are not zeros, as they were at the beginning.
    base: BTreeMap<u64, Vec<u8>>,
    events: Vec<Event>,
}

impl History {
    fn read(base: &Path, log: &Path) -> Self {
        let image = std::fs::read(base).expect("the device's beginning");
        let blocks = image.chunks(BLOCK).zip(0u64..);
        let blocks = blocks.filter(|(block, _)| block.iter().any(|o| *o != 0));
        let base_blocks = blocks.map(|(block, n)| (n, block.to_vec())).collect();
        let mut log = File::open(log).expect("a log");
        let (mut events, mut place) = (Vec::new(), 0);
        let end = log.seek(SeekFrom::End(0)).expect("a length");
        while place + 13 <= end {
            let mut head = [0; 13];
            log.read_exact_at(&mut head, place).expect("read");
            let offset = u64::from_be_bytes(number(&head, 1));
            let len = u32::from_be_bytes(number(&head, 9));
            let mut content = vec![0; len as usize];
            log.read_exact_at(&mut content, place + 13).expect("read");
            place += 13 + u64::from(len);
            events.push(Event { place, offset, content, is_flush: head[0] == 2 });
        }
        Self { octets: image.len() as u64, base: base_blocks, events }
    }

    /// Writes and flushes so far.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.events.iter().filter(|event| event.is_flush).count()
    }

    /// A number of events, after which the power may go; more often than not just before a flush, when most is at
    /// stake.
    pub(crate) fn moment(&self, dice: &mut Dice) -> usize {
        let mut count = 1 + dice.below(self.events.len() as u64) as usize;
        if !dice.one_in(3) {
            let rest = &self.events[count..];
            count += rest.iter().position(|event| event.is_flush).unwrap_or(0);
        }
        count
    }

    /// The device after a power cut behind `count` events, in a file; answers where the log ended at that moment,
    /// and how many writes since the last flush were left out or torn.
    pub(crate) fn cut(&self, count: usize, dice: &mut Dice, image: &Path) -> (u64, u64) {
        let before = &self.events[..count];
        let safe = before.iter().rposition(|event| event.is_flush).map_or(0, |at| at + 1);
        let mut blocks = self.base.clone();
        for event in &before[..safe] {
            put(&mut blocks, event.offset, &event.content);
        }
        let (mood, mut missing) = (dice.below(4), 0);
        for event in &before[safe..] {
            let fate = match mood {
                0 => 0,
                1 => 3,
                _ => dice.below(4),
            };
            match fate {
                // It arrived.
                0 | 1 => put(&mut blocks, event.offset, &event.content),
                // Some of its sectors arrived.
                2 => {
                    missing += 1;
                    let sectors = event.content.chunks(SECTOR).zip(0u64..);
                    for (sector, n) in sectors.filter(|_| dice.one_in(2)) {
                        put(&mut blocks, event.offset + n * SECTOR as u64, sector);
                    }
                }
                _ => missing += 1,
            }
        }
        let file = File::create(image).expect("an image");
        file.set_len(self.octets).expect("room");
        for (n, block) in &blocks {
            file.write_all_at(block, n * BLOCK as u64).expect("room");
        }
        (before.last().map_or(0, |event| event.place), missing)
    }
}

fn put(blocks: &mut BTreeMap<u64, Vec<u8>>, offset: u64, content: &[u8]) {
    let mut done = 0;
    while done < content.len() {
        let place = offset + done as u64;
        let within = (place % BLOCK as u64) as usize;
        let len = (BLOCK - within).min(content.len() - done);
        let block = blocks.entry(place / BLOCK as u64).or_insert_with(|| vec![0; BLOCK]);
        block[within..within + len].copy_from_slice(&content[done..done + len]);
        done += len;
    }
}
