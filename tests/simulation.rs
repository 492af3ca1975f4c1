//! Many drains under one seed: customers that lie, stall and die, wires cut at any octet, a store with passing trouble
//! and a power cut, mail arriving all the while. At the end every message that was committed is delivered or marked as
//! refused, nobody has another's mail, and twice came only what a cut left in doubt.
//!
//! `RESTANTE_SIM_SEEDS` sets how many seeds are played, `RESTANTE_SIM_SEED` plays just one; a failure names its seed.

mod drain_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drain_support::flaky::{Dice, Flaky};
use drain_support::pipe::{self, Traits};
use drain_support::server::{Message, Reply, Server, Sink};
use drain_support::{Clock, at_once, customer, domain, put};
use futures::FutureExt;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt;
use restante::mail::*;
use restante::net::deliver::deliver_dialed;
use restante::net::stop::Stop;
use restante::net::wire::Wire;
use restante::provider::{Office, Policy, Window, World};
use restante::store::{Directory, Filter, LeaseAnswer, LeaseRequest, Memory, Store};

const DOMAINS: [&str; 3] = ["example.com", "example.org", "bolt.example"];

/// One connection and what the customer took on it.
struct Call {
    ended: Option<String>,
    /// When it got its lease, and when it was over.
    began: Duration,
    over: Duration,
    window: u64,
    domains: Vec<&'static str>,
}

impl Call {
    fn new(window: u64, domains: Vec<&'static str>) -> Self {
        Self { ended: None, began: Duration::ZERO, over: Duration::MAX, window, domains }
    }

    /// Everything that it took was recorded.
    fn is_orderly(&self) -> bool {
        let ends =
            ["quit", "deferring", "mailmax", "shutdown", "customer-changed", "closed-by-customer"];
        self.ended.as_deref().is_some_and(|ended| ends.contains(&ended))
    }
}

