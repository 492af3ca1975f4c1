//! The log lines of a drain (section 3 of the interface).
//!
//! Called by the books when an outcome is durable, and at the drain's end.

use crate::mail::{ForwardPath, Lease, Outcome, QueueId, Timestamp};
use crate::provider::board::LastDrain;
use crate::provider::ledger::TARGET;

/// What a line says about a recipient beside its outcome.
pub(super) struct Told {
    pub(super) to: ForwardPath,
    pub(super) arrived: Timestamp,
    /// Of the message, in octets.
    pub(super) size: u64,
}

/// `delivered`, `deferred` or `failed`.
pub(super) fn outcome(
    outcome: &Outcome,
    id: QueueId,
    told: &Told,
    lease: &Lease,
    path: &str,
    now: Timestamp,
) {
    if !log::log_enabled!(target: TARGET, log::Level::Info) {
        return;
    }
    let event = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Later(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    let (id, to, customer) = (id.to_string(), told.to.as_str(), lease.customer().as_str());
    let (reply, delay) = (outcome.reply().as_str(), now.since(told.arrived).0);
    log::info!(target: TARGET, id = id, to = to, customer = customer, path = path, reply = reply, delay = delay; "{event}");
}

/// The line broke. `in_doubt`: after the content and before the reply, so the message may be delivered twice;
/// otherwise inside the content.
pub(super) fn broken(in_doubt: bool, id: QueueId, lease: &Lease, message_id: Option<&str>) {
    let (id, customer) = (id.to_string(), lease.customer().as_str());
    let message_id = message_id.unwrap_or("");
    if in_doubt {
        let detail = "no final reply was recorded; it may be delivered twice";
        log::warn!(target: TARGET, id = id, customer = customer, message_id = message_id, detail = detail; "in-doubt");
    } else {
        let detail = "the line broke inside its content; it will be sent again";
        log::info!(target: TARGET, id = id, customer = customer, message_id = message_id, detail = detail; "interrupted");
    }
}

/// A body goes out in 7 bits, since the server takes no others; signatures over it (DKIM) do not hold any more.
pub(super) fn converted(id: QueueId) {
    let id = id.to_string();
    let detail =
        "8-bit content was made 7-bit for a server without 8BITMIME; signatures over it break";
    log::info!(target: TARGET, id = id, detail = detail; "converted");
}

/// A body that cannot be read.
pub(super) fn unreadable(id: QueueId, lease: &Lease, error: &str) {
    let (id, customer) = (id.to_string(), lease.customer().as_str());
    log::error!(target: TARGET, id = id, customer = customer, error = error; "unreadable");
}

/// The store could not record or give something.
pub(super) fn trouble(what: &str, lease: &Lease, error: &str) {
    let customer = lease.customer().as_str();
    log::error!(target: TARGET, what = what, customer = customer, error = error; "store-trouble");
}

/// The end of a drain.
pub(super) fn drained(drain: &LastDrain) {
    let customer = drain.customer.as_str();
    let (path, ended) = (drain.path.as_str(), drain.ended.as_str());
    let seconds = drain.milliseconds as f64 / 1000.0;
    let (messages, bytes) = (drain.messages, drain.bytes);
    let (deferred, failed) = (drain.deferred, drain.failed);
    let detail = drain.detail.as_deref().unwrap_or("");
    log::info!(
        target: TARGET, customer = customer, messages = messages, bytes = bytes, seconds = seconds,
        ended = ended, path = path, deferred = deferred, failed = failed, detail = detail; "drained"
    );
}
