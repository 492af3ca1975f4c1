//! What is fuzzed: one function for each target, each with the promise that it checks.
//!
//! A new one is a function here and a line in [`ALL`]; seeds for it come from `fuzz/seeds`.
//!
//! Called by the fuzzing program `src/main.rs`, and by `tests/fuzz_seeds.rs` of the main package with the transcripts, the
//! findings kept in `found`, and random octets. A target panics if a promise is broken.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::executor::block_on;
use restante::mail::*;
use restante::provider::report::Reporter;
use restante::provider::{Desk, Office, Policy, World};
use restante::smtp::data::{Content, Dots};
use restante::smtp::sasl::{Mechanism, Move};
use restante::smtp::sender::{Extensions, ReplyReader, Stuffer};
use restante::smtp::session::{Session, Step};
use restante::smtp::*;
use restante::store::*;

/// A target by its name.
pub type Target = fn(&[u8]);

/// All of them.
pub const ALL: &[(&str, Target)] = &[
    ("command_line", command_line),
    ("path_params", path_params),
    ("content_scanner", content_scanner),
    ("bdat_session", bdat_session),
    ("reply_parser", reply_parser),
    ("ehlo_reply", ehlo_reply),
    ("auth_exchange", auth_exchange),
    ("atrn_args", atrn_args),
    ("etrn_args", etrn_args),
    ("xtext", xtext),
    ("domain", domain),
    ("report_builder", report_builder),
    ("configuration", configuration),
    ("dump_loader", dump_loader),
    ("session", session),
];

/// Text without anything that could end a line.
fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A line is understood or refused; what is understood is one line.
pub fn command_line(data: &[u8]) {
    for door in [Door::Mx, Door::Odmr] {
        if let Ok(command) = command::read(data, door) {
            assert!(!command.argument.contains(['\r', '\n', '\0']));
        }
    }
}

/// Paths come back as they were written, and hold nothing that could be a second command.
pub fn path_params(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let home = Domain::parse("mx.provider.example").expect("a domain");
    for is_esmtp in [true, false] {
        if let Ok(mail) = param::mail(text, is_esmtp) {
            assert!(is_one_line(mail.reverse_path.as_str()));
        }
        for smtputf8 in [true, false] {
            let Ok((recipient, _)) = param::rcpt(text, is_esmtp, smtputf8, &home) else { continue };
            let path = &recipient.forward_path;
            assert!(is_one_line(path.as_str()) && path.as_str().len() <= 400);
            let again = ForwardPath::parse(path.as_str()).expect("its own form is sound");
            assert_eq!((again.local_part(), again.domain()), (path.local_part(), path.domain()));
            assert!(recipient.orcpt.as_deref().is_none_or(is_one_line));
        }
    }
}

/// The reference: the content up to the first line with nothing but a dot, dots unstuffed; and how many octets
/// that took.
fn reference(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    while at < data.len() {
        let end = at + data[at..].windows(2).position(|pair| pair == b"\r\n")? + 2;
        let line = &data[at..end];
        if line == b".\r\n" {
            return Some((content, end));
        }
        content.extend_from_slice(if line[0] == b'.' { &line[1..] } else { line });
        at = end;
    }
    None
}

/// The first octet says how the rest is cut into pieces.
fn pieces(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((size, rest)) => (usize::from(*size).max(1), rest),
        None => (1, data),
    }
}

/// The end of data, the unstuffed content and the verdict on bare line ends are those of the reference, however
/// the octets are cut; and stuffing is undone by unstuffing.
pub fn content_scanner(data: &[u8]) {
    let (size, data) = pieces(data);
    let (mut dots, mut content, mut used, mut is_over) = (Dots::default(), Vec::new(), 0, false);
    let mut look = Content::new(0, 100);
    for piece in data.chunks(size) {
        let before = content.len();
        let (count, over) = dots.read(piece, &mut content);
        look.look(&content[before..]);
        used += count;
        is_over = over;
        if over {
            break;
        }
        assert_eq!(count, piece.len());
    }
    let expected = reference(data);
    assert_eq!(expected.is_some(), is_over);
    let Some((wanted, end)) = expected else { return };
    assert!(content == wanted && used == end, "{content:?} {wanted:?}");
    let is_bare = |at: usize| match wanted[at] {
        b'\n' => at == 0 || wanted[at - 1] != b'\r',
        b'\r' => wanted.get(at + 1) != Some(&b'\n'),
        octet => octet == 0,
    };
    let has_bare = (0..wanted.len()).any(is_bare);
    if has_bare {
        assert!(look.finish().is_err());
        return;
    }
    let mut stuffer = Stuffer::default();
    let mut wire = Vec::new();
    for piece in wanted.chunks(size) {
        wire.extend(stuffer.stuff(piece.to_vec().into()).expect("no bare line end"));
    }
    wire.extend(stuffer.end().expect("no bare line end"));
    let (back, end) = reference(&wire).expect("an end");
    assert!(end == wire.len() && (back == wanted || back == [&wanted[..], b"\r\n"].concat()));
}

