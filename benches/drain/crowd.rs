//! Many customers at once beside one: throughput of all together, fairness among them, memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_std::task::block_on;
use restante::net::wire::Wire;
use restante::provider::Office;

use super::place::{Kind, Place, called};
use super::process::{processor_ticks, resident_kib};
use super::sink::Sink;
use super::{WAYS, drained, row};

const CUSTOMERS: usize = 200;

/// See the module's head. `messages` are those of all together, five times that many in memory.
pub(crate) fn rows(messages: usize) {
    let sink = Sink::start(WAYS[2].1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (word, messages) in [("engine in memory", 5 * messages), ("from disk, durable", messages)] {
        if !is_chosen(word) {
            continue;
        }
        println!(
            "\n# many: {CUSTOMERS} customers at once, {messages} messages of 4 KiB in all, {word}"
        );
        let kind = |name: &str| match word {
            "engine in memory" => Kind::Memory,
            _ => Kind::Sled(folder.path().join(name)),
        };
        let place = Place::new(kind("one"), messages, 4096);
        let before = processor_ticks("self");
        let one = drained(&place, &sink);
        let spent = (processor_ticks("self") - before) as f64;
        drop(place);
        row("one customer", one, "messages/s", 1.0, "itself");
        let place = Place::spread(kind("many"), messages, CUSTOMERS, 4096);
        let seen = crowd(&place, messages / CUSTOMERS, sink.address);
        row(
            "200 customers, all together",
            seen.rate,
            "messages/s",
            seen.rate / one,
            "one customer",
        );
        let micros = seen.processor / messages as f64 * 1e4;
        row(
            "processor time of a message, sinks included",
            micros,
            "us",
            seen.processor / spent,
            "one",
        );
        row(
            "slowest customer's time",
            seen.slowest,
            "s",
            seen.slowest / seen.fastest,
            "the fastest one's",
        );
        let each = seen.grown as f64 / CUSTOMERS as f64;
        row("most memory while they run, each", each, "KiB", each / 256.0, "256 KiB");
        drop(place);
        let place = Place::spread(kind("turns"), messages, CUSTOMERS, 4096);
        let turns = in_turns(&place, messages / CUSTOMERS, sink.address);
        row("200 customers, one after the other", turns, "messages/s", turns / one, "one customer");
        row("all together", seen.rate, "messages/s", seen.rate / turns, "one after the other");
    }
}

/// Messages a second while no two of them are served at the same time.
fn in_turns(place: &Place, each: usize, to: SocketAddr) -> f64 {
    let wires = all_called(to);
    let begin = Instant::now();
    for (owner, wire) in wires.into_iter().enumerate() {
        block_on(async_std::task::spawn(served(place.office.clone(), owner, wire, each)));
    }
    (CUSTOMERS * each) as f64 / begin.elapsed().as_secs_f64()
}

/// They have called and are served: what is measured begins with the turn.
fn all_called(to: SocketAddr) -> Vec<Wire> {
    (0..CUSTOMERS).map(|_| block_on(called(to, None))).collect()
}

/// One customer gets all that there is.
async fn served(office: Arc<Office>, owner: usize, wire: Wire, each: usize) {
    let last = Place::draining(office, owner, wire).await;
    assert_eq!((last.ended.as_str(), last.messages), ("quit", each as u64));
}

struct Seen {
    rate: f64,
    slowest: f64,
    fastest: f64,
    /// KiB.
    grown: u64,
    /// Processor time, in hundredths of a second.
    processor: f64,
}

fn crowd(place: &Place, each: usize, to: SocketAddr) -> Seen {
    let before = resident_kib("self");
    let is_over = Arc::new(AtomicBool::new(false));
    let is_over_too = is_over.clone();
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while !is_over_too.load(Ordering::Relaxed) {
            most = most.max(resident_kib("self"));
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let wires = all_called(to);
    let (begin, spent) = (Instant::now(), processor_ticks("self"));
    let spans: Vec<f64> = block_on(async {
        let drains = wires.into_iter().enumerate().map(|(owner, wire)| {
            let served = served(place.office.clone(), owner, wire, each);
            async_std::task::spawn(async move {
                served.await;
                begin.elapsed().as_secs_f64()
            })
        });
        futures::future::join_all(drains).await
    });
    let processor = (processor_ticks("self") - spent) as f64;
    is_over.store(true, Ordering::Relaxed);
    let most = watch.join().expect("watched");
    let slowest = spans.iter().copied().fold(0.0, f64::max);
    let fastest = spans.iter().copied().fold(f64::MAX, f64::min);
    Seen {
        rate: (CUSTOMERS * each) as f64 / slowest,
        slowest,
        fastest,
        grown: most.saturating_sub(before),
        processor,
    }
}

/// Engines that were asked for by name (`memory`, `durable`); all where none was.
fn is_chosen(engine: &str) -> bool {
    let words: Vec<String> = std::env::args().collect();
    let chosen: Vec<_> =
        ["memory", "durable"].iter().filter(|n| words.iter().any(|w| w == *n)).collect();
    chosen.is_empty() || chosen.iter().any(|name| engine.contains(**name))
}
