//! The figures of docs/performance-store.md: `cargo bench --bench store -- [FOLDER] [enqueue|drain|memory|million|cycles]...`
//!
//! A plain program. Beside each durable figure stands what the same disk gives to a bare group commit (append,
//! fdatasync, answer all) in the same run, since absolute numbers say little on a shared machine.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use restante::mail::{
    ContentFacts, CustomerName, Domain, Envelope, ForwardPath, Outcome, QueueId, Recipient,
    ReplyText, ReversePath, Timestamp,
};
use restante::store::{
    Head, LeaseAnswer, LeaseRequest, NewMessage, Options, Settlement, SledStore, Store, Verdict,
};

fn message(n: u64, domain: &str, customer: &str) -> NewMessage {
    let address = format!("user{}@{domain}", n % 10);
    NewMessage {
        id: QueueId::at(1_700_000_000_000 + n, u128::from(n)),
        envelope: Envelope {
            reverse_path: ReversePath::parse("sender@elsewhere.example").expect("an address"),
            recipients: vec![Recipient {
                forward_path: ForwardPath::parse(&address).expect("an address"),
                notify: None,
                orcpt: None,
            }],
            ..Envelope::default()
        },
        owners: vec![CustomerName::parse(customer).expect("a name")],
        facts: ContentFacts::default(),
        arrived: Timestamp(1_700_000_000_000 + n),
        expires: vec![Timestamp(1_900_000_000_000)],
    }
}

fn put(store: &SledStore, n: u64, body: &[u8], domain: &str, customer: &str) {
    block_on(async {
        let id = QueueId::at(1_700_000_000_000 + n, u128::from(n));
        let mut writer = store.begin_body(id, body.len() as u64).await.expect("a writer");
        for chunk in body.chunks(64 * 1024) {
            writer.write(chunk).await.expect("taken");
        }
        store.commit(message(n, domain, customer), writer).await.expect("committed");
    });
}