/// A server's replies are read or refused, the same however they are cut, and in bounded memory.
pub fn reply_parser(data: &[u8]) {
    let (size, data) = pieces(data);
    let read = |size: usize| {
        let (mut reader, mut all) = (ReplyReader::default(), Vec::new());
        for mut piece in data.chunks(size) {
            loop {
                match reader.read(&mut piece) {
                    Ok(Some(reply)) => {
                        assert!(is_one_line(reply.said().as_str()));
                        all.push(Ok((reply.code, reply.text.clone())));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        all.push(Err(error));
                        return all;
                    }
                }
            }
        }
        all
    };
    assert_eq!(read(size), read(usize::MAX));
}

/// What a server offers is understood or passed over.
pub fn ehlo_reply(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let offers = Extensions::parse(&text);
    let _ = offers.takes_size(u64::MAX);
}

/// Every mechanism comes to an end, and none proves anything for a password that nobody knows.
pub fn auth_exchange(data: &[u8]) {
    let (choice, data) = data.split_first().unwrap_or((&0, data));
    let hostname = Domain::parse("mx.provider.example").expect("a domain");
    let terms = Policy::new(hostname).terms(Door::Odmr);
    let tls =
        TlsFacts { exporter: Some([9; 32]), peer_key: Some("ab".into()), ..TlsFacts::default() };
    let mechanism = Mechanism::ALL[usize::from(*choice) % Mechanism::ALL.len()];
    let mut responses = data.split(|octet| *octet == 0xff);
    let mut next = mechanism.begin(&terms, Some(&tls));
    for _ in 0..20 {
        next = match next {
            Move::Challenge(_, exchange) => match responses.next() {
                Some(response) => exchange.respond(response),
                None => return,
            },
            Move::AskNonce(wanted) => wanted.answer([7; 32]),
            Move::AskCredential(wanted) => {
                assert!(wanted.name().len() <= 255);
                let dummy = sasl::dummy_credential(&[1; 32], wanted.name());
                wanted.answer(&dummy)
            }
            Move::Verdict(verdict) => {
                assert!(verdict.name.len() <= 255);
                // Octets that happen to be a proof for an unknown key would be a miracle.
                assert!(!matches!(verdict.proof, Proof::Proven(_)));
                return;
            }
        };
    }
    panic!("no end");
}

/// A domain is its own normal form, and printable ASCII.
pub fn domain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(domain) = Domain::parse(text) else { return };
    let form = domain.as_str();
    assert!(
        form.len() <= 255 && form.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    );
    assert_eq!(Domain::parse(form).as_ref(), Ok(&domain), "normalising twice is once");
    // An ASCII name that holds no A-label is equal to itself only (CVE-2024-12224).
    if text.is_ascii() && !text.to_ascii_lowercase().contains("xn--") {
        assert_eq!(form, text.to_ascii_lowercase().trim_end_matches('.'));
    }
}

/// Encoded values stay one line.
pub fn xtext(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let home = Domain::parse("mx.provider.example").expect("a domain");
    let line = format!("TO:<a@example.com> ORCPT=rfc822;{text}");
    if let Ok((recipient, _)) = param::rcpt(&line, true, true, &home) {
        assert!(recipient.orcpt.as_deref().is_none_or(is_one_line));
    }
    if let Ok(mail) = param::mail(&format!("FROM:<> ENVID={text}"), true) {
        assert!(mail.parameters.dsn.envid.as_deref().is_none_or(is_one_line));
    }
}

