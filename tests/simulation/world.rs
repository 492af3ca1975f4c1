//! The world of one seed: a provider over a store that has bad days, other mail servers, and customers of any character.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::{LocalPool, LocalSpawner};
use futures::future::RemoteHandle;
use futures::task::LocalSpawnExt;
use restante::mail::*;
use restante::net::deliver::{deliver, deliver_dialed};
use restante::net::serve::{Host, converse};
use restante::net::stop::Stop;
use restante::net::wire::Wire;
use restante::provider::report::Reporter;
use restante::provider::turn::LEASE_LASTS;
use restante::provider::{Office, Policy, Window, World as _};
use restante::smtp::Door;
use restante::store::{Directory, LeaseAnswer, LeaseRequest, Memory, Store};

use crate::drain_support::caller::Caller;
use crate::drain_support::flaky::{Dice, Flaky};
use crate::drain_support::pipe::{self, End, Traits};
use crate::drain_support::server::{Reply, Server, Sink};
use crate::drain_support::{Clock, at_once, credential, customer, domain};
use crate::mail::{Draft, Letters, Sender};
use crate::places;

pub(crate) const DOMAINS: [&str; 3] = ["example.com", "example.org", "bolt.example"];
/// How often the clock may jump in a round before it counts as endless.
const JUMPS_MAX: usize = 20_000;

/// One connection on which a customer may have taken mail.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ended: Option<String>,
    /// When its drain began, and when it was over.
    pub(crate) began: Duration,
    pub(crate) over: Duration,
    pub(crate) window: u64,
    /// Whose mail it may see.
    pub(crate) domains: Vec<&'static str>,
    /// Its server said what nobody asked for: then it may believe anything of what it was told.
    pub(crate) lied: Arc<AtomicBool>,
}

impl Call {
    /// Everything that it took was recorded.
    pub(crate) fn is_orderly(&self) -> bool {
        let ends =
            ["quit", "deferring", "mailmax", "shutdown", "customer-changed", "closed-by-customer"];
        self.ended.as_deref().is_some_and(|ended| ends.contains(&ended))
    }
}

/// See the module's head.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) clock: Clock,
    pub(crate) memory: Arc<Memory>,
    pub(crate) letters: Letters,
    pub(crate) calls: Arc<Mutex<Vec<Call>>>,
    pub(crate) sink: Sink,
    next_id: u128,
    /// When the power was last cut.
    died: Option<Duration>,
}

/// What the tasks of a round share.
struct Round {
    office: Arc<Office>,
    is_dead: Arc<AtomicBool>,
    host: Host,
    window: u64,
    is_fair: bool,
    spawner: LocalSpawner,
    running: Vec<RemoteHandle<()>>,
}

