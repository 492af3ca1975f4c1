//! Load on the drain alone: one provider in this process, sinks on loopback, a link with a delay and a rate.
//!
//! `cargo bench --bench drain` prints tables of ratios that were measured in one run. Rows can be chosen by words:
//! `cargo bench --bench drain -- link hold`. docs/performance-drain.md holds a run and how to read it.
//! `RESTANTE_DRAIN_MESSAGES` sets the messages of each row (default 20000), `RESTANTE_DRAIN_WINDOW` the window.

#![allow(unreachable_pub, reason = "the files of a bench are one program")]

#[path = "drain/crowd.rs"]
mod crowd;
#[path = "drain/hold.rs"]
mod hold;
#[path = "drain/large.rs"]
mod large;
#[path = "drain/link.rs"]
mod link;
#[path = "drain/place.rs"]
mod place;
#[path = "drain/postfix.rs"]
mod postfix;
#[path = "../tests/support/process.rs"]
mod process;
#[path = "drain/sink.rs"]
mod sink;
#[path = "drain/unsettled.rs"]
mod unsettled;

use std::time::{Duration, Instant};

use place::{Kind, Place};
use sink::Sink;

/// The ways of sending, by what the sink offers.
pub(crate) const WAYS: [(&str, &[&str]); 3] = [
    ("lock-step", &["8BITMIME", "SIZE"]),
    ("PIPELINING", &["PIPELINING", "8BITMIME", "SIZE"]),
    ("CHUNKING", &["PIPELINING", "CHUNKING", "8BITMIME", "SIZE"]),
];

/// Prints a row: what, how much a second, and beside what.
pub(crate) fn row(name: &str, value: f64, unit: &str, ratio: f64, beside: &str) {
    println!("{name:<52} {value:>12.1} {unit:<12} {ratio:>6.2} x {beside}");
}

fn main() {
    hold::serve_if_child();
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let messages = std::env::var("RESTANTE_DRAIN_MESSAGES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    if is_wanted("loopback") {
        loopback(messages);
    }
    if is_wanted("link") {
        link::rows();
    }
    if is_wanted("large") {
        large::rows();
    }
    if is_wanted("first") {
        first();
    }
    if is_wanted("hold") {
        hold::rows();
    }
    if is_wanted("many") {
        crowd::rows(messages);
    }
    if is_wanted("postfix") {
        postfix::rows(messages);
    }
}

/// The ways that were asked for by name; all where none was.
pub(crate) fn ways() -> Vec<(&'static str, &'static [&'static str])> {
    let words: Vec<String> = std::env::args().collect();
    let named = |name: &str| words.iter().any(|word| word == name);
    let is_chosen = WAYS.iter().any(|(name, _)| named(name));
    WAYS.into_iter().filter(|(name, _)| !is_chosen || named(name)).collect()
}

/// One connection on loopback, 4 KiB messages: from memory, from the disk without settling, and durable.
fn loopback(messages: usize) {
    println!("\n# loopback: one connection, {messages} messages of 4 KiB");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, keywords) in ways() {
        let sink = Sink::start(keywords);
        let memory = drained(&Place::new(Kind::Memory, messages, 4096), &sink);
        row(&format!("{name}, engine in memory"), memory, "messages/s", 1.0, "itself");
        let place = Place::new(Kind::Sled(folder.path().join(name)), messages, 4096);
        let off = drained(&place.unsettled(), &sink);
        row(
            &format!("{name}, from disk, settling off"),
            off,
            "messages/s",
            off / memory,
            "in memory",
        );
        let durable = drained(&place, &sink);
        row(
            &format!("{name}, from disk, durable"),
            durable,
            "messages/s",
            durable / off,
            "settling off",
        );
    }
}

/// Messages a second of one whole drain.
pub(crate) fn drained(place: &Place, sink: &Sink) -> f64 {
    let begin = Instant::now();
    let last = place.drain(sink.address);
    let rate = last.messages as f64 / begin.elapsed().as_secs_f64();
    assert_eq!((last.ended.as_str(), last.messages), ("quit", place.messages as u64), "{last:?}");
    rate
}

/// From the lease to the first MAIL, with few and with many messages queued. Ten domains in turn, so that both are equally
/// fresh in the machine's memory; and each turn another domain behind swept caches, so that both are equally strange to it.
fn first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for word in ["engine in memory", "durable store"] {
        println!("\n# first: from the lease to the first MAIL on the wire, {word}");
        let mut before = [None; 2];
        for (messages, domains) in [(1000, 10), (1_000_000, 10_000)] {
            let kind = match word {
                "engine in memory" => Kind::Memory,
                _ => Kind::Sled(folder.path().join(messages.to_string())),
            };
            let place = Place::spread(kind, messages, domains, 64);
            until_quiet();
            let fresh = (0..101).map(|turn| place.first_mail(turn % 10 * (domains / 10)));
            let fresh: Vec<Duration> = fresh.collect();
            let strange = (0..101).map(|turn| {
                sweep();
                place.first_mail(turn * 7919 % domains)
            });
            let strange: Vec<Duration> = strange.collect();
            for (n, (how, mut spans)) in
                [("fresh", fresh), ("swept", strange)].into_iter().enumerate()
            {
                spans.sort();
                let (middle, most) = (spans[50].as_secs_f64() * 1e6, spans[99].as_secs_f64() * 1e6);
                let ratio = middle / *before[n].get_or_insert(middle);
                let name = format!("{messages} messages, {domains} domains, {how}");
                row(&format!("{name}, 50 %"), middle, "us", ratio, "with 1,000");
                row(&format!("{name}, 99 %"), most, "us", most / 1e4, "10 ms");
            }
        }
    }
}

/// Waits until this process has nothing to do any more but for housekeeping: at most a minute.
fn until_quiet() {
    let begin = Instant::now();
    let mut before = process::processor_ticks("self");
    while begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_secs(1));
        let now = process::processor_ticks("self");
        if now - before < 5 {
            break;
        }
        before = now;
    }
}

/// Writes over more memory than any cache of the machine holds.
fn sweep() {
    let mut octets = vec![1u8; 128 << 20];
    octets.iter_mut().step_by(64).for_each(|octet| *octet = octet.wrapping_add(1));
    std::hint::black_box(&octets);
}
