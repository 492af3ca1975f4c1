//! What every engine of the store promises, in one suite over all of them.

mod store_support;

use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use restante::mail::{Outcome, RecipientState, ReversePath, Timestamp};
use restante::store::{
    Count, Directory, DirectoryError, Filter, LeaseAnswer, LeaseRequest, Memory, Options,
    QueueAction, Report, Settlement, SledStore, StateFilter, Store, StoreError, Verdict,
};
use store_support::*;

/// One engine, ready to be asked.
struct Subject {
    store: Arc<dyn Engine>,
    clock: Clock,
    /// What must outlive the store.
    _folder: Option<tempfile::TempDir>,
}

fn memory() -> Subject {
    let clock = Clock::default();
    Subject { store: Arc::new(Memory::with_clock(clock.reader())), clock, _folder: None }
}

fn sled() -> Subject {
    let clock = Clock::default();
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { clock: clock.reader(), ..Options::default() };
    let store = SledStore::open(folder.path(), options).expect("opened");
    Subject { store: Arc::new(store), clock, _folder: Some(folder) }
}

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod on_memory {
            $(#[test] fn $promise() { super::$promise(&super::memory()); })*
        }
        mod on_sled {
            $(#[test] fn $promise() { super::$promise(&super::sled()); })*
        }
    };
}

contract!(
    a_message_enters_all_its_queues,
    committing_twice_is_the_same_as_once,
    odd_messages_are_refused_whole,
    a_dropped_writer_leaves_nothing,
    bodies_come_back_octet_for_octet,
    several_bodies_are_opened_at_once,
    a_shared_body_goes_with_its_last_customer,
    the_drain_is_in_order_of_arrival_over_all_queues,
    pages_go_on_where_the_last_one_ended,
    three_line_breaks_put_a_message_last,
    a_late_message_is_late_in_all_its_queues,
    a_lease_is_for_all_queues_or_none,
    a_lease_ends_by_its_clock,
    a_holder_without_progress_is_overthrown,
    tokens_grow,
    settling_twice_is_the_same_as_once,
    verdicts_decide_the_fate,
    under_a_lost_lease_only_deliveries_count,
    a_drain_settles_nothing_outside_its_queues,
    counts_follow_every_change,
    a_queue_that_changed_hands_has_two_owners,
    queues_come_in_pages,
    filters_mean_what_they_say,
    held_messages_rest_until_released,
    failed_ones_can_be_released,
    a_report_enters_as_what_it_tells_of_leaves,
    delivered_ones_can_wait_for_their_report,
    removing_takes_only_what_is_meant,
    overdue_recipients_come_oldest_first,
    hints_come_after_mail_and_release,
    the_directory_keeps_customers,
    the_directory_refuses_conflicts,
    the_server_key_is_made_once,
    lessons_are_kept_until_forgotten,
    a_closed_store_answers_no_more,
    health_knows_the_live_octets,
);

fn a_message_enters_all_its_queues(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@y.example", "by"), ("c@x.example", "ax")]);
    let (ax, by) = (lease(store, "ax", &["x.example"]), lease(store, "by", &["y.example"]));
    let (for_ax, for_by) = (page(store, &ax), page(store, &by));
    assert_eq!(ids(&for_ax), [id(1)]);
    let paths = |heads: &[restante::store::Head]| -> Vec<(u32, String)> {
        let all = heads[0].recipients.iter();
        all.map(|r| (r.index, r.recipient.forward_path.as_str().to_owned())).collect()
    };
    assert_eq!(paths(&for_ax), [(0, "a@x.example".into()), (2, "c@x.example".into())]);
    assert_eq!(paths(&for_by), [(1, "b@y.example".into())]);
    let sent = message(1, &[("b@y.example", "by")]);
    let head = &for_by[0];
    assert_eq!(head.facts, sent.facts);
    assert_eq!(head.arrived, sent.arrived);
    assert_eq!(head.recipients[0].recipient, sent.envelope.recipients[0]);
    assert!(head.envelope.recipients.is_empty());
    assert_eq!((&head.envelope.dsn, head.envelope.smtputf8), (&sent.envelope.dsn, true));
    assert_eq!(head.envelope.reverse_path, sent.envelope.reverse_path);
    assert_eq!((head.position.rank, head.position.id, head.line_breaks), (0, id(1), 0));
}

fn committing_twice_is_the_same_as_once(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax")]);
    put(store, 1, &[("a@x.example", "ax")]);
    let count = block_on(store.count(&domain("x.example"))).expect("counted");
    assert_eq!((count.messages, count.bytes), (1, 100));
    let drain = lease(store, "ax", &["x.example"]);
    assert_eq!(page(store, &drain).len(), 1);
}

fn odd_messages_are_refused_whole(s: &Subject) {
    let store = &*s.store;
    let mut unowned = message(1, &[("a@x.example", "ax"), ("b@y.example", "by")]);
    unowned.owners.pop();
    assert!(put_body(store, unowned, b"x").is_err());
    let mut endless = message(2, &[("a@x.example", "ax")]);
    endless.expires.clear();
    assert!(put_body(store, endless, b"x").is_err());
    assert!(put_body(store, message(3, &[]), b"x").is_err());
    assert_eq!(block_on(store.queues(None, 10)).expect("listed"), []);
}

