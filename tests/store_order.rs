//! A store that is too large to be read whole when it opens: what waits in which queue comes from a file of its own,
//! or from the messages if that file is not as it was written.

mod store_support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use restante::mail::{QueueId, Timestamp};
use restante::store::{Count, Filter, Options, QueueAction, SledStore, Store};
use store_support::*;

/// Every store is a large one.
fn open(home: &Path) -> SledStore {
    let options = Options { read_at_open_max: 5, cache_bytes: 4 << 20, ..Options::default() };
    SledStore::open(home, options).expect("opened")
}

const QUEUES: [(&str, &str); 3] = [("ax", "x.example"), ("by", "y.example"), ("by", "z.example")];

/// Messages in several queues and classes, some with a deadline.
fn fill(store: &SledStore) {
    for n in 0..60 {
        let (owner, domain) = QUEUES[(n % 3) as usize];
        let to = format!("a@{domain}");
        let mut sent = message(n, &[(&to, owner), ("b@x.example", "ax")]);
        sent.expires = vec![Timestamp(1_000_000 + n), NEVER];
        put_body(store, sent, b"content").expect("kept");
    }
    for n in [9, 10] {
        let filter = Filter { ids: vec![id(n)], ..Filter::default() };
        block_on(store.apply(filter, QueueAction::Hold)).expect("held");
    }
    let lease = lease(store, "by", &["y.example"]);
    block_on(store.settle(&lease, vec![delivered(1, 0), failed(4, 0)])).expect("settled");
    block_on(store.release(lease)).expect("released");
}

/// What drains are offered, what is counted, what is overdue, what is listed as failed.
type Seen = (Vec<Vec<QueueId>>, Vec<Count>, Vec<QueueId>, usize);

fn seen(store: &SledStore) -> Seen {
    let offered = QUEUES.map(|(owner, domain)| {
        let lease = lease(store, owner, &[domain]);
        let page = block_on(store.next(&lease, None, 100)).expect("a page");
        block_on(store.release(lease)).expect("released");
        page.iter().map(|head| head.id).collect()
    });
    let counts = QUEUES.map(|(_, at)| block_on(store.count(&domain(at))).expect("counted"));
    let overdue = block_on(store.overdue(Timestamp(1_000_020), 100)).expect("asked");
    let filter = Filter { domain: Some(domain("y.example")), ..Filter::default() };
    let listed = block_on(store.query(filter, None, 100)).expect("a listing");
    (offered.into(), counts.into(), overdue.iter().map(|head| head.id).collect(), listed.len())
}

#[test]
fn the_order_outlives_an_orderly_end() {
    let home = tempfile::tempdir().expect("a folder");
    let store = open(home.path());
    fill(&store);
    let before = seen(&store);
    drop(store);
    let file = home.path().join("ORDER");
    let written = std::fs::read(&file).expect("a large store writes it");
    for trial in 0..5 {
        let mut octets = written.clone();
        match trial {
            0 => {}
            1 => octets[40] ^= 1,
            2 => octets.truncate(octets.len() - 3),
            3 => octets.clear(),
            _ => std::fs::remove_file(&file).expect("removed"),
        }
        if trial < 4 {
            std::fs::write(&file, &octets).expect("written");
        }
        let store = open(home.path());
        assert_eq!(seen(&store), before, "trial {trial}");
        let damage = block_on(store.health()).expect("health").damage;
        assert_eq!(damage, Vec::<String>::new(), "trial {trial}: nothing of it is lost");
        drop(store);
        assert_eq!(std::fs::read(&file).expect("written anew").len(), written.len());
    }
}

#[test]
fn a_page_that_begins_with_what_is_at_hand_is_whole() {
    let home = tempfile::tempdir().expect("a folder");
    let store = open(home.path());
    fill(&store);
    // Three are late: they broke the line too often.
    for _ in 0..3 {
        let broken = lease(&store, "ax", &["x.example"]);
        let lost = [0, 3, 30].map(|n| in_doubt(n, 0));
        block_on(store.settle(&broken, lost.to_vec())).expect("settled");
        block_on(store.release(broken)).expect("released");
    }
    drop(store);
    let all = |store: &SledStore| {
        let lease = lease(store, "ax", &["x.example"]);
        let page = block_on(store.next(&lease, None, 100)).expect("a page");
        (lease, page)
    };
    let (_, whole) = all(&open(home.path()));
    assert!(whole.len() > 50 && whole[whole.len() - 3].position.rank == 1, "{}", whole.len());
    // Of which so many were shown before, and are at hand.
    for shown in [1, 2, 9, whole.len() - 2, whole.len()] {
        let store = open(home.path());
        let ours = lease(&store, "ax", &["x.example"]);
        let page = block_on(store.next(&ours, None, shown)).expect("a page");
        assert_eq!(page, whole[..shown]);
        for (from, limit) in [(0, 100), (0, shown + 1), (shown / 2, shown), (shown / 2, 100)] {
            let after = from.checked_sub(1).map(|last| whole[last].position);
            let page = block_on(store.next(&ours, after, limit)).expect("a page");
            let wanted = &whole[from..whole.len().min(from + limit)];
            assert!(page == wanted, "{shown} shown, {limit} from {from}: {} came", page.len());
        }
        let after = whole.last().map(|head| head.position);
        assert_eq!(block_on(store.next(&ours, after, 5)).expect("a page"), []);
    }
}

#[test]
fn an_order_of_another_day_is_not_believed() {
    let home = tempfile::tempdir().expect("a folder");
    let store = open(home.path());
    fill(&store);
    drop(store);
    let old = std::fs::read(home.path().join("ORDER")).expect("written");
    let store = open(home.path());
    put(&store, 100, &[("a@x.example", "ax")]);
    let before = seen(&store);
    drop(store);
    std::fs::write(home.path().join("ORDER"), old).expect("put back");
    assert_eq!(seen(&open(home.path())), before);
}

#[test]
fn a_message_that_a_large_index_lost_is_reported_while_it_runs() {
    let home = tempfile::tempdir().expect("a folder");
    let store = open(home.path());
    fill(&store);
    drop(store);
    let key = [&b"M"[..], &id(30).to_bits().to_be_bytes()].concat();
    assert!(index(home.path()).remove(key).expect("removed").is_some());
    let begun = Instant::now();
    let store = loop {
        let options = Options { read_at_open_max: 5, ..Options::default() };
        match SledStore::open(home.path(), options) {
            Ok(store) => break store,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    let lost = format!("the index has lost message {}", id(30));
    while !block_on(store.health()).expect("health").damage.iter().any(|l| l.starts_with(&lost)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it was not noticed");
        std::thread::yield_now();
    }
}
