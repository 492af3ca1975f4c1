//! Load on the real program over loopback: durable intake and drain, beside the machine's own limit.
//!
//! `cargo bench --bench load` prints one table. The first row appends the same messages to a file with one
//! `fdatasync` for all writers that wait, which no durable server on this disk can beat; the others are the
//! program's, as a ratio of it. The numbers vary with the machine, the ratios little; docs/performance.md holds
//! a run and how to read it. `RESTANTE_LOAD_MESSAGES` sets the messages of each row (default 4000).

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use support::{Provider, Sink, sink};

const PASSWORD: &str = "correct-horse-battery";
const BODY_BYTES: usize = 4096;

fn main() {
    let messages =
        std::env::var("RESTANTE_LOAD_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = body();
    println!("{messages} messages of {} octets a row\n", body.len());
    println!("{:<44} {:>12} {:>8}", "row", "messages/s", "ratio");
    let mut limits = Vec::new();
    for writers in [1, 20, 64] {
        let rate = group_commit_limit(folder.path(), &body, writers, messages);
        limits.push(rate);
        row(&format!("append + fdatasync, {writers} writers (the limit)"), rate, 1.0);
    }
    let more = "[limits]\nsessions_per_address = 1000\ndisk_free_min = \"64 MiB\"\n";
    let mut provider = Provider::prepare(folder.path(), more);
    provider.add_customer("load", "load.example", PASSWORD);
    provider.start();
    let rows: [(usize, &str, &[&str]); 3] = [
        (1, "lock-step", &["8BITMIME", "SIZE"]),
        (20, "PIPELINING", &["PIPELINING", "8BITMIME", "SIZE"]),
        (64, "CHUNKING", &["PIPELINING", "8BITMIME", "SIZE", "CHUNKING"]),
    ];
    for ((writers, offer, keywords), limit) in rows.into_iter().zip(&limits) {
        let rate = intake(&provider, &body, writers, messages);
        row(&format!("durable intake, {writers} connections"), rate, rate / limit);
        let rate = drain(&provider, keywords);
        row(&format!("drain by one connection, {offer}"), rate, rate / limits[2]);
    }
}

fn row(name: &str, rate: f64, ratio: f64) {
    println!("{name:<44} {rate:>12.0} {ratio:>8.2}");
}

/// A message with a header, leading dots and lines of an ordinary length.
fn body() -> Vec<u8> {
    let mut text = b"Message-ID: <load@sender.example>\r\nSubject: load\r\n\r\n".to_vec();
    while text.len() < BODY_BYTES - 72 {
        text.extend_from_slice(&[b'x'; 70]);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// How many such appends a second the disk makes durable when all waiting writers share a sync.
fn group_commit_limit(folder: &Path, body: &[u8], writers: usize, messages: usize) -> f64 {
    let (queue, waiting) = mpsc::channel::<(Vec<u8>, mpsc::Sender<()>)>();
    let path = folder.join("limit");
    let committer = std::thread::spawn(move || {
        let mut file = File::create(path).expect("a file");
        while let Ok(first) = waiting.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            for (bytes, _) in &batch {
                file.write_all(bytes).expect("room");
            }
            file.sync_data().expect("a sync");
            for (_, done) in batch {
                done.send(()).expect("a writer that waits");
            }
        }
    });
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in shares(messages, writers) {
            let queue = queue.clone();
            scope.spawn(move || {
                let (done, answer) = mpsc::channel();
                for _ in 0..share {
                    queue.send((body.to_vec(), done.clone())).expect("the committer");
                    answer.recv().expect("an answer");
                }
            });
        }
    });
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    drop(queue);
    committer.join().expect("no panic");
    rate
}

fn shares(messages: usize, writers: usize) -> Vec<usize> {
    (0..writers).map(|n| messages / writers + usize::from(n < messages % writers)).collect()
}

/// Sends all messages over `writers` connections at once.
fn intake(provider: &Provider, body: &[u8], writers: usize, messages: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for share in shares(messages, writers) {
            scope.spawn(move || {
                let mut peer = provider.connect("mx");
                peer.expect("220");
                peer.ask("EHLO sender.example", "250");
                let mut content = body.to_vec();
                content.extend_from_slice(b".\r\n");
                for _ in 0..share {
                    peer.say(
                        b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@load.example>\r\nDATA\r\n",
                    );
                    peer.expect("250");
                    peer.expect("250");
                    peer.expect("354");
                    peer.say(&content);
                    peer.expect("250");
                }
                peer.ask("QUIT", "221");
            });
        }
    });
    messages as f64 / start.elapsed().as_secs_f64()
}

/// Logs in, reverses, and takes everything that waits, as a server with these keywords.
fn drain(provider: &Provider, keywords: &[&str]) -> f64 {
    let mut peer = provider.connect("odmr");
    peer.expect("220");
    peer.ask("EHLO customer.example", "250");
    peer.cram("load", PASSWORD);
    let start = Instant::now();
    peer.ask("ATRN", "250");
    let taken = sink(&mut peer, &Sink { keywords, keep: false });
    taken.len() as f64 / start.elapsed().as_secs_f64()
}
