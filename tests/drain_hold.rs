//! Connections that stay: mail pushed the moment it arrives, signs of life within what customers' servers bear, and
//! clients that lose the rest of a TLS record.

mod drain_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use drain_support::pipe::{Traits, pair};
use drain_support::server::{Reply, Server};
use drain_support::{Clock, Place, at_once, customer_name, put};
use restante::mail::*;
use restante::provider::{Window, World};

fn holding(seconds: u64) -> Settings {
    Settings {
        drain: Durations { hold_open: Some(Seconds(seconds)), wait_for_mail: None },
        ..Settings::default()
    }
}

fn noops(commands: &[String]) -> usize {
    commands.iter().filter(|line| *line == "NOOP").count()
}

#[test]
fn new_mail_goes_out_at_once_on_a_held_connection() {
    let mut place = Place::with(holding(700), Window::default());
    place.put_many(2);
    let arrivals: Arc<Mutex<Vec<(Duration, String)>>> = Arc::default();
    let (seen, watch) = (arrivals.clone(), place.clock.clone());
    let server = Server::default().moody(move |said, _, _| {
        seen.lock().expect("whole").push((Clock::now(&watch), said.to_owned()));
        None
    });
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let drain = place.drain(ours, false);
    let clock = place.clock.clone();
    let serving = place.spawn(server.serve(theirs, clock));
    let (memory, clock) = (place.memory.clone(), place.clock.clone());
    let arriving = place.spawn(async move {
        for (second, id) in [(100, 50), (700, 49), (1300, 48)] {
            clock.wait(Duration::from_secs(second) - Clock::now(&clock)).await;
            // Ids do not arrive in order: a slow intake commits late.
            put(&*memory, id, "", &["l@example.org"], b"new\r\n").await.expect("committed");
        }
    });
    let ((last, taken), ()) =
        place.run(futures::future::join(futures::future::join(drain, serving), arriving));
    assert_eq!((last.ended.as_str(), last.messages, taken.quit), ("quit", 5, true));
    let arrivals = arrivals.lock().expect("whole");
    let mails: Vec<u64> = arrivals
        .iter()
        .filter(|(_, said)| said.starts_with("MAIL"))
        .map(|(when, _)| when.as_secs())
        .collect();
    assert_eq!(mails, [0, 0, 100, 700, 1300], "pushed at the very moment");
    // A silence of 240 s brings a NOOP, so no server's 300 s pass.
    let mut before = Duration::ZERO;
    for (when, said) in arrivals.iter() {
        assert!(*when - before <= Duration::from_secs(240), "silent until {when:?}, {said}");
        before = *when;
    }
    assert_eq!(before.as_secs(), 2000, "a hold of 700 s counts from the last message");
}

#[test]
fn a_held_connection_leaves_before_exim_drops_it() {
    let mut place = Place::with(holding(1_000_000), Window::default());
    place.put_many(1);
    let (last, taken) = place.drain_to(Server::default());
    assert_eq!((last.ended.as_str(), last.messages), ("quit", 1));
    assert_eq!(noops(&taken.commands), 8);
    assert!(taken.quit && place.is_released());
    assert_eq!(place.clock.now().as_secs(), 9 * 240);
}

#[test]
fn a_held_connection_ends_at_a_stop_and_when_the_customer_vanishes() {
    for vanishes in [true, false] {
        let mut place = Place::with(holding(100_000), Window::default());
        place.put_many(1);
        let (ours, theirs) = pair(Traits::default(), Traits::default());
        let drain = place.drain(ours, false);
        let server = Server::default()
            .moody(move |said, _, _| (vanishes && said == "NOOP").then_some(Reply::Stall));
        let clock = place.clock.clone();
        let serving = place.spawn(server.serve(theirs, clock));
        if vanishes {
            let last = place.run(drain);
            assert_eq!((last.ended.as_str(), last.messages), ("timeout", 1));
            assert_eq!(place.clock.now().as_secs(), 240 + 300);
        } else {
            place.pool.run_until_stalled();
            place.giver.take().expect("one").give();
            let (last, taken) = place.run(futures::future::join(drain, serving));
            assert_eq!((last.ended.as_str(), taken.quit), ("shutdown", true));
            assert_eq!(place.clock.now().as_secs(), 0);
        }
        assert!(place.is_released());
    }
}

