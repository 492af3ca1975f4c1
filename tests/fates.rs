//! Any envelope, any servers, any order of drains, reports and time: each recipient ends delivered, queued or reported,
//! exactly once. Drains, reporter and expiry are the real ones; what happened is read from the servers' own books.

mod drain_support;
#[path = "reports/house.rs"]
#[allow(dead_code, reason = "only its reader of reports is used")]
mod house;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drain_support::pipe::{Traits, pair};
use drain_support::server::{Reply, Server};
use drain_support::{Place, domain};
use futures::executor::block_on;
use house::{field, groups, parts};
use proptest::prelude::*;
use restante::mail::*;
use restante::net::deliver::deliver_dialed;
use restante::net::wire::Wire;
use restante::provider::report::Reporter;
use restante::provider::{Window, World, expiry};
use restante::store::*;

const DAY: u64 = 86_400;
/// Customer, domain, days until its mail expires.
const CUSTOMERS: [(&str, &str, u64); 3] =
    [("acme", "example.com", 30), ("bolt", "bolt.example", 10), ("third", "third.example", 30)];

/// What a server says to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Yes,
    Later,
    No,
    /// The line dies before the reply; at the end of data the message was taken all the same.
    Cut,
}

#[derive(Clone, Debug)]
enum Step {
    /// A drain of this customer: keywords, then replies to MAIL, to each RCPT and to the end of data.
    Drain {
        customer: usize,
        keywords: Vec<&'static str>,
        mail: Say,
        rcpt: Vec<Say>,
        end: Say,
    },
    Report,
    Expire,
    Pass(u64),
}

#[derive(Clone, Debug)]
struct Plan {
    from: &'static str,
    /// Of acme (0) or bolt (1); NOTIFY; ORCPT; a UTF-8 local part.
    to: Vec<(usize, Option<Notify>, bool, bool)>,
    ret: Option<Ret>,
    envid: bool,
    is_8bit: bool,
    /// acme's reject-policy is retry.
    retries: bool,
    steps: Vec<Step>,
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![6 => Just(Say::Yes), 2 => Just(Say::Later), 2 => Just(Say::No), 1 => Just(Say::Cut)]
}

fn notify() -> impl Strategy<Value = Option<Notify>> {
    prop::option::of(
        (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(success, failure, delay)| Notify { success, failure, delay }),
    )
}

fn step() -> impl Strategy<Value = Step> {
    let keywords = prop::sample::subsequence(
        vec!["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "LIMITS RCPTMAX=2"],
        0..=6,
    );
    let drain = (0..2usize, keywords, say(), prop::collection::vec(say(), 6), say()).prop_map(
        |(customer, keywords, mail, rcpt, end)| Step::Drain { customer, keywords, mail, rcpt, end },
    );
    prop_oneof![
        5 => drain,
        2 => Just(Step::Report),
        1 => Just(Step::Expire),
        2 => prop::sample::select(vec![60, 3600, DAY, 9 * DAY, 20 * DAY]).prop_map(Step::Pass),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let from = prop::sample::select(vec![
        "",
        "t@foo.example",
        "t@foo.example",
        "t@third.example",
        "t\u{fc}@foo.example",
        "t@[192.0.2.1]",
    ]);
    let one = (0..2usize, notify(), any::<bool>(), prop::bool::weighted(0.2));
    (
        from,
        prop::collection::vec(one, 1..6),
        prop::option::of(prop::sample::select(vec![Ret::Full, Ret::Headers])),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.3),
        prop::collection::vec(step(), 1..8),
    )
        .prop_map(|(from, to, ret, envid, is_8bit, retries, steps)| Plan {
            from,
            to,
            ret,
            envid,
            is_8bit,
            retries,
            steps,
        })
}

/// What a server noted of one recipient.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    /// Taken, and we were told so; by a server without DSN or with it.
    taken_without_dsn: u32,
    taken_with_dsn: u32,
    /// Taken, and the line died before we were told.
    in_doubt: u32,
    /// Refused for good, by name or with the content.
    refused: u32,
    /// MAIL was refused for good, in a transaction that may have been for this one.
    may_be_refused: u32,
}

