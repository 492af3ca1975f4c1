//! The provider's decisions, asked for at the desk: who is taken in, who may log in, who may drain.

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use restante::mail::*;
use restante::provider::{Desk, Office, Policy, World};
use restante::smtp::*;
use restante::store::{Directory, Filter, Memory};

/// A world whose clock stands still and whose waits are over at once.
struct StillWorld;

impl World for StillWorld {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_317_540_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }
    fn wait(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

const PASSWORD: &str = "an ordinary password";

fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("valid")
}

fn customer(name: &str, domains: &[&str]) -> Customer {
    let (scram, cram) =
        sasl::derive(&Secret::from(PASSWORD), vec![7; 16], 4096).expect("a password");
    Customer {
        name: CustomerName::parse(name).expect("valid"),
        domains: domains.iter().map(|d| domain(d)).collect(),
        suspended: false,
        credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(0) }],
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    }
}

struct Place {
    office: Arc<Office>,
    desk: Desk,
}

impl Place {
    fn new(customers: Vec<Customer>) -> Self {
        let memory = Arc::new(Memory::new());
        for customer in customers {
            block_on(memory.create(customer)).expect("created");
        }
        let policy = Policy::new(domain("mx.provider.example"));
        let office = Arc::new(Office::new(memory.clone(), memory, Arc::new(StillWorld), policy));
        let peer = "192.0.2.1:2525".parse().expect("valid");
        Self { desk: Desk::new(office.clone(), peer, None), office }
    }

    fn recipient(&mut self, path: &str) -> Result<(), Refusal> {
        self.recipient_of_size(path, 0)
    }

    fn recipient_of_size(&mut self, path: &str, declared_size: u64) -> Result<(), Refusal> {
        let request = RecipientRequest {
            forward_path: ForwardPath::parse(path).expect("a path"),
            declared_size,
            body: BodyKind::SevenBit,
            smtputf8: false,
        };
        match block_on(self.desk.answer(Question::Recipient(request))) {
            Answer::Verdict(verdict) => verdict,
            other => panic!("not a verdict: {other:?}"),
        }
    }

    /// A whole transaction.
    fn deliver(&mut self, recipients: &[&str], content: &[u8]) -> Result<QueueId, Refusal> {
        let mail = MailRequest { reverse_path: ReversePath::Null, declared_size: 0 };
        let Answer::Verdict(Ok(())) = block_on(self.desk.answer(Question::Mail(mail))) else {
            panic!("MAIL is refused")
        };
        for path in recipients {
            self.recipient(path)?;
        }
        let request = ContentRequest {
            helo: "client.example".into(),
            is_esmtp: true,
            smtputf8: false,
            only_recipient: None,
            declared_size: 0,
        };
        let Answer::Verdict(Ok(())) = block_on(self.desk.answer(Question::Content(request))) else {
            panic!("DATA is refused")
        };
        block_on(self.desk.store(content));
        let recipients = recipients
            .iter()
            .map(|path| Recipient {
                forward_path: ForwardPath::parse(path).expect("a path"),
                notify: None,
                orcpt: None,
            })
            .collect();
        let envelope = Envelope { recipients, ..Envelope::default() };
        let facts = ContentFacts { size: content.len() as u64, ..ContentFacts::default() };
        let commit = Question::Commit(Box::new(CommitRequest { envelope, facts }));
        match block_on(self.desk.answer(commit)) {
            Answer::Committed(outcome) => {
                let Receipt { id, size } = outcome?;
                // One size everywhere: what the log says is what is queued and goes out.
                let held = Filter { ids: vec![id], ..Filter::default() };
                let heads = block_on(self.office.store.query(held, None, 1)).expect("a listing");
                assert_eq!(heads[0].facts.size, size);
                assert_eq!(self.body_of(id).len() as u64, size);
                Ok(id)
            }
            other => panic!("not an outcome: {other:?}"),
        }
    }

    fn login(&mut self, name: &str, password: &str) -> Result<Box<Account>, Refusal> {
        let request = LoginRequest {
            name: name.into(),
            authzid: None,
            mechanism: "PLAIN",
            proof: Proof::Password(Secret::from(password)),
        };
        match block_on(self.desk.answer(Question::Login(request))) {
            Answer::Login(outcome) => outcome,
            other => panic!("not a login: {other:?}"),
        }
    }

    fn turn(&mut self, name: &str, domains: &[&str]) -> Result<(Lease, u64), Refusal> {
        let account = *self.login(name, PASSWORD).expect("logged in");
        let domains = domains.iter().map(|d| domain(d)).collect();
        let request = TurnRequest { account, domains };
        block_on(self.desk.worth_deciding(&request));
        match block_on(self.desk.answer(Question::Turn(request))) {
            Answer::Turn(outcome) => outcome,
            other => panic!("not a turn: {other:?}"),
        }
    }

    fn body_of(&self, id: QueueId) -> String {
        let mut reader = block_on(self.office.store.open_body(id, 0)).expect("a body");
        let mut whole = Vec::new();
        loop {
            let chunk = block_on(reader.read()).expect("sound");
            if chunk.is_empty() {
                return String::from_utf8(whole).expect("text");
            }
            whole.extend(chunk);
        }
    }
}

fn acme_and_other() -> Place {
    Place::new(vec![
        customer("acme", &["example.com", "example.org"]),
        customer("other", &["other.example"]),
    ])
}

#[test]
fn mail_is_taken_for_customers_and_for_the_postmaster_only() {
    let mut place = acme_and_other();
    assert_eq!(place.recipient("l@Example.COM"), Ok(()));
    assert_eq!(place.recipient("l@elsewhere.example"), Err(Refusal::NotOurDomain));
    assert_eq!(place.recipient("l@sub.example.com"), Err(Refusal::NotOurDomain));
    assert_eq!(place.recipient("Postmaster@mx.provider.example"), Ok(()));
    assert_eq!(place.recipient("root@mx.provider.example"), Err(Refusal::NotOurDomain));
}

