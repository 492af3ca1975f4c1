//! The figures of docs/performance-store.md: `cargo bench --bench store -- [FOLDER] [enqueue|drain|memory|million|cycles]...`
//!
//! A plain program. Beside each durable figure stands what the same disk gives to a bare group commit (append,
//! fdatasync, answer all) in the same run, since absolute numbers say little on a shared machine.

use std::fs::File;
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
    keep(store, message(n, domain, customer), body);
}

fn keep(store: &SledStore, message: NewMessage, body: &[u8]) {
    block_on(async {
        let mut writer = store.begin_body(message.id, body.len() as u64).await.expect("a writer");
        for chunk in body.chunks(64 * 1024) {
            writer.write(chunk).await.expect("taken");
        }
        store.commit(message, writer).await.expect("committed");
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

/// A body that is to be written, or the file it was written to; and whom to tell that it is durable.
type Wish = (Result<Arc<Vec<u8>>, Arc<File>>, Sender<()>);

/// A file that several write to side by side, and where the next of them begins.
struct Shared {
    file: Arc<File>,
    end: u64,
    part: u64,
}

/// The bare group commit: whatever waits is made durable with one `fdatasync`, and all are answered.
struct Raw {
    path: PathBuf,
    queue: Mutex<Sender<Wish>>,
    shared: Mutex<Shared>,
}

/// Octets of a file, as of the store's segments.
const PART_BYTES: u64 = 64 << 20;

impl Raw {
    fn new(path: PathBuf) -> Self {
        let (queue, inbox) = channel::<Wish>();
        let own = path.join("appended");
        std::fs::create_dir(&own).expect("a folder");
        std::thread::spawn(move || {
            let (mut part, mut end) = (0, 0);
            let mut file = File::create(own.join("0")).expect("a file");
            while let Ok(first) = inbox.recv() {
                let mut group = vec![first];
                while let Ok(more) = inbox.try_recv() {
                    group.push(more);
                }
                if end > PART_BYTES {
                    (part, end) = (part + 1, 0);
                    file = File::create(own.join(part.to_string())).expect("a file");
                }
                let bodies = group.iter().filter_map(|(what, _)| what.as_ref().ok());
                let octets: Vec<u8> = bodies.flat_map(|body| body.iter().copied()).collect();
                if !octets.is_empty() {
                    file.write_all_at(&octets, end).expect("written");
                    end += octets.len() as u64;
                    file.sync_data().expect("synced");
                }
                let mut files: Vec<&Arc<File>> =
                    group.iter().filter_map(|(what, _)| what.as_ref().err()).collect();
                files.dedup_by(|one, other| Arc::ptr_eq(one, other));
                for file in files {
                    file.sync_data().expect("synced");
                }
                for (_, answer) in group {
                    let _ = answer.send(());
                }
            }
        });
        let file = Arc::new(File::create(path.join("shared0")).expect("a file"));
        let shared = Mutex::new(Shared { file, end: 0, part: 0 });
        Self { path, queue: Mutex::new(queue), shared }
    }

    fn ask(&self, what: Result<Arc<Vec<u8>>, Arc<File>>) {
        let (sender, answer) = channel();
        self.queue.lock().expect("no panic").send((what, sender)).expect("running");
        answer.recv().expect("answered");
    }

    /// The thread that syncs also writes.
    fn append(&self, body: &Arc<Vec<u8>>) {
        self.ask(Ok(body.clone()));
    }

    /// Every writer writes its own.
    fn write(&self, body: &[u8]) {
        let (file, at) = {
            let mut shared = self.shared.lock().expect("no panic");
            if shared.end > PART_BYTES {
                shared.part += 1;
                let path = self.path.join(format!("shared{}", shared.part));
                (shared.file, shared.end) = (Arc::new(File::create(path).expect("a file")), 0);
            }
            let at = shared.end;
            shared.end += body.len() as u64;
            (shared.file.clone(), at)
        };
        file.write_all_at(body, at).expect("written");
        self.ask(Err(file));
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
    println!(
        "durable enqueue            append/s   write/s   store/s   ratio to the better of the two"
    );
    let span = Duration::from_millis(1200);
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
        // Made once: what it costs to make a message is not what is measured.
        let patterns: Vec<NewMessage> =
            (0..100).map(|n| message(n, &format!("d{n}.example"), "c")).collect();
        // Turn by turn, so that both see the same moods of the machine; the medians count.
        let (mut appended, mut written, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..SLICES {
            appended.push(rate(writers, span, |_| raw.append(&body)));
            written.push(rate(writers, span, |_| raw.write(&body)));
            ours.push(rate(writers, span, |_| {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let id = QueueId::at(1_700_000_000_000 + n, u128::from(n));
                keep(&store, NewMessage { id, ..patterns[(n % 100) as usize].clone() }, &body);
            }));
        }
        drop((raw, store));
        let _ = std::fs::remove_dir_all(&raw_at);
        let _ = std::fs::remove_dir_all(&store_at);
        let (appended, written, ours) = (median(appended), median(written), median(ours));
        let ratio = ours / appended.max(written) * 100.0;
        println!("{label:<24} {appended:>10.0} {written:>9.0} {ours:>9.0} {ratio:>6.0} %");
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
    let file = File::create(&path).expect("a file");
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
    println!(
        "drain of 50,000 messages of 4 KiB, half of what a new store holds, durable settling; one fdatasync: {:.1} ms",
        sync_millis(folder)
    );
    let filled = || {
        let path = fresh(folder, "store");
        let store = open(&path);
        fill(&store, 0, 100_000, 4096, 2);
        (path, store)
    };
    for (batch, bodies) in [(100, false), (100, true), (1000, false), (1000, true)] {
        let (path, store) = filled();
        let drained = drain_one(&store, "d0.example", batch, bodies);
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
        drop(store);
        let _ = std::fs::remove_dir_all(&path);
    }
    for batch in [100, 1000] {
        let (path, store) = filled();
        let rate = drain_side_by_side(&store, "d0.example", batch);
        println!(
            "  batches of {batch:<4} bodies read    {rate:>7.0}/s, a page settled while the next is read"
        );
        drop(store);
        let _ = std::fs::remove_dir_all(&path);
    }
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

/// Messages in one queue among the ten thousand.
const BIG: u64 = 100_000;

/// Runs this program again for a part, since memory and opening are a process's own.
fn again(folder: &Path, part: &str) -> std::process::Child {
    let exe = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new(exe);
    command.args([folder.as_os_str(), part.as_ref()]).spawn().expect("a child")
}

fn million(folder: &Path) {
    let path = fresh(folder, "store");
    let store = open(&path);
    let start = Instant::now();
    fill(&store, 0, 1_000_000 - BIG, 1024, 10_000);
    fill(&store, 1_000_000 - BIG, BIG, 1024, 1);
    println!("1,000,000 messages for 10,000 domains kept in {:?}", start.elapsed());
    println!("  resident {} MiB (peak {})", status("VmRSS"), status("VmHWM"));
    let health = block_on(store.health()).expect("health");
    println!("  live {} MiB, on disk {} MiB", health.live_bytes >> 20, health.disk_bytes >> 20);
    let start = Instant::now();
    drop(store);
    println!("  orderly end: {:?}", start.elapsed());
    println!("after an orderly end");
    again(folder, "look").wait().expect("ended");
    let ready = folder.join("ready");
    let _ = std::fs::remove_file(&ready);
    let mut child = again(folder, "child");
    while !ready.exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    println!("after kill -9");
    again(folder, "look").wait().expect("ended");
    println!("made again from spool and journal, as after a power cut");
    again(folder, "rebuild").wait().expect("ended");
    let _ = std::fs::remove_dir_all(&path);
}

/// Opens the store and looks at it.
fn look(folder: &Path, rebuild: bool) {
    let start = Instant::now();
    let store =
        SledStore::open_with(&folder.join("store"), Options::default(), rebuild, &mut |_| {});
    let store = store.expect("opened");
    println!("  open: {:?}; resident {} MiB", start.elapsed(), status("VmRSS"));
    let mut firsts = Vec::new();
    for n in 0..500 {
        let domain = format!("d{}.example", n * 19 + 1);
        let start = Instant::now();
        let held = lease(&store, &domain);
        assert_eq!(block_on(store.next(&held, None, 1)).expect("a page").len(), 1);
        firsts.push(start.elapsed());
        block_on(store.release(held)).expect("released");
    }
    firsts.sort();
    println!("  first message of 500 domains: median {:?}, longest {:?}", firsts[250], firsts[499]);
    // The big queue, and one of ninety; in turn.
    let (mut big, mut small) = (Vec::new(), Vec::new());
    for n in 0..1000 {
        for (domain, took) in
            [("d0.example".into(), &mut big), (format!("d{}.example", n + 1), &mut small)]
        {
            let domain = Domain::parse(&domain).expect("a domain");
            let start = Instant::now();
            let count = block_on(store.count(&domain)).expect("counted");
            took.push(start.elapsed().as_secs_f64() * 1e6);
            assert!(count.messages > 0);
        }
    }
    println!(
        "  count of a queue of {BIG}: {:.0} us, of one of 90: {:.0} us",
        median(big),
        median(small)
    );
    println!("  resident {} MiB (peak {})", status("VmRSS"), status("VmHWM"));
}

/// Opens the store, changes a little, says so, and waits to be killed.
fn child(folder: &Path) {
    let store = open(&folder.join("store"));
    fill(&store, 2_000_000, 2000, 1024, 10_000);
    std::fs::write(folder.join("ready"), "").expect("written");
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
            "look" => look(&folder, false),
            "rebuild" => look(&folder, true),
            other => println!("no such figure: {other}"),
        }
    }
}