struct Sim {
    dice: Dice,
    clock: Clock,
    memory: Arc<Memory>,
    /// What was committed: id to recipients and content.
    mail: BTreeMap<u128, (Vec<String>, Vec<u8>)>,
    calls: Arc<Mutex<Vec<Call>>>,
    sink: Sink,
    next_id: u128,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let clock = Clock::default();
        let ticking = clock.clone();
        let memory = Arc::new(Memory::with_clock(Arc::new(move || ticking.now())));
        at_once(memory.create(customer(Settings::default()))).expect("created");
        let bolt = Customer {
            name: CustomerName::parse("bolt").expect("valid"),
            domains: vec![domain("bolt.example")],
            ..customer(Settings::default())
        };
        at_once(memory.create(bolt)).expect("created");
        let mail = BTreeMap::new();
        Self {
            dice: Dice::new(seed),
            clock,
            memory,
            mail,
            calls: Arc::default(),
            sink: Sink::default(),
            next_id: 1000,
        }
    }

    fn content(&self, id: u128) -> Vec<u8> {
        let mut content = format!("Id: {id}\r\n\r\n").into_bytes();
        let most = if self.dice.once_in(20) { 4000 } else { 40 };
        for _ in 0..self.dice.below(most) {
            let line: &[u8] = match self.dice.below(6) {
                0 => b".",
                1 => b"",
                2 => b"..more",
                3 => b".\x00odd\xff",
                _ => b"an ordinary line of text",
            };
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
        content
    }

    /// A message, not yet committed. Ids jump about: intakes commit in any order.
    fn compose(&mut self) -> (u128, Vec<String>, Vec<u8>) {
        self.next_id += 10;
        let id = self.next_id - self.dice.below(40) as u128 * 10 + self.dice.below(10) as u128;
        let id = (id..).find(|id| !self.mail.contains_key(id)).expect("endless");
        let mut to: Vec<String> = (0..1 + self.dice.below(4))
            .map(|place| format!("u{place}@{}", DOMAINS[self.dice.below(DOMAINS.len())]))
            .collect();
        to.dedup();
        let content = self.content(id);
        self.mail.insert(id, (to.clone(), content.clone()));
        (id, to, content)
    }

    fn office(&self, trouble: u64, window: Window, hold: u64) -> (Arc<Office>, Arc<AtomicBool>) {
        let is_dead = Arc::new(AtomicBool::new(false));
        let store = Arc::new(Flaky {
            inner: self.memory.clone(),
            dice: self.dice.clone(),
            clock: self.clock.clone(),
            trouble: AtomicU64::new(trouble),
            is_dead: is_dead.clone(),
            counts: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        });
        let mut policy = Policy::new(domain("mx.provider.example"));
        policy.window = window;
        policy.drain.hold_open = Some(Seconds(hold));
        let world = Arc::new(self.clock.clone());
        (Arc::new(Office::new(store, self.memory.clone(), world, policy)), is_dead)
    }

    fn traits(&self) -> Traits {
        let dice = &self.dice;
        Traits {
            window: 1 + dice.below(if dice.once_in(2) { 200 } else { 100_000 }),
            gulp: if dice.once_in(3) { 1 + dice.below(5) } else { usize::MAX },
            cut_after: dice
                .once_in(3)
                .then(|| 1 + dice.below(if dice.once_in(2) { 800 } else { 30_000 })),
            cut_loses: dice.once_in(2),
        }
    }

    /// A customer of any character.
    fn server(&self, number: usize) -> Server {
        let all =
            ["PIPELINING", "CHUNKING", "8BITMIME", "SIZE", "LIMITS RCPTMAX=2", "LIMITS MAILMAX=3"];
        let likely = [1, 2, 1, 2, 8, 12];
        let mut keywords: Vec<&'static str> = all
            .into_iter()
            .zip(likely)
            .filter_map(|(word, times)| {
                (times == 1 && !self.dice.once_in(4) || times > 1 && self.dice.once_in(times))
                    .then_some(word)
            })
            .collect();
        // Most contents here have 8-bit octets, and a server without this takes none of them.
        if !keywords.contains(&"8BITMIME") && !self.dice.once_in(10) {
            keywords.push("8BITMIME");
        }
        let rarely = [8, 40, 200, 100_000][self.dice.below(4)];
        let dice = Dice::new(self.dice.roll());
        let mute = AtomicBool::new(false);
        Server { keywords, number, sink: self.sink.clone(), ..Server::default() }.moody(
            move |command, _, _| {
                if mute.load(Ordering::Relaxed) {
                    return Some(Reply::Mute);
                }
                if !dice.once_in(rarely) {
                    return None;
                }
                // No server refuses RSET (RFC 5321 §4.1.1.5); one that did could take a recipient under the reverse-path
                // of the message before.
                let say = |text: &str| {
                    (command != "RSET" || text.starts_with("421")).then(|| Reply::Say(text.into()))
                };
                match dice.below(16) {
                    0..=3 => say("450 4.2.0 not now\r\n"),
                    4 | 5 => say("550 5.1.1 never\r\n"),
                    6 => say("421 4.3.2 closing\r\n"),
                    7 => say("rubbish\r\n"),
                    8 => say("250-a\r\n550 b\r\n"),
                    9 => say("399 what\r\n"),
                    10 => Some(Reply::Hang),
                    11 => Some(Reply::SayAndHang),
                    12 => Some(Reply::After(dice.below(700) as u64)),
                    13 => Some(Reply::Stall),
                    14 => {
                        mute.store(true, Ordering::Relaxed);
                        Some(Reply::Mute)
                    }
                    _ => say("451 4.7.1 grey\r\n"),
                }
            },
        )
    }

    /// Some drains at once, mail arriving, and perhaps the end of the process. `is_fair`: nothing goes wrong.
    fn round(&mut self, is_fair: bool) {
        let dice = self.dice.clone();
        let mut pool = LocalPool::new();
        let trouble = if is_fair { 0 } else { [0, 0, 20, 100][dice.below(4)] };
        let messages = if is_fair { 100 } else { [1, 2, 5, 100][dice.below(4)] };
        let window = Window { messages, bytes: if dice.once_in(3) { 2000 } else { 1 << 20 } };
        let hold = if !is_fair && dice.once_in(4) { dice.below(3000) as u64 } else { 0 };
        let (office, is_dead) = self.office(trouble, window, hold);
        let (giver, stop) = Stop::new();
        let mut running = Vec::new();
        for domains in [vec![DOMAINS[0], DOMAINS[1]], vec![DOMAINS[2]]] {
            for _ in 0..1 + usize::from(!is_fair && dice.once_in(4)) {
                let number = {
                    let mut calls = self.calls.lock().expect("whole");
                    calls.push(Call::new(messages, domains.clone()));
                    calls.len() - 1
                };
                let (server, out, back) = if is_fair {
                    let keywords = vec!["PIPELINING", "8BITMIME"];
                    let sink = self.sink.clone();
                    let server = Server { keywords, number, sink, ..Server::default() };
                    (server, Traits::default(), Traits::default())
                } else {
                    (self.server(number), self.traits(), self.traits())
                };
                let (ours, theirs) = pipe::pair(out, back);
                let wire = Wire {
                    stream: Box::new(ours),
                    peer: "192.0.2.1:25".parse().expect("valid"),
                    tls: None,
                };
                let (office, stop, clock) = (office.clone(), stop.clone(), self.clock.clone());
                let (calls, domains) = (self.calls.clone(), domains.clone());
                let delay = if is_fair { 0 } else { dice.below(200) as u64 };
                let spawner = pool.spawner();
                let work = async move {
                    clock.wait(Duration::from_secs(delay)).await;
                    let Some(lease) = wait_for_lease(&office, &clock, &domains).await else {
                        return;
                    };
                    calls.lock().expect("whole")[number].began = Clock::now(&clock);
                    let serving = server.serve(theirs, clock.clone()).map(drop);
                    spawner.spawn_local(serving).expect("spawned");
                    let last = deliver_dialed(wire, lease, &office, &stop).await;
                    let mut calls = calls.lock().expect("whole");
                    calls[number].ended = Some(last.ended);
                    calls[number].over = Clock::now(&clock);
                };
                running.push(pool.spawner().spawn_local_with_handle(work).expect("spawned"));
            }
        }
        for _ in 0..if is_fair { 0 } else { dice.below(8) } {
            let (id, to, content) = self.compose();
            let (memory, clock, delay) = (self.memory.clone(), self.clock.clone(), dice.below(900));
            let work = async move {
                clock.wait(Duration::from_secs(delay as u64)).await;
                let to: Vec<&str> = to.iter().map(String::as_str).collect();
                put(&*memory, id, &sender(id), &to, &content).await.expect("committed");
            };
            running.push(pool.spawner().spawn_local_with_handle(work).expect("spawned"));
        }
        log::info!(
            "round at {:?}: window {window:?} hold {hold} trouble {trouble}",
            self.clock.now()
        );
        let mut giver = Some(giver);
        if !is_fair && dice.once_in(5) {
            let (clock, delay, giver) = (self.clock.clone(), dice.below(600), giver.take());
            let work = async move {
                clock.wait(Duration::from_secs(delay as u64)).await;
                drop(giver);
            };
            running.push(pool.spawner().spawn_local_with_handle(work).expect("spawned"));
        }
        let mut all = futures::future::join_all(running);
        for _ in 0..20_000 {
            pool.run_until_stalled();
            if is_dead.load(Ordering::Relaxed) && dice.once_in(3) {
                drop((all, pool, giver));
                return self.forget_uncommitted();
            }
            if (&mut all).now_or_never().is_some() {
                return;
            }
            pool.run_until_stalled();
            if (&mut all).now_or_never().is_some() {
                return;
            }
            if !self.clock.jump() {
                assert!(is_dead.load(Ordering::Relaxed), "everybody waits for nothing");
                drop((all, pool));
                return self.forget_uncommitted();
            }
        }
        assert!(is_dead.load(Ordering::Relaxed), "a drain without end at {:?}", self.clock.now());
        drop((all, pool));
        self.forget_uncommitted();
    }

    /// After a power cut: calls are over, and intakes that were not done never promised anything.
    fn forget_uncommitted(&mut self) {
        let now = Clock::now(&self.clock);
        for call in self.calls.lock().expect("whole").iter_mut() {
            call.over = call.over.min(now);
        }
        let taken: BTreeSet<u128> =
            self.sink.lock().expect("whole").iter().map(|(_, message)| id_of(message)).collect();
        let queued: BTreeSet<u128> =
            at_once(self.memory.query(Filter::default(), None, usize::MAX))
                .expect("a listing")
                .iter()
                .map(|head| head.id.to_bits())
                .collect();
        self.mail.retain(|id, _| taken.contains(id) || queued.contains(id));
    }

    fn check(&self) {
        let calls = self.calls.lock().expect("whole");
        // Message and recipient to the calls that took it.
        let mut taken: BTreeMap<(u128, String), Vec<usize>> = BTreeMap::new();
        for (number, message) in self.sink.lock().expect("whole").iter() {
            let call = &calls[*number];
            let id = id_of(message);
            let (to, content) = &self.mail[&id];
            assert!(
                message.content == *content || is_converted(&message.content, content),
                "message {id} was changed"
            );
            assert_eq!(message.from, sender(id), "message {id}");
            for path in &message.to {
                assert!(to.contains(path), "message {id} is not for {path}");
                let theirs =
                    call.domains.iter().any(|domain| path.ends_with(&format!("@{domain}")));
                assert!(theirs, "{path} on a call for {:?}", call.domains);
                taken.entry((id, path.clone())).or_default().push(*number);
            }
        }
        let mut failed = BTreeSet::new();
        for head in
            at_once(self.memory.query(Filter::default(), None, usize::MAX)).expect("a listing")
        {
            for held in head.recipients {
                let path = held.recipient.forward_path.to_string();
                assert!(
                    matches!(held.state, RecipientState::Failed(_)),
                    "message {} for {path} is still {:?}",
                    head.id.to_bits(),
                    held.state
                );
                failed.insert((head.id.to_bits(), path));
            }
        }
        for (id, (to, _)) in &self.mail {
            for path in to {
                let key = (*id, path.clone());
                assert!(
                    taken.contains_key(&key) || failed.contains(&key),
                    "message {id} for {path} is lost"
                );
            }
        }
        // Twice only where a connection broke, or was overthrown with the message under way; at most one that
        // ended in order took it, and those that did not doubled at most a window of messages each.
        let mut doubled: BTreeMap<usize, BTreeSet<u128>> = BTreeMap::new();
        for ((id, path), numbers) in &taken {
            let unique: BTreeSet<usize> = numbers.iter().copied().collect();
            assert_eq!(
                unique.len(),
                numbers.len(),
                "message {id} for {path} twice on one connection"
            );
            let orderly: Vec<&usize> =
                numbers.iter().filter(|number| calls[**number].is_orderly()).collect();
            assert!(
                orderly.len() <= 1,
                "message {id} for {path} came on {orderly:?}, which all ended in order"
            );
            for pair in numbers.windows(2) {
                // Where two overlap, the first was overthrown, and what came twice is in the second's account.
                let is_after = calls[pair[1]].began > calls[pair[0]].over;
                if !calls[pair[0]].is_orderly() && is_after {
                    doubled.entry(pair[0]).or_default().insert(*id);
                }
            }
        }
        for (number, ids) in doubled {
            let window = calls[number].window;
            assert!(ids.len() as u64 <= window, "{} of a window of {window} came twice", ids.len());
        }
    }
}

