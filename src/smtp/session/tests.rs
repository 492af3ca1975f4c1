//! A session driven by hand, with a small office that answers.

use super::*;
use crate::mail::{Account, CustomerName, Domain, Fact, Lease, Login, QueueId};
use crate::smtp::{Proof, Question, Receipt};

/// What a hand that drives a session sees.
struct Hand {
    step: Option<Step>,
    out: Vec<Action>,
    /// All that was sent so far.
    sent: String,
    /// The content as it was to be stored.
    stored: Vec<u8>,
    discards: usize,
    releases: usize,
    facts: Vec<Fact>,
}

fn terms() -> Terms {
    Terms {
        hostname: Domain::parse("mx.provider.example").expect("valid"),
        message_bytes_max: 1000,
        recipients_max: 3,
        received_max: 100,
        tls_available: true,
        etrn: false,
        auth_requires_tls: false,
        mechanisms: crate::smtp::MECHANISMS.to_vec(),
        auth_failures_max: 3,
        errors_max: 20,
    }
}

fn account() -> Box<Account> {
    let login = Login::parse("demo").expect("valid");
    let domains = vec![Domain::parse("demo.example").expect("valid")];
    Box::new(Account { login, domains, require_tls: false })
}

fn lease() -> Lease {
    let name = CustomerName::parse("demo").expect("valid");
    Lease::granted(name, vec![Domain::parse("demo.example").expect("valid")], 1)
}

/// What an office without memory says: yes to demo.example and to the password `right`.
fn office(question: Question) -> Answer {
    match question {
        Question::Recipient(request)
            if request.forward_path.domain().as_str() != "demo.example" =>
        {
            Answer::Verdict(Err(Refusal::NotOurDomain))
        }
        Question::Mail(_) | Question::Recipient(_) | Question::Content(_) => {
            Answer::Verdict(Ok(()))
        }
        Question::Commit(request) => {
            let size = request.facts.size + 100;
            Answer::Committed(Ok(Receipt { id: QueueId::from_bits(7), size }))
        }
        Question::Nonce => Answer::Nonce([1; 32]),
        Question::Credential(_) => Answer::Credential(Err(Refusal::LoginTrouble)),
        Question::Login(request) => match request.proof {
            Proof::Password(password) if password == "right".into() => Answer::Login(Ok(account())),
            _ => Answer::Login(Err(Refusal::LoginFailed)),
        },
        Question::Turn(_) => Answer::Turn(Ok((lease(), 3))),
        Question::Etrn(_) => Answer::Etrn(Ok(3)),
    }
}

impl Hand {
    fn at(door: Door, tls: Option<TlsFacts>, terms: Terms) -> Self {
        let mut out = Vec::new();
        let session = Session::open(door, Arc::new(terms), tls, &mut out);
        let mut hand = Self {
            step: Some(Step::Stay(session)),
            out,
            sent: String::new(),
            stored: Vec::new(),
            discards: 0,
            releases: 0,
            facts: Vec::new(),
        };
        assert!(hand.collect().is_none());
        hand
    }

    fn mx() -> Self {
        let mut hand = Self::at(Door::Mx, None, terms());
        hand.say("EHLO m.example\r\n");
        hand
    }

    fn odmr() -> Self {
        let mut hand = Self::at(Door::Odmr, Some(TlsFacts::default()), terms());
        hand.say("EHLO c.example\r\n");
        hand
    }

    /// Carries out the actions; the question, if one was asked.
    fn collect(&mut self) -> Option<Question> {
        let mut question = None;
        for action in std::mem::take(&mut self.out) {
            assert!(question.is_none(), "a question is the last action of its step");
            match action {
                Action::Send(octets) => self.sent += std::str::from_utf8(&octets).expect("text"),
                Action::Store(octets) => self.stored.extend(octets),
                Action::Discard => self.discards += 1,
                Action::Release(_) => self.releases += 1,
                Action::Note(fact) => self.facts.push(fact),
                Action::Ask(asked) => question = Some(asked),
            }
        }
        question
    }

    fn session(&self) -> &Session {
        match &self.step {
            Some(Step::Stay(session)) => session,
            other => panic!("not there any more: {other:?}"),
        }
    }