fn a_dropped_writer_leaves_nothing(s: &Subject) {
    let store = &*s.store;
    for length in [10, 3_000_000] {
        let mut writer = block_on(store.begin_body(id(1), 0)).expect("a writer");
        block_on(writer.write(&body(1, length))).expect("taken");
        drop(writer);
    }
    assert!(matches!(block_on(store.open_body(id(1), 0)), Err(StoreError::Missing)));
    assert_eq!(block_on(store.query(Filter::default(), None, 10)).expect("asked"), []);
    put(store, 1, &[("a@x.example", "ax")]);
    assert_eq!(read_from(store, id(1), 0).expect("read"), body(1, 100));
}

fn bodies_come_back_octet_for_octet(s: &Subject) {
    let store = &*s.store;
    let lengths = [0, 1, 65_535, 65_536, 65_537, 200_000, 262_144, 262_145, 1_000_000, 5_000_001];
    for (n, length) in (1..).zip(lengths) {
        let sent = body(n, length);
        put_body(store, message(n, &[("a@x.example", "ax")]), &sent).expect("committed");
    }
    for (n, length) in (1..).zip(lengths) {
        let sent = body(n, length);
        assert!(read_from(store, id(n), 0).expect("read") == sent, "{length} octets");
        for offset in [1, length / 2, length.saturating_sub(1), length, length + 1] {
            let rest = read_from(store, id(n), offset as u64).expect("read");
            assert!(rest == sent[offset.min(length)..], "{length} octets from {offset}");
        }
        let reader = block_on(store.open_body(id(n), 3)).expect("a reader");
        assert_eq!(reader.size(), length as u64);
    }
}

fn several_bodies_are_opened_at_once(s: &Subject) {
    let store = &*s.store;
    let lengths = [1, 100, 0, 65_537, 4096];
    for (n, length) in (1..).zip(lengths) {
        put_body(store, message(n, &[("a@x.example", "ax")]), &body(n, length)).expect("committed");
    }
    let drain = lease(store, "ax", &["x.example"]);
    // With and without a page before, which may bring some along; twice the same; one that never was.
    for turn in 0..3 {
        if turn == 1 {
            assert_eq!(page(store, &drain).len(), lengths.len());
        }
        let asked: Vec<restante::mail::QueueId> = [5, 2, 9, 1, 4, 2, 3].map(id).to_vec();
        let opened = block_on(store.open_bodies(asked.clone()));
        assert_eq!(opened.len(), asked.len());
        for (number, opened) in [5, 2, 9, 1, 4, 2, 3].into_iter().zip(opened) {
            let Ok(mut reader) = opened else {
                assert!(number == 9 && matches!(opened, Err(StoreError::Missing)));
                continue;
            };
            let length = lengths[number as usize - 1];
            assert_eq!(reader.size(), length as u64);
            let mut read = Vec::new();
            loop {
                let chunk = block_on(reader.read()).expect("read");
                if chunk.is_empty() {
                    break;
                }
                read.extend(chunk);
            }
            assert!(read == body(number, length), "{number} of turn {turn}");
        }
    }
}

fn a_shared_body_goes_with_its_last_customer(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@y.example", "by")]);
    let ax = lease(store, "ax", &["x.example"]);
    block_on(store.settle(&ax, vec![delivered(1, 0)])).expect("settled");
    assert_eq!(page(store, &ax), []);
    assert_eq!(read_from(store, id(1), 0).expect("still there"), body(1, 100));
    let by = lease(store, "by", &["y.example"]);
    assert_eq!(ids(&page(store, &by)), [id(1)]);
    block_on(store.settle(&by, vec![delivered(1, 1)])).expect("settled");
    assert!(matches!(read_from(store, id(1), 0), Err(StoreError::Missing)));
    assert_eq!(block_on(store.queues(None, 10)).expect("listed"), []);
}

fn the_drain_is_in_order_of_arrival_over_all_queues(s: &Subject) {
    let store = &*s.store;
    put(store, 4, &[("a@x.example", "ax")]);
    put(store, 2, &[("a@y.example", "ax"), ("b@x.example", "ax")]);
    put(store, 3, &[("a@z.example", "zz")]);
    put(store, 1, &[("a@x.example", "ax"), ("o@other.example", "zz")]);
    put(store, 5, &[("a@y.example", "ax")]);
    let drain = lease(store, "ax", &["y.example", "x.example", "x.example"]);
    assert_eq!(drain.domains(), [domain("x.example"), domain("y.example")]);
    let heads = page(store, &drain);
    assert_eq!(ids(&heads), [id(1), id(2), id(4), id(5)]);
    assert_eq!(heads[0].recipients.len(), 1);
    assert_eq!(heads[1].recipients.len(), 2);
    put(store, 6, &[("a@x.example", "ax")]);
    let more = block_on(store.next(&drain, Some(heads[3].position), 10)).expect("a page");
    assert_eq!(ids(&more), [id(6)]);
}

fn pages_go_on_where_the_last_one_ended(s: &Subject) {
    let store = &*s.store;
    for n in 1..=25 {
        let to = if n % 3 == 0 { "a@x.example" } else { "a@y.example" };
        put(store, n, &[(to, "ax")]);
    }
    let drain = lease(store, "ax", &["x.example", "y.example"]);
    for n in [2, 9] {
        block_on(store.settle(&drain, vec![in_doubt(n, 0)])).expect("settled");
    }
    let mut seen = Vec::new();
    let mut after = None;
    for _ in 0..30 {
        let heads = block_on(store.next(&drain, after, 4)).expect("a page");
        assert!(heads.len() <= 4);
        let Some(last) = heads.last() else { break };
        after = Some(last.position);
        seen.extend(ids(&heads));
    }
    assert_eq!(seen, (1..=25).map(id).collect::<Vec<_>>());
    assert_eq!(block_on(store.next(&drain, None, 0)).expect("a page"), []);
}

