//! Bridged dialogues as transcripts: `P:` the provider says, `T:` the target says, `>T` and `>P` what then leaves
//! the bridge for them. Each runs whole and octet by octet.

use super::*;
use crate::smtp::sender::Malformed;

struct Stage {
    bridge: Bridge,
    parked: Vec<u8>,
    out: Output,
    step: usize,
}

impl Stage {
    fn provider(&mut self, bytes: &[u8]) -> Result<(), BridgeFault> {
        for part in bytes.chunks(self.step) {
            self.parked.extend_from_slice(part);
            self.offer()?;
        }
        Ok(())
    }

    fn offer(&mut self) -> Result<(), BridgeFault> {
        let taken = self.bridge.provider_bytes(&self.parked, &mut self.out)?;
        self.parked.drain(..taken);
        Ok(())
    }

    fn target(&mut self, bytes: &[u8]) -> Result<(), BridgeFault> {
        for part in bytes.chunks(self.step) {
            self.bridge.target_bytes(part, &mut self.out)?;
        }
        self.offer()
    }
}

fn expect(place: &mut Vec<u8>, words: &str, line: usize) {
    let expected = format!("{}\r\n", words.replace("␍␊", "\r\n"));
    let heard = String::from_utf8_lossy(place).into_owned();
    assert!(heard.starts_with(&expected), "line {line}: expected {expected:?}, heard {heard:?}");
    place.drain(..expected.len());
}

fn play_cut(bridge: Bridge, script: &str, step: usize) -> (Vec<Passed>, Option<BridgeFault>) {
    let mut stage = Stage { bridge, parked: Vec::new(), out: Output::default(), step };
    let mut fault = None;
    for (number, line) in script.lines().map(str::trim).enumerate() {
        if line.is_empty() {
            continue;
        }
        let (party, words) = line.split_once(' ').expect("a party and its words");
        let bytes = format!("{}\r\n", words.replace("␍␊", "\r\n"));
        let outcome = match party {
            "P:" => stage.provider(bytes.as_bytes()),
            "T:" => stage.target(bytes.as_bytes()),
            other => {
                match other {
                    ">T" => expect(&mut stage.out.to_target, words, number),
                    ">P" => expect(&mut stage.out.to_provider, words, number),
                    "--" => stage.bridge.stop(&mut stage.out),
                    _ => panic!("{other}?"),
                }
                Ok(())
            }
        };
        fault = fault.or(outcome.err());
    }
    assert_eq!(String::from_utf8_lossy(&stage.out.to_target), "", "too much for the target");
    assert_eq!(String::from_utf8_lossy(&stage.out.to_provider), "", "too much for the provider");
    (stage.out.passed, fault)
}

fn play(dialect: Dialect, hides: bool, script: &str) -> Vec<Passed> {
    let mut outcomes = [1, 2, 7, usize::MAX].map(|step| {
        let (passed, fault) = play_cut(Bridge::new(dialect, hides), script, step);
        assert_eq!(fault, None, "step {step}");
        passed
    });
    assert!(outcomes.iter().all(|one| *one == outcomes[0]));
    std::mem::take(&mut outcomes[0])
}

const HELLO: &str = "
    T: 220 home.example ESMTP
    >P 220 home.example ESMTP
    P: EHLO mx.provider.example
    >T EHLO mx.provider.example
    T: 250-home.example␍␊250-PIPELINING␍␊250-SIZE 1000␍␊250 StartTLS
    >P 250-home.example␍␊250-PIPELINING␍␊250 SIZE 1000";

#[test]
fn a_pipelined_message_passes_and_starttls_is_hidden() {
    let script = format!(
        "{HELLO}
        P: MAIL FROM:<a@foo.example> SIZE=9␍␊RCPT TO:<b@home.example>␍␊RCPT TO:<c@home.example>␍␊DATA
        >T MAIL FROM:<a@foo.example> SIZE=9
        T: 250 2.1.0 ok
        >P 250 2.1.0 ok
        >T RCPT TO:<b@home.example>
        T: 250 2.1.5 ok
        >P 250 2.1.5 ok
        >T RCPT TO:<c@home.example>
        T: 550 5.1.1 no
        >P 550 5.1.1 no
        >T DATA
        T: 354 go
        >P 354 go
        P: ..stuffed␍␊␍␊body␍␊.␍␊QUIT
        >T ..stuffed␍␊␍␊body␍␊.
        T: 250 2.0.0 queued
        >P 250 2.0.0 queued
        >T QUIT
        T: 221 bye
        >P 221 bye"
    );
    let passed = play(Dialect::Smtp, true, &script);
    assert_eq!(
        passed,
        [Passed {
            from: "a@foo.example".into(),
            to: vec!["b@home.example".into()],
            octets: 22,
            reply: "250 2.0.0 queued".into(),
            taken: true,
        }]
    );
}