    fn give(&mut self, input: Input<'_>) -> Option<Question> {
        match self.step.take() {
            Some(Step::Stay(session)) => self.step = Some(session.advance(input, &mut self.out)),
            other => panic!("not there any more: {other:?}"),
        }
        self.collect()
    }

    /// Brings octets and lets the office answer; gives the codes of the replies.
    fn say(&mut self, octets: &str) -> String {
        self.sent.clear();
        let mut question = self.give(Input::Bytes(octets.as_bytes()));
        while let Some(asked) = question {
            question = self.give(Input::Answer(office(asked)));
        }
        self.codes()
    }

    /// The last line of each reply: code, and enhanced code if there is one.
    fn codes(&self) -> String {
        let last = self.sent.lines().filter(|line| line.as_bytes().get(3) == Some(&b' '));
        let code = |line: &str| -> String {
            let mut words = line.split(' ');
            let code = words.next().unwrap_or_default();
            match words.next().filter(|w| w.split('.').count() == 3 && w.len() < 7) {
                Some(enhanced) => format!("{code} {enhanced}"),
                None => code.to_owned(),
            }
        };
        last.map(code).collect::<Vec<_>>().join(", ")
    }
}

const HEAD: &str = "MAIL FROM:<t@foo.example>\r\nRCPT TO:<l@demo.example>\r\n";

// covers: S-19, A16
#[test]
fn a_message_in_one_write_and_octet_by_octet() {
    let script = format!("{HEAD}DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n");
    let codes = "250 2.1.0, 250 2.1.5, 354, 250 2.0.0, 221 2.0.0";
    let mut whole = Hand::mx();
    assert_eq!(whole.say(&script), codes);
    assert!(matches!(whole.step, Some(Step::Close)));
    let mut pieces = Hand::mx();
    let mut said = Vec::new();
    for at in 0..script.len() {
        let codes = pieces.say(&script[at..=at]);
        said.extend((!codes.is_empty()).then_some(codes));
    }
    assert_eq!(said.join(", "), codes);
    for hand in [&whole, &pieces] {
        assert_eq!(hand.stored, b"Subject: x\r\n\r\n.dot\r\n");
        assert!(matches!(&hand.facts[..], [Fact::Accepted { size: 120, .. }]));
    }
}

#[test]
fn questions_say_what_was_said() {
    let mut hand = Hand::mx();
    let question =
        hand.give(Input::Bytes(b"MAIL FROM:<t@foo.example> SIZE=10 BODY=8BITMIME\r\nNOOP\r\n"));
    assert!(matches!(&question, Some(Question::Mail(m)) if m.declared_size == 10));
    // Parked: the NOOP is kept, nothing is said and nobody is impatient.
    assert!(hand.session().is_parked() && hand.session().patience().is_none());
    hand.sent.clear();
    assert!(hand.give(Input::Expired).is_none() && hand.sent.is_empty());
    assert!(hand.give(Input::Answer(Answer::Verdict(Ok(())))).is_none());
    assert_eq!(hand.codes(), "250 2.1.0, 250 2.0.0");
    let question = hand.give(Input::Bytes(b"RCPT TO:<l@demo.example>\r\n")).expect("asked");
    assert!(matches!(&question, Question::Recipient(r)
        if r.declared_size == 10 && r.body == crate::mail::BodyKind::EightBitMime));
    hand.give(Input::Answer(office(question)));
    match hand.give(Input::Bytes(b"DATA\r\n")) {
        Some(Question::Content(request)) => {
            assert_eq!(request.helo, "m.example");
            assert!(request.is_esmtp && request.only_recipient.is_some());
        }
        other => panic!("{other:?}"),
    }
}

// covers: S-12
#[test]
fn a_message_that_is_not_durable_is_refused_and_forgotten() {
    let mut hand = Hand::mx();
    hand.say(&format!("{HEAD}DATA\r\n"));
    let question = hand.give(Input::Bytes(b"x\r\n.\r\n"));
    assert!(matches!(question, Some(Question::Commit(_))));
    hand.sent.clear();
    hand.give(Input::Answer(Answer::Committed(Err(Refusal::StoreTrouble))));
    assert_eq!((hand.codes().as_str(), hand.discards), ("451 4.3.0", 1));
    assert_eq!(hand.say("DATA\r\n"), "503 5.5.1");
}

