//! The log: events with fields as lines on standard error, in three shapes.
//!
//! Set up once by `serve` and, for errors only, by the other commands. Records of the target
//! [`crate::provider::ledger::TARGET`] are events: their message is the event's name and their key-values its
//! fields (section 3 of the interface). Everything else is an event `log` with its message as a field. One event
//! is one line (in the postfix shape, one line for each of Postfix's own lines); nothing a peer said can end a
//! line, start another or reach the terminal.

mod fields;
mod json;
mod postfix;
mod text;

use std::io::Write;

use super::config::LogFormat;
use crate::mail::Timestamp;
use crate::provider::World;

pub use fields::{Event, Value};

/// Sends the log to standard error. Later calls change the level only.
pub fn init(level: log::LevelFilter, format: LogFormat) {
    let host = node_name();
    let clock = crate::net::clock::RealWorld::default();
    let installed = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("restante", log::LevelFilter::Trace)
        .target(env_logger::Target::Stderr)
        .format(move |out, record| {
            let event = Event::of(record, clock.now());
            out.write_all(shape(&event, format, &host, std::process::id()).as_bytes())
        })
        .try_init();
    // An earlier call installed it; its shape stays, the level is a matter of its own.
    drop(installed);
    set_level(level);
}

/// Changes the level from now on.
pub fn set_level(level: log::LevelFilter) {
    log::set_max_level(level);
}

/// The event in this shape, with its line ends.
#[must_use]
pub fn shape(event: &Event, format: LogFormat, host: &str, process: u32) -> String {
    match format {
        LogFormat::Text => text::line(event),
        LogFormat::Json => json::line(event),
        LogFormat::Postfix => postfix::lines(event, host, process),
    }
}

/// The machine's name, as it stands in syslog lines.
fn node_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean: String = name.trim().chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
    if clean.is_empty() { "localhost".into() } else { clean }
}

/// The time as all shapes write it.
fn time(moment: Timestamp) -> String {
    moment.rfc3339()
}

#[cfg(test)]
mod tests;