/// A configuration is taken or refused, never with a panic, and every fault has a text.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = restante::app::config::parse(std::path::Path::new("/nonexistent/x.toml"), text);
    assert!(loaded.config.is_some() || !loaded.report.to_string().is_empty());
}

// ---- The whole session, with the provider's own decisions behind it ----

/// A world in which nothing takes time.
struct StillWorld;

impl World for StillWorld {
    fn now(&self) -> Timestamp {
        Timestamp(1_795_317_540_000)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn chance(&self, place: &mut [u8]) {
        place.fill(7);
    }
    fn wait(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// PLAIN for acme, in base64: `\0acme\0secret`.
const LOGIN: &str = "AUTH PLAIN AGFjbWUAc2VjcmV0\r\n";

fn office() -> Arc<Office> {
    let memory = Arc::new(Memory::new());
    static STORED: OnceLock<(ScramVerifier, CramContexts)> = OnceLock::new();
    let (scram, cram) = STORED
        .get_or_init(|| sasl::derive(&Secret::from("secret"), vec![7; 16], 4096).expect("derived"));
    for (name, domain) in [("acme", "example.com"), ("other", "other.example")] {
        let (scram, cram) = (scram.clone(), cram.clone());
        let customer = Customer {
            name: CustomerName::parse(name).expect("a name"),
            domains: vec![Domain::parse(domain).expect("a domain")],
            suspended: false,
            credentials: vec![Credential { label: "".into(), scram, cram, created: Timestamp(0) }],
            settings: Settings::default(),
            created: Timestamp(0),
            revision: 0,
        };
        block_on(memory.create(customer)).expect("created");
    }
    let mut policy = Policy::new(Domain::parse("mx.provider.example").expect("a domain"));
    (policy.tls_available, policy.disk_free_min) = (true, 0);
    Arc::new(Office::new(memory.clone(), memory, Arc::new(StillWorld), policy))
}

/// Plays octets to a session and checks all that it says. Gives the number of messages that were acknowledged.
fn play(office: &Arc<Office>, door: Door, is_tls: bool, octets: &[u8], size: usize) -> u64 {
    let facts = || TlsFacts { version: "TLSv1.3".into(), ..TlsFacts::default() };
    let peer: SocketAddr = "192.0.2.1:2525".parse().expect("an address");
    let mut desk = Desk::new(office.clone(), peer, is_tls.then(facts));
    let mut actions = Vec::new();
    let terms = Arc::new(office.policy().terms(door));
    let mut step = Step::Stay(Session::open(door, terms, is_tls.then(facts), &mut actions));
    let (mut input, mut said, mut acknowledged) = (octets.chunks(size), Vec::new(), 0);
    loop {
        let mut question = None;
        for action in actions.drain(..) {
            match action {
                Action::Send(bytes) => said.extend(bytes),
                Action::Store(chunk) => block_on(desk.store(&chunk)),
                Action::Discard => desk.discard(),
                Action::Release(lease) => block_on(desk.release(lease)),
                Action::Note(fact) => {
                    acknowledged += u64::from(matches!(fact, Fact::Accepted { .. }))
                }
                Action::Ask(asked) => question = Some(asked),
            }
        }
        check_replies(&said);
        said.clear();
        step = match (step, question) {
            (Step::Stay(session), Some(question)) => {
                let answer = block_on(desk.answer(question));
                session.advance(Input::Answer(answer), &mut actions)
            }
            (Step::Stay(session), None) => match input.next() {
                Some(piece) => session.advance(Input::Bytes(piece), &mut actions),
                None => {
                    let _ = session.advance(Input::Ended, &mut actions);
                    return acknowledged;
                }
            },
            (Step::Upgrade(upgrade), _) => {
                desk.secured(facts());
                Step::Stay(upgrade.secured(facts(), &mut actions))
            }
            (Step::Reverse(reversal), _) => {
                let (lease, _) = reversal.into_parts();
                assert_eq!(lease.customer().as_str(), "acme", "the only one that can log in");
                block_on(desk.release(lease));
                return acknowledged;
            }
            (Step::Close, _) => return acknowledged,
        };
    }
}

/// Replies are lines of printable text with a code (RFC 5321 §4.2).
fn check_replies(said: &[u8]) {
    let text = std::str::from_utf8(said).expect("text");
    assert!(said.is_empty() || text.ends_with("\r\n"), "half a line: {text:?}");
    for line in text.split_terminator("\r\n") {
        assert!(line.len() <= 510 && is_one_line(line), "{line:?}");
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (200..600).contains(&code)), "{line:?}");
        assert!(matches!(line.as_bytes().get(3), None | Some(b' ' | b'-')), "{line:?}");
    }
}

fn queued(office: &Office) -> u64 {
    block_on(office.store.query(Filter::default(), None, 1000)).expect("listed").len() as u64
}

/// Whatever is said, replies are replies, the queue holds exactly what was acknowledged, and the same octets mean
/// the same however they are cut.
pub fn session(data: &[u8]) {
    let Some((&flags, octets)) = data.split_first() else { return };
    let door = if flags & 1 == 0 { Door::Mx } else { Door::Odmr };
    let is_tls = flags & 2 != 0;
    let size = usize::from(flags >> 2).max(1);
    let counts = [size, usize::MAX].map(|size| {
        let office = office();
        let acknowledged = play(&office, door, is_tls, octets, size);
        let waiting = queued(&office);
        assert_eq!(waiting, acknowledged, "queued and acknowledged");
        waiting
    });
    // A command behind STARTTLS or ATRN in the same piece is refused, in the next one it may be served.
    let is_sensitive =
        |word: &[u8]| octets.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word));
    assert!(counts[0] == counts[1] || is_sensitive(b"starttls") || is_sensitive(b"atrn"));
}

