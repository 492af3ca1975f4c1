//! Mail that comes and goes, a book of everything that was acknowledged, and the comparison of a store with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::executor::block_on;
use futures::future::join_all;
use restante::mail::RecipientState;
use restante::store::{
    Filter, LeaseAnswer, NewMessage, QueueAction, Report, SledStore, Store, StoreError,
};

use super::disk::Dice;
use super::*;

/// What the world outside was told about a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its commit was answered with success.
    pub(crate) kept: bool,
    /// A change that may end it was asked for.
    pub(crate) ending: bool,
    /// That change was answered with success.
    pub(crate) ended: bool,
    /// Octets of its body.
    pub(crate) size: usize,
    /// It has a report, of this number.
    pub(crate) report: Option<u64>,
}

/// What the world was told, by the number of the message.
pub(crate) type Page = BTreeMap<u64, Told>;

#[derive(Default)]
struct Pages {
    now: Page,
    /// Place, message, what was known of it from there on.
    past: Vec<(u64, u64, Told)>,
}

/// Where the disk's log ends now.
type Place = Box<dyn Fn() -> u64 + Send + Sync>;

/// Everything that was asked for and acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Book {
    pages: Arc<Mutex<Pages>>,
    place: Option<Arc<Place>>,
}

impl Book {
    /// A book that also knows how far the disk's log was at each of its lines.
    pub(crate) fn beside(place: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { place: Some(Arc::new(Box::new(place))), ..Self::default() }
    }

    pub(crate) fn note(&self, n: u64, change: impl FnOnce(&mut Told)) {
        let mut pages = self.pages.lock().expect("no panic");
        let told = pages.now.entry(n).or_default();
        change(told);
        let told = *told;
        if let Some(place) = &self.place {
            pages.past.push((place(), n, told));
        }
    }

    pub(crate) fn page(&self) -> Page {
        self.pages.lock().expect("no panic").now.clone()
    }

    /// What was told when the disk's log ended at `place`.
    pub(crate) fn page_at(&self, place: u64) -> Page {
        let pages = self.pages.lock().expect("no panic");
        let known = pages.past.iter().take_while(|(at, ..)| *at <= place);
        known.map(|(_, n, told)| (*n, *told)).collect()
    }
}

pub(crate) fn two(n: u64) -> NewMessage {
    message(n, &[("a@x.example", "ax"), ("b@y.example", "by")])
}

pub(crate) async fn keep(store: &SledStore, book: &Book, n: u64, size: usize) {
    book.note(n, |told| told.size = size);
    let octets = body(n, size);
    let kept = async {
        let mut writer = store.begin_body(id(n), 0).await?;
        for chunk in octets.chunks(40_000) {
            writer.write(chunk).await?;
        }
        store.commit(two(n), writer).await
    };
    if kept.await.is_ok() {
        book.note(n, |told| told.kept = true);
    }
}

/// Delivers both recipients.
pub(crate) async fn deliver(store: &SledStore, book: &Book, numbers: &[u64]) {
    for n in numbers {
        book.note(*n, |told| told.ending = true);
    }
    let mut fine = true;
    for (name_of, at, index) in [("ax", "x.example", 0), ("by", "y.example", 1)] {
        let Ok(LeaseAnswer::Granted(drain)) = store.lease(request(name_of, &[at])).await else {
            return;
        };
        let settled = numbers.iter().map(|n| delivered(*n, index)).collect();
        fine &= store.settle(&drain, settled).await.is_ok();
        let _ = store.release(drain).await;
    }
    if fine {
        for n in numbers {
            book.note(*n, |told| told.ended = told.kept);
        }
    }
}

/// Fails one recipient, and puts a report in its place.
pub(crate) async fn report(store: &SledStore, book: &Book, n: u64, report: u64) {
    book.note(n, |told| told.report = Some(report));
    book.note(report, |told| told.size = 10);
    let Ok(LeaseAnswer::Granted(drain)) = store.lease(request("ax", &["x.example"])).await else {
        return;
    };
    let settled = store.settle(&drain, vec![failed(n, 0)]).await;
    let _ = store.release(drain).await;
    if settled.is_err() {
        return;
    }
    let concluded = async {
        let mut writer = store.begin_body(id(report), 0).await?;
        writer.write(&body(report, 10)).await?;
        let over = vec![(0, RecipientState::Failed(reply("550 no such user")))];
        let told = Report { message: two(report), body: writer };
        store.conclude(id(n), over, Some(told)).await
    };
    if matches!(concluded.await, Ok(true)) {
        book.note(report, |told| told.kept = true);
    }
}

