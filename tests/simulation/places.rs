//! Where wires were cut, so that the simulation can show that it cuts everywhere.

use std::collections::BTreeMap;
use std::sync::Mutex;

static SEEN: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// What happened, by name.
static COUNTED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Counts something that happened.
pub(crate) fn count(what: &'static str) {
    *COUNTED.lock().expect("whole").entry(what).or_default() += 1;
}

/// How often, by name.
pub(crate) fn counted() -> BTreeMap<&'static str, u64> {
    COUNTED.lock().expect("whole").clone()
}

/// A wire ended here.
pub(crate) fn seen(place: &'static str) {
    *SEEN.lock().expect("whole").entry(place).or_default() += 1;
}

/// How often, by place.
pub(crate) fn all() -> BTreeMap<&'static str, u64> {
    SEEN.lock().expect("whole").clone()
}

/// All that a long run must have met.
pub(crate) const ALL: [&str; 20] = [
    "mail: inside a command",
    "mail: inside a group",
    "mail: inside the content",
    "mail: inside the final dot",
    "mail: inside a chunk",
    "mail: before a reply",
    "mail: inside a reply",
    "call: before the turn",
    "call: inside the login",
    "call: inside ATRN",
    "drain: between commands",
    "drain: inside a command",
    "drain: inside the content",
    "drain: inside the final dot",
    "drain: inside a chunk",
    "drain: inside a reply",
    "drain: instead of a reply",
    "drain: behind a reply",
    "drain: instead of the reply to the end of data",
    "drain: behind the reply to the end of data",
];
