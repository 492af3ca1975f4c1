//! The three shapes, and what hostile values come to in them.

use super::*;

fn event(name: &str, fields: &[(&'static str, Value)]) -> Event {
    Event {
        time: Timestamp(1_795_317_540_123),
        level: log::Level::Info,
        name: name.into(),
        fields: fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

fn in_shape(event: &Event, format: LogFormat) -> String {
    shape(event, format, "mx", 42)
}

/// Through a real record, as the program makes them.
fn of_record(target: &str, message: &str, key: &'static str, value: &str) -> Event {
    let pairs = [(key, value)];
    let arguments = format_args!("{message}").to_string();
    let mut made = None;
    let record = |arguments: std::fmt::Arguments<'_>| {
        let mut builder = log::Record::builder();
        builder.level(log::Level::Warn).target(target).args(arguments).key_values(&pairs);
        Event::of(&builder.build(), Timestamp(0))
    };
    made.replace(record(format_args!("{arguments}")));
    made.expect("made above")
}

#[test]
fn text_quotes_where_needed() {
    let accepted = event(
        "accepted",
        &[
            ("id", text("01ABC")),
            ("from", text("")),
            ("to", text("l@example.com")),
            ("size", Value::Number(312)),
            ("reply", text("250 2.0.0 fine")),
        ],
    );
    assert_eq!(
        in_shape(&accepted, LogFormat::Text),
        "2026-11-22T03:19:00.123Z info accepted id=01ABC from=\"\" to=l@example.com size=312 \
         reply=\"250 2.0.0 fine\"\n"
    );
}

#[test]
fn nothing_a_peer_says_makes_a_second_line_or_reaches_the_terminal() {
    let evil = "a\r\n2026 info login customer=root\u{1b}[2J\u{202e}\u{85}\u{2028}\"\\";
    let hostile =
        event("refused", &[("reply", text(evil)), ("to", text(evil)), ("from", text(evil))]);
    for format in [LogFormat::Text, LogFormat::Json, LogFormat::Postfix] {
        let line = in_shape(&hostile, format);
        assert_eq!(line.matches('\n').count(), 1, "{format:?}: {line}");
        assert!(line.ends_with('\n'));
        let inside = line.trim_end_matches('\n');
        assert!(!inside.chars().any(crate::app::output::hidden), "{format:?}: {inside:?}");
    }
}

#[test]
fn json_is_json_and_gives_back_what_was_said() {
    let evil = "line\nbreak \u{202e} \"quoted\" é";
    let line = in_shape(
        &event(
            "refused",
            &[("reply", text(evil)), ("level", text("mine")), ("n", Value::Number(7))],
        ),
        LogFormat::Json,
    );
    let object: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
    assert_eq!(object["event"], "refused");
    assert_eq!(object["level"], "info");
    assert_eq!(object["level_"], "mine");
    assert_eq!(object["reply"], evil);
    assert_eq!(object["n"], 7);
}

#[test]
fn long_fields_are_cut_at_a_border_of_characters() {
    let long = "é".repeat(400);
    let event = of_record("restante", "refused", "reply", &long);
    let Value::Text(kept) = &event.fields[0].1 else { panic!("a text") };
    assert!(kept.len() <= fields::FIELD_BYTES_MAX && kept.ends_with('…'), "{}", kept.len());
    assert_eq!(event.name, "refused");
}

#[test]
fn numbers_stay_numbers() {
    let pairs = [("messages", log::kv::Value::from(7u64)), ("seconds", log::kv::Value::from(0.25))];
    let mut builder = log::Record::builder();
    builder.level(log::Level::Info).target("restante").key_values(&pairs);
    let event = Event::of(&builder.args(format_args!("drained")).build(), Timestamp(0));
    assert!(in_shape(&event, LogFormat::Text).ends_with(" drained messages=7 seconds=0.25\n"));
    let object: serde_json::Value =
        serde_json::from_str(&in_shape(&event, LogFormat::Json)).expect("valid JSON");
    assert_eq!((&object["messages"], &object["seconds"]), (&7.into(), &0.25.into()));
}

#[test]
fn free_messages_become_a_field() {
    let event = of_record("restante::net", "it is\nbroken", "why", "x");
    assert_eq!(event.name, "log");
    assert_eq!(event.field("message"), "it is\nbroken");
    assert_eq!(event.field("target"), "restante::net");
    assert_eq!(event.field("why"), "x");
    let injected = of_record("restante", "login customer=root", "why", "x");
    assert_eq!(injected.name, "log");
}

#[test]
fn postfix_forms() {
    let accepted = event(
        "accepted",
        &[
            ("id", text("01ABC")),
            ("from", text("t@foo.example")),
            ("to", text("l@example.com,m@example.com")),
            ("size", Value::Number(312)),
            ("client", text("192.0.2.1")),
        ],
    );
    let start = "2026-11-22T03:19:00.123Z mx restante";
    assert_eq!(
        in_shape(&accepted, LogFormat::Postfix),
        format!(
            "{start}/smtpd[42]: 01ABC: client=unknown[192.0.2.1]\n\
             {start}/qmgr[42]: 01ABC: from=<t@foo.example>, size=312, nrcpt=2 (queue active)\n"
        )
    );
    let failed = event(
        "failed",
        &[
            ("id", text("01ABC")),
            ("to", text("l@example.com")),
            ("customer", text("acme")),
            ("path", text("atrn")),
            ("reply", text("550 5.1.1 no such user")),
            ("delay", Value::Number(9)),
        ],
    );
    assert_eq!(
        in_shape(&failed, LogFormat::Postfix),
        format!(
            "{start}/atrn[42]: 01ABC: to=<l@example.com>, relay=atrn:acme, delay=9, delays=0/9/0/0, \
             dsn=5.1.1, status=bounced (550 5.1.1 no such user)\n"
        )
    );
    let refused = event(
        "refused",
        &[
            ("at", text("RCPT")),
            ("reply", text("550 5.7.1 not here")),
            ("from", text("a@b.example")),
            ("to", text("x@y.example")),
            ("client", text("192.0.2.1")),
        ],
    );
    assert_eq!(
        in_shape(&refused, LogFormat::Postfix),
        format!(
            "{start}/smtpd[42]: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 550 5.7.1 not here; \
             from=<a@b.example> to=<x@y.example> proto=ESMTP\n"
        )
    );
}
