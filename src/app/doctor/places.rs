//! Store, clock and disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Notes, Patient};
use crate::app::admin::Status;
use crate::app::config::units::about_size;
use crate::app::config::{Config, Durability};
use crate::store::{StoreError, sled};

/// Files written so far ahead of the clock say that it was set back.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// The store's version; false if there is no store that could be opened.
pub(super) fn layout(config: &Config, notes: &mut Notes<'_>) -> bool {
    let folder = config.data_dir.join("store");
    if !folder.is_dir() {
        let what = format!("{}: there is no store yet", folder.display());
        notes.warning(what, "it is made at the first start: systemctl start restante");
        return false;
    }
    match sled::layout(&folder) {
        Ok((Some(found), ours)) if found > ours => {
            let what = format!("the store has layout {found}, and this program knows up to {ours}");
            notes.fault(what, "use the release that wrote it, or a newer one");
            false
        }
        Ok((Some(found), ours)) if found < ours => {
            let what = format!("the store has layout {found}; this program writes {ours}");
            notes.warning(what, "it is brought up to date at the next start; make a backup first");
            true
        }
        Ok((Some(found), _)) => {
            notes.ok(format!("{}: layout {found}", folder.display()));
            true
        }
        Ok((None, _)) => {
            let what = format!("{} holds no store yet", folder.display());
            notes.warning(what, "it is made at the first start: systemctl start restante");
            false
        }
        Err(StoreError::Unready(why)) => {
            notes.fault(why, "load the dump again: restante load FILE");
            false
        }
        Err(error) => {
            notes.fault(error.to_string(), "run this as root or as the provider's user");
            false
        }
    }
}

/// What it says of itself.
pub(super) fn store(status: &Status, config: &Config, notes: &mut Notes<'_>) {
    if status.running && status.version != env!("CARGO_PKG_VERSION") {
        let what = format!("the running provider is {}", status.version);
        notes.warning(what, format!("restart it to run {}", env!("CARGO_PKG_VERSION")));
    }
    if let Some(why) = &status.store.broken {
        notes
            .fault(format!("it takes no mail: {why}"), "mend the cause, then restart the provider");
    }
    for damage in &status.store.damage {
        notes.fault(
            format!("damaged: {damage}"),
            "the other mail is not touched; look for it in a backup, and check the disk",
        );
    }
    if status.store.broken.is_none() && status.store.damage.is_empty() {
        let messages: u64 = status.queues.iter().map(|queue| queue.messages).sum();
        let size = about_size(status.store.live_bytes);
        notes.ok(format!("no damage known; {messages} messages wait, {size}"));
    }
    if config.durability == Durability::Relaxed {
        notes.warning(
            "queue.durability is \"relaxed\": a power cut loses mail that was answered 250",
            "set \"fsync\"",
        );
    }
}

/// The clock now, and what was written by it before.
pub(super) fn clock(config: &Config, ahead: u64, furthest: Option<String>, notes: &mut Notes<'_>) {
    let mend = "set the clock and keep it set (timedatectl set-ntp true)";
    let is_ahead = ahead > 0;
    if is_ahead {
        let (number, until) = (
            if ahead >= 1000 { "1000 or more".into() } else { ahead.to_string() },
            furthest.unwrap_or_default(),
        );
        notes.warning(
            format!("{number} messages came later than now, up to {until}: the clock was set back, or was wrong then"),
            mend,
        );
    }
    let last = newest(&config.data_dir.join("store"), 2);
    let now = SystemTime::now();
    match last {
        Some(last) if last > now + AHEAD => notes.fault(
            format!(
                "the store was last written {} s after now",
                last.duration_since(now).unwrap_or_default().as_secs()
            ),
            mend,
        ),
        _ if is_ahead => {}
        _ => notes.ok("nothing in the store is later than now"),
    }
}

/// When the newest file was written.
fn newest(folder: &Path, depth: u32) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .filter_map(|entry| {
            let facts = entry.metadata().ok()?;
            match facts.is_dir() && depth > 0 {
                true => newest(&entry.path(), depth - 1),
                false => facts.modified().ok(),
            }
        })
        .max()
}

/// The data folder: whose it is, who may look into it, and how much room there is.
pub(super) fn disk(patient: &Patient<'_>, notes: &mut Notes<'_>) {
    let folder = &patient.config.data_dir;
    let place = folder.display();
    match std::fs::metadata(folder) {
        Ok(facts) if facts.permissions().mode() & 0o077 != 0 => notes.warning(
            format!("{place} can be looked into by others (mode {:o})", facts.mode() & 0o777),
            format!("chmod 700 {place}"),
        ),
        Ok(facts) => {
            notes.ok(format!("{place}: mode {:o}, user {}", facts.mode() & 0o777, facts.uid()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            notes.warning(format!("{place} is not there yet"), "it is made at the first start");
        }
        Err(error) => {
            notes.fault(format!("{place}: {error}"), "run this as root or as the provider's user")
        }
    }
    let free = patient.status.as_ref().and_then(|status| status.store.free_bytes).or_else(|| {
        let facts = rustix::fs::statvfs(folder.ancestors().find(|above| above.is_dir())?).ok()?;
        Some(facts.f_bavail.saturating_mul(facts.f_frsize))
    });
    let Some(free) = free else {
        return notes.warning(format!("{place}: the free room cannot be found out"), "");
    };
    let least = patient.config.policy().disk_free_min;
    let (said, limit) = (about_size(free), about_size(least));
    if free < least {
        let what = format!("{said} free, less than limits.disk_free_min ({limit}): mail gets 452");
        notes.fault(what, "make room, or set a lower limit");
    } else if free / 2 < least {
        let what = format!("{said} free; below {limit} (limits.disk_free_min) mail gets 452");
        notes.warning(what, "make room");
    } else {
        notes.ok(format!("{said} free, {limit} needed"));
    }
}
