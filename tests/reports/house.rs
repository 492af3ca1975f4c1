//! A provider in memory with two customers, a clock that is set by hand, and a reader of reports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use restante::mail::*;
use restante::provider::report::Reporter;
use restante::provider::{Office, Policy, World, expiry};
use restante::store::*;

/// Clocks that move when told to.
#[derive(Default)]
pub(crate) struct Hands(Mutex<(u64, u64)>);

impl Hands {
    pub(crate) fn pass(&self, seconds: u64) {
        let mut hands = self.0.lock().expect("free");
        hands.0 += seconds;
        hands.1 += seconds;
    }

    /// Only the wall clock.
    pub(crate) fn jump(&self, seconds: u64) {
        self.0.lock().expect("free").0 += seconds;
    }
}

impl World for Hands {
    fn now(&self) -> Timestamp {
        Timestamp((1_795_317_540 + self.0.lock().expect("free").0) * 1000)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.lock().expect("free").1)
    }
    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }
    fn wait(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(futures::future::pending())
    }
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

pub(crate) fn name(text: &str) -> CustomerName {
    CustomerName::parse(text).expect("a name")
}

/// One recipient: address, NOTIFY, ORCPT.
pub(crate) fn recipient(address: &str, notify: Option<Notify>, orcpt: Option<&str>) -> Recipient {
    Recipient {
        forward_path: ForwardPath::parse(address).expect("an address"),
        notify,
        orcpt: orcpt.map(Into::into),
    }
}

pub(crate) struct House {
    pub(crate) office: Arc<Office>,
    pub(crate) hands: Arc<Hands>,
    pub(crate) reporter: Reporter,
}

impl House {
    pub(crate) fn new() -> Self {
        let memory = Arc::new(Memory::new());
        for (customer, its) in [("acme", "acme.example"), ("other", "other.example")] {
            let customer = Customer {
                name: name(customer),
                domains: vec![domain(its)],
                suspended: false,
                credentials: Vec::new(),
                settings: Settings::default(),
                created: Timestamp(0),
                revision: 0,
            };
            block_on(memory.create(customer)).expect("created");
        }
        let hands = Arc::new(Hands::default());
        let policy = Policy::new(domain("mx.provider.example"));
        let office = Arc::new(Office::new(memory.clone(), memory, hands.clone(), policy));
        Self { reporter: Reporter::new(office.clone()), office, hands }
    }

    /// Takes a message; recipients belong to the customer whose domain has its name.
    pub(crate) fn take(&self, envelope: Envelope, content: &[u8]) -> QueueId {
        let id = self.office.next_id();
        let now = self.office.world.now();
        let header =
            content.windows(4).position(|w| w == b"\r\n\r\n").map_or(content.len(), |p| p + 2);
        let owner =
            |r: &Recipient| name(r.forward_path.domain().as_str().split('.').next().expect("one"));
        let message = NewMessage {
            id,
            owners: envelope.recipients.iter().map(owner).collect(),
            expires: vec![now.after(self.office.policy().expire_after); envelope.recipients.len()],
            facts: ContentFacts {
                size: content.len() as u64,
                has_8bit_header: !content[..header].is_ascii(),
                has_8bit_body: !content[header..].is_ascii(),
                message_id: Some("<1@foo.example>".into()),
                ..ContentFacts::default()
            },
            envelope,
            arrived: now,
        };
        block_on(async {
            let mut body = self.office.store.begin_body(id, 0).await.expect("a body");
            body.write(content).await.expect("written");
            self.office.store.commit(message, body).await.expect("durable");
        });
        id
    }

    /// A message from this sender to these recipients.
    pub(crate) fn mail(&self, from: &str, recipients: Vec<Recipient>) -> QueueId {
        let reverse_path = ReversePath::parse(from).expect("a reverse-path");
        let envelope = Envelope { reverse_path, recipients, ..Envelope::default() };
        self.take(envelope, b"Subject: hello\r\nMessage-ID: <1@foo.example>\r\n\r\nbody\r\n")
    }

