//! An mbox file in the mboxrd form: messages one behind the other, each opened by a `From ` line.
//!
//! Called by the clerk on the blocking pool. A message gathers in a file of its own beside the mbox while the line
//! to the provider is slow; only when it is whole the mbox is locked (dot-lock, then fcntl), appended to, flushed
//! and unlocked. If the append fails, the mbox is cut back to where it ended.
//!
//! An mbox cannot be written as safely as a Maildir: a power cut during the append may leave a part of a message,
//! which then comes a second time whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock};

use super::{LineEnds, Mailbox};
use crate::mail::{ReversePath, Timestamp};

/// How long another program may hold the lock.
const LOCK_SECONDS_MAX: u64 = 30;
/// Between two looks at a lock that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// A dot-lock this old was left behind by a program that died (the custom of mail delivery agents).
const LOCK_STALE: Duration = Duration::from_secs(300);

pub(in crate::fetch) struct Mbox {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    part: PathBuf,
    file: BufWriter<File>,
    line_ends: LineEnds,
    converted: Vec<u8>,
    quote: Quote,
}

impl Mbox {
    /// Opens the mbox at `path`, and makes it if nothing is there.
    pub(in crate::fetch) fn open(path: &Path) -> io::Result<Self> {
        let mbox = Self { path: path.to_owned(), open: None };
        mbox.handle()?;
        Ok(mbox)
    }

    fn handle(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path)
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    }

    /// Copies the whole part to the end of the mbox.
    fn append_part(&self, part: &Path) -> io::Result<()> {
        let _dot = DotLock::take(self.beside(".lock"))?;
        let mut mbox = self.handle()?;
        lock(&mbox)?;
        let end = mbox.seek(SeekFrom::End(0))?;
        let written = copy_behind(&mut mbox, end, part);
        if written.is_err() {
            // Cut back what may have been written; if even that fails, the error says it already.
            let _ = mbox.set_len(end).and_then(|()| mbox.sync_all());
        }
        written
    }
}

/// Appends the part, with an empty line before it if the mbox does not end in one.
fn copy_behind(mbox: &mut File, end: u64, part: &Path) -> io::Result<()> {
    let tail_length = end.min(2);
    mbox.seek(SeekFrom::Start(end - tail_length))?;
    let mut tail = vec![0; usize::try_from(tail_length).unwrap_or(0)];
    mbox.read_exact(&mut tail)?;
    let gap: &[u8] = match tail.as_slice() {
        [] | [b'\n', b'\n'] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    };
    let mut writer = BufWriter::with_capacity(64 * 1024, &mut *mbox);
    writer.write_all(gap)?;
    io::copy(&mut BufReader::with_capacity(64 * 1024, File::open(part)?), &mut writer)?;
    writer.flush()?;
    drop(writer);
    mbox.sync_all()
}

fn lock(file: &File) -> io::Result<()> {
    let began = SystemTime::now();
    loop {
        match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(error) if has_waited(began) => return Err(error.into()),
            Err(_) => std::thread::sleep(LOCK_PAUSE),
        }
    }
}

fn has_waited(began: SystemTime) -> bool {
    // A clock that went backwards ends the wait as well.
    began.elapsed().map_or(true, |waited| waited > Duration::from_secs(LOCK_SECONDS_MAX))
}

/// The lock file beside the mbox; gone when dropped.
struct DotLock(Option<PathBuf>);

impl DotLock {
    /// In a spool folder that we may not write to, the fcntl lock has to do.
    fn take(path: PathBuf) -> io::Result<Self> {
        let began = SystemTime::now();
        loop {
            match File::create_new(&path) {
                Ok(_) => return Ok(Self(Some(path))),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Ok(Self(None));
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Err(error) if has_waited(began) => return Err(error),
                Err(_) => {
                    let age = fs::metadata(&path).and_then(|m| m.modified()).map(|t| t.elapsed());
                    if matches!(age, Ok(Ok(age)) if age > LOCK_STALE) {
                        let _ = fs::remove_file(&path);
                    } else {
                        std::thread::sleep(LOCK_PAUSE);
                    }
                }
            }
        }
    }
}

impl Drop for DotLock {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // If somebody took it for stale and removed it, that is as well.
            let _ = fs::remove_file(path);
        }
    }
}