/// Messages per second of `writers` threads during `span`.
fn rate(writers: u64, span: Duration, work: impl Fn(u64) + Sync) -> f64 {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while start.elapsed() < span {
                    work(next.fetch_add(1, Ordering::Relaxed));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// A body, and whom to tell that it is durable.
type Wish = (Arc<Vec<u8>>, Sender<()>);

/// The bare group commit: one thread appends what waits, syncs, answers.
struct Raw {
    queue: Mutex<Sender<Wish>>,
}

impl Raw {
    fn new(path: PathBuf) -> Self {
        let (queue, inbox) = channel::<Wish>();
        std::thread::spawn(move || {
            let mut part = 0;
            let mut end = u64::MAX;
            let mut file = None;
            while let Ok(first) = inbox.recv() {
                let mut group = vec![first];
                while let Ok(more) = inbox.try_recv() {
                    group.push(more);
                }
                if end > 64 << 20 {
                    part += 1;
                    end = 0;
                    file = Some(
                        std::fs::File::create(path.join(format!("raw{part}"))).expect("a file"),
                    );
                }
                let file = file.as_ref().expect("made");
                let small = group.iter().map(|(b, _)| b.len()).sum::<usize>() < 16 << 20;
                if small {
                    let octets: Vec<u8> =
                        group.iter().flat_map(|(b, _)| b.iter().copied()).collect();
                    file.write_all_at(&octets, end).expect("written");
                    end += octets.len() as u64;
                } else {
                    for (body, _) in &group {
                        file.write_all_at(body, end).expect("written");
                        end += body.len() as u64;
                    }
                }
                file.sync_data().expect("synced");
                for (_, answer) in group {
                    let _ = answer.send(());
                }
            }
        });
        Self { queue: Mutex::new(queue) }
    }
    fn put(&self, body: &Arc<Vec<u8>>) {
        let (sender, answer) = channel();
        self.queue.lock().expect("no panic").send((body.clone(), sender)).expect("running");
        answer.recv().expect("answered");
    }
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|l| l.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") / 1024
}

fn fresh(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

fn open(path: &Path) -> SledStore {
    SledStore::open(path, Options::default()).expect("opened")
}

/// Turns of each side.
const SLICES: usize = 7;

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn enqueue(folder: &Path) {
    println!("durable enqueue                raw/s    store/s   ratio");
    let span = Duration::from_millis(1500);
    for (label, size, writers) in [
        ("4 KiB, 8 writers", 4096, 8),
        ("4 KiB, 64 writers", 4096, 64),
        ("64 KiB, 64 writers", 65_536, 64),
        ("1 MiB, 8 writers", 1 << 20, 8),
    ] {
        let body = Arc::new(vec![b'x'; size]);
        let (raw_at, store_at) = (fresh(folder, "raw"), fresh(folder, "store"));
        let raw = Raw::new(raw_at.clone());
        let store = open(&store_at);
        let next = AtomicU64::new(0);
        // Turn by turn, so that both see the same moods of the machine; the medians count.
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..SLICES {
            bare.push(rate(writers, span, |_| raw.put(&body)));
            ours.push(rate(writers, span, |_| {
                let n = next.fetch_add(1, Ordering::Relaxed);
                put(&store, n, &body, &format!("d{}.example", n % 100), "c");
            }));
        }
        drop((raw, store));
        let _ = std::fs::remove_dir_all(&raw_at);
        let _ = std::fs::remove_dir_all(&store_at);
        let (bare, ours) = (median(bare), median(ours));
        println!("{label:<24} {bare:>11.0} {ours:>10.0} {:>6.0} %", ours / bare * 100.0);
    }
}

fn lease(store: &SledStore, domain: &str) -> restante::mail::Lease {
    let request = LeaseRequest {
        customer: CustomerName::parse("c").expect("a name"),
        domains: vec![Domain::parse(domain).expect("a domain")],
        owner: "bench".into(),
        lasts: Duration::from_secs(3600),
        overthrow_after: Duration::from_secs(3600),
    };
    match block_on(store.lease(request)).expect("answered") {
        LeaseAnswer::Granted(lease) => lease,
        LeaseAnswer::Busy { .. } => panic!("nobody else is here"),
    }
}

/// What a drain took.
struct Drained {
    count: u64,
    whole: Duration,
    /// Until the first page was there.
    first: Duration,
    /// In `next`, in `open_body` and reading, in `settle`.
    parts: [Duration; 3],
}

impl Drained {
    fn rate(&self) -> f64 {
        self.count as f64 / self.whole.as_secs_f64()
    }
}

/// The bodies of a page, 64 at a visit.
fn read_all(store: &SledStore, heads: &[Head]) {
    for some in heads.chunks(64) {
        for opened in block_on(store.open_bodies(some.iter().map(|head| head.id).collect())) {
            let mut reader = opened.expect("a body");
            while !block_on(reader.read()).expect("read").is_empty() {}
        }
    }
}

/// The same as `drain_one` with bodies, but a page is settled while the next one is read, as a drain does whose
/// customer's server is quick.
fn drain_side_by_side(store: &SledStore, domain: &str, batch: usize) -> f64 {
    let lease = lease(store, domain);
    let start = Instant::now();
    let verdict = Verdict::Said(Outcome::Delivered(ReplyText::clean("250 ok")));
    let mut count = 0;
    std::thread::scope(|scope| {
        let (pages, settling) = std::sync::mpsc::sync_channel::<Vec<QueueId>>(2);
        let lease = &lease;
        scope.spawn(move || {
            for page in settling {
                let one = |id| Settlement { id, index: 0, verdict: verdict.clone() };
                block_on(store.settle(lease, page.into_iter().map(one).collect()))
                    .expect("settled");
            }
        });
        let mut after = None;
        loop {
            let heads = block_on(store.next(lease, after, batch)).expect("a page");
            let Some(last) = heads.last() else { break };
            after = Some(last.position);
            read_all(store, &heads);
            count += heads.len();
            pages.send(heads.iter().map(|head| head.id).collect()).expect("settling");
        }
    });
    let rate = count as f64 / start.elapsed().as_secs_f64();
    block_on(store.release(lease)).expect("released");
    rate
}

/// Takes all mail of one queue in batches, bodies read or not, one call after the other.
fn drain_one(store: &SledStore, domain: &str, batch: usize, bodies: bool) -> Drained {
    let lease = lease(store, domain);
    let start = Instant::now();
    let mut drained = Drained {
        count: 0,
        whole: Duration::ZERO,
        first: Duration::ZERO,
        parts: Default::default(),
    };
    let mut after = None;
    let verdict = Verdict::Said(Outcome::Delivered(ReplyText::clean("250 ok")));
    loop {
        let asked = Instant::now();
        let heads = block_on(store.next(&lease, after, batch)).expect("a page");
        drained.parts[0] += asked.elapsed();
        let Some(last) = heads.last() else { break };
        if drained.count == 0 {
            drained.first = start.elapsed();
        }
        after = Some(last.position);
        let asked = Instant::now();
        if bodies {
            read_all(store, &heads);
        }
        drained.parts[1] += asked.elapsed();
        drained.count += heads.len() as u64;
        let settled = heads.iter();
        let settled =
            settled.map(|head| Settlement { id: head.id, index: 0, verdict: verdict.clone() });
        let asked = Instant::now();
        block_on(store.settle(&lease, settled.collect())).expect("settled");
        drained.parts[2] += asked.elapsed();
    }
    drained.whole = start.elapsed();
    block_on(store.release(lease)).expect("released");
    drained
}

fn fill(store: &SledStore, from: u64, count: u64, size: usize, domains: u64) {
    let body = vec![b'x'; size];
    let next = AtomicU64::new(from);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= from + count {
                        break;
                    }
                    put(store, n, &body, &format!("d{}.example", n % domains), "c");
                }
            });
        }
    });
}