/// Everybody's own, so that one under another's envelope is seen.
fn sender(id: u128) -> String {
    format!("t{id}@foo.example")
}

fn id_of(message: &Message) -> u128 {
    let text = String::from_utf8_lossy(&message.content);
    let line = text.lines().next().expect("a line");
    line.strip_prefix("Id: ").expect("an id").parse().expect("a number")
}

/// A customer calls until it gets its lease.
async fn wait_for_lease(office: &Office, clock: &Clock, domains: &[&str]) -> Option<Lease> {
    let name = if domains.contains(&"bolt.example") { "bolt" } else { "acme" };
    for _ in 0..40 {
        let request = LeaseRequest {
            customer: CustomerName::parse(name).expect("valid"),
            domains: domains.iter().map(|text| domain(text)).collect(),
            owner: "call".into(),
            lasts: Duration::from_secs(900),
            overthrow_after: Duration::from_secs(60),
        };
        if let LeaseAnswer::Granted(lease) = office.store.lease(request).await.expect("answered") {
            return Some(lease);
        }
        clock.wait(Duration::from_secs(30)).await;
    }
    None
}

/// Shows the log of a single seed.
struct Talk;

impl log::Log for Talk {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        struct Line(String);
        impl<'a> log::kv::VisitSource<'a> for Line {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'a>,
                value: log::kv::Value<'a>,
            ) -> Result<(), log::kv::Error> {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut line = Line(record.args().to_string());
        let _ = record.key_values().visit(&mut line);
        println!("{}", line.0);
    }
    fn flush(&self) {}
}