/// Mail comes and goes for some rounds, in messages whose numbers are above `last`.
pub(crate) fn work(store: &SledStore, book: &Book, dice: &mut Dice, rounds: u64, last: u64) {
    let mut next = last + 1;
    let mut waiting: Vec<u64> = Vec::new();
    for _ in 0..rounds {
        let fresh: Vec<(u64, usize)> = (0..1 + dice.below(8))
            .map(|_| {
                next += 1;
                let size = match dice.below(12) {
                    0 => 0,
                    1 => 66_000,
                    2 => 270_000 + dice.below(200_000),
                    _ => dice.below(9_000),
                };
                (next, size as usize)
            })
            .collect();
        block_on(join_all(fresh.iter().map(|(n, size)| keep(store, book, *n, *size))));
        waiting.extend(fresh.iter().map(|(n, _)| *n));
        if dice.one_in(3) && !waiting.is_empty() {
            next += 1;
            let about = waiting[dice.below(waiting.len() as u64) as usize];
            if book.page()[&about].report.is_none() {
                block_on(report(store, book, about, next));
            }
        }
        let many = dice.below(7) as usize;
        let leaving: Vec<u64> = (0..many.min(waiting.len()))
            .map(|_| waiting.swap_remove(dice.below(waiting.len() as u64) as usize))
            .filter(|n| book.page()[n].report.is_none())
            .collect();
        block_on(deliver(store, book, &leaving));
        if dice.one_in(4) {
            let some = Filter { recipient: Some("b@".into()), ..Filter::default() };
            let action = if dice.one_in(2) { QueueAction::Hold } else { QueueAction::Release };
            let _ = block_on(store.apply(some, action));
        }
        if dice.one_in(3) {
            let _ = block_on(store.maintain());
        }
    }
}

/// Whether the store holds what the book says it must, and nothing that it must not.
pub(crate) fn compare(store: &SledStore, book: &Page, when: &str) {
    let heads = block_on(store.query(Filter::default(), None, usize::MAX)).expect("a listing");
    let there: BTreeMap<_, _> = heads.iter().map(|h| (h.id, h)).collect();
    for (n, told) in book {
        let head = there.get(&id(*n));
        if told.kept && !told.ending {
            let head = head.unwrap_or_else(|| panic!("{when}: message {n} was lost: {told:?}"));
            let octets = read_from(store, id(*n), 0);
            let octets = octets.unwrap_or_else(|e| panic!("{when}: body of {n}: {e}: {told:?}"));
            assert!(octets == body(*n, told.size), "{when}: body of message {n}");
            assert!(head.recipients.iter().any(|r| r.index == 1), "{when}: a recipient of {n}");
        }
        if told.ended {
            assert!(head.is_none(), "{when}: message {n} came back: {told:?}");
        }
        if let (Some(report), Some(head)) = (told.report, head) {
            let concluded = !head.recipients.iter().any(|r| r.index == 0);
            assert_eq!(concluded, there.contains_key(&id(report)), "{when}: {n} and its report");
        }
    }
    for head in &heads {
        let known = book.iter().find(|(n, _)| id(**n) == head.id);
        let (n, told) = known.unwrap_or_else(|| panic!("{when}: {} was never sent", head.id));
        if !told.kept {
            // It may be there, but then it is whole or says that it is not.
            match read_from(store, head.id, 0) {
                Ok(octets) => assert!(octets == body(*n, told.size), "{when}: body of {n}"),
                Err(StoreError::Corrupt(_)) => {}
                Err(error) => panic!("{when}: body of {n}: {error}"),
            }
        }
    }
    let total: u64 = heads.iter().map(|h| h.recipients.len() as u64).sum();
    let queued = block_on(store.queues(None, 100)).expect("queues");
    let counted: u64 = queued.iter().map(|(_, _, c)| c.messages + c.failed).sum();
    assert_eq!(total, counted, "{when}: counts and listing");
}
