//! Makers of messages and small helpers for the tests of the store.
#![allow(dead_code)] // each test program uses a part

pub(crate) mod disk;
pub(crate) mod recorder;
pub(crate) mod work;

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use restante::mail::{
    ContentFacts, CramContexts, Credential, Customer, CustomerName, Domain, DsnRequest, Envelope,
    ForwardPath, Lease, Outcome, QueueId, Recipient, ReplyText, ReversePath, ScramVerifier,
    Settings, Timestamp,
};
use restante::store::{
    Directory, Head, LeaseAnswer, LeaseRequest, NewMessage, Settlement, Store, StoreError, Verdict,
};

/// What the tests run over.
pub(crate) trait Engine: Store + Directory {}
impl<T: Store + Directory> Engine for T {}

/// Far away: nothing expires unless a test wants it.
pub(crate) const NEVER: Timestamp = Timestamp(4_000_000_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

pub(crate) fn name(text: &str) -> CustomerName {
    CustomerName::parse(text).expect("a name")
}

/// The id number `n`; higher numbers arrived later.
pub(crate) fn id(n: u64) -> QueueId {
    QueueId::at(1_700_000_000_000 + n, u128::from(n) << 3)
}

pub(crate) fn arrived(n: u64) -> Timestamp {
    Timestamp(1_700_000_000_000 + n)
}

/// A message number `n` for these (address, owner) pairs.
pub(crate) fn message(n: u64, to: &[(&str, &str)]) -> NewMessage {
    let recipients = to
        .iter()
        .map(|(address, _)| Recipient {
            forward_path: ForwardPath::parse(address).expect("an address"),
            notify: None,
            orcpt: Some(format!("rfc822;{address}").into()),
        })
        .collect();
    NewMessage {
        id: id(n),
        envelope: Envelope {
            reverse_path: ReversePath::parse("t@foo.example").expect("an address"),
            recipients,
            smtputf8: n % 2 == 1,
            dsn: DsnRequest { envid: Some("QQ314159".into()), ret: None },
            ..Envelope::default()
        },
        owners: to.iter().map(|(_, owner)| name(owner)).collect(),
        facts: ContentFacts {
            size: 10,
            received_count: 3,
            message_id: Some("<1@foo.example>".into()),
            ..ContentFacts::default()
        },
        arrived: arrived(n),
        expires: vec![NEVER; to.len()],
    }
}

/// A body of `length` octets that depends on `seed`.
pub(crate) fn body(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut octets = Vec::with_capacity(length + 8);
    while octets.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(length);
    octets
}

pub(crate) fn put_body(
    store: &dyn Store,
    message: NewMessage,
    body: &[u8],
) -> Result<(), StoreError> {
    block_on(async {
        let mut writer = store.begin_body(message.id, body.len() as u64).await?;
        for chunk in body.chunks(50_000) {
            writer.write(chunk).await?;
        }
        assert_eq!(writer.written(), body.len() as u64);
        store.commit(message, writer).await
    })
}

/// Commits message `n` with a small body.
pub(crate) fn put(store: &dyn Store, n: u64, to: &[(&str, &str)]) {
    put_body(store, message(n, to), &body(n, 100)).expect("committed");
}

pub(crate) fn read_from(
    store: &dyn Store,
    id: QueueId,
    offset: u64,
) -> Result<Vec<u8>, StoreError> {
    block_on(async {
        let mut reader = store.open_body(id, offset).await?;
        let mut octets = Vec::new();
        loop {
            let chunk = reader.read().await?;
            assert!(chunk.len() <= 64 * 1024, "chunks are small");
            if chunk.is_empty() {
                return Ok(octets);
            }
            octets.extend_from_slice(&chunk);
        }
    })
}

pub(crate) fn request(customer: &str, domains: &[&str]) -> LeaseRequest {
    LeaseRequest {
        customer: name(customer),
        domains: domains.iter().map(|d| domain(d)).collect(),
        owner: format!("session of {customer}"),
        lasts: HOUR,
        overthrow_after: HOUR,
    }
}

pub(crate) fn lease(store: &dyn Store, customer: &str, domains: &[&str]) -> Lease {
    match block_on(store.lease(request(customer, domains))).expect("answered") {
        LeaseAnswer::Granted(lease) => lease,
        LeaseAnswer::Busy { by, domain } => panic!("{domain} is drained by {by}"),
    }
}

pub(crate) fn page(store: &dyn Store, lease: &Lease) -> Vec<Head> {
    block_on(store.next(lease, None, 1000)).expect("a page")
}

pub(crate) fn ids(heads: &[Head]) -> Vec<QueueId> {
    heads.iter().map(|h| h.id).collect()
}

pub(crate) fn reply(text: &str) -> ReplyText {
    ReplyText::clean(text)
}

pub(crate) fn delivered(n: u64, index: u32) -> Settlement {
    said(n, index, Outcome::Delivered(reply("250 ok")))
}

pub(crate) fn later(n: u64, index: u32) -> Settlement {
    said(n, index, Outcome::Later(reply("450 later")))
}

pub(crate) fn failed(n: u64, index: u32) -> Settlement {
    said(n, index, Outcome::Failed(reply("550 no such user")))
}

pub(crate) fn said(n: u64, index: u32, outcome: Outcome) -> Settlement {
    Settlement { id: id(n), index, verdict: Verdict::Said(outcome) }
}

pub(crate) fn in_doubt(n: u64, index: u32) -> Settlement {
    Settlement { id: id(n), index, verdict: Verdict::InDoubt }
}

pub(crate) fn customer(text: &str, domains: &[&str]) -> Customer {
    Customer {
        name: name(text),
        domains: domains.iter().map(|d| domain(d)).collect(),
        suspended: false,
        credentials: vec![Credential {
            label: "".into(),
            scram: ScramVerifier {
                salt: vec![7; 16],
                iterations: 4096,
                stored_key: [1; 32],
                server_key: [2; 32],
            },
            cram: CramContexts { inner: [3; 16], outer: [4; 16] },
            created: Timestamp(5),
        }],
        settings: Settings { quota_bytes: Some(1 << 30), ..Settings::default() },
        created: Timestamp(1),
        revision: 0,
    }
}

/// A clock that tests set.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<std::sync::atomic::AtomicU64>);

impl Clock {
    pub(crate) fn advance(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("short");
        self.0.fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn reader(&self) -> Arc<dyn Fn() -> Duration + Send + Sync> {
        let millis = self.0.clone();
        Arc::new(move || Duration::from_millis(millis.load(std::sync::atomic::Ordering::SeqCst)))
    }
}

/// The index of a store that nobody has open.
pub(crate) fn index(home: &std::path::Path) -> sled::Db {
    loop {
        match sled::open(home.join("index")) {
            Ok(index) => return index,
            // Whoever had it open a moment ago is not quite gone.
            Err(sled::Error::Io(error)) if error.kind() == std::io::ErrorKind::Other => {
                std::thread::yield_now();
            }
            Err(error) => panic!("sled's own files: {error}"),
        }
    }
}