fn break_the_line(store: &dyn Engine, customer: &str, domains: &[&str], n: u64, index: u32) {
    let drain = lease(store, customer, domains);
    block_on(store.settle(&drain, vec![in_doubt(n, index)])).expect("settled");
    block_on(store.release(drain)).expect("released");
}

fn three_line_breaks_put_a_message_last(s: &Subject) {
    let store = &*s.store;
    for n in 1..=4 {
        put(store, n, &[("a@x.example", "ax")]);
    }
    for breaks in 1..=3 {
        break_the_line(store, "ax", &["x.example"], 2, 0);
        let drain = lease(store, "ax", &["x.example"]);
        let heads = page(store, &drain);
        let order = if breaks < 3 { [1, 2, 3, 4] } else { [1, 3, 4, 2] };
        assert_eq!(ids(&heads), order.map(id));
        let broken = heads.iter().find(|h| h.id == id(2)).expect("offered");
        assert_eq!((broken.line_breaks, broken.recipients[0].attempts), (breaks, breaks));
        assert_eq!(broken.position.rank, u8::from(breaks == 3));
        block_on(store.release(drain)).expect("released");
    }
    put(store, 5, &[("a@x.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    let mut seen = Vec::new();
    let mut after = None;
    for _ in 0..9 {
        let heads = block_on(store.next(&drain, after, 1)).expect("a page");
        let Some(head) = heads.first() else { break };
        after = Some(head.position);
        seen.push(head.id);
    }
    assert_eq!(seen, [1, 3, 4, 5, 2].map(id));
}

fn a_late_message_is_late_in_all_its_queues(s: &Subject) {
    let store = &*s.store;
    for n in 1..=3 {
        put(store, n, &[("a@x.example", "ax"), ("a@y.example", "ax"), ("o@z.example", "zz")]);
    }
    for _ in 0..3 {
        break_the_line(store, "ax", &["x.example"], 1, 0);
    }
    let both = lease(store, "ax", &["x.example", "y.example"]);
    let mut seen = Vec::new();
    let mut after = None;
    for _ in 0..9 {
        let heads = block_on(store.next(&both, after, 1)).expect("a page");
        let Some(head) = heads.first() else { break };
        assert_eq!(head.recipients.len(), 2);
        after = Some(head.position);
        seen.push(head.id);
    }
    assert_eq!(seen, [2, 3, 1].map(id));
    block_on(store.release(both)).expect("released");
    // Another customer's line is another line.
    let other = lease(store, "zz", &["z.example"]);
    assert_eq!(ids(&page(store, &other)), [1, 2, 3].map(id));
    let y = lease(store, "ax", &["y.example"]);
    assert_eq!(ids(&page(store, &y)), [1, 2, 3].map(id));
}

fn a_lease_is_for_all_queues_or_none(s: &Subject) {
    let store = &*s.store;
    let x = lease(store, "ax", &["x.example"]);
    let answer = block_on(store.lease(request("ax", &["w.example", "x.example"])));
    match answer.expect("answered") {
        LeaseAnswer::Busy { by, domain: at } => {
            assert_eq!((by.as_str(), at), ("session of ax", domain("x.example")));
        }
        LeaseAnswer::Granted(lease) => panic!("two drains: {lease:?}"),
    }
    let w = lease(store, "ax", &["w.example"]);
    block_on(store.release(x)).expect("released");
    block_on(store.release(w)).expect("released");
    let both = lease(store, "ax", &["w.example", "x.example"]);
    assert_eq!(both.customer(), &name("ax"));
    assert!(matches!(block_on(store.lease(request("ax", &[]))), Err(StoreError::Missing)));
}

fn short(lasts: u64, overthrow_after: u64) -> LeaseRequest {
    LeaseRequest {
        lasts: Duration::from_secs(lasts),
        overthrow_after: Duration::from_secs(overthrow_after),
        ..request("ax", &["x.example"])
    }
}

fn granted(store: &dyn Engine, request: LeaseRequest) -> Option<restante::mail::Lease> {
    match block_on(store.lease(request)).expect("answered") {
        LeaseAnswer::Granted(lease) => Some(lease),
        LeaseAnswer::Busy { .. } => None,
    }
}

fn a_lease_ends_by_its_clock(s: &Subject) {
    let store = &*s.store;
    let first = granted(store, short(10, 1000)).expect("free");
    s.clock.advance(Duration::from_secs(8));
    block_on(store.renew(&first)).expect("still ours");
    s.clock.advance(Duration::from_secs(8));
    assert!(granted(store, short(10, 1000)).is_none());
    block_on(store.next(&first, None, 1)).expect("still ours");
    s.clock.advance(Duration::from_secs(2));
    assert!(matches!(block_on(store.renew(&first)), Err(StoreError::LostLease)));
    assert!(matches!(block_on(store.next(&first, None, 1)), Err(StoreError::LostLease)));
    let second = granted(store, short(10, 1000)).expect("free again");
    block_on(store.release(first)).expect("ignored");
    block_on(store.renew(&second)).expect("the second is not touched");
}

fn a_holder_without_progress_is_overthrown(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax")]);
    let first = granted(store, short(1000, 60)).expect("free");
    s.clock.advance(Duration::from_secs(59));
    assert!(granted(store, short(1000, 60)).is_none());
    block_on(store.settle(&first, vec![])).expect("progress");
    s.clock.advance(Duration::from_secs(59));
    assert!(granted(store, short(1000, 60)).is_none());
    block_on(store.renew(&first)).expect("progress");
    s.clock.advance(Duration::from_secs(60));
    let second = granted(store, short(1000, 60)).expect("overthrown");
    assert!(matches!(block_on(store.renew(&first)), Err(StoreError::LostLease)));
    let settled = block_on(store.settle(&first, vec![later(1, 0)]));
    assert!(matches!(settled, Err(StoreError::LostLease)));
    assert_eq!(page(store, &second)[0].recipients[0].state, RecipientState::Queued);
}

fn tokens_grow(s: &Subject) {
    let store = &*s.store;
    let mut last = 0;
    for n in 0..20 {
        let drain = lease(store, "ax", &[if n % 2 == 0 { "x.example" } else { "y.example" }]);
        assert!(drain.token() > last);
        last = drain.token();
        block_on(store.release(drain)).expect("released");
    }
}

fn settling_twice_is_the_same_as_once(s: &Subject) {
    let store = &*s.store;
    for n in 1..=4 {
        put(store, n, &[("a@x.example", "ax"), ("b@x.example", "ax")]);
    }
    let drain = lease(store, "ax", &["x.example"]);
    let all = vec![delivered(1, 0), later(2, 0), failed(3, 0), in_doubt(4, 0), in_doubt(4, 1)];
    block_on(store.settle(&drain, all.clone())).expect("settled");
    let once = (page(store, &drain), block_on(store.count(&domain("x.example"))).expect("count"));
    block_on(store.settle(&drain, all)).expect("settled");
    let twice = (page(store, &drain), block_on(store.count(&domain("x.example"))).expect("count"));
    assert_eq!(once, twice);
    assert_eq!(once.0.iter().map(|h| h.recipients.len()).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert_eq!(once.0[1].recipients[0].attempts, 1);
    assert_eq!((once.0[3].line_breaks, once.0[3].recipients[1].attempts), (1, 1));
    let gone = vec![delivered(99, 0), delivered(1, 77)];
    block_on(store.settle(&drain, gone)).expect("what is not there needs nothing");
}

fn verdicts_decide_the_fate(s: &Subject) {
    let store = &*s.store;
    let to = [("a@x.example", "ax"), ("b@x.example", "ax"), ("c@x.example", "ax")];
    put(store, 1, &to);
    let drain = lease(store, "ax", &["x.example"]);
    let verdicts = vec![delivered(1, 0), later(1, 1), failed(1, 2)];
    block_on(store.settle(&drain, verdicts)).expect("settled");
    let heads = page(store, &drain);
    assert_eq!(heads[0].recipients.len(), 1);
    assert_eq!(heads[0].recipients[0].index, 1);
    assert_eq!(heads[0].recipients[0].state, RecipientState::Deferred(reply("450 later")));
    let all = block_on(store.query(Filter::default(), None, 10)).expect("asked");
    assert_eq!(all[0].recipients.len(), 2);
    assert_eq!(all[0].recipients[1].state, RecipientState::Failed(reply("550 no such user")));
    block_on(store.settle(&drain, vec![said(1, 1, Outcome::Failed(reply("551 moved")))]))
        .expect("settled");
    assert_eq!(page(store, &drain), []);
    assert!(read_from(store, id(1), 0).is_ok(), "failed ones wait for their report");
}

fn under_a_lost_lease_only_deliveries_count(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@x.example", "ax"), ("c@x.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    s.clock.advance(HOUR);
    let verdicts = vec![delivered(1, 0), later(1, 1), failed(1, 2), in_doubt(1, 1)];
    assert!(matches!(block_on(store.settle(&drain, verdicts)), Err(StoreError::LostLease)));
    let next = lease(store, "ax", &["x.example"]);
    let heads = page(store, &next);
    let states: Vec<_> = heads[0].recipients.iter().map(|r| (r.index, r.state.clone())).collect();
    assert_eq!(states, [(1, RecipientState::Queued), (2, RecipientState::Queued)]);
    assert_eq!(heads[0].line_breaks, 0);
}

fn a_drain_settles_nothing_outside_its_queues(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@y.example", "by"), ("c@z.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    block_on(store.settle(&drain, vec![delivered(1, 1), failed(1, 2)])).expect("answered");
    let all = block_on(store.query(Filter::default(), None, 10)).expect("asked");
    assert!(all[0].recipients.iter().all(|r| r.state == RecipientState::Queued));
    assert_eq!(all[0].recipients.len(), 3);
}

fn count_of(store: &dyn Engine, of: &str) -> (u64, u64, u64, u64, Option<Timestamp>) {
    let Count { messages, bytes, ready, failed, oldest } =
        block_on(store.count(&domain(of))).expect("counted");
    (messages, bytes, ready, failed, oldest)
}

fn counts_follow_every_change(s: &Subject) {
    let store = &*s.store;
    assert_eq!(count_of(store, "x.example"), (0, 0, 0, 0, None));
    put(store, 1, &[("a@x.example", "ax"), ("b@x.example", "ax"), ("c@y.example", "ax")]);
    put(store, 2, &[("a@x.example", "ax")]);
    assert_eq!(count_of(store, "x.example"), (2, 200, 2, 0, Some(arrived(1))));
    assert_eq!(count_of(store, "y.example"), (1, 100, 1, 0, Some(arrived(1))));
    let usage = block_on(store.usage(&name("ax"))).expect("counted");
    assert_eq!((usage.messages, usage.bytes, usage.oldest), (3, 300, Some(arrived(1))));
    let drain = lease(store, "ax", &["x.example"]);
    let settle = |settlements| block_on(store.settle(&drain, settlements)).expect("settled");
    settle(vec![failed(1, 0)]);
    assert_eq!(count_of(store, "x.example"), (2, 200, 2, 0, Some(arrived(1))));
    settle(vec![failed(1, 1)]);
    assert_eq!(count_of(store, "x.example"), (1, 100, 1, 1, Some(arrived(2))));
    let filter = Filter { ids: vec![id(2)], ..Filter::default() };
    assert_eq!(block_on(store.apply(filter, QueueAction::Hold)).expect("held"), 1);
    assert_eq!(count_of(store, "x.example"), (1, 100, 0, 1, Some(arrived(2))));
    settle(vec![delivered(2, 0)]);
    assert_eq!(count_of(store, "x.example"), (0, 0, 0, 1, None));
    let filter = Filter { state: Some(StateFilter::Failed), ..Filter::default() };
    assert_eq!(block_on(store.apply(filter, QueueAction::Remove)).expect("removed"), 1);
    assert_eq!(count_of(store, "x.example"), (0, 0, 0, 0, None));
    assert_eq!(count_of(store, "y.example"), (1, 100, 1, 0, Some(arrived(1))));
    assert_eq!(block_on(store.usage(&name("nobody"))).expect("counted"), Count::default());
}

fn a_queue_that_changed_hands_has_two_owners(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "old")]);
    put(store, 2, &[("a@x.example", "new")]);
    assert_eq!(count_of(store, "x.example").0, 2);
    assert_eq!(block_on(store.usage(&name("old"))).expect("counted").messages, 1);
    let drain = lease(store, "new", &["x.example"]);
    assert_eq!(ids(&page(store, &drain)), [id(2)]);
    block_on(store.settle(&drain, vec![delivered(1, 0)])).expect("answered");
    assert_eq!(count_of(store, "x.example").0, 2, "not theirs to settle");
    let queues = block_on(store.queues(None, 10)).expect("listed");
    let owners: Vec<_> = queues.iter().map(|(_, owner, count)| (owner, count.messages)).collect();
    assert_eq!(owners, [(&name("new"), 1), (&name("old"), 1)]);
}

fn queues_come_in_pages(s: &Subject) {
    let store = &*s.store;
    for n in 1..=9 {
        put(store, n, &[(&format!("a@d{n}.example"), &format!("c{}", n % 2))]);
    }
    let mut seen = Vec::new();
    let mut after = None;
    for _ in 0..9 {
        let page = block_on(store.queues(after, 2)).expect("listed");
        let Some((last, ..)) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 9);
    for (n, (at, owner, count)) in (1..).zip(&seen) {
        assert_eq!((at, owner), (&domain(&format!("d{n}.example")), &name(&format!("c{}", n % 2))));
        assert_eq!((count.messages, count.oldest), (1, Some(arrived(n))));
    }
}

fn filters_mean_what_they_say(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("anna@x.example", "ax"), ("bob@y.example", "by")]);
    let mut second = message(2, &[("Bob@x.example", "ax")]);
    second.envelope.reverse_path = ReversePath::Null;
    put_body(store, second, &body(2, 5000)).expect("committed");
    put(store, 3, &[("carl@z.example", "ax")]);
    let drain = lease(store, "ax", &["x.example", "z.example"]);
    block_on(store.settle(&drain, vec![later(2, 0), failed(3, 0)])).expect("settled");
    let ask = |filter: Filter| {
        let heads = block_on(store.query(filter, None, 100)).expect("asked");
        heads.iter().map(|h| (h.id, h.recipients.len())).collect::<Vec<_>>()
    };
    let base = Filter::default;
    assert_eq!(ask(base()), [(id(1), 2), (id(2), 1), (id(3), 1)]);
    assert_eq!(ask(Filter { ids: vec![id(3), id(1), id(8)], ..base() }), [(id(1), 2), (id(3), 1)]);
    let customer = Some(name("ax"));
    assert_eq!(ask(Filter { customer, ..base() }), [(id(1), 1), (id(2), 1), (id(3), 1)]);
    let at = Some(domain("x.example"));
    assert_eq!(ask(Filter { domain: at, ..base() }), [(id(1), 1), (id(2), 1)]);
    let sender = |text: &str| Filter { sender: Some(text.into()), ..Filter::default() };
    assert_eq!(ask(sender("<>")), [(id(2), 1)]);
    assert_eq!(ask(sender("FOO.ex")), [(id(1), 2), (id(3), 1)]);
    assert_eq!(ask(sender("nobody")), []);
    let recipient = Some("BOB@".into());
    assert_eq!(ask(Filter { recipient, ..base() }), [(id(1), 1), (id(2), 1)]);
    assert_eq!(ask(Filter { before: Some(arrived(2)), ..base() }), [(id(1), 2)]);
    assert_eq!(ask(Filter { since: Some(arrived(2)), ..base() }), [(id(2), 1), (id(3), 1)]);
    assert_eq!(ask(Filter { larger: Some(5000), ..base() }), [(id(2), 1)]);
    let state = |state| Filter { state: Some(state), ..Filter::default() };
    assert_eq!(ask(state(StateFilter::Queued)), [(id(1), 2)]);
    assert_eq!(ask(state(StateFilter::Deferred)), [(id(2), 1)]);
    assert_eq!(ask(state(StateFilter::Failed)), [(id(3), 1)]);
    assert_eq!(ask(state(StateFilter::Held)), []);
    let both = Filter { recipient: Some("bob".into()), customer: Some(name("by")), ..base() };
    assert_eq!(ask(both), [(id(1), 1)]);
    let page = block_on(store.query(base(), Some(id(1)), 1)).expect("asked");
    assert_eq!(ids(&page), [id(2)]);
}

