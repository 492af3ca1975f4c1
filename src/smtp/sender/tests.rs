//! The sender driven by hand: what goes out when, and one fate for everybody whatever the peer says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::mail::{ContentFacts, Domain, Envelope, ForwardPath, Recipient, ReversePath};

fn style() -> Style {
    Style::standard(Domain::parse("mx.provider.example").expect("valid"))
}

fn message(tag: u64, recipients: usize, size: u64) -> Box<Outgoing> {
    let envelope = Envelope {
        reverse_path: ReversePath::parse("t@foo.example").expect("valid"),
        recipients: (0..recipients)
            .map(|place| Recipient {
                forward_path: ForwardPath::parse(&format!("u{place}@example.org")).expect("valid"),
                notify: None,
                orcpt: None,
            })
            .collect(),
        ..Envelope::default()
    };
    Box::new(Outgoing { tag, envelope, facts: ContentFacts::default(), size })
}

fn ehlo_reply(keywords: &str) -> String {
    let lines: String = keywords.split_whitespace().map(|word| format!("250-{word}\r\n")).collect();
    format!("250-customer.example\r\n{lines}250 HELP\r\n")
}

/// A sender and what it said.
struct Hand {
    sender: Sender,
    wire: Vec<u8>,
    done: Vec<Action>,
}

impl Hand {
    fn new(keywords: &str) -> Self {
        let mut hand = Self { sender: Sender::new(style()), wire: Vec::new(), done: Vec::new() };
        hand.hear("220 customer.example ready\r\n");
        assert_eq!(hand.said(), "EHLO mx.provider.example\r\n");
        hand.hear(&ehlo_reply(keywords));
        assert_eq!(hand.done.remove(0), Action::Ready);
        hand
    }

    fn tell(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        self.sender.advance(input, &mut out);
        for action in out {
            match action {
                Action::Send(octets) => {
                    self.sender.left(octets.len());
                    self.wire.extend(octets);
                }
                other => self.done.push(other),
            }
        }
    }

    fn hear(&mut self, replies: &str) {
        self.tell(Input::Bytes(replies.as_bytes()));
    }

    fn send(&mut self, tag: u64, recipients: usize, content: &str) {
        assert_eq!(self.sender.wants(), Want::Message);
        self.tell(Input::Message(message(tag, recipients, content.len() as u64)));
        if self.sender.wants() == Want::Body {
            self.body(content);
        }
    }

    fn body(&mut self, content: &str) {
        assert_eq!(self.sender.wants(), Want::Body);
        self.tell(Input::Body { octets: Bytes::copy_from_slice(content.as_bytes()), last: true });
    }