type Books = Arc<Mutex<BTreeMap<String, Book>>>;

struct Play {
    place: Place,
    books: Books,
    addresses: Vec<String>,
    owners: Vec<usize>,
    id: QueueId,
    reporter: Reporter,
}

fn name(customer: usize) -> CustomerName {
    CustomerName::parse(CUSTOMERS[customer].0).expect("valid")
}

impl Play {
    fn new(plan: &Plan) -> Self {
        let settings = Settings {
            reject_policy: plan.retries.then_some(RejectPolicy::Retry),
            ..Settings::default()
        };
        let place = Place::with(settings, Window::default());
        for (customer, its, _) in &CUSTOMERS[1..] {
            let customer = Customer {
                name: CustomerName::parse(customer).expect("valid"),
                domains: vec![domain(its)],
                suspended: false,
                credentials: Vec::new(),
                settings: Settings::default(),
                created: Timestamp(0),
                revision: 0,
            };
            block_on(place.memory.create(customer)).expect("created");
        }
        let addresses: Vec<String> = plan
            .to
            .iter()
            .enumerate()
            .map(|(n, (customer, _, _, is_utf8))| {
                let local = if *is_utf8 { "r\u{fc}" } else { "r" };
                format!("{local}{n}@{}", CUSTOMERS[*customer].1)
            })
            .collect();
        let owners: Vec<usize> = plan.to.iter().map(|(customer, ..)| *customer).collect();
        let id = Self::take(&place, plan, &addresses, &owners);
        let reporter = Reporter::new(place.office.clone());
        Self { place, books: Books::default(), addresses, owners, id, reporter }
    }