/// Chunks: the data is a row of sizes with their octets, at the right place in a transaction.
pub fn bdat_session(data: &[u8]) {
    let mut octets =
        b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@example.com>\r\n".to_vec();
    for line in data.split(|octet| *octet == 0xff) {
        octets.extend_from_slice(b"BDAT ");
        octets.extend_from_slice(line);
    }
    let office = office();
    let acknowledged = play(&office, Door::Mx, false, &octets, 7);
    assert_eq!(queued(&office), acknowledged);
}

/// ATRN serves one's own domains or nothing.
pub fn atrn_args(data: &[u8]) {
    let line = data.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let octets = [b"EHLO x.example\r\n", LOGIN.as_bytes(), b"ATRN ", line, b"\r\n"].concat();
    // Nothing waits, so there is no turn at all; the arguments are judged all the same.
    let office = office();
    play(&office, Door::Odmr, true, &octets, usize::MAX);
}

/// ETRN with any argument is answered.
pub fn etrn_args(data: &[u8]) {
    let line = data.split(|octet| *octet == b'\n').next().unwrap_or_default();
    let octets =
        [b"EHLO x.example\r\n", LOGIN.as_bytes(), b"ETRN ", line, b"\r\nQUIT\r\n"].concat();
    play(&office(), Door::Mx, true, &octets, usize::MAX);
}

/// A report about a hostile message, refused with hostile words, is a sound message of its own.
pub fn report_builder(data: &[u8]) {
    let (words, content) = match data.iter().position(|octet| *octet == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"Subject: x\r\n\r\nx\r\n"[..]),
    };
    // What the session lets in: no bare line ends, no NUL.
    let text = String::from_utf8_lossy(content).replace(['\r', '\0'], "").replace('\n', "\r\n");
    let office = office();
    let id = office.next_id();
    let recipient = Recipient {
        forward_path: ForwardPath::parse("x@example.com").expect("a path"),
        notify: None,
        orcpt: Some("rfc822;x@example.com".into()),
    };
    let reverse_path = ReversePath::parse("sender@remote.example").expect("a path");
    let envelope = Envelope { reverse_path, recipients: vec![recipient], ..Envelope::default() };
    let mut look = Content::new(0, 1000);
    look.look(text.as_bytes());
    let facts = look.finish().unwrap_or_default();
    let message = NewMessage {
        id,
        envelope,
        owners: vec![CustomerName::parse("acme").expect("a name")],
        facts,
        arrived: office.world.now(),
        expires: vec![office.world.now()],
    };
    let said = String::from_utf8_lossy(words);
    block_on(async {
        let mut body = office.store.begin_body(id, 0).await.expect("a body");
        body.write(text.as_bytes()).await.expect("written");
        office.store.commit(message, body).await.expect("committed");
        fail(&office, id, &said).await;
        Reporter::new(office.clone()).round().await;
        let heads = office.store.query(Filter::default(), None, 10).await.expect("listed");
        for head in heads.iter().filter(|head| head.id != id) {
            check_report(&office, head).await;
        }
    });
}

