//! Delivery status reports: who is told, in which words, and how the report enters the store.
//!
//! Called by the program's background task, by the drains (whether a delivery is still to be reported) and by
//! expiry. A report never asks for another: its reverse-path is null.
//!
//! Keeps RFC 3461 §5 and §6, RFC 3464, RFC 5321 §4.5.5 and §6.1, RFC 6522, RFC 6533.

mod decide;
mod fields;
mod notice;
mod reporter;

use crate::mail::Seconds;

pub use decide::{Action, Due, due, is_told_of_relaying, returns_whole};
pub use reporter::{Reporter, WHOLE_BYTES_MAX};

/// A report that cannot be sent to a foreign server for this long has failed (RFC 5321 §4.5.4.1: at least four
/// to five days).
pub const RELAY_EXPIRES: Seconds = Seconds(5 * 86_400);