fn held_messages_rest_until_released(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@x.example", "ax")]);
    put(store, 2, &[("a@x.example", "ax")]);
    let only_a = Filter { recipient: Some("a@".into()), ..Filter::default() };
    assert_eq!(block_on(store.apply(only_a.clone(), QueueAction::Hold)).expect("held"), 2);
    assert_eq!(block_on(store.apply(only_a.clone(), QueueAction::Hold)).expect("again"), 0);
    let drain = lease(store, "ax", &["x.example"]);
    let heads = page(store, &drain);
    assert_eq!((ids(&heads), heads[0].recipients.len()), (vec![id(1)], 1));
    assert_eq!(count_of(store, "x.example"), (2, 200, 1, 0, Some(arrived(1))));
    let held = Filter { state: Some(StateFilter::Held), ..Filter::default() };
    assert_eq!(block_on(store.query(held.clone(), None, 9)).expect("asked").len(), 2);
    assert_eq!(block_on(store.apply(held, QueueAction::Release)).expect("released"), 2);
    assert_eq!(page(store, &drain).iter().map(|h| h.recipients.len()).sum::<usize>(), 3);
}

fn failed_ones_can_be_released(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    block_on(store.settle(&drain, vec![failed(1, 0)])).expect("settled");
    assert_eq!(page(store, &drain), []);
    assert_eq!(block_on(store.apply(Filter::default(), QueueAction::Release)).expect("done"), 1);
    assert_eq!(page(store, &drain)[0].recipients[0].state, RecipientState::Queued);
}