// covers: A15
#[test]
fn an_end_inside_content_is_no_end_of_data() {
    for content in ["text", "text\r\n", "text\r\n.", "text\r\n.\r"] {
        let mut hand = Hand::mx();
        hand.say(&format!("{HEAD}DATA\r\n{content}"));
        assert!(hand.give(Input::Ended).is_none());
        assert!(matches!(hand.step, Some(Step::Close)));
        assert_eq!((hand.discards, hand.facts.len()), (1, 0), "{content:?}");
    }
}

// covers: Z-03, Z-04, S-04
#[test]
fn content_with_a_fault_is_read_to_its_end() {
    let big = "y".repeat(98) + "\r\n";
    for (content, codes) in [
        (format!("{}NOOP\r\nQUIT\r\n", big.repeat(10)), "552 5.3.4, 250 2.0.0"),
        ("a\r\n.\nMAIL FROM:<e@evil.example>\r\n".into(), "550 5.6.11, 250 2.0.0"),
        ("a\0b\r\n".into(), "550 5.6.11, 250 2.0.0"),
        (big.repeat(10), "250 2.0.0, 250 2.0.0"),
    ] {
        let mut hand = Hand::mx();
        hand.say(&format!("{HEAD}DATA\r\n"));
        assert_eq!(hand.say(&format!("{content}.\r\nNOOP\r\n")), codes, "{content:?}");
        assert_eq!(hand.discards, usize::from(!codes.starts_with("250")));
    }
}

// covers: K-01, A7
#[test]
fn chunks() {
    let mut hand = Hand::mx();
    assert_eq!(hand.say("BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n"), "503 5.5.1, 250 2.0.0");
    assert_eq!(hand.say(&format!("{HEAD}BDAT 4\r\na\r\n.")), "250 2.1.0, 250 2.1.5, 250 2.0.0");
    assert_eq!(hand.say("DATA\r\n"), "503 5.5.1");
    assert_eq!(hand.say("BDAT 2\r\n\r\nBDAT 0 LAST\r\n"), "250 2.0.0, 250 2.0.0");
    assert_eq!(hand.stored, b"a\r\n.\r\n");
    assert_eq!(hand.say("BDAT 0 LAST\r\n"), "503 5.5.1");
    assert_eq!(
        hand.say(&format!(
            "{HEAD}BDAT 3\r\na\nbBDAT 6\r\nRSET\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n"
        )),
        "250 2.1.0, 250 2.1.5, 550 5.6.11, 503 5.5.1, 503 5.5.1, 250 2.0.0, 250 2.1.0"
    );
    for size in ["-1", "99999999999999999999", "18446744073709551617", "0x10", "+5", "", "5 LAS"] {
        let mut hand = Hand::mx();
        hand.say(HEAD);
        assert_eq!(hand.say(&format!("BDAT {size}\r\nNOOP\r\n")), "501 5.5.4", "{size}");
        assert!(matches!(hand.step, Some(Step::Close)));
    }
}

// covers: O-24, D-04
#[test]
fn the_turn_and_what_may_not_follow_it() {
    let login = "AUTH PLAIN AGRlbW8AcmlnaHQ=\r\n";
    let mut hand = Hand::odmr();
    assert_eq!(hand.say(&format!("{login}ATRN demo.example\r\n")), "235 2.7.0, 250 2.0.0");
    assert_eq!(hand.sent.lines().filter(|line| line.starts_with("250")).count(), 1);
    match hand.step {
        Some(Step::Reverse(reversal)) => {
            let (lease, tls) = reversal.into_parts();
            assert_eq!((lease.token(), tls.is_some()), (1, true));
        }
        other => panic!("{other:?}"),
    }
    let mut hand = Hand::odmr();
    assert_eq!(hand.say(&format!("{login}ATRN\r\nQUIT\r\n")), "235 2.7.0, 503 5.5.1, 221 2.0.0");
    assert_eq!(hand.releases, 0);
    let mut hand = Hand::odmr();
    hand.say(login);
    let question = hand.give(Input::Bytes(b"ATRN\r\n")).expect("asked");
    hand.give(Input::Bytes(b"220 early\r\n"));
    hand.sent.clear();
    hand.give(Input::Answer(office(question)));
    assert_eq!((hand.codes().as_str(), hand.releases), ("503 5.5.1, 500 5.5.1", 1));
    assert_eq!(hand.say("ATRN\r\n"), "250 2.0.0");
}

