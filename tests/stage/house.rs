//! The provider on stage: a real office over a store in memory, real TLS, and the real shell around it.

use std::sync::Arc;
use std::time::Duration;

use restante::mail::*;
use restante::net::serve::{self, Host};
use restante::net::stop::{Stop, StopGiver};
use restante::net::tls::{ClientTls, Identity, MinimumVersion, ServerFiles, ServerTls, Trust};
use restante::net::wire::Wire;
use restante::provider::{Office, Policy, World as _};
use restante::smtp::{Door, sasl};
use restante::store::*;

use super::script;
use super::world::StagedWorld;

/// The provider of one play.
pub(crate) struct House {
    pub(crate) host: Host,
    pub(crate) world: Arc<StagedWorld>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) stop: Option<StopGiver>,
}

/// What is made once for all plays of a run.
struct Papers {
    /// Keeps the files.
    _folder: tempfile::TempDir,
    server: ServerFiles,
    client: Identity,
    /// SHA-256 of the client's SubjectPublicKeyInfo, in hex.
    client_key: String,
}

fn papers() -> &'static Papers {
    static PAPERS: std::sync::OnceLock<Papers> = std::sync::OnceLock::new();
    PAPERS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("made");
            let place = |end: &str| folder.path().join(format!("{name}.{end}"));
            let (certificate, private_key) = (place("pem"), place("key"));
            std::fs::write(&certificate, made.cert.pem()).expect("written");
            std::fs::write(&private_key, made.signing_key.serialize_pem()).expect("written");
            (
                certificate,
                private_key,
                rcgen::PublicKeyData::subject_public_key_info(&made.signing_key),
            )
        };
        let (certificate, private_key, _) = make("mx.provider.example");
        let server = ServerFiles::new(certificate, private_key, MinimumVersion::Tls12);
        let server = ServerFiles { asks_clients: true, ..server };
        let (certificate, private_key, key) = make("customer.example");
        let client = Identity { certificate, private_key };
        let hash = <sha2::Sha256 as sha2::Digest>::digest(key);
        let client_key = hash.iter().map(|octet| format!("{octet:02x}")).collect();
        Papers { _folder: folder, server, client, client_key }
    })
}
impl House {
    /// Builds what the `given` lines say.
    pub(crate) async fn build(given: &[String]) -> Self {
        let world = Arc::new(StagedWorld::default());
        let clock = world.clone();
        let memory = Arc::new(Memory::with_clock(Arc::new(move || clock.monotonic())));
        let mut policy = Policy::new(Domain::parse("mx.provider.example").expect("valid"));
        policy.auth_requires_tls = false;
        // The clock stands still, so nobody would ever wake from a delay.
        policy.delay_after_failures = vec![Duration::ZERO];
        let mut tls = None;
        for line in given {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("customer", rest) => memory.create(customer(rest)).await.expect("created"),
                ("queued", _) => {}
                ("tls", "") => {
                    policy.tls_available = true;
                    let files = papers().server.clone();
                    tls = Some(Arc::new(ServerTls::load(files).expect("a certificate")));
                }
                ("limit", rest) => limit(&mut policy, rest),
                ("login", "only under tls") => policy.auth_requires_tls = true,
                ("mechanisms", rest) => {
                    let find = |name| sasl::Mechanism::find(name).expect("a mechanism").name();
                    policy.mechanisms = rest.split(' ').map(find).collect();
                }
                _ => panic!("no such thing can be given: {line}"),
            }
        }
        let (giver, stop) = Stop::new();
        let office = Office::new(memory.clone(), memory.clone(), world.clone(), policy);
        let host = Host { office: Arc::new(office), tls, stop };
        let house = Self { host, world, memory, stop: Some(giver) };
        for line in given.iter().filter_map(|line| line.strip_prefix("queued ")) {
            house.queue(line).await;
        }
        house
    }

    /// `for <a> <b> from <c>: content`.
    async fn queue(&self, line: &str) {
        let (envelope, content) = line.split_once(": ").expect("content behind a colon");
        let (to, from) = envelope.split_once(" from ").expect("from");
        let bare = |path: &str| path.trim_matches(['<', '>']).to_owned();
        let paths: Vec<_> = to.split(' ').skip(1).map(bare).collect();
        let content = script::unescaped(&script::expanded(content));
        let id = self.host.office.next_id();
        let mut body = self.memory.begin_body(id, 0).await.expect("a body");
        body.write(&content).await.expect("written");
        let mut owners = Vec::new();
        let mut recipients = Vec::new();
        for path in paths {
            let forward_path = ForwardPath::parse(&path).expect("a path");
            let owner = self.memory.owner(forward_path.domain()).await.expect("works");
            owners.push(owner.expect("a customer's domain").name.clone());
            recipients.push(Recipient { forward_path, notify: None, orcpt: None });
        }
        let reverse_path = ReversePath::parse(&bare(from)).expect("a path");
        let arrived = self.world.now();
        let message = NewMessage {
            id,
            expires: vec![arrived.after(Seconds(86_400)); owners.len()],
            owners,
            envelope: Envelope { reverse_path, recipients, ..Envelope::default() },
            facts: ContentFacts { size: content.len() as u64, ..ContentFacts::default() },
            arrived,
        };
        self.memory.commit(message, body).await.expect("committed");
    }

    /// What the provider does with one connection, to its end.
    pub(crate) fn serve(
        &self,
        wire: Wire,
        door: Door,
        over_tls: bool,
    ) -> impl Future<Output = ()> + use<> {
        let host = self.host.clone();
        async move {
            let wire = if over_tls {
                let Ok(wire) = serve::secure(wire, &host).await else { return };
                wire
            } else {
                wire
            };
            // A broken wire is the peer's matter; what must remain true is checked in the script.
            let Ok(Some(reversed)) = serve::converse(wire, door, &host).await else { return };
            restante::net::deliver::deliver(reversed, &host.office, &host.stop).await;
        }
    }

    /// The client's handshake, with or without a certificate to show.
    pub(crate) async fn handshake(wire: Wire, shows_certificate: bool) -> std::io::Result<Wire> {
        let identity = shows_certificate.then(|| &papers().client);
        let client = ClientTls::new(&Trust::Anybody, identity).expect("a client");
        client.connect("mx.provider.example", wire).await
    }

    /// Whether a `then` line is true; the reason if not.
    pub(crate) async fn check(&self, fact: &str) -> Result<(), String> {
        let words: Vec<_> = fact.split(' ').collect();
        match words.as_slice() {
            ["nothing", "is", "queued"] => {
                let queues = self.memory.queues(None, 100).await.expect("works");
                let full: Vec<_> = queues.iter().filter(|queue| queue.2.messages > 0).collect();
                if full.is_empty() { Ok(()) } else { Err(format!("{full:?}")) }
            }
            ["queued", count, "for", domain] => {
                let domain = Domain::parse(domain).expect("a domain");
                let found = self.memory.count(&domain).await.expect("works").messages;
                is(found.to_string() == *count, || format!("{found} messages"))
            }
            ["failed", count, "for", domain] => {
                let domain = Domain::parse(domain).expect("a domain");
                let found = self.memory.count(&domain).await.expect("works").failed;
                is(found.to_string() == *count, || format!("{found} messages"))
            }
            ["lease", "of", domain, state] => {
                let found = if self.is_free(domain).await { "free" } else { "taken" };
                is(found == *state, || found.to_owned())
            }
            ["held", domain, ..] => {
                let (head, body) = self.first(domain).await?;
                let text = fact.splitn(3, ' ').nth(2).unwrap_or_default();
                let wanted = script::unescaped(&script::expanded(text));
                let (_, content) = split_trace(&body, &head);
                is(content == wanted, || format!("{:?}", String::from_utf8_lossy(content)))
            }
            ["trace", domain, ..] => {
                let (head, body) = self.first(domain).await?;
                let (trace, _) = split_trace(&body, &head);
                let trace = String::from_utf8_lossy(trace).replace("\r\n\t", " ");
                let pattern = fact.splitn(3, ' ').nth(2).unwrap_or_default();
                is(script::fits(pattern, trace.trim_end()), || trace.clone())
            }
            ["envelope", domain, ..] => {
                let (head, _) = self.first(domain).await?;
                let found = envelope(&head);
                let wanted = fact.splitn(3, ' ').nth(2).unwrap_or_default();
                is(found == wanted, || found.clone())
            }
            _ => panic!("no such thing can be checked: {fact}"),
        }
    }

    async fn is_free(&self, domain: &str) -> bool {
        let domain = Domain::parse(domain).expect("a domain");
        let owner = self.memory.owner(&domain).await.expect("works").expect("a customer's");
        let wish = LeaseRequest {
            customer: owner.name.clone(),
            domains: vec![domain],
            owner: "the test".to_owned(),
            lasts: Duration::from_secs(60),
            overthrow_after: Duration::from_secs(86_400),
        };
        match self.memory.lease(wish).await.expect("works") {
            LeaseAnswer::Granted(lease) => {
                self.memory.release(lease).await.expect("works");
                true
            }
            LeaseAnswer::Busy { .. } => false,
        }
    }

    /// The oldest message of a domain, and its whole body.
    async fn first(&self, domain: &str) -> Result<(Head, Vec<u8>), String> {
        let domain = Some(Domain::parse(domain).expect("a domain"));
        let filter = Filter { domain, ..Filter::default() };
        let heads = self.memory.query(filter, None, 1).await.expect("works");
        let head = heads.into_iter().next().ok_or("no message")?;
        let mut reader = self.memory.open_body(head.id, 0).await.expect("works");
        let mut body = Vec::new();
        loop {
            let chunk = reader.read().await.expect("works");
            if chunk.is_empty() {
                return Ok((head, body));
            }
            body.extend(chunk);
        }
    }
}