// covers: 26
fn a_report_enters_as_what_it_tells_of_leaves(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@x.example", "ax"), ("c@x.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    block_on(store.settle(&drain, vec![failed(1, 0), failed(1, 1)])).expect("settled");
    let over = |index| (index, RecipientState::Failed(reply("550 no such user")));
    let conclude = |states: Vec<(u32, RecipientState)>| {
        block_on(async {
            let mut writer = store.begin_body(id(2), 0).await.expect("a writer");
            writer.write(b"report").await.expect("taken");
            let report = Report { message: message(2, &[("t@y.example", "by")]), body: writer };
            store.conclude(id(1), states, Some(report)).await
        })
    };
    let waiting = || block_on(store.count(&domain("y.example"))).expect("counted").messages;
    assert!(conclude(vec![(2, RecipientState::Queued)]).is_err(), "it can still be delivered");
    let other = (1, RecipientState::Failed(reply("551 moved")));
    assert!(!conclude(vec![over(0), other]).expect("answered"), "one stands otherwise");
    assert!(!conclude(vec![over(0), over(7)]).expect("answered"), "one is not there");
    assert_eq!(
        (waiting(), block_on(store.query(Filter::default(), None, 9)).expect("asked").len()),
        (0, 1)
    );
    assert!(conclude(vec![over(0), over(1)]).expect("answered"));
    assert_eq!(waiting(), 1);
    assert_eq!(read_from(store, id(2), 0).expect("read"), b"report");
    let left = block_on(store.query(Filter { ids: vec![id(1)], ..Filter::default() }, None, 9));
    let left = left.expect("asked");
    assert_eq!(left[0].recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [2]);
    assert!(!conclude(vec![over(0), over(1)]).expect("answered"), "twice is the same as once");
    assert_eq!(waiting(), 1);
    block_on(store.settle(&drain, vec![failed(1, 2)])).expect("settled");
    assert!(block_on(store.conclude(id(1), vec![over(2)], None)).expect("answered"));
    assert!(matches!(block_on(store.open_body(id(1), 0)), Err(StoreError::Missing)));
}