#[test]
fn a_held_connection_gives_way_to_a_new_call() {
    let mut place = Place::with(holding(100_000), Window::default());
    place.put_many(1);
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let first = place.drain(ours, false);
    let clock = place.clock.clone();
    let serving = place.spawn(Server::default().serve(theirs, clock));
    let wake = place.clock.wait(Duration::from_secs(100));
    place.run(wake);
    // The lease is still the first one's, but it makes no progress: the next call takes it over.
    let lease = place.run(Place::lease(place.memory.clone()));
    at_once(put(&*place.memory, 70, "", &["l@example.com"], b"new\r\n")).expect("committed");
    let (last, taken) = place.run(futures::future::join(first, serving));
    assert_eq!((last.ended.as_str(), taken.quit), ("lease-lost", true));
    assert_eq!(taken.messages.len(), 1, "the new mail is the new holder's");
    at_once(restante::store::Store::release(&*place.memory, lease)).expect("released");
}

/// A client that hands on one line of each record and loses the rest of it for good.
fn fetchmail_over_tls(place: &mut Place) -> (restante::provider::board::LastDrain, usize, u64) {
    use futures::io::{AsyncReadExt, AsyncWriteExt};
    let (ours, middle) = pair(Traits::default(), Traits::default());
    let tap = middle.tap();
    let (mut there, theirs) = pair(Traits::default(), Traits::default());
    let drain = place.drain(ours, true);
    let clock = place.clock.clone();
    let serving = place.spawn(Server::default().serve(theirs, clock));
    let began = place.clock.now();
    let piping = place.spawn(async move {
        let mut middle = middle;
        let mut records = 0;
        let mut lost = false;
        let mut to = [0; 4096];
        let mut back = [0; 4096];
        loop {
            let reading = middle.read(&mut to);
            let answering = there.read(&mut back);
            futures::pin_mut!(reading, answering);
            match futures::future::select(reading, answering).await {
                futures::future::Either::Left((Ok(0) | Err(_), _)) => return,
                futures::future::Either::Left((Ok(_), _)) => {}
                futures::future::Either::Right((Ok(octets), _)) if octets > 0 => {
                    middle.write_all(&back[..octets]).await.expect("written");
                    continue;
                }
                futures::future::Either::Right(_) => return,
            }
            let writes = tap.writes();
            while records < writes.len() {
                let record = writes[records].clone();
                records += 1;
                let end = record
                    .iter()
                    .position(|octet| *octet == b'\n')
                    .map_or(record.len(), |at| at + 1);
                if !lost {
                    there.write_all(&record[..end]).await.expect("written");
                }
                lost |= end < record.len();
            }
        }
    });
    let last = place.run(drain);
    drop(piping);
    let spent = (place.clock.now() - began).as_secs();
    drop(serving);
    let delivered = usize::try_from(last.delivered).expect("few");
    (last, delivered, spent)
}

// covers: T-10
#[test]
fn a_client_that_loses_the_rest_of_a_record_is_learnt_and_then_served() {
    let mut place = Place::default();
    place.put_many(3);
    let (last, delivered, spent) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered, spent), ("timeout", 0, 90));
    // No content was on its way yet, so nothing is in doubt.
    assert!(place.queued().iter().all(|head| head.line_breaks == 0));
    let detail = last.detail.expect("advice");
    assert!(detail.contains("restante customer set acme client-profile fetchmail-tls"), "{detail}");
    let (last, delivered, spent) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered, spent), ("quit", 3, 0), "{:?}", last.detail);
    assert!(place.queued().is_empty());
}

#[test]
fn what_was_learnt_is_there_after_a_restart() {
    let mut place = Place::default();
    place.put_many(3);
    let (last, ..) = fetchmail_over_tls(&mut place);
    assert_eq!(last.ended, "timeout");
    let office = place.restarted();
    assert_eq!(office.servers.learnt_profile(&customer_name()), ClientProfile::FetchmailTls);
    // The next drain of the new process speaks line by line at once, and tells it what the server offers.
    place.office = office;
    let (last, delivered, spent) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered, spent), ("quit", 3, 0), "{:?}", last.detail);
    let known = place.restarted().servers.of(&customer_name()).expect("known");
    assert_eq!(known.name.as_deref(), Some("customer.example"));
    assert!(known.offers.expect("offers").pipelining);
}

