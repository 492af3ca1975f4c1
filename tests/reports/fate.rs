//! Every recipient ends delivered, queued or reported, once; and reports go where they should.

use std::collections::BTreeMap;

use proptest::prelude::*;
use restante::mail::*;
use restante::store::{Filter, StateFilter, Verdict};

use crate::house::*;

// covers: N-17, S-13, H2
#[test]
fn nobody_is_told_about_the_null_reverse_path() {
    let house = House::new();
    let id = house.mail("", vec![recipient("a@acme.example", None, None)]);
    house.settle("acme", vec![(id, 0, failed("550 no"))]);
    house.report();
    house.report();
    assert_eq!(house.waiting("relay"), []);
    let failed = Filter { state: Some(StateFilter::Failed), ..Filter::default() };
    assert_eq!(house.query(failed.clone()).len(), 1, "kept for the postmaster");
    house.hands.pass(61 * 86_400);
    house.report();
    assert_eq!(house.query(failed), [], "but not for ever");
}

// covers: H3
#[test]
fn a_report_that_fails_causes_no_other() {
    let house = House::new();
    let id = house.mail("t@other.example", vec![recipient("a@acme.example", None, None)]);
    house.settle("acme", vec![(id, 0, failed("550 no"))]);
    house.report();
    let reports = house.waiting("other");
    assert_eq!(reports.len(), 1, "a customer's report waits in that customer's queue");
    house.settle("other", vec![(reports[0].id, 0, failed("550 neither"))]);
    house.report();
    assert_eq!(house.waiting("relay"), []);
    let all = house.query(Filter::default());
    assert_eq!(all.len(), 1, "the report itself, kept");
    assert!(all[0].recipients[0].state.is_over());
}

// covers: N-23
#[test]
fn senders_without_a_domain_or_at_our_own_name() {
    for (from, owner) in [
        ("t@[192.0.2.1]", None),
        ("t@mx.provider.example", None),
        ("Postmaster@mx.provider.example", Some("postmaster")),
        ("t@foo.example", Some("relay")),
    ] {
        let house = House::new();
        let id = house.mail(from, vec![recipient("a@acme.example", None, None)]);
        house.settle("acme", vec![(id, 0, failed("550 no"))]);
        house.report();
        match owner {
            Some(owner) => {
                assert_eq!(house.waiting(owner).len(), 1, "{from}");
                assert_eq!(house.waiting("acme"), [], "{from}");
            }
            None => assert_eq!(house.waiting("acme").len(), 1, "{from}: kept"),
        }
    }
}

// covers: N-15, N-22
#[test]
fn one_report_for_one_message_and_only_once() {
    let house = House::new();
    let to = vec![recipient("a@acme.example", None, None), recipient("b@acme.example", None, None)];
    let id = house.mail("t@foo.example", to);
    house.settle("acme", vec![(id, 0, failed("550 no")), (id, 1, failed("551 no"))]);
    for _ in 0..3 {
        house.report();
        futures::executor::block_on(house.reporter.look_at(vec![id]));
    }
    let (_, text) = house.only_report();
    assert_eq!(groups(&parts(&text)[1].1).len(), 3);
}

fn notify() -> impl Strategy<Value = Option<Notify>> {
    prop::option::of(
        (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(success, failure, delay)| Notify { success, failure, delay }),
    )
}

#[derive(Clone, Debug)]
enum Reply {
    Silence,
    Taken,
    TakenWithoutDsn,
    Later,
    Refused,
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(Reply::Silence),
        Just(Reply::Taken),
        Just(Reply::TakenWithoutDsn),
        Just(Reply::Later),
        Just(Reply::Refused),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // covers: N-22
    /// Any envelope and any mix of replies over several drains, with reports in between or not.
    #[test]
    fn delivered_queued_or_reported_exactly_once(
        null in any::<bool>(),
        recipients in prop::collection::vec((any::<bool>(), notify()), 1..6),
        drains in prop::collection::vec((prop::collection::vec(reply(), 6), any::<bool>()), 1..4),
    ) {
        let house = House::new();
        let from = if null { "" } else { "t@foo.example" };
        let to: Vec<Recipient> = recipients.iter().enumerate().map(|(n, (acme, notify))| {
            let domain = if *acme { "acme.example" } else { "other.example" };
            recipient(&format!("r{n}@{domain}"), *notify, None)
        }).collect();
        let id = house.mail(from, to.clone());
        // What the servers said last, for each recipient that was not settled before.
        let mut fates: BTreeMap<usize, Reply> = BTreeMap::new();
        for (replies, report_now) in &drains {
            for customer in ["acme", "other"] {
                let mut settlements = Vec::new();
                for (n, (acme, notify)) in recipients.iter().enumerate() {
                    if *acme != (customer == "acme") || matches!(fates.get(&n), Some(Reply::Taken | Reply::TakenWithoutDsn | Reply::Refused)) {
                        continue;
                    }
                    let verdict = match &replies[n] {
                        Reply::Silence => continue,
                        Reply::Taken => delivered(),
                        Reply::TakenWithoutDsn if !null && notify.is_some_and(|wish| wish.success) =>
                            Verdict::Relayed(ReplyText::clean("250 ok")),
                        Reply::TakenWithoutDsn => delivered(),
                        Reply::Later => later("450 later"),
                        Reply::Refused => failed("550 no"),
                    };
                    fates.insert(n, replies[n].clone());
                    settlements.push((id, u32::try_from(n).expect("small"), verdict));
                }
                house.settle(customer, settlements);
            }
            if *report_now {
                house.report();
            }
        }
        house.report();
        house.report();
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for report in house.waiting("relay") {
            let text = String::from_utf8(house.body(report.id)).expect("text");
            for group in groups(&parts(&text)[1].1).iter().skip(1) {
                let last = field(group, "Final-Recipient").expect("there").trim_start_matches("rfc822; ");
                told.entry(last.to_owned()).or_default().push(field(group, "Action").expect("there").to_owned());
            }
        }
        let left = house.query(Filter { ids: vec![id], ..Filter::default() });
        for (n, (_, notify)) in recipients.iter().enumerate() {
            let address = to[n].forward_path.as_str();
            let held = left.iter().flat_map(|head| &head.recipients).find(|r| r.index as usize == n);
            let reports = told.remove(address).unwrap_or_default();
            let expected: Vec<&str> = match fates.get(&n) {
                Some(Reply::Refused) if null => {
                    prop_assert!(held.is_some_and(|held| held.state.is_over()), "kept");
                    vec![]
                }
                Some(Reply::Refused) => {
                    prop_assert!(held.is_none());
                    if notify.is_none_or(|wish| wish.failure) { vec!["failed"] } else { vec![] }
                }
                Some(Reply::TakenWithoutDsn) => {
                    prop_assert!(held.is_none());
                    if !null && notify.is_some_and(|wish| wish.success) { vec!["relayed"] } else { vec![] }
                }
                Some(Reply::Taken) => {
                    prop_assert!(held.is_none());
                    vec![]
                }
                Some(Reply::Later | Reply::Silence) | None => {
                    prop_assert!(held.is_some_and(|held| !held.state.is_over()), "queued");
                    vec![]
                }
            };
            prop_assert_eq!(reports, expected, "{}", address);
        }
        prop_assert!(told.is_empty(), "nobody else is told of");
    }
}
