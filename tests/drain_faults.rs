//! The faults that a drain must survive, row by row of the reliability table (section 3), each with a customer that
//! does exactly that.

mod drain_support;

use std::time::Duration;

use drain_support::caller::Caller;
use drain_support::pipe::{End, Traits, pair};
use drain_support::server::{Reply, Server};
use drain_support::{Place, at_once};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use restante::mail::*;
use restante::provider::Window;
use restante::provider::board::LastDrain;
use restante::store::{Directory, LeaseAnswer, LeaseRequest, Store};

fn chunking() -> Server {
    Server::offering(&["PIPELINING", "CHUNKING", "8BITMIME"])
}

/// After whatever happened: the lease is free, nobody is marked, and the next call brings everything.
fn all_is_kept(place: &mut Place, last: &LastDrain, count: usize) {
    assert_eq!((last.delivered, last.deferred, last.failed), (0, 0, 0), "{last:?}");
    assert!(place.is_released());
    for head in place.queued() {
        for held in head.recipients {
            assert_eq!(held.state, RecipientState::Queued);
        }
    }
    let (again, taken) = place.drain_to(Server::default());
    assert_eq!((again.ended.as_str(), taken.messages.len()), ("quit", count));
    assert!(place.queued().is_empty());
}

fn hang_at(verb: &'static str, after_reply: bool) -> Server {
    Server::default().moody(move |command, _, _| {
        let there = command.starts_with(verb);
        there.then_some(if after_reply { Reply::SayAndHang } else { Reply::Hang })
    })
}