#[test]
fn an_unknown_client_is_tried_with_one_message_and_then_trusted() {
    let everything = ["PIPELINING", "CHUNKING", "8BITMIME"];
    let mut place = Place::default();
    for round in 0..2 {
        place.put_many(3);
        let (ours, theirs) = pair(Traits::default(), Traits::default());
        let drain = place.drain(ours, true);
        let clock = place.clock.clone();
        let serving = place.spawn(Server::offering(&everything).serve(theirs, clock));
        let (last, taken) = place.run(futures::future::join(drain, serving));
        assert_eq!((last.ended.as_str(), last.messages), ("quit", 3));
        let (data, bdat) = (count(&taken.commands, "DATA"), count(&taken.commands, "BDAT"));
        // By DATA, alone; then as fast as the server allows, and the next time from the start.
        assert_eq!((data, bdat), if round == 0 { (1, 2) } else { (0, 3) });
        assert_eq!(place.office.servers.learnt_profile(&customer_name()), ClientProfile::Standard);
    }
    // Another client may come one day: what was learnt is learnt anew.
    place.put_many(2);
    let (last, delivered, spent) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered, spent), ("timeout", 0, 90));
    // It may have been a line that was lost; so nothing is known any more, and the next drain probes.
    let learnt = |place: &Place| place.office.servers.learnt_profile(&customer_name());
    assert_eq!(learnt(&place), ClientProfile::Auto);
    let (last, delivered, _) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered), ("timeout", 0));
    assert_eq!(learnt(&place), ClientProfile::FetchmailTls);
    let (last, delivered, _) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), delivered), ("quit", 2));
}

#[test]
fn the_pace_of_noop_and_the_patience_with_a_stall_are_settings() {
    let mut place = Place::with(holding(1_000_000), Window::default());
    let mut policy = restante::provider::Policy::clone(&place.office.policy());
    (policy.noop_after, policy.stall_after) = (Seconds(5), Seconds(7));
    place.office.set_policy(policy);
    place.put_many(1);
    let (last, taken) = place.drain_to(Server::default());
    assert_eq!((last.ended.as_str(), noops(&taken.commands)), ("quit", 8));
    assert_eq!(place.clock.now().as_secs(), 9 * 5);
    place.put_many(1);
    let (last, _, spent) = fetchmail_over_tls(&mut place);
    assert_eq!((last.ended.as_str(), spent), ("timeout", 7));
}

fn count(commands: &[String], verb: &str) -> usize {
    commands.iter().filter(|command| command.starts_with(verb)).count()
}

#[test]
fn the_profile_may_be_set_by_hand() {
    let settings =
        Settings { client_profile: Some(ClientProfile::FetchmailTls), ..Settings::default() };
    let mut place = Place::with(settings, Window::default());
    place.put("t@foo.example", &["l@example.com"], b"a\r\n.\r\n\r\nno end");
    place.put("t@foo.example", &["l@example.com"], &b"0123456789\r\n".repeat(20_000));
    let (ours, theirs) = pair(Traits::default(), Traits::default());
    let tap = ours.tap();
    let drain = place.drain(ours, true);
    let clock = place.clock.clone();
    let server = Server::offering(&["PIPELINING", "CHUNKING", "8BITMIME"]);
    let serving = place.spawn(server.serve(theirs, clock));
    let (last, taken) = place.run(futures::future::join(drain, serving));
    assert_eq!((last.ended.as_str(), last.messages), ("quit", 2));
    assert_eq!(taken.messages[0].content, b"a\r\n.\r\n\r\nno end\r\n");
    assert!(!taken.commands.iter().any(|line| line.starts_with("BDAT")));
    let writes = tap.writes();
    assert!(writes.len() > 20_000, "{}", writes.len());
    for write in writes {
        let ends = write.iter().filter(|octet| **octet == b'\n').count();
        assert!(ends == 1 && write.ends_with(b"\r\n"), "one line, one record: {write:?}");
    }
}