    /// A drain of this customer settles so.
    pub(crate) fn settle(&self, customer: &str, settlements: Vec<(QueueId, u32, Verdict)>) {
        let wish = LeaseRequest {
            customer: name(customer),
            domains: vec![domain(&format!("{customer}.example"))],
            owner: "test".into(),
            lasts: Duration::from_secs(60),
            overthrow_after: Duration::from_secs(60),
        };
        block_on(async {
            let LeaseAnswer::Granted(lease) = self.office.store.lease(wish).await.expect("asked")
            else {
                panic!("busy")
            };
            let all = settlements.into_iter().map(|(id, index, verdict)| Settlement {
                id,
                index,
                verdict,
            });
            self.office.store.settle(&lease, all.collect()).await.expect("settled");
            self.office.store.release(lease).await.expect("released");
        });
    }

    /// A report has left.
    pub(crate) fn settle_relay(&self, id: QueueId) {
        let filter = Filter { ids: vec![id], ..Filter::default() };
        block_on(self.office.store.apply(filter, QueueAction::Remove)).expect("removed");
    }

    /// The reporter looks at everything.
    pub(crate) fn report(&self) {
        block_on(self.reporter.round());
    }

    pub(crate) fn expire(&self) -> u64 {
        block_on(expiry::expire(&self.office)).expect("expired")
    }

    pub(crate) fn query(&self, filter: Filter) -> Vec<Head> {
        block_on(self.office.store.query(filter, None, 1000)).expect("asked")
    }

    /// What waits for this customer's name.
    pub(crate) fn waiting(&self, customer: &str) -> Vec<Head> {
        self.query(Filter { customer: Some(name(customer)), ..Filter::default() })
    }

    pub(crate) fn body(&self, id: QueueId) -> Vec<u8> {
        block_on(async {
            let mut reader = self.office.store.open_body(id, 0).await.expect("a body");
            let mut octets = Vec::new();
            loop {
                let chunk = reader.read().await.expect("read");
                if chunk.is_empty() {
                    return octets;
                }
                octets.extend(chunk);
            }
        })
    }

    /// The one report that waits to be sent out.
    pub(crate) fn only_report(&self) -> (Head, String) {
        let mut out = self.waiting("relay");
        assert_eq!(out.len(), 1, "one report");
        let head = out.remove(0);
        let text = String::from_utf8(self.body(head.id)).expect("UTF-8");
        (head, text)
    }
}

pub(crate) fn failed(reply: &str) -> Verdict {
    Verdict::Said(Outcome::Failed(ReplyText::clean(reply)))
}

pub(crate) fn delivered() -> Verdict {
    Verdict::Said(Outcome::Delivered(ReplyText::clean("250 ok")))
}

pub(crate) fn later(reply: &str) -> Verdict {
    Verdict::Said(Outcome::Later(ReplyText::clean(reply)))
}

/// The parts of a report as an independent reader sees them: type and text of each.
pub(crate) fn parts(report: &str) -> Vec<(String, String)> {
    use mail_parser::{MessageParser, MimeHeaders, PartType};
    let message = MessageParser::default().parse(report.as_bytes()).expect("a message");
    let root = message.parts[0].content_type().expect("a type");
    assert_eq!((root.c_type.as_ref(), root.c_subtype.as_deref()), ("multipart", Some("report")));
    assert_eq!(root.attribute("report-type"), Some("delivery-status"));
    let PartType::Multipart(children) = &message.parts[0].body else { panic!("not multipart") };
    children
        .iter()
        .map(|child| {
            let part = &message.parts[*child as usize];
            let kind = part.content_type().expect("a type");
            let kind = format!("{}/{}", kind.c_type, kind.c_subtype.as_deref().unwrap_or(""));
            let text = match &part.body {
                PartType::Message(inner) => {
                    String::from_utf8_lossy(inner.raw_message()).into_owned()
                }
                _ => String::from_utf8_lossy(part.contents()).into_owned(),
            };
            (kind, text.replace("\r\n", "\n"))
        })
        .collect()
}

/// The groups of fields of message/delivery-status, unfolded.
pub(crate) fn groups(status: &str) -> Vec<Vec<(String, String)>> {
    let unfolded = status.replace("\n ", " ").replace("\n\t", " ");
    unfolded
        .split("\n\n")
        .filter(|group| !group.trim().is_empty())
        .map(|group| {
            let fields = group.lines().filter_map(|line| line.split_once(": "));
            fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
        })
        .collect()
}

pub(crate) fn field<'a>(group: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    group.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}
