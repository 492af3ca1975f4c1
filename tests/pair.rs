//! The drain and a customer's server, joined in memory: whole drains, in every way of sending.

mod drain_support;

use std::time::Duration;

use drain_support::pipe::Traits;
use drain_support::server::{Reply, Server};
use drain_support::{Place, at_once, domain};
use restante::mail::*;
use restante::provider::{Window, World};

/// Every way in which a server lets us send.
fn servers() -> Vec<Server> {
    vec![
        Server::offering(&[]),
        Server::offering(&["8BITMIME"]),
        Server::offering(&["PIPELINING", "8BITMIME", "SIZE"]),
        Server::offering(&["CHUNKING", "8BITMIME"]),
        Server::offering(&["PIPELINING", "CHUNKING", "8BITMIME", "SIZE 1000000000", "DSN"]),
    ]
}

#[test]
fn everything_arrives_once_and_in_order_in_every_way() {
    for server in servers() {
        for window in [1, 2, 512] {
            for gulp in [1, 700, usize::MAX] {
                let mut place =
                    Place::with(Settings::default(), Window { messages: window, bytes: 16 << 20 });
                place.put_many(30);
                let traits = Traits { gulp, window: 300, ..Traits::default() };
                let (last, taken) = place.drain_over(server.clone(), traits, traits);
                let context = format!("{:?} window {window} gulp {gulp}", server.keywords);
                assert_eq!(last.ended, "quit", "{context} {:?}", last.detail);
                assert_eq!((last.messages, last.delivered), (30, 30), "{context}");
                assert!(taken.quit, "{context}");
                assert_eq!(taken.messages.len(), 30, "{context}");
                for (number, message) in taken.messages.iter().enumerate() {
                    let expected =
                        format!("Subject: {number}\r\n\r\nmessage {number}\r\n.\r\n..\r\n");
                    assert_eq!(message.content, expected.as_bytes(), "{context}");
                    assert_eq!(message.from, "t@foo.example");
                    assert_eq!(message.to, ["l@example.com"]);
                }
                assert!(place.queued().is_empty() && place.is_released(), "{context}");
            }
        }
    }
}

#[test]
fn large_messages_stream_through_narrow_windows() {
    let content: Vec<u8> =
        (0..60_000u32).flat_map(|n| format!(".{n} and more of it\r\n").into_bytes()).collect();
    for server in servers() {
        let mut place = Place::default();
        place.put("", &["a@example.com", "b@example.org"], &content);
        place.put("", &["a@example.com"], b"");
        let narrow = Traits { window: 1500, ..Traits::default() };
        let (last, taken) = place.drain_over(server, narrow, narrow);
        assert_eq!(last.ended, "quit");
        assert_eq!(last.bytes, content.len() as u64);
        assert!(taken.messages[0].content == content && taken.messages[1].content.is_empty());
        assert_eq!(taken.messages[0].to, ["a@example.com", "b@example.org"]);
    }
}