/// A customer that can log in.
fn with_login(name: &str, domains: &[&str]) -> Customer {
    Customer {
        name: CustomerName::parse(name).expect("valid"),
        domains: domains.iter().map(|text| domain(text)).collect(),
        credentials: vec![credential()],
        ..customer(Settings::default())
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let clock = Clock::default();
        let ticking = clock.clone();
        let memory = Arc::new(Memory::with_clock(Arc::new(move || ticking.now())));
        for customer in [with_login("acme", &DOMAINS[..2]), with_login("bolt", &DOMAINS[2..])] {
            at_once(memory.create(customer)).expect("created");
        }
        Self {
            dice: Dice::new(seed),
            clock,
            memory,
            letters: Arc::default(),
            calls: Arc::default(),
            sink: Sink::default(),
            next_id: 1000,
            died: None,
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
                3 => b".\x01odd\xff",
                _ => b"an ordinary line of text",
            };
            content.extend_from_slice(line);
            content.extend_from_slice(b"\r\n");
        }
        content
    }

    fn draft(&mut self) -> Draft {
        self.next_id += 1;
        let id = self.next_id;
        let mut to: Vec<String> = (0..1 + self.dice.below(4))
            .map(|place| format!("u{place}@{}", DOMAINS[self.dice.below(DOMAINS.len())]))
            .collect();
        to.dedup();
        if self.dice.once_in(10) {
            to.push("u9@elsewhere.example".into());
        }
        Draft { id, to, content: self.content(id) }
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
            newest: Mutex::new(BTreeMap::new()),
            dies_in: AtomicU64::new(0),
        });
        let mut policy = Policy::new(domain("mx.provider.example"));
        policy.window = window;
        policy.drain.hold_open = Some(Seconds(hold));
        policy.drain.wait_for_mail = Some(Seconds(hold / 10));
        policy.auth_requires_tls = false;
        let world = Arc::new(self.clock.clone());
        (Arc::new(Office::new(store, self.memory.clone(), world, policy)), is_dead)
    }

    fn traits(&self, is_fair: bool) -> Traits {
        if is_fair {
            return Traits::default();
        }
        let dice = &self.dice;
        Traits {
            window: 1 + dice.below(if dice.once_in(2) { 200 } else { 100_000 }),
            gulp: if dice.once_in(3) { 1 + dice.below(5) } else { usize::MAX },
            cut_after: dice
                .once_in(3)
                .then(|| 1 + dice.below(if dice.once_in(2) { 1000 } else { 30_000 })),
            cut_loses: dice.once_in(2),
            cut_at_dot: dice.once_in(12).then(|| (1 + dice.below(4), dice.below(3))),
        }
    }

    /// `number` tells the peers apart.
    fn wire(&self, is_fair: bool, number: usize) -> (Wire, End) {
        let (ours, theirs) = pipe::pair(self.traits(is_fair), self.traits(is_fair));
        let peer = format!("192.0.2.1:{}", 1000 + number).parse().expect("valid");
        (Wire { stream: Box::new(ours), peer, tls: None }, theirs)
    }

    /// A customer's server of any character. `lied` is set when it says what nobody asked for.
    fn server(&self, number: usize, lied: Arc<AtomicBool>) -> Server {
        let all = [
            "PIPELINING",
            "CHUNKING",
            "8BITMIME",
            "SIZE",
            "LIMITS RCPTMAX=2",
            "LIMITS MAILMAX=3",
            "LIMITS RCPTDOMAINMAX=1",
        ];
        let likely = [1, 2, 1, 2, 8, 12, 8];
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
        let mood = move |command: &str, _, _| {
            if mute.load(Ordering::Relaxed) {
                return Some(Reply::Mute);
            }
            if !dice.once_in(rarely) {
                return None;
            }
            // No server refuses RSET (RFC 5321 §4.1.1.5); one that did could take a recipient under the reverse-path of
            // the message before.
            let say = |text: &str| {
                (command != "RSET" || text.starts_with("421")).then(|| Reply::Say(text.into()))
            };
            match dice.below(17) {
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
                15 => {
                    lied.store(true, Ordering::Relaxed);
                    Some(Reply::Twice)
                }
                _ => say("451 4.7.1 grey\r\n"),
            }
        };
        Server { keywords, number, sink: self.sink.clone(), ..Server::default() }.moody(mood)
    }

    /// Some customers call at once, mail arrives, reports are written, and perhaps the process ends. `is_fair`:
    /// nothing goes wrong.
    pub(crate) fn round(&mut self, is_fair: bool) {
        let dice = self.dice.clone();
        let pool = LocalPool::new();
        let trouble = if is_fair { 0 } else { [0, 0, 30, 150][dice.below(4)] };
        let messages = if is_fair { 100 } else { [1, 2, 5, 100][dice.below(4)] };
        let window = Window { messages, bytes: if dice.once_in(3) { 2000 } else { 1 << 20 } };
        let hold = if !is_fair && dice.once_in(4) { dice.below(3000) as u64 } else { 0 };
        let (office, is_dead) = self.office(trouble, window, hold);
        let (giver, stop) = Stop::new();
        let host = Host { office: office.clone(), tls: None, stop };
        let spawner = pool.spawner();
        let running = Vec::new();
        let mut round =
            Round { office, is_dead, host, window: messages, is_fair, spawner, running };
        log::info!(
            "round at {:?}: window {window:?} hold {hold} trouble {trouble}",
            self.clock.now()
        );
        for _ in 0..if is_fair { 0 } else { dice.below(5) } {
            self.mail_comes(&mut round);
        }
        for customer in 0..2 {
            for _ in 0..1 + usize::from(!is_fair && dice.once_in(4)) {
                self.customer_calls(&mut round, customer);
            }
        }
        self.reports(&mut round);
        let mut giver = Some(giver);
        if !is_fair && dice.once_in(5) {
            let giver = giver.take();
            self.later(&mut round, 600, async move { drop(giver) });
        }
        self.run(pool, round);
        drop(giver);
    }

    /// Begins some work within so many seconds.
    fn later(&self, round: &mut Round, seconds: usize, work: impl Future<Output = ()> + 'static) {
        let delay = if round.is_fair { 0 } else { self.dice.below(seconds) };
        let clock = self.clock.clone();
        let work = async move {
            clock.wait(Duration::from_secs(delay as u64)).await;
            work.await;
        };
        round.running.push(round.spawner.spawn_local_with_handle(work).expect("spawned"));
    }

    /// Another mail server brings some messages.
    fn mail_comes(&mut self, round: &mut Round) {
        let (wire, end) = self.wire(round.is_fair, 0);
        let drafts: Vec<Draft> = (0..1 + self.dice.below(4)).map(|_| self.draft()).collect();
        let sender = Sender {
            end,
            clock: self.clock.clone(),
            dice: Dice::new(self.dice.roll()),
            letters: self.letters.clone(),
            is_honest: self.dice.once_in(2),
            buffer: Vec::new(),
        };
        let (host, spawner) = (round.host.clone(), round.spawner.clone());
        let work = async move {
            spawner.spawn_local(sender.bring(drafts)).expect("spawned");
            // A wire that breaks is the peer's matter.
            let ended = converse(wire, Door::Mx, &host).await;
            assert!(!matches!(ended, Ok(Some(_))), "a turn at the MX door");
        };
        self.later(round, 900, work);
    }

    /// A customer calls for some or all of its mail, or is called.
    fn customer_calls(&mut self, round: &mut Round, customer: usize) {
        let dice = self.dice.clone();
        let (name, own) = [("acme", &DOMAINS[..2]), ("bolt", &DOMAINS[2..])][customer];
        let domains: Vec<&'static str> = match (round.is_fair, dice.below(4)) {
            (false, 0) => vec![own[dice.below(own.len())]],
            _ => own.to_vec(),
        };
        let lied = Arc::new(AtomicBool::new(false));
        let number = {
            let mut calls = self.calls.lock().expect("whole");
            calls.push(Call {
                ended: None,
                began: Duration::ZERO,
                over: Duration::MAX,
                window: round.window,
                domains: domains.clone(),
                lied: lied.clone(),
            });
            calls.len() - 1
        };
        let server = if round.is_fair {
            let keywords = vec!["PIPELINING", "8BITMIME"];
            Server { keywords, number, sink: self.sink.clone(), ..Server::default() }
        } else {
            self.server(number, lied)
        };
        let (wire, end) = self.wire(round.is_fair, number);
        let (label, memory) = (wire.peer.to_string(), self.memory.clone());
        let (clock, calls, host) = (self.clock.clone(), self.calls.clone(), round.host.clone());
        let spawner = round.spawner.clone();
        let began = move |calls: &Mutex<Vec<Call>>, clock: &Clock| {
            calls.lock().expect("whole")[number].began = Clock::now(clock);
        };
        let is_called = !round.is_fair && dice.once_in(6);
        let list = match dice.once_in(2) && domains.len() == own.len() {
            true => String::new(),
            false => domains.join(","),
        };
        let tries = if round.is_fair { 80 } else { 6 };
        let work = async move {
            let last = if is_called {
                let Some(lease) = lease_for_call(&host.office, &clock, name, &domains).await else {
                    return;
                };
                began(&calls, &clock);
                let serving = server.serve(end, clock.clone()).map(|taken| noted(taken.broken));
                spawner.spawn_local(serving).expect("spawned");
                deliver_dialed(wire, lease, &host.office, &host.stop).await
            } else {
                let caller =
                    Caller { end, clock: clock.clone(), name, domains: list, tries, server };
                spawner.spawn_local(caller.call().map(noted)).expect("spawned");
                let Ok(Some(reversed)) = converse(wire, Door::Odmr, &host).await else {
                    return has_no_lease(&memory, &label);
                };
                began(&calls, &clock);
                deliver(reversed, &host.office, &host.stop).await
            };
            has_no_lease(&memory, &label);
            let mut calls = calls.lock().expect("whole");
            calls[number].ended = Some(last.ended);
            calls[number].over = Clock::now(&clock);
        };
        self.later(round, 200, work);
    }

    /// What is owed to senders is told.
    fn reports(&self, round: &mut Round) {
        let reporter = Reporter::new(round.office.clone());
        self.later(round, 900, async move { reporter.round().await });
    }

    /// Runs to the end of all work, or to the end of the process.
    fn run(&mut self, mut pool: LocalPool, round: Round) {
        let Round { is_dead, running, host, office, .. } = round;
        let mut all = futures::future::join_all(running);
        let mut is_over = false;
        for _ in 0..JUMPS_MAX {
            pool.run_until_stalled();
            if is_dead.load(Ordering::Relaxed) && self.dice.once_in(3) {
                break;
            }
            // The work may have woken others.
            is_over = (&mut all).now_or_never().is_some() || {
                pool.run_until_stalled();
                (&mut all).now_or_never().is_some()
            };
            if is_over || !self.clock.jump() {
                break;
            }
        }
        let has_died = is_dead.load(Ordering::Relaxed);
        assert!(is_over || has_died, "a session without end at {:?}", self.clock.now());
        drop((all, pool, host, office));
        if has_died {
            self.power_is_back();
        } else {
            self.queues_are_free();
        }
    }

    /// After a power cut: calls are over.
    fn power_is_back(&mut self) {
        let now = Clock::now(&self.clock);
        self.died = Some(now);
        places::count("power cuts");
        for call in self.calls.lock().expect("whole").iter_mut() {
            call.over = call.over.min(now);
        }
    }

    /// Whoever held a lease has handed it back, however it ended.
    fn queues_are_free(&self) {
        for (name, domains) in [("acme", &DOMAINS[..2]), ("bolt", &DOMAINS[2..])] {
            match at_once(self.memory.lease(wish(name, domains))).expect("answered") {
                LeaseAnswer::Granted(lease) => {
                    at_once(self.memory.release(lease)).expect("released");
                }
                LeaseAnswer::Busy { by, domain } => {
                    // A power cut may have left it to its clock.
                    let now = Clock::now(&self.clock);
                    let excused = self.died.is_some_and(|died| now < died + LEASE_LASTS);
                    assert!(excused, "all calls are over, and {domain} is still leased by {by}");
                }
            }
        }
    }
}