/// Milliseconds that one `fdatasync` of a page of marks takes on this disk, in the middle.
fn sync_millis(folder: &Path) -> f64 {
    let path = folder.join("sync");
    let file = std::fs::File::create(&path).expect("a file");
    let mut took = Vec::new();
    for n in 0..50 {
        file.write_all_at(&[1; 4096], n * 4096).expect("written");
        let start = Instant::now();
        file.sync_data().expect("synced");
        took.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    let _ = std::fs::remove_file(&path);
    median(took)
}

fn drain(folder: &Path) {
    let path = fresh(folder, "store");
    let store = open(&path);
    fill(&store, 0, 300_000, 4096, 6);
    println!(
        "drain of 50,000 messages of 4 KiB, durable settling; one fdatasync: {:.1} ms",
        sync_millis(folder)
    );
    for (domain, batch, bodies) in [
        ("d0.example", 100, false),
        ("d1.example", 100, true),
        ("d2.example", 1000, false),
        ("d3.example", 1000, true),
    ] {
        let drained = drain_one(&store, domain, batch, bodies);
        let micros = drained.parts.map(|p| p.as_secs_f64() * 1e6 / drained.count as f64);
        println!(
            "  batches of {batch:<4} {:<14} {:>7.0}/s; each: next {:.1} us, body {:.1} us, settle {:.1} us; first page after {:?}",
            if bodies { "bodies read" } else { "without bodies" },
            drained.rate(),
            micros[0],
            micros[1],
            micros[2],
            drained.first
        );
    }
    for (domain, batch) in [("d4.example", 100), ("d5.example", 1000)] {
        let rate = drain_side_by_side(&store, domain, batch);
        println!(
            "  batches of {batch:<4} bodies read    {rate:>7.0}/s, a page settled while the next is read"
        );
    }
    drop(store);
    let _ = std::fs::remove_dir_all(&path);
}

fn memory(folder: &Path) {
    let path = fresh(folder, "store");
    let store = open(&path);
    let base = status("VmRSS");
    std::thread::scope(|scope| {
        for n in 0..64 {
            let store = &store;
            scope.spawn(move || {
                block_on(async {
                    let id = QueueId::at(1_700_000_000_000 + n, u128::from(n));
                    let mut writer = store.begin_body(id, 20 << 20).await.expect("a writer");
                    let chunk = vec![b'x'; 16 * 1024];
                    for _ in 0..1280 {
                        writer.write(&chunk).await.expect("taken");
                    }
                    store.commit(message(n, "d.example", "c"), writer).await.expect("committed");
                });
            });
        }
    });
    println!(
        "64 writers of 20 MiB: peak {} MiB above {base} MiB",
        status("VmHWM").saturating_sub(base)
    );
    drop(store);
    let _ = std::fs::remove_dir_all(&path);
}

fn million(folder: &Path) {
    let path = fresh(folder, "store");
    let store = open(&path);
    let start = Instant::now();
    fill(&store, 0, 1_000_000, 1024, 10_000);
    println!("1,000,000 messages for 10,000 domains kept in {:?}", start.elapsed());
    println!("  resident {} MiB", status("VmRSS"));
    let health = block_on(store.health()).expect("health");
    println!("  live {} MiB, on disk {} MiB", health.live_bytes >> 20, health.disk_bytes >> 20);
    let domain = Domain::parse("d7777.example").expect("a domain");
    let start = Instant::now();
    for _ in 0..1000 {
        block_on(store.count(&domain)).expect("counted");
    }
    println!("  count of a domain: {:?}", start.elapsed() / 1000);
    let held = lease(&store, "d4321.example");
    let start = Instant::now();
    assert_eq!(block_on(store.next(&held, None, 1)).expect("a page").len(), 1);
    println!("  first message of a domain: {:?}", start.elapsed());
    // A copy of a running store: the page cache of another process is what a kill would leave.
    let start = Instant::now();
    drop(store);
    println!("  orderly end: {:?}", start.elapsed());
    let start = Instant::now();
    let store = open(&path);
    println!("  open after an orderly end: {:?}", start.elapsed());
    drop(store);
    let exe = std::env::current_exe().expect("this program");
    let mut child = std::process::Command::new(exe)
        .args([folder.as_os_str(), "child".as_ref()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a child");
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut line).expect("ready");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let start = Instant::now();
    let store = open(&path);
    println!("  open after kill -9: {:?}", start.elapsed());
    let held = lease(&store, "d4322.example");
    let start = Instant::now();
    assert_eq!(block_on(store.next(&held, None, 1)).expect("a page").len(), 1);
    println!("  first message of a domain: {:?}", start.elapsed());
    println!("  resident {} MiB (peak {})", status("VmRSS"), status("VmHWM"));
    drop(store);
    let start = Instant::now();
    let store =
        SledStore::open_with(&path, Options::default(), true, &mut |_| {}).expect("rebuilt");
    println!("  rebuild, as after a power cut: {:?}", start.elapsed());
    drop(store);
    let _ = std::fs::remove_dir_all(&path);
}

/// Opens the store, changes a little, says so, and waits to be killed.
fn child(folder: &Path) {
    let store = open(&folder.join("store"));
    fill(&store, 2_000_000, 2000, 1024, 10_000);
    std::io::stdout().write_all(b"ok\n").expect("a reader");
    std::io::stdout().flush().expect("a reader");
    loop {
        std::thread::park();
    }
}

fn used(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("a folder");
    entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            let path = entry.path();
            if path.is_dir() { used(&path) } else { entry.metadata().map_or(0, |m| m.len()) }
        })
        .sum()
}

