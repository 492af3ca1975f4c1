//! A Maildir: each message a file, written below `tmp` and moved to `new` when it is whole.
//!
//! Called by the clerk on the blocking pool. The file is flushed before the move and the folder after it, so that
//! a message that was answered 250 survives a power cut; one that was not is at most a file in `tmp`, which
//! readers of the Maildir never see and this file's next opening clears after 36 hours.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{LineEnds, Mailbox};
use crate::mail::{ReversePath, Timestamp};

/// Files in `tmp` that are older than this belong to nobody (the Maildir convention).
const STALE: Duration = Duration::from_secs(36 * 3600);

/// Makes names differ within this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

pub(in crate::fetch) struct Maildir {
    folder: PathBuf,
    host: String,
    open: Option<Open>,
}

struct Open {
    file: BufWriter<File>,
    name: String,
    line_ends: LineEnds,
    converted: Vec<u8>,
}

impl Maildir {
    /// Opens the Maildir at `folder`, and makes it if nothing is there. Tries that `tmp` can be written to.
    pub(in crate::fetch) fn open(folder: &Path, host: &str) -> io::Result<Self> {
        for part in ["tmp", "new", "cur"] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(folder.join(part))?;
        }
        // A name in the folder is durable only once the folder is; the same holds for the folders themselves.
        File::open(folder)?.sync_all()?;
        let safe =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        let host = host.chars().map(safe).collect();
        let maildir = Self { folder: folder.to_owned(), host, open: None };
        let trial = maildir.folder.join("tmp").join(maildir.new_name());
        File::create_new(&trial)?;
        fs::remove_file(&trial)?;
        maildir.clear_stale();
        Ok(maildir)
    }

    /// Time, process, counter and host make a name that nobody else makes; the host comes last by convention.
    fn new_name(&self) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        format!(
            "{}.M{}P{}Q{count}.{}",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id(),
            self.host
        )
    }

    fn clear_stale(&self) {
        let Ok(entries) = fs::read_dir(self.folder.join("tmp")) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).map(|then| then.elapsed());
            if matches!(age, Ok(Ok(age)) if age > STALE) {
                // Somebody else may have cleared it at the same moment.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Mailbox for Maildir {
    fn begin(&mut self, _from: &ReversePath, _now: Timestamp) -> io::Result<()> {
        self.discard();
        let name = self.new_name();
        let path = self.folder.join("tmp").join(&name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(64 * 1024, file);
        self.open =
            Some(Open { file, name, line_ends: LineEnds::default(), converted: Vec::new() });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.converted.clear();
        open.line_ends.convert(bytes, &mut open.converted);
        open.file.write_all(&open.converted)
    }

    fn discard(&mut self) {
        if let Some(open) = self.open.take() {
            let path = self.folder.join("tmp").join(open.name);
            // The buffer is not worth writing; a file that stays is cleared later.
            drop(open.file.into_parts());
            let _ = fs::remove_file(path);
        }
    }

    fn commit(&mut self) -> io::Result<()> {
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.file.flush()?;
        open.file.get_ref().sync_all()?;
        let from = self.folder.join("tmp").join(&open.name);
        let to = self.folder.join("new").join(&open.name);
        fs::rename(&from, &to)?;
        self.open = None;
        if let Err(error) = File::open(self.folder.join("new")).and_then(|new| new.sync_all()) {
            // It will be offered again, so it must not be here as well.
            let _ = fs::remove_file(to);
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for Maildir {
    fn drop(&mut self) {
        self.discard();
    }
}