    fn said(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.wire)).expect("text")
    }

    fn fates(&mut self) -> Vec<Fate> {
        let done = std::mem::take(&mut self.done);
        done.into_iter()
            .filter_map(|action| match action {
                Action::Fate { fate, .. } => Some(fate),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn without_pipelining_one_command_at_a_time() {
    let mut hand = Hand::new("");
    hand.send(1, 2, "x\r\n");
    for (said, reply) in [
        ("MAIL FROM:<t@foo.example>\r\n", "250 ok\r\n"),
        ("RCPT TO:<u0@example.org>\r\n", "550 no\r\n"),
        ("RCPT TO:<u1@example.org>\r\n", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
    ] {
        assert_eq!((hand.said().as_str(), hand.sender.wants()), (said, Want::Nothing));
        hand.hear(reply);
    }
    hand.body("x\r\n");
    assert_eq!((hand.said().as_str(), hand.sender.wants()), ("x\r\n.\r\n", Want::Nothing));
    hand.hear("250 taken\r\n");
    let fates = hand.fates();
    assert!(matches!(&fates[0], Fate::Said(Outcome::Failed(_))));
    assert!(matches!(&fates[1], Fate::Said(Outcome::Delivered(_))));
    // Refused in lock-step: no RCPT after a refused MAIL; no DATA without a recipient, but RSET before the next.
    hand.send(2, 2, "x\r\n");
    assert_eq!(hand.said(), "MAIL FROM:<t@foo.example>\r\n");
    hand.hear("450 no\r\n");
    assert_eq!((hand.fates().len(), hand.sender.wants()), (2, Want::Message));
    hand.send(3, 1, "x\r\n");
    hand.hear("250 ok\r\n");
    hand.hear("450 no\r\n");
    assert_eq!(hand.said(), "MAIL FROM:<t@foo.example>\r\nRCPT TO:<u0@example.org>\r\n");
    hand.send(4, 1, "x\r\n");
    assert_eq!(hand.said(), "RSET\r\n");
}

#[test]
fn with_pipelining_the_next_group_travels_behind_the_final_dot() {
    let mut hand = Hand::new("PIPELINING");
    let group = "MAIL FROM:<t@foo.example>\r\nRCPT TO:<u0@example.org>\r\nDATA\r\n";
    hand.send(1, 1, "x\r\n");
    assert_eq!(hand.said(), group);
    hand.hear("250\r\n250\r\n354 go\r\n");
    hand.body("x\r\n");
    hand.send(2, 1, "y\r\n");
    assert_eq!(hand.said(), format!("x\r\n.\r\n{group}"));
    assert_eq!(hand.sender.wants(), Want::Nothing, "the second content waits for its 354");
    hand.hear("250 taken\r\n250\r\n250\r\n");
    assert_eq!((hand.fates().len(), hand.sender.wants()), (1, Want::Nothing));
    hand.hear("354 go\r\n");
    hand.body("y\r\n");
    assert_eq!(hand.said(), "y\r\n.\r\n");
}

#[test]
fn a_lone_dot_where_nobody_takes_the_content() {
    let mut hand = Hand::new("PIPELINING");
    hand.send(1, 2, "secret\r\n");
    hand.said();
    hand.hear("250\r\n550 no\r\n450 no\r\n354 go\r\n");
    assert_eq!(hand.said(), ".\r\n");
    hand.hear("250 taken, it thinks\r\n");
    let fates = hand.fates();
    assert!(matches!(&fates[0], Fate::Said(Outcome::Failed(_))));
    assert!(matches!(&fates[1], Fate::Said(Outcome::Later(_))));
    hand.send(2, 1, "x\r\n");
    assert!(hand.said().starts_with("MAIL"), "the dot cleared the transaction");
    hand.hear("250\r\n550 no\r\n554 no valid recipients\r\n");
    hand.send(3, 1, "x\r\n");
    assert!(hand.said().starts_with("RSET\r\nMAIL"), "a refused DATA does not clear it");
}

#[test]
fn chunks_of_many_messages_before_the_first_reply() {
    let mut hand = Hand::new("PIPELINING CHUNKING");
    for tag in 1..=3 {
        hand.send(tag, 1, "x\r\n");
    }
    let one = "MAIL FROM:<t@foo.example>\r\nRCPT TO:<u0@example.org>\r\nBDAT 3 LAST\r\nx\r\n";
    assert_eq!(hand.said(), format!("{one}RSET\r\n{one}RSET\r\n{one}"));
    hand.hear("250\r\n250\r\n250 taken\r\n250 reset\r\n250\r\n550 no\r\n503 nobody\r\n");
    assert_eq!(hand.fates().len(), 2);
    hand.hear("250 reset\r\n550 no\r\n503 no\r\n503 no\r\n");
    assert_eq!(
        hand.fates(),
        [Fate::Said(Outcome::Failed(crate::mail::ReplyText::clean("550 no")))]
    );
    assert!(hand.sender.is_idle());
}

#[test]
fn no_chunk_after_a_refused_one() {
    let mut hand = Hand::new("PIPELINING CHUNKING");
    hand.tell(Input::Message(message(1, 1, 9)));
    hand.tell(Input::Body { octets: Bytes::from_static(b"abc"), last: false });
    hand.hear("250\r\n250\r\n552 too big\r\n");
    assert!(matches!(hand.done[0], Action::DropBody));
    assert_eq!(hand.fates().len(), 1);
    hand.said();
    hand.send(2, 1, "x\r\n");
    assert!(hand.said().starts_with("RSET\r\n"));
}

#[test]
fn a_body_that_is_lost_is_never_finished() {
    let mut hand = Hand::new("PIPELINING CHUNKING");
    hand.tell(Input::Message(message(1, 1, 9)));
    hand.tell(Input::Body { octets: Bytes::from_static(b"abc"), last: false });
    hand.tell(Input::BodyLost);
    hand.hear("250\r\n250\r\n250\r\n");
    assert_eq!(hand.fates(), [Fate::Untouched]);
    hand.said();
    hand.send(2, 1, "x\r\n");
    assert!(hand.said().starts_with("RSET\r\n"), "which drops the begun message");
    let mut hand = Hand::new("PIPELINING");
    hand.tell(Input::Message(message(1, 1, 9)));
    hand.hear("250\r\n250\r\n354 go\r\n");
    hand.tell(Input::Body { octets: Bytes::from_static(b"abc"), last: false });
    hand.tell(Input::BodyLost);
    assert!(matches!(hand.done.last(), Some(Action::Over(End { kind: EndKind::Body, .. }))));
    assert_eq!(hand.fates(), [Fate::Interrupted]);
}

#[test]
fn an_old_552_at_rcpt_means_too_many() {
    let mut hand = Hand::new("PIPELINING");
    hand.send(1, 3, "x\r\n");
    hand.hear("250\r\n250\r\n552 too many recipients\r\n552 5.2.2 full\r\n354 go\r\n");
    hand.body("x\r\n");
    hand.hear("250 taken\r\n");
    let fates = hand.fates();
    assert!(matches!(&fates[1], Fate::Said(Outcome::Later(_))));
    assert!(matches!(&fates[2], Fate::Said(Outcome::Failed(_))));
}

/// One step of a hostile or honest world.
#[derive(Clone, Debug)]
enum Step {
    /// Say what fits the oldest unanswered command, refusing if told so.
    Fit {
        refuse: u16,
    },
    Say(&'static str),
    Feed {
        recipients: usize,
        octets: usize,
        last: bool,
    },
    Leave(usize),
    Lose,
    Expire,
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        30 => prop_oneof![4 => Just(0u16), 1 => Just(450), 1 => Just(550)]
            .prop_map(|refuse| Step::Fit { refuse }),
        20 => (1..4usize, 0..40usize, any::<bool>())
            .prop_map(|(recipients, octets, last)| Step::Feed { recipients, octets, last }),
        20 => (0..200usize).prop_map(Step::Leave),
        2 => prop_oneof![
            Just("250 x\r\n"), Just("354 x\r\n"), Just("421 x\r\n"), Just("550 x"), Just("rubbish\r\n"),
            Just("530 x\r\n"), Just("25"), Just("250-x\r\n"),
        ].prop_map(Step::Say),
        1 => Just(Step::Lose),
        1 => Just(Step::Expire),
        1 => Just(Step::End),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Plays the steps; gives how often each recipient of each message taken had a fate.
fn play(keywords: &str, steps: &[Step]) -> (BTreeMap<(u64, usize), usize>, bool) {
    let mut sender = Sender::new(style());
    let mut fates: BTreeMap<(u64, usize), usize> = BTreeMap::new();
    let (mut tag, mut unsent, mut over) = (0, 0usize, false);
    let mut finished = std::collections::BTreeSet::new();
    let mut last_steps = steps.to_vec();
    last_steps.push(Step::End);
    for step in last_steps {
        let due = sender.expected.front().map(|due| due.what);
        let mut out = Vec::new();
        match step {
            Step::Fit { refuse } => {
                sender.left(std::mem::take(&mut unsent));
                let reply = match due {
                    None => continue,
                    Some(What::Greeting) => "220 x\r\n".to_owned(),
                    Some(What::Ehlo) => ehlo_reply(keywords),
                    Some(What::Data) if refuse == 0 => "354 x\r\n".to_owned(),
                    Some(What::Helo | What::Reset | What::Quit | What::Noop) => "250 x\r\n".into(),
                    Some(_) => format!("{} x\r\n", if refuse == 0 { 250 } else { refuse }),
                };
                sender.advance(Input::Bytes(reply.as_bytes()), &mut out);
            }
            Step::Say(text) => sender.advance(Input::Bytes(text.as_bytes()), &mut out),
            Step::Feed { recipients, octets, last } => match sender.wants() {
                Want::Nothing => continue,
                Want::Message => {
                    tag += 1;
                    fates.extend((0..recipients).map(|place| ((tag, place), 0)));
                    sender.advance(Input::Message(message(tag, recipients, 0)), &mut out);
                }
                Want::Body => {
                    let octets = b"a line\r\n".repeat(octets).into();
                    sender.advance(Input::Body { octets, last }, &mut out);
                }
            },
            Step::Leave(octets) => {
                let octets = octets.min(unsent);
                unsent -= octets;
                sender.left(octets);
            }
            Step::Lose if sender.wants() == Want::Body => sender.advance(Input::BodyLost, &mut out),
            Step::Lose => continue,
            Step::Expire => sender.advance(Input::Expired, &mut out),
            Step::End => sender.advance(Input::Ended, &mut out),
        }
        for action in out {
            match action {
                Action::Send(octets) => {
                    assert!(!over, "nothing is said after the end");
                    unsent += octets.len();
                }
                Action::Fate { tag, recipient, .. } => {
                    assert!(!finished.contains(&tag), "a fate after the last one");
                    *fates.entry((tag, recipient)).or_default() += 1;
                }
                Action::Finished(tag) => assert!(finished.insert(tag), "finished twice"),
                Action::Over(_) => over = true,
                Action::Ready | Action::DropBody => {}
            }
        }
    }
    assert_eq!(finished.len() as u64, tag, "every message is finished once");
    (fates, over)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn everybody_has_exactly_one_fate(
        steps in steps(),
        keywords in prop_oneof![Just(""), Just("PIPELINING"), Just("CHUNKING"), Just("PIPELINING CHUNKING")],
    ) {
        let (fates, over) = play(keywords, &steps);
        prop_assert!(over);
        for ((tag, recipient), count) in fates {
            prop_assert_eq!(count, 1, "message {} recipient {}", tag, recipient);
        }
    }
}