fn cycles(folder: &Path) {
    let path = fresh(folder, "store");
    let store = open(&path);
    for cycle in 0..5 {
        fill(&store, cycle * 1_000_000, 32_768, 65_536, 1);
        let out = drain_one(&store, "d0.example", 100, false);
        println!("  cycle {cycle}: {} messages of 64 KiB out at {:.0}/s", out.count, out.rate());
    }
    let end = Instant::now() + Duration::from_secs(60);
    while used(&path) > 300 << 20 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("five cycles of 2 GiB leave {} MiB", used(&path) >> 20);
    drop(store);
    let _ = std::fs::remove_dir_all(&path);
}

fn main() {
    let mut names: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let given = names.first().filter(|n| Path::new(n).is_dir()).map(PathBuf::from);
    if given.is_some() {
        names.remove(0);
    }
    let folder = given.unwrap_or_else(|| std::env::temp_dir().join("restante-bench-store"));
    std::fs::create_dir_all(&folder).expect("a folder");
    if names.is_empty() {
        names = ["enqueue", "drain", "memory", "million", "cycles"].map(Into::into).to_vec();
    }
    for name in names {
        match name.as_str() {
            "enqueue" => enqueue(&folder),
            "drain" => drain(&folder),
            "memory" => memory(&folder),
            "million" => million(&folder),
            "cycles" => cycles(&folder),
            "child" => child(&folder),
            other => println!("no such figure: {other}"),
        }
    }
}