// covers: T-02, B1
#[test]
fn tls_forgets_and_nothing_survives_into_it() {
    let mut hand = Hand::mx();
    hand.say(HEAD);
    assert_eq!(hand.say("STARTTLS\r\n"), "220 2.0.0");
    let Some(Step::Upgrade(upgrade)) = hand.step.take() else { panic!("no upgrade") };
    hand.step = Some(Step::Stay(upgrade.secured(TlsFacts::default(), &mut hand.out)));
    assert_eq!(hand.say("RCPT TO:<l@demo.example>\r\n"), "503 5.5.1");
    hand.say("EHLO m.example\r\n");
    assert!(!hand.sent.contains("STARTTLS"));
    assert_eq!(hand.say("STARTTLS\r\n"), "503 5.5.1");
    let mut hand = Hand::mx();
    assert_eq!(hand.say("STARTTLS\r\nNOO"), "503 5.5.1");
    assert!(matches!(hand.step, Some(Step::Close)));
}

// covers: A-16, C11
#[test]
fn three_tries_to_log_in() {
    let mut hand = Hand::odmr();
    let wrong = "AUTH PLAIN AGRlbW8Ad3Jvbmc=\r\n";
    assert_eq!(hand.say(wrong), "535 5.7.8");
    assert_eq!(hand.say("AUTH CRAM-MD5\r\n*\r\n"), "334, 501 5.7.0");
    assert_eq!(hand.say(wrong), "535 5.7.8");
    assert_eq!(hand.say(wrong), "535 5.7.8, 421 4.7.0");
    assert!(matches!(hand.step, Some(Step::Close)));
    assert_eq!(hand.facts.len(), 3);
}

// covers: S-29, E11
#[test]
fn errors_have_a_budget() {
    let mut hand = Hand::mx();
    for _ in 0..20 {
        assert_eq!(hand.say("XYZZY\r\n"), "500 5.5.1");
    }
    assert_eq!(hand.say("XYZZY\r\nNOOP\r\n"), "421 4.7.0");
    assert!(matches!(hand.step, Some(Step::Close)));
    let mut hand = Hand::mx();
    hand.say(&"XYZZY\r\n".repeat(20));
    hand.say(&format!("{HEAD}DATA\r\nx\r\n.\r\n"));
    assert_eq!(hand.say("XYZZY\r\n"), "500 5.5.1", "a message was taken in between");
}

// covers: S-07, S-17
#[test]
fn patience_and_shutdown() {
    let mut hand = Hand::mx();
    assert_eq!(hand.session().patience(), Some(COMMAND_SECONDS_MAX));
    let round = hand.session().round();
    hand.say("NO");
    assert_eq!(hand.session().round(), round, "half a command buys no time");
    hand.say("OP\r\n");
    assert_ne!(hand.session().round(), round);
    hand.say(&format!("{HEAD}DATA\r\n"));
    assert_eq!(hand.session().patience(), Some(BLOCK_SECONDS_MAX));
    hand.sent.clear();
    hand.give(Input::ShuttingDown);
    assert!(hand.sent.is_empty(), "the message may still come in");
    assert_eq!(hand.say("x\r\n.\r\nNOOP\r\n"), "250 2.0.0, 421 4.3.2");
    let mut hand = Hand::mx();
    hand.sent.clear();
    hand.give(Input::Expired);
    assert_eq!(hand.codes(), "421 4.4.2");
}

#[test]
fn reading_stops_while_parked_and_full() {
    let mut hand = Hand::mx();
    hand.give(Input::Bytes(b"MAIL FROM:<>\r\n"));
    assert!(hand.session().may_read());
    hand.give(Input::Bytes(&vec![b'x'; PARKED_BYTES_MAX]));
    assert!(!hand.session().may_read());
}

#[test]
fn an_answer_nobody_asked_for_ends_the_session_and_leaves_no_lease() {
    let mut hand = Hand::mx();
    hand.sent.clear();
    hand.give(Input::Answer(Answer::Turn(Ok((lease(), 1)))));
    assert_eq!((hand.codes().as_str(), hand.releases), ("421 4.3.0", 1));
}