    fn take(place: &Place, plan: &Plan, addresses: &[String], owners: &[usize]) -> QueueId {
        let now = World::now(&place.clock);
        let id = QueueId::from_bits(1);
        let recipients =
            plan.to.iter().zip(addresses).map(|((_, notify, orcpt, _), address)| Recipient {
                forward_path: ForwardPath::parse(address).expect("a path"),
                notify: *notify,
                orcpt: orcpt.then(|| "rfc822;original@sender.example".into()),
            });
        let needs_utf8 =
            !plan.from.is_ascii() || addresses.iter().any(|address| !address.is_ascii());
        let envelope = Envelope {
            reverse_path: ReversePath::parse(plan.from).expect("a path"),
            recipients: recipients.collect(),
            smtputf8: needs_utf8,
            body: if plan.is_8bit { BodyKind::EightBitMime } else { BodyKind::SevenBit },
            dsn: DsnRequest { envid: plan.envid.then(|| "E+2B1".into()), ret: plan.ret },
        };
        let content: &[u8] = if plan.is_8bit {
            "Subject: x\r\nMIME-Version: 1.0\r\n\r\nk\u{f6}rper\r\n".as_bytes()
        } else {
            b"Subject: x\r\n\r\nbody\r\n.\r\n"
        };
        let message = NewMessage {
            id,
            envelope,
            owners: owners.iter().map(|customer| name(*customer)).collect(),
            facts: ContentFacts {
                size: content.len() as u64,
                has_8bit_body: plan.is_8bit,
                ..ContentFacts::default()
            },
            arrived: now,
            expires: owners.iter().map(|c| now.after(Seconds(CUSTOMERS[*c].2 * DAY))).collect(),
        };
        block_on(async {
            let mut body = place.memory.begin_body(id, 0).await.expect("a body");
            body.write(content).await.expect("written");
            place.memory.commit(message, body).await.expect("durable");
        });
        id
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Report => block_on(self.reporter.round()),
            Step::Expire => {
                block_on(expiry::expire(&self.place.office)).expect("the store works");
            }
            Step::Pass(seconds) => {
                let clock = self.place.clock.clone();
                self.place.run(World::wait(&clock, Duration::from_secs(*seconds)));
            }
            Step::Drain { customer, keywords, mail, rcpt, end } => {
                self.drain(*customer, keywords, *mail, rcpt, *end);
            }
        }
    }

    fn drain(
        &mut self,
        customer: usize,
        keywords: &[&'static str],
        mail: Say,
        rcpt: &[Say],
        end: Say,
    ) {
        let server = self.server(customer, keywords, mail, rcpt, end);
        let (ours, theirs) = pair(Traits::default(), Traits::default());
        let (office, stop) = (self.place.office.clone(), self.place.stop.clone());
        let wish = LeaseRequest {
            customer: name(customer),
            domains: vec![domain(CUSTOMERS[customer].1)],
            owner: "test".into(),
            lasts: Duration::from_secs(900),
            overthrow_after: Duration::from_secs(60),
        };
        let work = async move {
            let LeaseAnswer::Granted(lease) = office.store.lease(wish).await.expect("asked") else {
                panic!("nobody else drains")
            };
            let peer = "192.0.2.1:25".parse().expect("valid");
            let wire = Wire { stream: Box::new(ours), peer, tls: None };
            deliver_dialed(wire, lease, &office, &stop).await
        };
        let drain = self.place.spawn(work);
        let serving = self.place.spawn(server.serve(theirs, self.place.clock.clone()));
        self.place.run(futures::future::join(drain, serving));
    }

    /// A server that keeps books of what it did to whom.
    fn server(
        &self,
        customer: usize,
        keywords: &[&'static str],
        mail: Say,
        rcpt: &[Say],
        end: Say,
    ) -> Server {
        let (books, addresses, rcpt) = (self.books.clone(), self.addresses.clone(), rcpt.to_vec());
        let its: Vec<String> = addresses
            .iter()
            .zip(&self.owners)
            .filter(|(_, owner)| **owner == customer)
            .map(|(address, _)| address.clone())
            .collect();
        let has_dsn = keywords.contains(&"DSN");
        // Whom the transaction under way has accepted.
        let accepted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let is_open = Arc::new(Mutex::new(false));
        Server::offering(keywords).moody(move |command, _, _| {
            let mut books = books.lock().expect("whole");
            let mut accepted = accepted.lock().expect("whole");
            let answer = |say: Say| match say {
                Say::Yes => None,
                Say::Later => Some(Reply::Say("451 4.3.0 later\r\n".into())),
                Say::No => Some(Reply::Say("554 5.0.0 never\r\n".into())),
                Say::Cut => Some(Reply::Hang),
            };
            if command.starts_with("MAIL") {
                accepted.clear();
                *is_open.lock().expect("whole") = mail == Say::Yes;
                if mail == Say::No {
                    its.iter()
                        .for_each(|to| books.entry(to.clone()).or_default().may_be_refused += 1);
                }
                return answer(mail);
            }
            if !*is_open.lock().expect("whole") {
                // Out of order, and told so.
                return None;
            }
            if let Some(path) = command.strip_prefix("RCPT TO:<") {
                let to = path.split('>').next().expect("a path").to_owned();
                let at = addresses.iter().position(|a| *a == to).expect("one of ours");
                match rcpt[at] {
                    Say::Yes => drop(accepted.insert(to)),
                    Say::No => books.entry(to).or_default().refused += 1,
                    Say::Later | Say::Cut => {}
                }
                return answer(rcpt[at]);
            }
            if accepted.is_empty() {
                return None;
            }
            if command == "." || (command.starts_with("BDAT") && command.ends_with("LAST")) {
                for to in std::mem::take(&mut *accepted) {
                    let book = books.entry(to).or_default();
                    match end {
                        Say::Yes if has_dsn => book.taken_with_dsn += 1,
                        Say::Yes => book.taken_without_dsn += 1,
                        Say::No => book.refused += 1,
                        Say::Cut => book.in_doubt += 1,
                        Say::Later => {}
                    }
                }
                return answer(end);
            }
            None
        })
    }

    /// The actions that reports in this queue tell of, by final recipient; each report is checked on the way.
    fn told(&self, queue: &str, plan: &Plan) -> BTreeMap<String, Vec<String>> {
        let customer = Some(CustomerName::parse(queue).expect("valid"));
        let filter = Filter { customer, ..Filter::default() };
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for head in block_on(self.place.memory.query(filter, None, 100)).expect("asked") {
            assert!(head.envelope.reverse_path.is_null(), "no report about a report");
            assert_eq!(head.recipients.len(), 1);
            assert_eq!(head.recipients[0].recipient.forward_path.as_str(), plan.from);
            let text = self.body(head.id);
            let parts = parts(&text);
            let groups = groups(&parts[1].1);
            let envid = field(&groups[0], "Original-Envelope-Id");
            assert_eq!(envid, plan.envid.then_some("E+1"));
            let has_failure = groups.iter().any(|group| field(group, "Action") == Some("failed"));
            let is_whole = parts[2].0 == "message/rfc822";
            assert_eq!(is_whole, plan.ret == Some(Ret::Full) && has_failure, "RET");
            for group in groups.iter().skip(1) {
                let last = field(group, "Final-Recipient").expect("there");
                let (_, last) = last.split_once("; ").expect("a type");
                let last = last.replace("\\x{FC}", "\u{fc}");
                let at = self.addresses.iter().position(|a| *a == last).expect("one of ours");
                let original = field(group, "Original-Recipient");
                let wanted = plan.to[at].2.then_some("rfc822; original@sender.example");
                assert_eq!(original, wanted, "ORCPT");
                let action = field(group, "Action").expect("there").to_owned();
                let class = if action == "failed" { "5." } else { "2." };
                assert!(field(group, "Status").expect("there").starts_with(class));
                told.entry(last).or_default().push(action);
            }
        }
        told
    }

    fn body(&self, id: QueueId) -> String {
        block_on(async {
            let mut reader = self.place.memory.open_body(id, 0).await.expect("a body");
            let mut octets = Vec::new();
            loop {
                let chunk = reader.read().await.expect("read");
                if chunk.is_empty() {
                    return String::from_utf8(octets).expect("UTF-8");
                }
                octets.extend(chunk);
            }
        })
    }
}

fn run(plan: &Plan) {
    let mut play = Play::new(plan);
    plan.steps.iter().for_each(|step| play.step(step));
    let passed: u64 = plan.steps.iter().map(|s| if let Step::Pass(n) = s { *n } else { 0 }).sum();
    play.step(&Step::Report);
    play.step(&Step::Report);
    let mut told = play.told("relay", plan);
    for (to, actions) in play.told("third", plan) {
        told.entry(to).or_default().extend(actions);
    }
    let filter = Filter { ids: vec![play.id], ..Filter::default() };
    let left = block_on(play.place.memory.query(filter, None, 10)).expect("asked");
    let has_cut = format!("{:?}", plan.steps).contains("Cut");
    let cannot_be_told = plan.from.is_empty() || plan.from.contains('[');
    for (n, (customer, notify, _, _)) in plan.to.iter().enumerate() {
        let to = &play.addresses[n];
        let book = play.books.lock().expect("whole").get(to).copied().unwrap_or_default();
        let held =
            left.iter().flat_map(|head| &head.recipients).find(|held| held.index as usize == n);
        let reports = told.remove(to).unwrap_or_default();
        let taken = book.taken_without_dsn + book.taken_with_dsn;
        let seen = format!("{to}: {book:?}, held {held:?}, reports {reports:?}");
        assert!(taken <= 1, "delivered once, but for lines that were cut: {seen}");
        assert!(reports.len() <= 1, "reported once: {seen}");
        let wants_relayed = notify.is_some_and(|wish| wish.success) && !plan.from.is_empty();
        match held.map(|held| &held.state) {
            // Delivered, or failed and told.
            None if taken == 1 => {
                let is_due = wants_relayed && !cannot_be_told && book.taken_without_dsn == 1;
                let wanted: &[&str] = if is_due { &["relayed"] } else { &[] };
                assert_eq!(reports, wanted, "{seen}");
            }
            None => {
                let can_have_failed = book.refused + book.may_be_refused > 0
                    || passed >= CUSTOMERS[*customer].2 * DAY
                    // What the server lacks an extension for is given up after a day.
                    || passed >= DAY;
                assert!(can_have_failed, "lost: {seen}");
                let is_due = notify.is_none_or(|wish| wish.failure);
                let is_forgotten = plan.from.is_empty() || (cannot_be_told && is_due);
                // What may be told to nobody is kept as long again, and then it goes with a line in the log.
                let is_over = passed > (CUSTOMERS[*customer].2 + 30) * DAY;
                assert!(!is_forgotten || is_over, "forgotten, though nobody was told: {seen}");
                let is_due = is_due && !is_forgotten;
                let wanted: &[&str] = if is_due { &["failed"] } else { &[] };
                assert_eq!(reports, wanted, "{seen}");
            }
            Some(RecipientState::Queued | RecipientState::Deferred(_)) => {
                assert_eq!(taken, 0, "delivered and kept: {seen}");
                assert_eq!(reports, [""; 0], "{seen}");
                let is_retried = plan.retries && *customer == 0;
                // Where the line was cut in the same transaction, the refusal may not count.
                assert!(book.refused == 0 || is_retried || has_cut, "refused and kept: {seen}");
            }
            Some(RecipientState::Failed(_)) => {
                assert!(cannot_be_told, "failed, and its report is owed: {seen}");
                assert_eq!((taken, reports.len()), (0, 0), "{seen}");
            }
            Some(RecipientState::Relayed(_)) => panic!("the report is owed: {seen}"),
        }
    }
    assert!(told.is_empty(), "nobody else is told of: {told:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("RESTANTE_FATES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    // covers: N-22, O-04
    /// See the head of this file.
    #[test]
    fn delivered_queued_or_reported_exactly_once(plan in plan()) {
        run(&plan);
    }
}

/// The books can tell a fault: a plan whose outcome is known.
#[test]
fn a_known_plan() {
    let wish = Some(Notify { success: true, failure: true, delay: false });
    let plan = Plan {
        from: "t@third.example",
        to: vec![(0, wish, true, false), (0, None, false, false), (1, None, true, false)],
        ret: Some(Ret::Full),
        envid: true,
        is_8bit: false,
        retries: false,
        steps: vec![Step::Drain {
            customer: 0,
            keywords: vec!["PIPELINING"],
            mail: Say::Yes,
            rcpt: vec![Say::Yes, Say::No, Say::Yes],
            end: Say::Yes,
        }],
    };
    run(&plan);
    let mut play = Play::new(&plan);
    plan.steps.iter().for_each(|step| play.step(step));
    play.step(&Step::Report);
    let told = play.told("third", &plan);
    assert_eq!(told["r0@example.com"], ["relayed"]);
    assert_eq!(told["r1@example.com"], ["failed"]);
    assert_eq!(told.len(), 2);
}

// covers: S-28, U-02
/// What a server lacks an extension for waits a day for a better one, and then goes back with the reason.
#[test]
fn a_missing_extension_is_waited_for() {
    let plan = Plan {
        from: "t@third.example",
        to: vec![(0, None, false, true), (0, None, false, false)],
        ret: None,
        envid: false,
        is_8bit: false,
        retries: false,
        steps: vec![],
    };
    let mut play = Play::new(&plan);
    let drain = Step::Drain {
        customer: 0,
        keywords: vec!["8BITMIME"],
        mail: Say::Yes,
        rcpt: vec![Say::Yes; 6],
        end: Say::Yes,
    };
    play.step(&drain);
    play.step(&Step::Report);
    assert!(play.told("third", &plan).is_empty(), "not yet");
    assert_eq!(play.place.states().len(), 1, "the other recipient has its mail");
    play.step(&Step::Pass(DAY - 60));
    play.step(&drain);
    play.step(&Step::Report);
    assert!(play.told("third", &plan).is_empty(), "not yet");
    play.step(&Step::Pass(120));
    play.step(&drain);
    play.step(&Step::Report);
    let told = play.told("third", &plan);
    assert_eq!(told["r\u{fc}0@example.com"], ["failed"]);
    let reports = block_on(play.place.memory.query(Filter::default(), None, 10)).expect("asked");
    let text = play.body(reports[0].id);
    assert!(text.contains("Status: 5.6.7"), "{text}");
}
