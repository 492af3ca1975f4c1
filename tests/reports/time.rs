//! Mail that is not collected in time.

use std::time::Duration;

use futures::executor::block_on;
use restante::mail::Seconds;
use restante::store::{LeaseAnswer, LeaseRequest};

use crate::house::*;

const MONTH: u64 = 30 * 86_400;

// covers: S-15, N-21
#[test]
fn one_report_for_each_message_when_its_time_is_over() {
    let house = House::new();
    let to =
        vec![recipient("a@acme.example", None, None), recipient("b@other.example", None, None)];
    let id = house.mail("t@foo.example", to);
    house.settle("acme", vec![(id, 0, later("451 4.3.0 try later"))]);
    house.settle("acme", vec![(id, 0, later("451 4.3.0 try later"))]);
    house.hands.pass(MONTH - 1);
    assert_eq!(house.expire(), 0);
    house.hands.pass(2);
    assert_eq!(house.expire(), 2);
    assert_eq!(house.expire(), 0);
    house.report();
    let (_, text) = house.only_report();
    let parts = parts(&text);
    let groups = groups(&parts[1].1);
    assert_eq!(groups.len(), 3);
    for group in &groups[1..] {
        assert_eq!(field(group, "Status"), Some("5.4.7"));
        assert_eq!(field(group, "Action"), Some("failed"));
        assert_eq!(field(group, "Diagnostic-Code"), None, "no server refused it");
    }
    let words = parts[0].1.replace('\n', " ").replace("     ", " ");
    assert!(words.contains("within 30 days; its last answer was: 451 4.3.0 try later."), "{words}");
    assert_eq!(house.waiting("acme"), []);
    assert_eq!(house.waiting("other"), []);
}

#[test]
fn a_queue_that_is_being_drained_is_left_alone_and_does_not_hold_the_others_up() {
    let house = House::new();
    for n in 0..300 {
        house.mail("t@foo.example", vec![recipient(&format!("u{n}@acme.example"), None, None)]);
    }
    house.mail("t@foo.example", vec![recipient("b@other.example", None, None)]);
    let lease = block_on(house.office.store.lease(LeaseRequest {
        customer: name("acme"),
        domains: vec![domain("acme.example")],
        owner: "a drain".into(),
        lasts: Duration::from_secs(3600),
        overthrow_after: Duration::from_secs(3600),
    }));
    let LeaseAnswer::Granted(lease) = lease.expect("asked") else { panic!("busy") };
    house.hands.pass(MONTH + 1);
    assert_eq!(house.expire(), 1);
    block_on(house.office.store.release(lease)).expect("released");
    assert_eq!(house.expire(), 300);
}

// covers: 31
#[test]
fn a_clock_that_jumps_ahead_gives_nothing_up() {
    let house = House::new();
    house.mail("t@foo.example", vec![recipient("a@acme.example", None, None)]);
    assert_eq!(house.expire(), 0);
    house.hands.jump(365 * 86_400);
    assert_eq!(house.expire(), 0);
    house.hands.pass(86_400);
    assert_eq!(house.expire(), 0);
    house.hands.pass(MONTH);
    assert_eq!(house.expire(), 1, "by the clock from before the jump");
}

#[test]
fn the_customers_own_time_counts() {
    let house = House::new();
    block_on(async {
        let directory = &house.office.directory;
        let mut other =
            (*directory.customer(&name("other")).await.expect("read").expect("there")).clone();
        other.settings.expire_after = Some(Seconds(60));
        directory.update(other).await.expect("updated");
    });
    let id = house.mail("t@other.example", vec![recipient("a@acme.example", None, None)]);
    house.settle("acme", vec![(id, 0, failed("550 no"))]);
    house.report();
    assert_eq!(house.waiting("other").len(), 1);
    house.hands.pass(61);
    assert_eq!(
        house.expire(),
        1,
        "the report, by the time to live of the customer that it waits for"
    );
    house.report();
    assert_eq!(house.waiting("relay"), [], "and nothing is said about it");
}