#[test]
fn three_recipients_three_fates() {
    for server in servers() {
        let mut place = Place::default();
        place.put("t@foo.example", &["a@example.com", "b@example.com", "c@example.com"], b"x\r\n");
        place.put("t@foo.example", &["a@example.com"], b"y\r\n");
        let server = server.moody(|command, _, _| match command {
            _ if command.starts_with("RCPT TO:<b@") => {
                Some(Reply::Say("450 4.2.1 later\r\n".into()))
            }
            _ if command.starts_with("RCPT TO:<c@") => Some(Reply::Say("550 5.1.1 no\r\n".into())),
            _ => None,
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!((last.delivered, last.deferred, last.failed), (2, 1, 1));
        assert_eq!(taken.messages[0].to, ["a@example.com"]);
        assert_eq!(taken.messages.len(), 2);
        let said = |text| ReplyText::clean(text);
        assert_eq!(
            place.states(),
            [
                ("b@example.com".into(), RecipientState::Deferred(said("450 4.2.1 later"))),
                ("c@example.com".into(), RecipientState::Failed(said("550 5.1.1 no"))),
            ]
        );
        // The second call offers the deferred one at once, and it alone.
        let (last, taken) = place.drain_to(Server::default());
        assert_eq!(
            (last.delivered, taken.messages[0].to.as_slice()),
            (1, &["b@example.com".into()][..])
        );
        assert_eq!(place.queued().len(), 1, "the failed one waits for its report");
    }
}

#[test]
fn refusals_at_each_command_concern_one_message_only() {
    for server in servers() {
        for (at, reply) in [
            ("MAIL", "450 4.7.1 no\r\n"),
            ("MAIL", "550 5.7.1 no\r\n"),
            ("RCPT", "451 4.7.1 no\r\n"),
            ("RCPT", "551 5.7.1 no\r\n"),
            ("DATA", "451 4.3.0 no\r\n"),
            ("DATA", "554 5.3.0 no\r\n"),
            (".", "452 4.3.1 no\r\n"),
            (".", "554 5.6.0 no\r\n"),
            ("BDAT", "452 4.3.1 no\r\n"),
            ("BDAT", "554 5.6.0 no\r\n"),
        ] {
            let is_chunking = server.keywords.contains(&"CHUNKING");
            if (is_chunking && matches!(at, "DATA" | ".")) || (!is_chunking && at == "BDAT") {
                continue;
            }
            let mut place = Place::default();
            place.put_many(5);
            let moody = server.clone().moody(move |command, transaction, _| {
                (transaction == 3 && command.starts_with(at)).then(|| Reply::Say(reply.into()))
            });
            let (last, taken) = place.drain_to(moody);
            let context = format!("{:?} {at} {reply}", server.keywords);
            // A refused MAIL does not count as a transaction of the server, so it refuses the next two as well.
            assert_eq!(last.ended, "quit", "{context} {:?}", last.detail);
            let kept = place.queued().len();
            assert_eq!(taken.messages.len() + kept, 5, "{context}");
            assert_eq!(last.delivered as usize, taken.messages.len(), "{context}");
            assert!(kept >= 1, "{context}");
            let failed = place
                .states()
                .iter()
                .filter(|(_, state)| matches!(state, RecipientState::Failed(_)))
                .count();
            assert_eq!(failed, if reply.starts_with('5') { kept } else { 0 }, "{context}");
        }
    }
}

#[test]
fn a_refusal_may_mean_retry() {
    let settings = Settings { reject_policy: Some(RejectPolicy::Retry), ..Settings::default() };
    let mut place = Place::with(settings, Window::default());
    place.put_many(1);
    let server = Server::default()
        .moody(|command, _, _| (command == ".").then(|| Reply::Say("550 5.7.1 no\r\n".into())));
    let (last, _) = place.drain_to(server);
    assert_eq!((last.deferred, last.failed), (1, 0));
}

#[test]
fn limits_of_the_server_are_kept() {
    // Even where each part is recorded before the next one is sent, a message counts once.
    for messages in [512, 1] {
        let mut place = Place::with(Settings::default(), Window { messages, bytes: 16 << 20 });
        let people: Vec<String> = (0..7).map(|n| format!("u{n}@example.com")).collect();
        let people: Vec<&str> = people.iter().map(String::as_str).collect();
        place.put("t@foo.example", &people, b"x\r\n");
        place.put_many(3);
        let offers = ["PIPELINING", "LIMITS RCPTMAX=3 MAILMAX=4"];
        let (last, taken) = place.drain_to(Server::offering(&offers));
        let sizes: Vec<usize> = taken.messages.iter().map(|message| message.to.len()).collect();
        assert_eq!(sizes, [3, 3, 1, 1]);
        assert_eq!((last.ended.as_str(), last.messages, taken.quit), ("mailmax", 2, true));
        assert_eq!(place.queued().len(), 2);
    }
}

// covers: L-02
#[test]
fn the_limit_of_domains_is_kept_whatever_the_order_of_recipients() {
    let mut place = Place::default();
    let mixed = ["a@example.com", "b@example.org", "c@example.com", "d@example.org"];
    place.put("t@foo.example", &mixed, b"x\r\n");
    let offers = ["PIPELINING", "LIMITS RCPTDOMAINMAX=1"];
    let (last, taken) = place.drain_to(Server::offering(&offers));
    let to: Vec<&[String]> = taken.messages.iter().map(|message| &message.to[..]).collect();
    assert_eq!(to, [["a@example.com", "c@example.com"], ["b@example.org", "d@example.org"]]);
    assert_eq!((last.messages, last.delivered), (1, 4));
    // With room for both domains nothing is split but for the number of recipients.
    place.put("t@foo.example", &mixed, b"x\r\n");
    let offers = ["LIMITS RCPTDOMAINMAX=2 RCPTMAX=3"];
    let (_, taken) = place.drain_to(Server::offering(&offers));
    let sizes: Vec<usize> = taken.messages.iter().map(|message| message.to.len()).collect();
    assert_eq!(sizes, [3, 1]);
}

#[test]
fn what_the_server_cannot_take_is_not_sent() {
    let mut place = Place::default();
    place.put("t@foo.example", &["a@example.com"], b"8-bit \xff\r\n");
    place.put("t@foo.example", &["b@example.com"], &[b"y".repeat(70), b"\r\n".to_vec()].concat());
    place.put("t@foo.example", &["j\u{fc}rgen@example.com"], b"z\r\n");
    place.put("t@foo.example", &["c@example.com"], b"plain\r\n");
    let (last, taken) = place.drain_to(Server::offering(&["SIZE 60", "PIPELINING"]));
    assert_eq!((last.delivered, last.deferred, last.failed), (1, 2, 1));
    assert_eq!(taken.messages.len(), 1);
    let states = place.states();
    assert!(
        matches!(&states[0].1, RecipientState::Deferred(why) if why.as_str().starts_with("4.6.3 8-bit"))
    );
    assert!(
        matches!(&states[1].1, RecipientState::Failed(why) if why.as_str().starts_with("5.3.4 "))
    );
    assert!(
        matches!(&states[2].1, RecipientState::Deferred(why) if why.as_str().starts_with("4.6.7 "))
    );
}

// covers: S-28
#[test]
fn a_missing_extension_is_waited_for_a_day_and_no_longer() {
    let mut place = Place::default();
    place.put("t@foo.example", &["j\u{fc}rgen@example.com"], b"z\r\n");
    let mut drain_after = |hours: u64, keywords: &[&'static str]| {
        let wake = place.clock.wait(Duration::from_secs(hours * 3600));
        place.run(wake);
        let (last, _) = place.drain_to(Server::offering(keywords));
        (last.delivered, last.deferred, last.failed)
    };
    assert_eq!(drain_after(0, &[]), (0, 1, 0));
    assert_eq!(drain_after(23, &[]), (0, 1, 0));
    assert_eq!(drain_after(2, &[]), (0, 0, 1), "after a day it is over");
    // A server that is mended in time gets it.
    let mut place = Place::default();
    place.put("t@foo.example", &["j\u{fc}rgen@example.com"], b"z\r\n");
    place.drain_to(Server::default());
    let (last, _) = place.drain_to(Server::offering(&["SMTPUTF8", "8BITMIME"]));
    assert_eq!((last.delivered, last.failed), (1, 0));
}

#[test]
fn mail_that_arrives_meanwhile_goes_too_and_deferred_mail_not_twice() {
    let mut place = Place::default();
    place.put_many(3);
    let memory = place.memory.clone();
    let server = Server::default().moody(move |command, transaction, _| {
        if command == "." && transaction == 2 {
            let late = drain_support::put(&*memory, 99, "", &["l@example.org"], b"late\r\n");
            at_once(late).expect("committed");
            return Some(Reply::Say("451 4.3.0 later\r\n".into()));
        }
        None
    });
    let (last, taken) = place.drain_to(server);
    assert_eq!((last.ended.as_str(), last.messages, last.deferred), ("quit", 3, 1));
    assert_eq!(
        taken.messages.last().map(|message| message.content.as_slice()),
        Some(&b"late\r\n"[..])
    );
    assert_eq!(taken.commands.iter().filter(|line| line.starts_with("MAIL")).count(), 4);
}

#[test]
fn with_a_window_of_one_each_is_recorded_before_the_next_mail() {
    for server in servers() {
        let mut place = Place::with(Settings::default(), Window { messages: 1, bytes: 16 << 20 });
        place.put_many(6);
        let memory = place.memory.clone();
        let server = server.moody(move |command, transaction, _| {
            if command.starts_with("MAIL") {
                let queue = domain("example.com");
                let count = restante::store::Store::count(&*memory, &queue);
                let waiting = at_once(count);
                let waiting = waiting.expect("counted").messages as usize;
                assert_eq!(waiting, 7 - transaction);
            }
            None
        });
        let (last, _) = place.drain_to(server);
        assert_eq!((last.ended.as_str(), last.messages), ("quit", 6));
    }
}

#[test]
fn deferring_without_end_is_left_in_peace() {
    let mut place = Place::default();
    place.put_many(300);
    let server = Server::default().moody(|command, _, _| {
        command.starts_with("MAIL").then(|| Reply::Say("451 no\r\n".into()))
    });
    let (last, taken) = place.drain_to(server);
    assert_eq!(last.ended, "deferring");
    assert!(taken.quit && (100..200).contains(&last.deferred), "{}", last.deferred);
    assert_eq!(place.queued().len(), 300);
}

#[test]
fn what_was_deferred_before_does_not_block_what_is_behind_it() {
    let mut place = Place::default();
    let refusing = |address: &'static str| {
        Server::default().moody(move |command, _, _| {
            let is_meant = command.starts_with("RCPT") && command.contains(address);
            is_meant.then(|| Reply::Say("451 4.2.1 later\r\n".into()))
        })
    };
    // The backlog: more messages than a drain takes deferred in a row.
    for _ in 0..130 {
        place.put("t@foo.example", &["full@example.com"], b"x\r\n");
    }
    let (last, _) = place.drain_to(refusing("full@"));
    assert_eq!(last.ended, "deferring");
    // The rest of it is new to the second drain, and too little to leave for.
    place.put_many(5);
    let (last, taken) = place.drain_to(refusing("full@"));
    assert_eq!((last.ended.as_str(), last.delivered, last.deferred), ("quit", 5, 130));
    assert_eq!(taken.messages.len(), 5);
    // A server that refuses all that is new is still left in peace.
    place.put_many(300);
    let (last, _) = place.drain_to(refusing("@"));
    assert_eq!(last.ended, "deferring");
    assert!((230..330).contains(&last.deferred), "{}", last.deferred);
}

#[test]
fn our_own_verdicts_do_not_end_a_drain() {
    let mut place = Place::default();
    for _ in 0..150 {
        place.put("t@foo.example", &["j\u{fc}rgen@example.com"], b"x\r\n");
    }
    place.put_many(5);
    let (last, _) = place.drain_to(Server::default());
    assert_eq!((last.ended.as_str(), last.delivered, last.deferred), ("quit", 5, 150));
}