fn delivered_ones_can_wait_for_their_report(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax")]);
    let drain = lease(store, "ax", &["x.example"]);
    let relayed = Settlement { id: id(1), index: 0, verdict: Verdict::Relayed(reply("250 ok")) };
    block_on(store.settle(&drain, vec![relayed, later(1, 0), failed(1, 0)])).expect("settled");
    assert_eq!(page(store, &drain), [], "it is not offered again");
    assert_eq!(block_on(store.overdue(NEVER, 9)).expect("asked"), []);
    let owed = Filter { state: Some(StateFilter::Relayed), ..Filter::default() };
    assert_eq!(block_on(store.query(owed.clone(), None, 9)).expect("asked").len(), 1);
    block_on(store.apply(Filter::default(), QueueAction::Release)).expect("applied");
    assert_eq!(page(store, &drain), [], "nor after a release");
    let state = RecipientState::Relayed(reply("250 ok"));
    assert!(block_on(store.conclude(id(1), vec![(0, state)], None)).expect("answered"));
    assert_eq!(block_on(store.query(Filter::default(), None, 9)).expect("asked"), []);
}

fn removing_takes_only_what_is_meant(s: &Subject) {
    let store = &*s.store;
    for n in 1..=300 {
        put(store, n, &[("a@x.example", "ax"), ("b@y.example", "by")]);
    }
    let mine = Filter { customer: Some(name("ax")), ..Filter::default() };
    assert_eq!(block_on(store.apply(mine.clone(), QueueAction::Remove)).expect("done"), 300);
    assert_eq!(block_on(store.apply(mine, QueueAction::Remove)).expect("again"), 0);
    assert_eq!(count_of(store, "x.example").0, 0);
    assert_eq!(count_of(store, "y.example").0, 300);
    assert!(read_from(store, id(300), 0).is_ok());
    let rest = Filter { before: Some(arrived(300)), ..Filter::default() };
    assert_eq!(block_on(store.apply(rest, QueueAction::Remove)).expect("done"), 299);
    assert!(matches!(read_from(store, id(1), 0), Err(StoreError::Missing)));
}