/// A call that is over holds nothing, however it ended.
fn has_no_lease(memory: &Memory, label: &str) {
    for (name, domains) in [("acme", &DOMAINS[..2]), ("bolt", &DOMAINS[2..])] {
        for domain in domains {
            let wish = LeaseRequest { overthrow_after: Duration::MAX, ..wish(name, &[domain]) };
            match at_once(memory.lease(wish)).expect("answered") {
                LeaseAnswer::Granted(lease) => at_once(memory.release(lease)).expect("released"),
                LeaseAnswer::Busy { by, .. } => {
                    assert_ne!(by, label, "the call is over, and {domain} is still leased to it");
                }
            }
        }
    }
}

fn noted(place: Option<&'static str>) {
    place.into_iter().for_each(places::seen);
}

fn wish(name: &str, domains: &[&str]) -> LeaseRequest {
    LeaseRequest {
        customer: CustomerName::parse(name).expect("valid"),
        domains: domains.iter().map(|text| domain(text)).collect(),
        owner: "call".into(),
        lasts: Duration::from_secs(900),
        overthrow_after: Duration::from_secs(60),
    }
}

/// As the ETRN path does: asks until it gets its lease.
async fn lease_for_call(
    office: &Office,
    clock: &Clock,
    name: &str,
    domains: &[&str],
) -> Option<Lease> {
    for _ in 0..40 {
        if let Ok(LeaseAnswer::Granted(lease)) = office.store.lease(wish(name, domains)).await {
            return Some(lease);
        }
        clock.wait(Duration::from_secs(30)).await;
    }
    None
}