#[test]
fn a_message_for_two_customers_waits_in_both_queues() {
    let mut place = acme_and_other();
    let id = place.deliver(&["a@example.com", "b@other.example"], b"x\r\n").expect("taken");
    for (name, recipients) in
        [("example.com", "a@example.com"), ("other.example", "b@other.example")]
    {
        let count = block_on(place.office.store.count(&domain(name))).expect("counted");
        assert_eq!(count.messages, 1);
        let filter = restante::store::Filter { domain: Some(domain(name)), ..Default::default() };
        let heads = block_on(place.office.store.query(filter, None, 10)).expect("listed");
        assert_eq!(heads.len(), 1);
        assert_eq!(heads[0].recipients[0].recipient.forward_path.as_str(), recipients);
        assert_eq!(heads[0].recipients.len(), 1);
    }
    let body = place.body_of(id);
    assert!(body.starts_with("Received: from client.example ([192.0.2.1])\r\n"), "{body}");
    assert!(body.ends_with("+0000\r\nx\r\n") && !body.contains("for <"), "{body}");
    let filter = restante::store::Filter::default();
    let heads = block_on(place.office.store.query(filter, None, 10)).expect("listed");
    assert_eq!(heads[0].facts.size, body.len() as u64);
}

#[test]
fn settings_of_the_customer_are_kept_at_rcpt() {
    let mut strict = customer("acme", &["example.com"]);
    strict.settings.message_bytes_max = Some(1000);
    strict.settings.quota_messages = Some(1);
    let known = ["known@example.com".into()].into_iter().collect();
    strict.settings.recipients = Some(RecipientPolicy::Listed(known));
    let mut asleep = customer("asleep", &["asleep.example"]);
    asleep.suspended = true;
    let mut place = Place::new(vec![strict, asleep]);
    assert_eq!(place.recipient("known@example.com"), Ok(()));
    assert_eq!(place.recipient("unknown@example.com"), Err(Refusal::NoSuchRecipient));
    assert_eq!(place.recipient("POSTMASTER@example.com"), Ok(()));
    assert_eq!(place.recipient("x@asleep.example"), Err(Refusal::Suspended));
    let too_big = place.recipient_of_size("known@example.com", 1001);
    assert_eq!(too_big, Err(Refusal::TooBigForRecipient));
    let body = vec![b'x'; 1001];
    assert_eq!(place.deliver(&["known@example.com"], &body), Err(Refusal::TooBigForRecipient));
    place.deliver(&["known@example.com"], b"x\r\n").expect("taken");
    assert_eq!(place.recipient("known@example.com"), Err(Refusal::QuotaExceeded));
}

#[test]
fn a_login_fails_the_same_way_whatever_is_wrong() {
    let mut asleep = customer("asleep", &["asleep.example"]);
    asleep.suspended = true;
    let mut place = Place::new(vec![customer("acme", &["example.com"]), asleep]);
    assert_eq!(place.login("acme", PASSWORD).expect("logged in").login.to_string(), "acme");
    for (name, password) in [
        ("acme", "wrong"),
        ("nobody", PASSWORD),
        ("asleep", PASSWORD),
        ("no body", ""),
        ("acme/x", PASSWORD),
    ] {
        assert_eq!(place.login(name, password), Err(Refusal::LoginFailed), "{name}");
    }
}

#[test]
fn a_dummy_credential_is_stable_and_not_the_neighbours() {
    let mut place = acme_and_other();
    let mut salt = |name: &str| match block_on(place.desk.answer(Question::Credential(name.into())))
    {
        Answer::Credential(Ok(credential)) => credential.scram.salt,
        other => panic!("no credential: {other:?}"),
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("somebody"));
    assert_eq!(salt("acme"), vec![7; 16]);
}

#[test]
fn all_listed_domains_or_none() {
    let mut place = acme_and_other();
    assert_eq!(place.turn("acme", &[]).err(), Some(Refusal::NoMail));
    place.deliver(&["a@example.com"], b"x\r\n").expect("taken");
    for listed in [&["other.example"][..], &["example.com", "other.example"], &["nobody.example"]] {
        assert_eq!(place.turn("acme", listed).err(), Some(Refusal::NotYourDomain), "{listed:?}");
    }
    assert_eq!(place.turn("other", &[]).err(), Some(Refusal::NoMail));
    let (lease, waiting) = place.turn("acme", &["example.org", "example.com"]).expect("granted");
    assert_eq!((waiting, lease.domains().len()), (1, 2));
    assert_eq!(place.turn("acme", &["example.com"]).err(), Some(Refusal::TurnBusy));
    assert_eq!(place.turn("acme", &[]).err(), Some(Refusal::TurnBusy));
    block_on(place.desk.release(lease));
    assert!(place.turn("acme", &["example.com"]).is_ok());
}

#[test]
fn a_bare_call_takes_what_is_free() {
    let mut place = acme_and_other();
    place.deliver(&["a@example.com", "b@example.org"], b"x\r\n").expect("taken");
    let (first, _) = place.turn("acme", &["example.com"]).expect("granted");
    let (second, waiting) = place.turn("acme", &[]).expect("granted");
    assert_eq!(second.domains(), [domain("example.org")]);
    assert_eq!(waiting, 1);
    block_on(place.desk.release(first));
    block_on(place.desk.release(second));
}

#[test]
fn ids_only_grow() {
    let place = acme_and_other();
    let ids: Vec<QueueId> = (0..1000).map(|_| place.office.next_id()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
}
