//! Large messages from the disk beside plain copying of a file through the same kind of connection.

use std::sync::Arc;
use std::time::Instant;

use async_std::task::block_on;

use super::place::{self, Kind, Place, called};
use super::sink::{self, Sink, Tls};
use super::{row, ways};

const MESSAGES: usize = 8;
const SIZE: usize = 50 << 20;
const RUNS: usize = 5;

/// The middle of some runs, MiB a second.
fn rate(mut run: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (MESSAGES * SIZE) as f64 / f64::from(1 << 20) / seconds[RUNS / 2]
}

/// See the module's head. All drains send the same queue: what is recorded at the end, of eight messages, is left
/// out.
pub(crate) fn rows() {
    println!(
        "\n# large: one connection on loopback, {MESSAGES} messages of 50 MiB from disk, middle of {RUNS}"
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = Place::new(Kind::Sled(folder.path().join("store")), MESSAGES, SIZE).unsettled();
    let file = folder.path().join("file");
    std::fs::write(&file, place::content(SIZE)).expect("written");
    let tls = Arc::new(Tls::new());
    for encrypted in [None, Some(tls)] {
        let word = if encrypted.is_some() { "TLS" } else { "clear text" };
        let sink = encrypted.as_deref().map_or_else(Sink::swallow, Sink::swallow_tls);
        let plain = rate(|| {
            let (file, encrypted) = (file.clone(), encrypted.clone());
            block_on(async_std::task::spawn(async move {
                sink::copy(called(sink.address, encrypted).await, &file, MESSAGES).await;
            }));
        });
        row(&format!("plain copying, {word}"), plain, "MiB/s", 1.0, "itself");
        for (name, keywords) in ways() {
            let sink = match encrypted.as_deref() {
                Some(tls) => Sink::start_tls(tls, keywords),
                None => Sink::start(keywords),
            };
            let drained = rate(|| {
                let last = place.drain_over(sink.address, encrypted.clone());
                assert_eq!((last.ended.as_str(), last.messages), ("quit", MESSAGES as u64));
            });
            row(&format!("{name}, {word}"), drained, "MiB/s", drained / plain, "plain copying");
        }
    }
}