fn play(seed: u64) {
    let mut sim = Sim::new(seed);
    let dice = sim.dice.clone();
    for _ in 0..1 + dice.below(4) {
        for _ in 0..dice.below(12) {
            let (id, to, content) = sim.compose();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            at_once(put(&*sim.memory, id, &sender(id), &to, &content)).expect("committed");
        }
        sim.round(false);
    }
    // In the end the weather is fair; a lease that a power cut left behind ends by its clock.
    for _ in 0..2 {
        sim.round(true);
    }
    sim.check();
}

#[test]
fn nothing_is_lost_and_twice_comes_only_what_was_in_doubt() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("RESTANTE_SIM_SEED") {
        log::set_logger(&Talk).expect("the first");
        log::set_max_level(log::LevelFilter::Debug);
        return play(seed);
    }
    let seeds = number("RESTANTE_SIM_SEEDS").unwrap_or(1000);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| play(seed));
                    if outcome.is_err() {
                        panic!("seed {seed} failed; play it with RESTANTE_SIM_SEED={seed}");
                    }
                }
            });
        }
    });
}

/// Whether `content` is `original` made 7-bit for a server without 8BITMIME: an independent reader decodes it.
fn is_converted(content: &[u8], original: &[u8]) -> bool {
    let Some(parsed) = mail_parser::MessageParser::default().parse(content) else { return false };
    let Some(body) = original.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    // The reader shows octets that are no UTF-8 as U+FFFD.
    let expected = String::from_utf8_lossy(&original[body + 4..]).into_owned();
    !original.is_ascii()
        && content.is_ascii()
        && parsed.body_text(0).is_some_and(|text| text == expected)
}