#[test]
fn in_clear_text_starttls_stays_and_then_nothing_is_read_any_more() {
    let script = "
        T: 220 home
        >P 220 home
        P: EHLO mx
        >T EHLO mx
        T: 250-home␍␊250 STARTTLS
        >P 250-home␍␊250 STARTTLS
        P: STARTTLS
        >T STARTTLS
        T: 220 go␍␊(handshake)
        >P 220 go␍␊(handshake)
        P: (anything at all)
        >T (anything at all)";
    assert_eq!(play(Dialect::Smtp, false, script), []);
}

#[test]
fn chunks_pass_whatever_is_in_them() {
    let script = format!(
        "{HELLO}
        P: MAIL FROM:<>␍␊RCPT TO:<b@home.example>
        >T MAIL FROM:<>
        T: 250 ok
        >P 250 ok
        >T RCPT TO:<b@home.example>
        T: 250 ok
        >P 250 ok
        P: BDAT 6␍␊a␍␊.␍␊BDAT 8 LAST␍␊.␍␊QUIT
        >T BDAT 6␍␊a␍␊.
        T: 250 6 octets
        >P 250 6 octets
        >T BDAT 8 LAST␍␊.␍␊QUIT␍␊
        T: 250 2.0.0 queued"
    );
    // The second chunk is ".CRLF QUIT" without a line end of its own plus what the helper adds.
    let script = script.replace(">T BDAT 8 LAST␍␊.␍␊QUIT␍␊", ">T BDAT 8 LAST␍␊.␍␊QUIT");
    let script = script.replace("BDAT 8 LAST", "BDAT 9 LAST");
    let script = format!("{script}\n>P 250 2.0.0 queued");
    let passed = play(Dialect::Smtp, true, &script);
    assert_eq!((passed.len(), passed[0].octets, passed[0].from.as_str()), (1, 15, ""));
}

const LHLO: &str = "
    T: 220 dovecot
    >P 220 dovecot
    P: EHLO mx
    >T LHLO mx
    T: 250-dovecot␍␊250-STARTTLS␍␊250-LIMITS MAILMAX=5 RCPTMAX=50␍␊250 8BITMIME
    >P 250-dovecot␍␊250-8BITMIME␍␊250 LIMITS RCPTMAX=1 MAILMAX=5";

#[test]
fn lmtp_takes_one_recipient_a_transaction() {
    let script = format!(
        "{LHLO}
        P: MAIL FROM:<a@x.example>␍␊RCPT TO:<no@h.example>␍␊RCPT TO:<b@h.example>␍␊RCPT TO:<c@h.example>␍␊DATA
        >T MAIL FROM:<a@x.example>
        T: 250 ok
        >P 250 ok
        >T RCPT TO:<no@h.example>
        T: 550 no
        >P 550 no
        >T RCPT TO:<b@h.example>
        T: 250 ok
        >P 250 ok
        >P 452 4.5.3 One recipient a transaction here, send the others in their own
        >T DATA
        T: 354 go
        >P 354 go
        P: x␍␊.
        >T x␍␊.
        T: 250 2.0.0 <b@h.example> saved
        >P 250 2.0.0 <b@h.example> saved
        P: MAIL FROM:<a@x.example>␍␊RCPT TO:<c@h.example>
        >T MAIL FROM:<a@x.example>
        T: 250 ok
        >P 250 ok
        >T RCPT TO:<c@h.example>
        T: 250 ok
        >P 250 ok"
    );
    let passed = play(Dialect::Lmtp, true, &script);
    assert_eq!((passed.len(), passed[0].to.len()), (1, 1));
}