fn is(truth: bool, found: impl FnOnce() -> String) -> Result<(), String> {
    if truth { Ok(()) } else { Err(found()) }
}

/// The provider's own Received line, and the content behind it.
fn split_trace<'a>(body: &'a [u8], head: &Head) -> (&'a [u8], &'a [u8]) {
    assert_eq!(head.facts.size, body.len() as u64, "the size on record is that of the body");
    let mut end = 0;
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        if end > 0 && !line.starts_with(b"\t") {
            break;
        }
        end += line.len();
    }
    body.split_at(end)
}

/// An envelope on one line.
fn envelope(head: &Head) -> String {
    let own = &head.envelope;
    let mut text = format!("<{}>", own.reverse_path);
    if own.body == BodyKind::EightBitMime {
        text += " 8BITMIME";
    }
    if own.smtputf8 {
        text += " SMTPUTF8";
    }
    if let Some(ret) = own.dsn.ret {
        text += if ret == Ret::Full { " RET=FULL" } else { " RET=HDRS" };
    }
    if let Some(envid) = &own.dsn.envid {
        text += &format!(" ENVID={envid}");
    }
    for held in &head.recipients {
        text += &format!(" <{}>", held.recipient.forward_path);
        if let Some(notify) = held.recipient.notify {
            let flags =
                [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
            let set: Vec<_> = flags.iter().filter(|flag| flag.0).map(|flag| flag.1).collect();
            let list = if set.is_empty() { "NEVER".to_owned() } else { set.join(",") };
            text += &format!(" NOTIFY={list}");
        }
        if let Some(orcpt) = &held.recipient.orcpt {
            text += &format!(" ORCPT={orcpt}");
        }
    }
    text
}

/// `recipients 3`, `message 1000`, `errors 20`, `failures 3`, `turns 2`, `hops 100`.
fn limit(policy: &mut Policy, rest: &str) {
    let (what, count) = rest.split_once(' ').expect("a number");
    let count: u64 = count.parse().expect("a number");
    match what {
        "recipients" => policy.recipients_max = usize::try_from(count).expect("small"),
        "message" => policy.message_bytes_max = count,
        "failures" => policy.auth_failures_max = u32::try_from(count).expect("small"),
        "turns" => policy.turns_per_minute = u32::try_from(count).expect("small"),
        "hops" => policy.received_max = u32::try_from(count).expect("small"),
        _ => panic!("no such limit: {what}"),
    }
}

/// `acme, domains a b, password p`, and `certificate`, `suspended`, `require-tls`, `recipients x y`, `wait-for-mail 600`,
/// `message-bytes-max 100`, `quota-messages 1`.
fn customer(text: &str) -> Customer {
    let mut parts = text.split(", ");
    let name = parts.next().expect("a name");
    let mut customer = Customer {
        name: CustomerName::parse(name).expect("a name"),
        domains: Vec::new(),
        suspended: false,
        credentials: Vec::new(),
        settings: Settings::default(),
        created: Timestamp(0),
        revision: 0,
    };
    for part in parts {
        let (key, value) = part.split_once(' ').unwrap_or((part, ""));
        let number = || value.parse().expect("a number");
        match key {
            "domains" => {
                let mut domains: Vec<_> =
                    value.split(' ').map(|d| Domain::parse(d).expect("a domain")).collect();
                domains.sort();
                customer.domains = domains;
            }
            "password" => {
                let salt = vec![7; sasl::SALT_BYTES];
                let (scram, cram) = sasl::derive(&value.into(), salt, 4096).expect("a password");
                customer.credentials.push(Credential {
                    label: "".into(),
                    scram,
                    cram,
                    created: Timestamp(0),
                });
            }
            "certificate" => {
                customer.settings.certificate.push(papers().client_key.as_str().into());
            }
            "suspended" => customer.suspended = true,
            "require-tls" => customer.settings.require_tls = Some(true),
            "recipients" => {
                let list = value.split(' ').map(Into::into).collect();
                customer.settings.recipients = Some(RecipientPolicy::Listed(list));
            }
            "etrn-host" => customer.settings.etrn_host = Some(value.into()),
            "etrn-from" => {
                customer.settings.etrn_from.push(value.parse().expect("a network"));
            }
            "wait-for-mail" => customer.settings.drain.wait_for_mail = Some(Seconds(number())),
            "message-bytes-max" => customer.settings.message_bytes_max = Some(number()),
            "quota-messages" => customer.settings.quota_messages = Some(number()),
            _ => panic!("no such setting: {part}"),
        }
    }
    customer
}
