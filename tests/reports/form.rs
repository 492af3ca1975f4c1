//! The form of a report, field by field, read by an independent parser.

use restante::mail::*;

use crate::house::*;

fn one_failure(reply: &str) -> (House, Sent) {
    let house = House::new();
    let id = house.mail(
        "t@foo.example",
        vec![recipient("U.Ser@acme.example", None, Some("rfc822;a+2Bb@example.org"))],
    );
    house.settle("acme", vec![(id, 0, failed(reply))]);
    house.report();
    let (head, text) = house.only_report();
    (house, Sent { head, text })
}

struct Sent {
    head: restante::store::Head,
    text: String,
}

// covers: N-10, N-11, N-12, N-13, N-14, N-21, H4
#[test]
fn every_field_of_a_failure() {
    let house = House::new();
    house.office.servers.met(
        &name("acme"),
        Some("mail.acme.example ESMTP"),
        &restante::smtp::sender::Extensions::default(),
    );
    let envelope = Envelope {
        reverse_path: ReversePath::parse("t@foo.example").expect("valid"),
        recipients: vec![
            recipient("U.Ser@acme.example", None, Some("rfc822;a+2Bb@example.org")),
            recipient("b@acme.example", None, None),
        ],
        dsn: DsnRequest { envid: Some("QQ+3D1".into()), ret: Some(Ret::Headers) },
        ..Envelope::default()
    };
    let id = house.take(envelope, b"Subject: hello\r\nTo: x\r\n\r\nsecret body\r\n");
    house.settle(
        "acme",
        vec![(id, 0, failed("550 5.1.1 no such user")), (id, 1, failed("554 not today"))],
    );
    house.report();
    let (head, text) = house.only_report();
    assert!(head.envelope.reverse_path.is_null());
    assert_eq!(head.recipients.len(), 1);
    assert_eq!(head.recipients[0].recipient.forward_path.as_str(), "t@foo.example");
    assert_eq!(head.recipients[0].recipient.notify, Some(Notify::default()), "NOTIFY=NEVER");
    assert_eq!(head.envelope.dsn.ret, None, "no RET");
    assert_eq!(head.facts.size, text.len() as u64);
    for line in [
        "From: Mail service <postmaster@mx.provider.example>\r\n",
        "To: <t@foo.example>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "References: <1@foo.example>\r\n",
        "MIME-Version: 1.0\r\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
    let parts = parts(&text);
    let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    let words = parts[0].1.replace('\n', " ");
    assert!(words.contains("<U.Ser@acme.example>") && words.contains("550 5.1.1 no such user"));
    let groups = groups(&parts[1].1);
    assert_eq!(groups.len(), 3);
    assert_eq!(field(&groups[0], "Reporting-MTA"), Some("dns; mx.provider.example"));
    assert_eq!(field(&groups[0], "Original-Envelope-Id"), Some("QQ=1"));
    assert_eq!(field(&groups[0], "Arrival-Date"), Some("Sun, 22 Nov 2026 03:19:00 +0000"));
    assert_eq!(field(&groups[1], "Original-Recipient"), Some("rfc822; a+b@example.org"));
    assert_eq!(field(&groups[1], "Final-Recipient"), Some("rfc822; U.Ser@acme.example"));
    assert_eq!(field(&groups[1], "Action"), Some("failed"));
    assert_eq!(field(&groups[1], "Status"), Some("5.1.1"));
    assert_eq!(field(&groups[1], "Remote-MTA"), Some("dns; mail.acme.example"));
    assert_eq!(field(&groups[1], "Diagnostic-Code"), Some("smtp; 550 5.1.1 no such user"));
    assert_eq!(field(&groups[2], "Original-Recipient"), None, "only if ORCPT was given");
    assert_eq!(field(&groups[2], "Status"), Some("5.0.0"), "derived from the reply code");
    assert!(groups.iter().flatten().all(|(name, _)| name != "Will-Retry-Until"));
    assert_eq!(parts[2].1, "Subject: hello\nTo: x\n");
    assert!(!text.contains("secret body"));
}

// covers: N-24
#[test]
fn a_report_names_no_other_customer() {
    let house = House::new();
    let both = vec![
        recipient("a@acme.example", None, None),
        recipient("b@other.example", None, Some("rfc822;b@other.example")),
    ];
    let id = house.mail("t@foo.example", both);
    house.settle("acme", vec![(id, 0, failed("550 5.1.1 no such user"))]);
    house.report();
    let (head, text) = house.only_report();
    assert!(text.contains("a@acme.example") && !text.contains("other"), "{text}");
    house.settle_relay(head.id);
    // The other customer's refusal is a report of its own, which does not name the first.
    house.settle("other", vec![(id, 1, failed("550 5.1.1 nor here"))]);
    house.report();
    let (_, text) = house.only_report();
    assert!(text.contains("b@other.example") && !text.contains("acme"), "{text}");
}

// covers: N-11
#[test]
fn the_whole_message_where_it_was_asked_for() {
    let house = House::new();
    let content = "Subject: hello\r\n\r\nthe whole b\u{f6}dy\r\n.dots\r\n";
    let big = format!("Subject: big\r\n\r\n{}", "line\r\n".repeat(60_000));
    for (content, kind) in [(content, "message/rfc822"), (&big, "text/rfc822-headers")] {
        let envelope = Envelope {
            reverse_path: ReversePath::parse("t@foo.example").expect("valid"),
            recipients: vec![recipient("a@acme.example", None, None)],
            dsn: DsnRequest { envid: None, ret: Some(Ret::Full) },
            ..Envelope::default()
        };
        let id = house.take(envelope, content.as_bytes());
        house.settle("acme", vec![(id, 0, failed("550 no"))]);
        house.report();
        let (head, text) = house.only_report();
        let third = parts(&text).remove(2);
        assert_eq!(third.0, kind);
        if kind == "message/rfc822" {
            assert_eq!(third.1, content.replace("\r\n", "\n"));
            assert!(head.facts.has_8bit_body && head.envelope.body == BodyKind::EightBitMime);
        }
        house.settle_relay(head.id);
    }
}

// covers: H5, R-14
#[test]
fn nothing_that_a_server_said_breaks_out_of_its_field() {
    let hostile =
        format!("550 5.1.1 \x1b[2J\r\n--=_0\r\nX: y\0 \u{202e} ü {}", "long ".repeat(400));
    let (_house, report) = one_failure(&hostile);
    let parts = parts(&report.text);
    assert_eq!(parts.len(), 3);
    let groups = groups(&parts[1].1);
    assert_eq!(groups.len(), 2);
    let code = field(&groups[1], "Diagnostic-Code").expect("there");
    assert!(code.is_ascii() && code.starts_with("smtp; 550 5.1.1 ?[2J"), "{code}");
    assert!(report.text.split("\r\n").all(|line| line.len() <= 998));
    assert!(!report.text.contains('\x1b') && !report.text.contains("\r\nX: y"));
}

// covers: N-13, R-11
/// A reply of many lines comes back whole, and one without end is cut.
#[test]
fn the_whole_reply_is_told() {
    let long: Vec<String> =
        (1..=20).map(|n| format!("5.7.1 line {n} of a long explanation")).collect();
    let reply = format!("550 {}", long.join(" "));
    assert!(reply.len() > 700);
    let (_house, report) = one_failure(&reply);
    let groups = groups(&parts(&report.text)[1].1);
    let code = field(&groups[1], "Diagnostic-Code").expect("there");
    assert_eq!(code, format!("smtp; {reply}"));
    let (_house, report) = one_failure(&format!("550 5.7.1 {}", "x".repeat(5000)));
    assert!(report.text.split("\r\n").all(|line| line.len() <= 998));
    assert_eq!(parts(&report.text).len(), 3);
}

// covers: N-18, U-01
#[test]
fn utf8_addresses_to_ascii_and_utf8_senders() {
    for (from, kind, last) in [
        ("t@foo.example", "message/delivery-status", "utf-8; j\\x{FC}rgen@acme.example"),
        (
            "t\u{fc}@foo.example",
            "message/global-delivery-status",
            "utf-8; j\u{fc}rgen@acme.example",
        ),
    ] {
        let house = House::new();
        let envelope = Envelope {
            reverse_path: ReversePath::parse(from).expect("valid"),
            recipients: vec![recipient(
                "j\u{fc}rgen@acme.example",
                None,
                Some("utf-8;j\\x{FC}rgen@acme.example"),
            )],
            smtputf8: true,
            ..Envelope::default()
        };
        let id = house.take(envelope, "Subject: gr\u{fc}\u{df}e\r\n\r\nx\r\n".as_bytes());
        house.settle("acme", vec![(id, 0, failed("550 5.1.1 no"))]);
        house.report();
        let (head, text) = house.only_report();
        let is_global = kind.contains("global");
        assert_eq!(head.envelope.smtputf8, is_global);
        assert_eq!(text.is_ascii(), !is_global);
        let parts = parts(&text);
        assert_eq!(parts[1].0, kind);
        let groups = groups(&parts[1].1);
        assert_eq!(field(&groups[1], "Final-Recipient"), Some(last));
        assert_eq!(parts[2].0, "message/global-headers");
        if is_global {
            assert!(parts[2].1.contains("Subject: gr\u{fc}\u{df}e"));
        } else {
            assert!(text.contains("Subject: gr=C3=BC=C3=9Fe"));
        }
    }
}

// covers: N-20
#[test]
fn a_relayed_report_names_what_was_done() {
    let house = House::new();
    let wish = Some(Notify { success: true, failure: true, delay: false });
    let id = house.mail("t@foo.example", vec![recipient("a@acme.example", wish, None)]);
    let relayed = restante::store::Verdict::Relayed(ReplyText::clean("250 2.0.0 queued"));
    house.settle("acme", vec![(id, 0, relayed)]);
    house.report();
    let (_, text) = house.only_report();
    let parts = parts(&text);
    let groups = groups(&parts[1].1);
    assert_eq!(field(&groups[1], "Action"), Some("relayed"));
    assert_eq!(field(&groups[1], "Status"), Some("2.0.0"));
    assert_eq!(parts[2].0, "text/rfc822-headers");
    assert_eq!(house.waiting("acme"), []);
}

#[test]
fn the_report_can_be_sent_as_it_is() {
    let (_house, report) = one_failure("550 no");
    let bare = report.text.replace("\r\n", "");
    assert!(!bare.contains(['\r', '\n']), "CRLF only");
    assert!(report.text.ends_with("\r\n") && report.text.is_ascii());
    assert!(!report.head.facts.has_8bit_body && !report.head.facts.has_8bit_header);
}