fn overdue_recipients_come_oldest_first(s: &Subject) {
    let store = &*s.store;
    let ends = [[50, 20], [40, 90], [30, 10]];
    for (n, ends) in (1..).zip(ends) {
        let mut m = message(n, &[("a@x.example", "ax"), ("b@y.example", "by")]);
        m.expires = ends.map(Timestamp).to_vec();
        put_body(store, m, b"x").expect("committed");
    }
    let due = |now, limit| {
        let heads = block_on(store.overdue(Timestamp(now), limit)).expect("asked");
        let indexes = |h: &restante::store::Head| h.recipients.iter().map(|r| r.index).collect();
        heads.iter().map(|h| (h.id, indexes(h))).collect::<Vec<(_, Vec<u32>)>>()
    };
    assert_eq!(due(9, 9), []);
    assert_eq!(due(10, 9), [(id(3), vec![1])]);
    assert_eq!(due(40, 9), [(id(3), vec![0, 1]), (id(1), vec![1]), (id(2), vec![0])]);
    assert_eq!(due(40, 3), [(id(3), vec![0, 1]), (id(1), vec![1])]);
    let drain = lease(store, "ax", &["x.example"]);
    block_on(store.settle(&drain, vec![failed(3, 0)])).expect("settled");
    let one = Filter { ids: vec![id(1)], ..Filter::default() };
    block_on(store.apply(one.clone(), QueueAction::Hold)).expect("held");
    assert_eq!(due(40, 9), [(id(3), vec![1]), (id(2), vec![0])], "failed and held ones rest");
    block_on(store.apply(one, QueueAction::Release)).expect("released");
    assert_eq!(due(99, 99).iter().map(|(_, r)| r.len()).sum::<usize>(), 5);
}

fn hints_come_after_mail_and_release(s: &Subject) {
    let store = &*s.store;
    let mut hints = store.changes(&[domain("x.example"), domain("y.example")]);
    assert!(hints.next().now_or_never().is_none(), "nothing yet");
    put(store, 1, &[("a@other.example", "ax")]);
    assert!(hints.next().now_or_never().is_none(), "not theirs");
    put(store, 2, &[("a@y.example", "ax")]);
    put(store, 3, &[("a@x.example", "ax")]);
    assert!(block_on(hints.next()).is_some());
    while hints.next().now_or_never().is_some() {}
    let one = Filter { ids: vec![id(2)], ..Filter::default() };
    block_on(store.apply(one.clone(), QueueAction::Hold)).expect("held");
    assert!(hints.next().now_or_never().is_none(), "holding is no news");
    block_on(store.apply(one, QueueAction::Release)).expect("released");
    assert!(block_on(hints.next()).is_some());
    drop(hints);
    put(store, 4, &[("a@x.example", "ax")]);
}

fn the_directory_keeps_customers(s: &Subject) {
    let store = &*s.store;
    let demo = customer("demo", &["b.example", "a.example", "b.example"]);
    block_on(store.create(demo.clone())).expect("created");
    let kept = block_on(store.customer(&name("demo"))).expect("asked").expect("there");
    assert_eq!(kept.domains, [domain("a.example"), domain("b.example")]);
    assert_eq!((&kept.credentials, &kept.settings), (&demo.credentials, &demo.settings));
    let owner = block_on(store.owner(&domain("a.example"))).expect("asked").expect("owned");
    assert_eq!(owner, kept);
    let mut changed = (*kept).clone();
    changed.domains = vec![domain("c.example")];
    block_on(store.update(changed)).expect("updated");
    let after = block_on(store.customer(&name("demo"))).expect("asked").expect("there");
    assert_eq!((after.revision, after.domains.len()), (kept.revision + 1, 1));
    assert!(block_on(store.owner(&domain("a.example"))).expect("asked").is_none());
    for other in ["zoe", "adam", "max"] {
        block_on(store.create(customer(other, &[]))).expect("created");
    }
    let page = |after: Option<&str>, limit| -> Vec<String> {
        let found = block_on(store.customers(after.map(name), limit)).expect("asked");
        found.iter().map(|c| c.name.to_string()).collect()
    };
    assert_eq!(page(None, 2), ["adam", "demo"]);
    assert_eq!(page(Some("demo"), 9), ["max", "zoe"]);
    block_on(store.remove(&name("demo"))).expect("removed");
    assert!(block_on(store.customer(&name("demo"))).expect("asked").is_none());
    assert!(block_on(store.owner(&domain("c.example"))).expect("asked").is_none());
}