/// Marks the message's recipient as refused with these words.
async fn fail(office: &Office, id: QueueId, said: &str) {
    let wish = LeaseRequest {
        customer: CustomerName::parse("acme").expect("a name"),
        domains: vec![Domain::parse("example.com").expect("a domain")],
        owner: "fuzz".into(),
        lasts: Duration::from_secs(60),
        overthrow_after: Duration::from_secs(60),
    };
    let Ok(LeaseAnswer::Granted(lease)) = office.store.lease(wish).await else { panic!("busy") };
    let reply = ReplyText::clean(&format!("550 {said}"));
    let verdict = Verdict::Said(Outcome::Failed(reply));
    let settlement = Settlement { id, index: 0, verdict };
    office.store.settle(&lease, vec![settlement]).await.expect("settled");
    office.store.release(lease).await.expect("released");
}

/// CRLF line ends only, no line too long, header fields in ASCII or UTF-8 as announced, one boundary that ends.
async fn check_report(office: &Office, head: &Head) {
    let mut reader = office.store.open_body(head.id, 0).await.expect("a body");
    let mut whole = Vec::new();
    loop {
        let chunk = reader.read().await.expect("sound");
        if chunk.is_empty() {
            break;
        }
        whole.extend(chunk);
    }
    let text = String::from_utf8_lossy(&whole);
    assert!(text.ends_with("\r\n"), "{text:?}");
    assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']), "a bare line end: {text:?}");
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    for line in header.split("\r\n") {
        let is_field = line.starts_with([' ', '\t']) || line.contains(':');
        assert!(is_field && line.len() <= 998, "{line:?}");
    }
    assert!(
        head.recipients
            .iter()
            .all(|held| { held.recipient.forward_path.as_str() == "sender@remote.example" })
    );
}

/// CRC-32C, bit by bit.
fn crc32c(octets: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for octet in octets {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// The dump with all its checksums made right, so that what lies behind them is reached.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    const FIRST: usize = 16;
    let mut dump = b"restante dump 1\n".to_vec();
    let mut rest = data.get(FIRST..).unwrap_or_default();
    let mut last = 0u32;
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(behind.len());
        let (content, behind) = behind.split_at(len);
        let shown = u32::try_from(len).expect("short").to_be_bytes();
        last = crc32c(&[&last.to_be_bytes()[..], &head[..1], &shown, content].concat());
        dump.extend_from_slice(&head[..1]);
        dump.extend_from_slice(&shown);
        dump.extend_from_slice(&last.to_be_bytes());
        dump.extend_from_slice(content);
        rest = behind;
    }
    dump
}

/// A dump is loaded or refused with its place, and what was loaded gives a dump that can be loaded.
pub fn dump_loader(data: &[u8]) {
    for octets in [data.to_vec(), with_checksums(data)] {
        let memory = Memory::new();
        let checked = block_on(dump::load(None, &mut &octets[..], &mut |_| {}));
        let loaded = block_on(dump::load(Some((&memory, &memory)), &mut &octets[..], &mut |_| {}));
        if let Err(dump::DumpError::Damaged { at, .. }) = &checked {
            assert!(*at <= octets.len() as u64);
        }
        assert_eq!(checked.is_ok(), loaded.is_ok(), "{checked:?} {loaded:?}");
        for head in block_on(memory.query(Filter::default(), None, 1000)).expect("listed") {
            let orcpts = head.recipients.iter().map(|held| &held.recipient.orcpt);
            let words = orcpts.chain([&head.envelope.dsn.envid]).flatten();
            assert!(words.into_iter().all(|word| is_one_line(word) && !word.contains(' ')));
            assert!(is_one_line(head.envelope.reverse_path.as_str()));
        }
        let mut again = futures::io::Cursor::new(Vec::new());
        let mut snapshot = block_on(memory.snapshot()).expect("taken");
        block_on(dump::dump(&mut *snapshot, &mut again, &mut |_| {})).expect("dumped");
        let copy = Memory::new();
        let again = again.into_inner();
        block_on(dump::load(Some((&copy, &copy)), &mut &again[..], &mut |_| {})).expect("loaded");
    }
}