impl Mailbox for Mbox {
    fn begin(&mut self, from: &ReversePath, now: Timestamp) -> io::Result<()> {
        self.discard();
        let part = self.beside(&format!(".{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let mut file = BufWriter::with_capacity(64 * 1024, file);
        let sender = if from.is_null() { "MAILER-DAEMON" } else { from.as_str() };
        let sender: String =
            sender.chars().map(|c| if c.is_whitespace() { '-' } else { c }).collect();
        writeln!(file, "From {sender} {}", asctime(now))?;
        self.open = Some(Open {
            part,
            file,
            line_ends: LineEnds::default(),
            converted: Vec::new(),
            quote: Quote::default(),
        });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.converted.clear();
        open.line_ends.convert(bytes, &mut open.converted);
        open.quote.write(&open.converted, &mut open.file)
    }

    fn discard(&mut self) {
        if let Some(open) = self.open.take() {
            drop(open.file.into_parts());
            let _ = fs::remove_file(open.part);
        }
    }

    fn commit(&mut self) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.quote.finish(&mut open.file)?;
        open.file.flush()?;
        let part = open.part.clone();
        self.append_part(&part)?;
        self.discard();
        Ok(())
    }
}

impl Drop for Mbox {
    fn drop(&mut self) {
        self.discard();
    }
}

/// mboxrd: each line of any number of `>` and `From ` gets one `>` more, so that it can be undone exactly.
#[derive(Debug, Default)]
struct Quote {
    /// The beginning of a line that may still turn out to be such a line.
    held: Vec<u8>,
    /// We are past the point where a line could.
    inside: bool,
    /// The last octet written was a line feed.
    ended: bool,
}

const FROM: &[u8] = b"From ";
/// More `>` than this are written out as they are; nobody quotes so deeply, and what is held has an end.
const HELD_BYTES_MAX: usize = 1024;

impl Quote {
    fn write(&mut self, bytes: &[u8], out: &mut impl io::Write) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.inside {
                let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                self.put(&rest[..length], out)?;
                self.inside = !self.ended;
                rest = &rest[length..];
                continue;
            }
            let octet = rest[0];
            rest = &rest[1..];
            self.held.push(octet);
            let arrows = self.held.iter().take_while(|octet| **octet == b'>').count();
            let word = &self.held[arrows..];
            if word == FROM {
                out.write_all(b">")?;
                self.release(out)?;
            } else if !FROM.starts_with(word) || self.held.len() > HELD_BYTES_MAX {
                self.release(out)?;
            }
        }
        Ok(())
    }

    fn release(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        self.put(&held, out)?;
        self.inside = !self.ended;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], out: &mut impl io::Write) -> io::Result<()> {
        self.ended = bytes.last() == Some(&b'\n');
        out.write_all(bytes)
    }

    /// A message ends in a line end and an empty line.
    fn finish(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        if !self.held.is_empty() {
            self.release(out)?;
        }
        out.write_all(if self.ended { b"\n" } else { b"\n\n" })
    }
}

/// The date of a `From ` line: `Sun Nov 22 03:19:00 2026`, in UTC.
fn asctime(now: Timestamp) -> String {
    let date = now.rfc5322();
    let parts: Vec<&str> = date.split([' ', ',']).filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [weekday, day, month, year, clock, _] => {
            format!("{weekday} {month} {day:>2} {clock} {year}")
        }
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str, step: usize) -> String {
        let mut quote = Quote::default();
        let mut out = Vec::new();
        for part in text.as_bytes().chunks(step) {
            quote.write(part, &mut out).expect("memory");
        }
        quote.finish(&mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn from_lines_are_quoted_in_every_cut() {
        let text = "From a\n>From b\n>>From c\nFrom\n Fro\n>x From y\nFromage\n>>Fro\n";
        for step in 1..text.len() {
            assert_eq!(
                quoted(text, step),
                ">From a\n>>From b\n>>>From c\nFrom\n Fro\n>x From y\nFromage\n>>Fro\n\n",
                "step {step}"
            );
        }
        assert_eq!(quoted("no end", 3), "no end\n\n");
        assert_eq!(quoted("a\n>Fr", 2), "a\n>Fr\n\n");
    }

    #[test]
    fn the_date_of_a_from_line_is_that_of_asctime() {
        assert_eq!(asctime(Timestamp(951_782_400_000)), "Tue Feb 29 00:00:00 2000");
        assert_eq!(asctime(Timestamp(0)), "Thu Jan  1 00:00:00 1970");
    }
}