/// A customer that says what `script` has and reads in between; `wait` reads up to that text.
async fn scripted(mut end: End, script: Vec<(&'static str, Vec<u8>)>) -> Vec<u8> {
    let mut heard = Vec::new();
    for (until, say) in script {
        while !until.is_empty() && !heard.windows(until.len()).any(|part| part == until.as_bytes())
        {
            let mut place = [0; 512];
            match end.read(&mut place).await {
                Ok(0) | Err(_) => return heard,
                Ok(octets) => heard.extend_from_slice(&place[..octets]),
            }
        }
        if end.write_all(&say).await.is_err() {
            return heard;
        }
    }
    let mut rest = Vec::new();
    let _ = end.read_to_end(&mut rest).await;
    heard.extend(rest);
    heard
}

fn against(place: &mut Place, script: Vec<(&'static str, Vec<u8>)>) -> (LastDrain, String) {
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let drain = place.drain(ours, false);
    let customer = place.spawn(scripted(theirs, script));
    let (last, heard) = place.run(futures::future::join(drain, customer));
    (last, String::from_utf8(heard).expect("text"))
}

#[test]
fn rows_1_to_3_a_cut_before_the_end_of_data_marks_nobody() {
    for (verb, after_reply) in [
        ("(greeting)", false),
        ("(greeting)", true),
        ("EHLO", false),
        ("EHLO", true),
        ("MAIL", false),
        ("MAIL", true),
        ("RCPT", false),
        ("RCPT", true),
        ("DATA", false),
        ("DATA", true),
    ] {
        for keywords in [&["PIPELINING"][..], &[]] {
            let mut place = Place::default();
            place.put_many(3);
            let server = Server { keywords: keywords.to_vec(), ..hang_at(verb, after_reply) };
            let (last, _) = place.drain_to(server);
            assert_eq!(last.ended, "lost", "{verb} {after_reply}");
            all_is_kept(&mut place, &last, 3);
        }
    }
}

#[test]
fn row_3_a_cut_inside_the_content_is_counted_but_marks_nobody() {
    let mut place = Place::default();
    let content = b"a line of content\r\n".repeat(2000);
    place.put("t@foo.example", &["l@example.com"], &content);
    let cut = Traits { cut_after: Some(20_000), ..Traits::default() };
    for round in 1..=3u32 {
        let (last, taken) = place.drain_over(Server::default(), cut, Traits::default());
        assert_eq!((last.ended.as_str(), taken.messages.len()), ("lost", 0));
        let head = place.queued().remove(0);
        assert_eq!(head.line_breaks, round);
        assert_eq!(head.recipients[0].state, RecipientState::Queued);
    }
    // It broke the line three times, so it goes last now.
    place.put("t@foo.example", &["l@example.com"], b"small\r\n");
    let (last, taken) = place.drain_to(Server::default());
    assert_eq!((last.messages, taken.messages[0].content.as_slice()), (2, &b"small\r\n"[..]));
}

#[test]
fn row_4_no_reply_to_the_final_dot_means_in_doubt_and_again() {
    for (server, command) in [(Server::default(), "."), (chunking(), "BDAT")] {
        let mut place = Place::with(Settings::default(), Window { messages: 1, bytes: 1 << 20 });
        place.put_many(3);
        let moody = server.moody(move |said, transaction, _| {
            (transaction == 2 && said.starts_with(command)).then_some(Reply::Hang)
        });
        let (last, taken) = place.drain_to(moody);
        assert_eq!((last.ended.as_str(), last.delivered), ("lost", 1));
        assert_eq!(taken.messages.len(), 2, "the customer had taken the second");
        assert_eq!(place.queued()[0].line_breaks, 1);
        let (_, again) = place.drain_to(Server::default());
        assert_eq!(again.messages.len(), 2, "the second comes twice, no other does");
    }
}

#[test]
fn row_4_at_most_the_window_is_in_doubt() {
    for window in [1usize, 2, 5, 20] {
        let mut place =
            Place::with(Settings::default(), Window { messages: window as u64, bytes: 1 << 20 });
        place.put_many(40);
        // It takes everything and says nothing from the tenth content on.
        let server = chunking().moody(|said, transaction, _| {
            let is_behind = transaction == 10 && (said.starts_with("BDAT") || said == "RSET");
            (transaction > 10 || is_behind).then_some(Reply::Mute)
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!((last.ended.as_str(), last.delivered), ("timeout", 9));
        assert!(taken.messages.len() <= 9 + window, "{} of {window}", taken.messages.len());
        let broken = place.queued().iter().filter(|head| head.line_breaks > 0).count();
        assert_eq!(broken, 1, "only the head of the line may have broken it");
    }
}

#[test]
fn after_a_cut_as_many_messages_come_twice_as_the_window_has() {
    for window in [1, 3] {
        for from in 1..=4 {
            let wanted = Window { messages: window, bytes: 1 << 20 };
            let mut place = Place::with(Settings::default(), wanted);
            place.put_many(9);
            // It takes everything, and says nothing any more from some content on.
            let server = chunking().moody(move |said, transaction, _| {
                let is_behind = transaction == from && (said.starts_with("BDAT") || said == "RSET");
                (transaction > from || is_behind).then_some(Reply::Mute)
            });
            let (last, first) = place.drain_to(server);
            assert_eq!((last.ended.as_str(), last.delivered), ("timeout", from as u64 - 1));
            let (_, second) = place.drain_to(chunking());
            let twice = first.messages.iter().filter(|m| second.messages.contains(m)).count();
            assert_eq!(twice as u64, window, "from {from}");
            assert_eq!(first.messages.len() + second.messages.len(), 9 + twice);
        }
    }
}

#[test]
fn row_5_a_reply_before_an_orderly_close_counts() {
    for server in [Server::default(), chunking()] {
        let mut place = Place::default();
        place.put_many(1);
        let moody = server.moody(|said, _, _| {
            (said == "." || said.starts_with("BDAT")).then_some(Reply::SayAndHang)
        });
        let (last, taken) = place.drain_to(moody);
        assert_eq!((last.delivered, taken.messages.len()), (1, 1), "{last:?}");
        assert!(place.queued().is_empty() && place.is_released());
    }
}

#[test]
fn row_7_no_221_is_no_matter() {
    for mood in [Reply::Hang, Reply::Stall, Reply::Say("421 bye\r\n".into())] {
        let mut place = Place::default();
        place.put_many(2);
        let moody =
            Server::default().moody(move |said, _, _| (said == "QUIT").then(|| mood.clone()));
        let (ours, theirs) = pair(Traits::default(), Traits::default());
        let drain = place.drain(ours, false);
        let clock = place.clock.clone();
        let _serving = place.spawn(moody.serve(theirs, clock));
        let last = place.run(drain);
        assert_eq!((last.ended.as_str(), last.delivered), ("quit", 2));
        assert!(place.clock.now() <= Duration::from_secs(20), "{:?}", place.clock.now());
    }
}

#[test]
fn row_10_a_refused_session_bounces_nothing() {
    for greeting in
        ["554 5.7.1 go away\r\n", "421 4.3.2 busy\r\n", "450 later\r\n", "554-a\r\n554 b\r\n"]
    {
        let mut place = Place::default();
        place.put_many(2);
        let (last, taken) =
            place.drain_to(Server { greeting: greeting.into(), ..Server::default() });
        assert_eq!(last.ended, "greeting-refused");
        assert!(taken.quit, "QUIT is said all the same");
        all_is_kept(&mut place, &last, 2);
    }
    // EHLO refused for good: HELO, and no extension is used.
    let mut place = Place::default();
    place.put_many(2);
    let server = Server::default().moody(|said, _, _| {
        said.starts_with("EHLO").then(|| Reply::Say("502 5.5.1 what\r\n".into()))
    });
    let (last, taken) = place.drain_to(server);
    assert_eq!((last.ended.as_str(), last.delivered), ("quit", 2));
    assert!(taken.commands.contains(&"HELO mx.provider.example".to_owned()));
    assert!(taken.commands.contains(&"MAIL FROM:<t@foo.example>".to_owned()));
    for reply in ["550 5.7.1 no\r\n", "450 no\r\n"] {
        let mut place = Place::default();
        place.put_many(2);
        let server = Server::default().moody(move |said, _, _| {
            matches!(&said[..4], "EHLO" | "HELO").then(|| Reply::Say(reply.into()))
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!((last.ended.as_str(), taken.quit), ("hello-refused", true));
        all_is_kept(&mut place, &last, 2);
    }
}

// covers: D-09
#[test]
fn a_server_that_wants_a_login_gets_nothing_and_loses_nothing() {
    let mut place = Place::default();
    place.put_many(2);
    let server = Server::default().moody(|said, _, _| {
        said.starts_with("MAIL").then(|| Reply::Say("530 5.7.0 login\r\n".into()))
    });
    let (last, _) = place.drain_to(server);
    assert_eq!(last.ended, "login-wanted");
    all_is_kept(&mut place, &last, 2);
}

#[test]
fn row_11_421_anywhere_keeps_what_was_not_acknowledged() {
    for (server, verbs) in [
        (Server::default(), &["EHLO", "MAIL", "RCPT", "DATA", "."][..]),
        (Server::offering(&[]), &["EHLO", "MAIL", "RCPT", "DATA", "."]),
        (chunking(), &["EHLO", "MAIL", "RCPT", "BDAT"]),
    ] {
        for verb in verbs {
            let mut place = Place::default();
            place.put_many(3);
            let verb = *verb;
            let moody = server.clone().moody(move |said, transaction, _| {
                (said.starts_with(verb) && (transaction == 2 || verb == "EHLO"))
                    .then(|| Reply::Say("421 4.3.2 closing\r\n".into()))
            });
            let (last, taken) = place.drain_to(moody);
            let done = if verb == "EHLO" { 0 } else { 1 };
            assert_eq!(
                (last.ended.as_str(), last.delivered),
                ("closed-by-customer", done),
                "{verb}"
            );
            assert_eq!(place.queued().len() as u64, 3 - done);
            assert!(place.is_released() && taken.messages.len() as u64 >= done);
        }
    }
}

#[test]
fn row_13_and_14_what_is_no_reply_ends_the_session() {
    let endless = b"250-x\r\n".repeat(20_000);
    let long = [b"250 ".to_vec(), b"A".repeat(8 << 20)].concat();
    for (until, say) in [
        ("", b"SSH-2.0-x\r\n".to_vec()),
        ("", b"ATRN\r\n".to_vec()),
        ("", b"\0\0\0\0\r\n".to_vec()),
        ("", b"\r\n".to_vec()),
        ("EHLO", b"999 x\r\n".to_vec()),
        ("EHLO", b"250-a\r\n451 b\r\n".to_vec()),
        ("EHLO", b"250 x\n".to_vec()),
        ("EHLO", endless),
        ("EHLO", long),
        ("EHLO", b"354 go\r\n".to_vec()),
        ("EHLO", b"220 again\r\n250 x\r\n".to_vec()),
    ] {
        let mut place = Place::default();
        place.put_many(2);
        let mut script = vec![];
        if !until.is_empty() {
            script.push(("", b"220 ready\r\n".to_vec()));
        }
        script.push((until, say.clone()));
        let (last, heard) = against(&mut place, script);
        let shown = String::from_utf8_lossy(&say[..say.len().min(20)]).into_owned();
        assert!(["garbled", "hello-refused"].contains(&last.ended.as_str()), "{shown} {last:?}");
        assert!(!heard.contains("MAIL"), "{shown}");
        assert!(last.detail.is_some());
        all_is_kept(&mut place, &last, 2);
    }
}

#[test]
fn row_15_replies_out_of_step_end_the_session_and_no_content_goes_before_354() {
    let ready =
        || vec![("", b"220 ready\r\n".to_vec()), ("EHLO", b"250-x\r\n250 PIPELINING\r\n".to_vec())];
    for (until, say) in [
        ("DATA", "250\r\n250\r\n250 data?\r\n"),
        ("DATA", "354 mail?\r\n"),
        ("DATA", "250\r\n354 rcpt?\r\n"),
        ("DATA", "250\r\n250\r\n354 go\r\n250 early\r\n"),
        ("DATA", "250\r\n250\r\n354 go\r\n250 early\r\n250\r\n250\r\n354\r\n250\r\n"),
    ] {
        let mut place = Place::default();
        place.put("t@foo.example", &["l@example.com"], b"SECRET\r\n");
        let mut script = ready();
        script.push((until, say.as_bytes().to_vec()));
        let (last, heard) = against(&mut place, script);
        assert_eq!(last.ended, "garbled", "{say} {last:?}");
        assert!(!heard.contains("SECRET"), "{say}");
        all_is_kept(&mut place, &last, 1);
    }
    // G6: everything at once.
    let mut place = Place::default();
    place.put_many(1);
    let flood = b"220 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n".to_vec();
    let (last, heard) = against(&mut place, vec![("", flood)]);
    assert_eq!(last.ended, "garbled");
    assert!(!heard.contains("message"));
    all_is_kept(&mut place, &last, 1);
    // A surplus reply behind the last one.
    let mut place = Place::default();
    place.put_many(2);
    let server = Server::default().moody(|said, transaction, _| {
        (said == "." && transaction == 1).then(|| Reply::Say("250 a\r\n250 b\r\n".into()))
    });
    let (last, taken) = place.drain_to(server);
    assert_eq!((last.ended.as_str(), last.delivered), ("garbled", 1), "{last:?}");
    assert_eq!(place.queued().len(), 1);
    assert_eq!(taken.messages.len(), 1);
}

#[test]
fn rows_16_and_17_patience_is_that_of_rfc_5321() {
    // (command, seconds that are waited for, seconds that are not)
    for (verb, good, bad) in [
        ("(greeting)", 299, 301),
        ("EHLO", 299, 301),
        ("MAIL", 299, 301),
        ("RCPT", 299, 301),
        ("DATA", 119, 121),
        (".", 599, 601),
    ] {
        for (seconds, ended) in [(good, "quit"), (bad, "timeout")] {
            let mut place = Place::default();
            place.put_many(1);
            let server = Server::offering(&[])
                .moody(move |said, _, _| said.starts_with(verb).then_some(Reply::After(seconds)));
            let (last, _) = place.drain_to(server);
            assert_eq!(last.ended, ended, "{verb} {seconds}");
            assert!(place.is_released());
            assert_eq!(place.queued().is_empty(), ended == "quit");
        }
    }
}

#[test]
fn row_16_a_reader_that_stopped_is_given_up_and_a_slow_one_is_not() {
    async fn slowly(mut end: End, clock: drain_support::Clock, pace: u64, most: usize) -> usize {
        use restante::provider::World as _;
        let greeting = b"220 x\r\n250 x\r\n".as_slice();
        end.write_all(&greeting[..7]).await.expect("written");
        let mut got = 0;
        let mut replies = [&b"250 x\r\n"[..], b"250 x\r\n", b"250 x\r\n", b"354 x\r\n"].into_iter();
        while got < most {
            let mut place = [0; 1024];
            let Ok(octets) = end.read(&mut place).await else { return got };
            if octets == 0 {
                return got;
            }
            got += octets;
            if let Some(reply) = replies.next() {
                end.write_all(reply).await.expect("written");
            } else {
                clock.wait(Duration::from_secs(pace)).await;
            }
        }
        clock.wait(Duration::from_secs(100_000)).await;
        got
    }
    let narrow = Traits { window: 2000, ..Traits::default() };
    let content = b"a line of content\r\n".repeat(20_000);
    // 1 KiB a second is slow, and fine; 1 KiB in ten seconds does not make a block in three minutes.
    for (pace, most, is_enough) in
        [(1, usize::MAX, true), (10, usize::MAX, false), (1, 100_000, false)]
    {
        let mut place = Place::default();
        place.put("t@foo.example", &["l@example.com"], &content);
        let (ours, theirs) = pair(narrow, Traits::default());
        let drain = place.drain(ours, false);
        let clock = place.clock.clone();
        let customer = place.spawn(slowly(theirs, clock, pace, most));
        let last = place.run(drain);
        assert_eq!(last.ended, "timeout", "nobody answered");
        drop(customer);
        // With enough pace the whole content left, and only the final reply was missing after 10 minutes.
        let whole = last.detail.expect("a detail").contains("end of a message");
        assert_eq!(whole, is_enough, "pace {pace} most {most}");
    }
}

#[test]
fn row_18_and_19_a_second_call_is_busy_then_takes_over() {
    let mut place = Place::default();
    place.put_many(3);
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let server = Server::default().moody(|said, transaction, _| {
        (said == "." && transaction == 2).then_some(Reply::After(300))
    });
    let first = place.drain(ours, false);
    let clock = place.clock.clone();
    let serving = place.spawn(server.serve(theirs, clock));
    place.pool.run_until_stalled();
    assert!(!place.is_released(), "the second gets 451 at once");
    // No progress for 60 s: the next call takes over, and the first can only fail.
    let request = LeaseRequest {
        customer: drain_support::customer_name(),
        domains: vec![drain_support::domain("example.com")],
        owner: "second".into(),
        lasts: Duration::from_secs(900),
        overthrow_after: Duration::from_secs(60),
    };
    let wake = restante::provider::World::wait(&place.clock, Duration::from_secs(61));
    place.run(wake);
    let LeaseAnswer::Granted(second) = at_once(place.memory.lease(request)).expect("answered")
    else {
        panic!("not taken over")
    };
    let (last, taken) = place.run(futures::future::join(first, serving));
    assert_eq!(last.ended, "lease-lost");
    assert_eq!(taken.messages.len(), 2, "nothing more was begun");
    assert_eq!(last.delivered, 2, "what was delivered is recorded all the same");
    assert_eq!(place.queued().len(), 1);
    at_once(place.memory.release(second)).expect("released");
}

#[test]
fn row_22_a_customer_that_is_removed_or_suspended_gets_no_further_message() {
    for remove in [true, false] {
        let mut place = Place::default();
        place.put_many(50);
        let memory = place.memory.clone();
        let server = Server::offering(&[]).moody(move |said, transaction, _| {
            if said == "." && transaction == 3 {
                let name = drain_support::customer_name();
                if remove {
                    // Asked twice, done once.
                    let _ = at_once(memory.remove(&name));
                } else {
                    let old = at_once(memory.customer(&name)).expect("read").expect("there");
                    let new = Customer { suspended: true, ..(*old).clone() };
                    at_once(memory.update(new)).expect("updated");
                }
            }
            None
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!(
            (last.ended.as_str(), last.delivered, taken.quit),
            ("customer-changed", 3, true)
        );
        assert_eq!(place.queued().len(), 47);
    }
}

#[test]
fn a_stop_finishes_the_message_in_flight_and_quits() {
    for server in [Server::default(), Server::offering(&[]), chunking()] {
        let mut place = Place::with(Settings::default(), Window { messages: 4, bytes: 1 << 20 });
        place.put_many(50);
        let giver = std::sync::Mutex::new(place.giver.take());
        let server = server.moody(move |said, transaction, _| {
            if transaction == 3
                && (said == "." || said.starts_with("BDAT"))
                && let Some(giver) = giver.lock().expect("whole").take()
            {
                giver.give();
            }
            None
        });
        let (last, taken) = place.drain_to(server);
        assert_eq!((last.ended.as_str(), taken.quit), ("shutdown", true));
        assert!((3..=8).contains(&taken.messages.len()), "{}", taken.messages.len());
        assert_eq!(last.delivered as usize, taken.messages.len());
        assert_eq!(place.queued().len(), 50 - taken.messages.len());
    }
}

#[test]
fn row_32_a_cut_after_each_message_makes_progress_each_time() {
    let mut place = Place::default();
    place.put_many(20);
    for left in (0..20).rev() {
        let server =
            Server::default().moody(|said, _, _| (said == ".").then_some(Reply::SayAndHang));
        let (last, _) = place.drain_to(server);
        assert_eq!(last.delivered, 1);
        assert_eq!(place.queued().len(), left);
    }
}

// covers: 1
#[test]
fn row_1_a_customer_that_is_gone_before_our_250_frees_its_queue_at_once() {
    let mut turns = 0;
    for cut in 1..2000 {
        let mut place = Place::default();
        place.put_many(1);
        let (ours, theirs) = pair(
            Traits { cut_after: Some(cut), cut_loses: cut % 2 == 0, ..Traits::default() },
            Traits::default(),
        );
        let clock = place.clock.clone();
        let server = Server::offering(&[]);
        let caller =
            Caller { end: theirs, clock, name: "acme", domains: String::new(), tries: 1, server };
        let calling = place.spawn(caller.call());
        let talk = place.answer(ours);
        let last = place.run(talk);
        // The wire is gone, and nobody has to wait for the clock of a lease.
        assert!(place.is_released(), "cut at octet {cut}, then {last:?}");
        assert_eq!(place.clock.now(), Duration::ZERO, "cut at octet {cut}");
        turns += usize::from(last.is_some());
        if place.run(calling).is_none() {
            break;
        }
    }
    assert!(turns > 50, "the drain itself was cut {turns} times only");
}