#[test]
fn lmtp_content_without_recipient_is_answered_here() {
    let script = format!(
        "{LHLO}
        P: MAIL FROM:<a@x.example>␍␊RCPT TO:<no@h.example>␍␊DATA
        >T MAIL FROM:<a@x.example>
        T: 250 ok
        >P 250 ok
        >T RCPT TO:<no@h.example>
        T: 550 no
        >P 550 no
        >P 503 5.5.1 No valid recipients
        P: BDAT 3 LAST␍␊abcRSET
        >P 503 5.5.1 No valid recipients
        >T RSET
        T: 250 ok
        >P 250 ok"
    );
    assert_eq!(play(Dialect::Lmtp, true, &script), []);
}

#[test]
fn helo_becomes_lhlo_with_a_reply_of_one_line() {
    let script = "
        T: 220 dovecot
        >P 220 dovecot
        P: HELO mx
        >T LHLO mx
        T: 250-dovecot␍␊250 8BITMIME
        >P 250 dovecot";
    play(Dialect::Lmtp, false, script);
}

#[test]
fn an_early_refusal_is_the_reply_and_an_early_yes_is_a_fault() {
    let upto = format!(
        "{HELLO}
        P: MAIL FROM:<a@x.example>␍␊RCPT TO:<b@h.example>␍␊DATA
        >T MAIL FROM:<a@x.example>
        T: 250 ok
        >P 250 ok
        >T RCPT TO:<b@h.example>
        T: 250 ok
        >P 250 ok
        >T DATA
        T: 354 go
        >P 354 go
        P: first
        >T first"
    );
    let refused = format!("{upto}\nT: 452 full\n>P 452 full\nP: rest␍␊.␍␊RSET\n>T rest␍␊.␍␊RSET");
    let passed = play(Dialect::Smtp, true, &refused);
    assert_eq!((passed.len(), passed[0].taken), (1, false));
    let agreed = format!("{upto}\nT: 250 queued");
    let (passed, fault) = play_cut(Bridge::new(Dialect::Smtp, true), &agreed, usize::MAX);
    assert_eq!((passed.len(), fault), (0, Some(BridgeFault::OutOfStep)));
}

#[test]
fn a_stop_waits_for_the_message_under_way() {
    let now = format!(
        "{HELLO}
        -- stop
        >P 421 4.3.2 Stopping here, the rest stays queued
        >T QUIT
        P: MAIL FROM:<a@x.example>
        T: 221 bye"
    );
    play(Dialect::Smtp, true, &now);
    let later = format!(
        "{HELLO}
        P: MAIL FROM:<a@x.example>
        >T MAIL FROM:<a@x.example>
        -- stop
        T: 250 ok
        >P 250 ok
        P: RCPT TO:<b@h.example>␍␊DATA
        >T RCPT TO:<b@h.example>
        T: 250 ok
        >P 250 ok
        >T DATA
        T: 354 go
        >P 354 go
        P: x␍␊.␍␊MAIL FROM:<next@x.example>
        >T x␍␊.
        T: 250 queued
        >P 250 queued
        >P 421 4.3.2 Stopping here, the rest stays queued
        >T QUIT"
    );
    assert_eq!(play(Dialect::Smtp, true, &later).len(), 1);
}

#[test]
fn noise_and_lines_without_end_are_faults() {
    let mut out = Output::default();
    let mut bridge = Bridge::new(Dialect::Smtp, true);
    let fault = bridge.target_bytes(b"hello\r\n", &mut out);
    assert_eq!(fault, Err(BridgeFault::Target(Malformed::Syntax)));
    let mut bridge = Bridge::new(Dialect::Smtp, true);
    bridge.target_bytes(b"220 x\r\n", &mut out).expect("a greeting");
    let fault = bridge.provider_bytes(&[b'x'; LINE_BYTES_MAX + 1], &mut out);
    assert_eq!(fault, Err(BridgeFault::EndlessLine));
}

#[test]
fn a_login_between_the_two_passes_line_by_line() {
    let script = format!(
        "{HELLO}
        P: AUTH CRAM-MD5
        >T AUTH CRAM-MD5
        T: 334 Y2hhbGxlbmdl
        >P 334 Y2hhbGxlbmdl
        P: REFUQQ==
        >T REFUQQ==
        T: 235 ok
        >P 235 ok
        P: NOOP
        >T NOOP
        T: 421 closing
        >P 421 closing"
    );
    play(Dialect::Smtp, true, &script);
}