fn the_directory_refuses_conflicts(s: &Subject) {
    let store = &*s.store;
    block_on(store.create(customer("one", &["a.example"]))).expect("created");
    let again = block_on(store.create(customer("one", &[])));
    assert!(matches!(again, Err(DirectoryError::Exists)));
    match block_on(store.create(customer("two", &["b.example", "a.example"]))) {
        Err(DirectoryError::DomainTaken(at, owner)) => {
            assert_eq!((at, owner), (domain("a.example"), name("one")));
        }
        other => panic!("{other:?}"),
    }
    assert!(block_on(store.customer(&name("two"))).expect("asked").is_none());
    block_on(store.create(customer("two", &["b.example"]))).expect("created");
    let mut greedy = customer("two", &["a.example"]);
    greedy.revision = 0;
    let taken = block_on(store.update(greedy.clone()));
    assert!(matches!(taken, Err(DirectoryError::DomainTaken(..))));
    greedy.domains.clear();
    block_on(store.update(greedy.clone())).expect("updated");
    let outdated = block_on(store.update(greedy));
    assert!(matches!(outdated, Err(DirectoryError::Outdated)));
    let unknown = block_on(store.update(customer("three", &[])));
    assert!(matches!(unknown, Err(DirectoryError::Missing)));
    let unknown = block_on(store.remove(&name("three")));
    assert!(matches!(unknown, Err(DirectoryError::Missing)));
    block_on(store.create(customer("three", &["b.example"]))).expect("the domain is free again");
}

fn the_server_key_is_made_once(s: &Subject) {
    let first = block_on(s.store.server_key()).expect("a key");
    assert_ne!(first, [0; 32]);
    assert_eq!(block_on(s.store.server_key()).expect("a key"), first);
}

fn lessons_are_kept_until_forgotten(s: &Subject) {
    let store = &*s.store;
    let learnt = || {
        let mut all = block_on(store.learnt()).expect("lessons");
        all.sort();
        all
    };
    assert_eq!(learnt(), []);
    for (who, lesson) in [("ax", "first"), ("by", "of by"), ("ax", "second \u{fc}\n")] {
        block_on(store.learn(&name(who), Some(lesson.to_owned()), false)).expect("kept");
    }
    let both = [(name("ax"), "second \u{fc}\n".to_owned()), (name("by"), "of by".to_owned())];
    assert_eq!(learnt(), both);
    block_on(store.learn(&name("by"), None, true)).expect("forgotten");
    block_on(store.learn(&name("nobody"), None, false)).expect("nothing to forget");
    assert_eq!(learnt(), both[..1]);
    // A customer takes its lesson along.
    block_on(store.create(customer("ax", &["x.example"]))).expect("created");
    block_on(store.remove(&name("ax"))).expect("removed");
    assert_eq!(learnt(), []);
}

#[test]
fn lessons_outlive_a_restart_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || SledStore::open(folder.path(), Options::default()).expect("opened");
    let lesson = (name("ax"), "a lesson".to_owned());
    {
        let store = open();
        block_on(store.learn(&lesson.0, Some(lesson.1.clone()), false)).expect("kept");
        put(&store, 1, &[("a@x.example", "ax")]);
        block_on(store.close()).expect("closed");
    }
    for _ in 0..2 {
        let store = open();
        assert_eq!(block_on(store.learnt()).expect("lessons"), std::slice::from_ref(&lesson));
        assert_eq!(block_on(store.health()).expect("health").damage, Vec::<String>::new());
        // The second time the store was not closed in order.
    }
}

fn a_closed_store_answers_no_more(s: &Subject) {
    let store = &*s.store;
    put(store, 3, &[("a@x.example", "ax")]);
    let mut hints = store.changes(&[domain("x.example")]);
    let drain = lease(store, "ax", &["x.example"]);
    assert!(block_on(store.open_bodies(vec![id(3)]))[0].is_ok());
    let writer = block_on(store.begin_body(id(1), 0)).expect("a writer");
    block_on(store.close()).expect("closed");
    assert!(matches!(block_on(store.next(&drain, None, 1)), Err(StoreError::Broken(_))));
    assert!(matches!(block_on(store.open_bodies(vec![id(3)]))[0], Err(StoreError::Broken(_))));
    assert!(matches!(block_on(store.open_body(id(3), 0)), Err(StoreError::Broken(_))));
    assert!(block_on(hints.next()).is_none(), "hints end");
    let late = block_on(store.commit(message(1, &[("a@x.example", "ax")]), writer));
    assert!(matches!(late, Err(StoreError::Broken(_))));
    assert!(matches!(block_on(store.begin_body(id(2), 0)), Err(StoreError::Broken(_))));
    assert!(matches!(block_on(store.count(&domain("x.example"))), Err(StoreError::Broken(_))));
    block_on(store.close()).expect("closing twice is the same as once");
}

fn health_knows_the_live_octets(s: &Subject) {
    let store = &*s.store;
    put(store, 1, &[("a@x.example", "ax"), ("b@y.example", "by")]);
    put(store, 2, &[("a@x.example", "ax")]);
    let health = block_on(store.health()).expect("asked");
    assert_eq!((health.live_bytes, health.broken), (200, None));
    assert_eq!(health.damage, Vec::<String>::new());
    let all = block_on(store.apply(Filter::default(), QueueAction::Remove)).expect("removed");
    assert_eq!(all, 2);
    block_on(store.maintain()).expect("maintained");
    assert_eq!(block_on(store.health()).expect("asked").live_bytes, 0);
}
