//! Keys, values, records, segments and journals with whatever may be in them, and with octets that nobody wrote.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use crate::mail::{
    BodyKind, ContentFacts, CustomerName, Domain, DsnRequest, Envelope, ForwardPath, Notify,
    QueueId, Recipient, RecipientState, ReplyText, Ret, ReversePath, Timestamp,
};
use crate::store::HeldRecipient;
use crate::store::kept::{Kept, KeptRecipient};

use super::disk::Disk;
use super::frame::{self, BODY_BYTES_MAX, FILE_HEAD_BYTES, Tail};
use super::index::{self, Entry, sealed, unsealed};
use super::journal::{self, Journal};
use super::octets::{In, Out};
use super::record::{Location, Mark, put_kept, take_kept};
use super::scan::{self, Bodies, Found};
use super::support::disk;

fn id() -> impl Strategy<Value = QueueId> {
    any::<u128>().prop_map(QueueId::from_bits)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn place_name() -> impl Strategy<Value = Domain> {
    "[a-z]{1,12}(-[a-z0-9]{1,8})?\\.(example|example\\.net)"
        .prop_map(|text| Domain::parse(&text).expect("a domain"))
}

fn owner() -> impl Strategy<Value = CustomerName> {
    "[a-z][a-z0-9]{0,20}".prop_map(|text| CustomerName::parse(&text).expect("a name"))
}

fn reply() -> impl Strategy<Value = ReplyText> {
    "[ -~äöü]{0,80}".prop_map(|text| ReplyText::clean(&text))
}

fn state() -> impl Strategy<Value = RecipientState> {
    prop_oneof![
        Just(RecipientState::Queued),
        reply().prop_map(RecipientState::Deferred),
        reply().prop_map(RecipientState::Failed),
        reply().prop_map(RecipientState::Relayed),
    ]
}

fn small_text<T: From<String> + std::fmt::Debug>() -> impl Strategy<Value = Option<T>> {
    proptest::option::of("[!-~]{1,40}".prop_map(T::from))
}

fn recipient() -> impl Strategy<Value = KeptRecipient> {
    let notify =
        proptest::option::of(any::<[bool; 3]>().prop_map(|[success, failure, delay]| Notify {
            success,
            failure,
            delay,
        }));
    let person = ("[a-z0-9.]{1,10}[a-z]", place_name(), notify, small_text(), owner());
    (person, state(), any::<(u32, bool, u32, u32, u64)>(), time()).prop_map(
        |(
            (local, domain, notify, orcpt, owner),
            state,
            (index, held, attempts, breaks, by),
            expires,
        )| {
            let local = local.replace("..", ".").trim_start_matches('.').to_owned();
            let path = format!("{local}@{domain}");
            let forward_path = ForwardPath::parse(&path).unwrap_or_else(|_| {
                ForwardPath::parse(&format!("a@{domain}")).expect("an address")
            });
            let recipient = Recipient { forward_path, notify, orcpt };
            let seen = HeldRecipient { index, recipient, owner, state, held, expires, attempts };
            KeptRecipient { seen, line_breaks: breaks, counted_by: by }
        },
    )
}

fn kept() -> impl Strategy<Value = Kept> {
    let ret = prop_oneof![Just(None), Just(Some(Ret::Full)), Just(Some(Ret::Headers))];
    let envelope = (any::<(bool, bool, bool)>(), small_text(), ret);
    let facts = (any::<(u64, bool, bool, u64, u32)>(), small_text());
    let people = proptest::collection::vec(recipient(), 1..5);
    (id(), envelope, facts, time(), 0..200_000u64, people, any::<bool>()).prop_map(
        |(
            id,
            ((null, eight, smtputf8), envid, ret),
            (numbers, message_id),
            arrived,
            size,
            recipients,
            damaged,
        )| {
            let reverse_path = if null {
                ReversePath::Null
            } else {
                ReversePath::parse("t@foo.example").expect("an address")
            };
            let body = if eight { BodyKind::EightBitMime } else { BodyKind::SevenBit };
            let dsn = DsnRequest { envid, ret };
            let envelope = Envelope { reverse_path, recipients: Vec::new(), body, smtputf8, dsn };
            let (facts_size, has_8bit_body, has_8bit_header, line_bytes_longest, received_count) =
                numbers;
            let facts = ContentFacts {
                size: facts_size,
                has_8bit_body,
                has_8bit_header,
                line_bytes_longest,
                received_count,
                message_id,
            };
            Kept { id, envelope, facts, arrived, size, recipients, damaged }
        },
    )
}

fn location() -> impl Strategy<Value = Location> {
    any::<(u64, u64, u64)>().prop_map(|(segment, offset, len)| Location { segment, offset, len })
}

fn mark() -> impl Strategy<Value = Mark> {
    let one = || {
        prop_oneof![
            (id(), location()).prop_map(|(id, at)| Mark::Dead { id, at }),
            (id(), location()).prop_map(|(id, at)| Mark::StillDead { id, at }),
            (kept(), location()).prop_map(|(kept, at)| Mark::about(&kept, at)),
            any::<u64>().prop_map(Mark::Born),
            any::<u64>().prop_map(Mark::Retired),
        ]
    };
    prop_oneof![
        4 => one(),
        1 => proptest::collection::vec(one(), 0..4).prop_map(Mark::Together),
    ]
}

const NONCE: [u8; 16] = [7; 16];

/// A record as it lies in a segment.
fn record(kept: &Kept, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_head(&mut out, &NONCE, kept.id);
    let mut number = 0;
    for content in body.chunks(BODY_BYTES_MAX) {
        frame::put_body(&mut out, &NONCE, kept.id, number, content);
        number += 1;
    }
    let tail = Tail { synced: 0, copy: false, kept: kept.clone() };
    frame::put_tail(&mut out, &NONCE, number, &tail);
    out
}

/// A segment of these messages, and where each lies. The content of each imitates what lies in a segment.
fn segment(messages: &[Kept]) -> (Vec<u8>, Vec<Location>) {
    let (mut octets, mut places) = (vec![0; FILE_HEAD_BYTES], Vec::new());
    for kept in messages {
        let imitation = record(&Kept { size: 0, ..kept.clone() }, &[]);
        // All but the nonce, which no sender can know.
        let imitation: Vec<u8> = imitation.iter().map(|o| if *o == 7 { 8 } else { *o }).collect();
        let size = usize::try_from(kept.size).expect("small");
        let body: Vec<u8> = imitation.iter().copied().cycle().take(size).collect();
        let record = record(kept, &body);
        let (offset, len) = (octets.len() as u64, record.len() as u64);
        places.push(Location { segment: 3, offset, len });
        octets.extend_from_slice(&record);
    }
    (octets, places)
}

/// What a scan finds: places, messages, whether their bodies are sound.
fn scanned(octets: &[u8], bodies: Bodies) -> Vec<(Location, Kept, bool)> {
    let disk = disk::MemoryDisk::default();
    let file = disk.create(Path::new("spool/segment")).expect("a file");
    file.write_at(octets, 0).expect("written");
    let mut found = Vec::new();
    scan::segment(&*file, 3, &NONCE, 0, bodies, &mut |what| {
        if let Found::Record { at, tail, sound_body } = what {
            found.push((at, tail.kept, sound_body));
        }
    })
    .expect("scanned");
    found
}

fn distinct(mut messages: Vec<Kept>) -> Vec<Kept> {
    messages.sort_by_key(|kept| kept.id);
    messages.dedup_by_key(|kept| kept.id);
    messages
}

proptest! {
    #[test]
    fn messages_come_back_as_they_were(kept in kept(), at in location()) {
        let mut out = Out::default();
        put_kept(&mut out, &kept);
        let mut from = In(&out.0);
        prop_assert_eq!(take_kept(&mut from).expect("readable"), kept.clone());
        prop_assert!(from.end().is_ok());
        for cut in 0..out.0.len() {
            prop_assert!(take_kept(&mut In(&out.0[..cut])).is_err(), "cut at {}", cut);
        }
        let entry = Entry { kept, at };
        let (key, value) = (index::message_key(entry.kept.id), index::message_value(&entry));
        prop_assert_eq!(index::message(&key, &value).expect("sound"), entry);
    }

    #[test]
    fn marks_come_back_as_they_were(mark in mark()) {
        let mut out = Out::default();
        mark.put(&mut out);
        prop_assert_eq!(Mark::take(&out.0).expect("readable"), mark);
        for cut in 0..out.0.len() {
            prop_assert!(Mark::take(&out.0[..cut]).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn foreign_octets_are_refused_and_nothing_panics(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        // Whatever the answer is: it is one.
        let _ = (take_kept(&mut In(&octets)), Mark::take(&octets), frame::kind(&octets));
        let _ = (frame::take_head(&octets, &NONCE), frame::find_head(&octets, &NONCE, 0));
        prop_assert!(frame::tail(&octets, &NONCE, QueueId::from_bits(1), 0).is_err());
        prop_assert!(frame::body(&octets, &NONCE, QueueId::from_bits(1), 0).is_err());
        prop_assert_eq!(scanned(&octets, Bodies::Checked), Vec::new());
    }

    #[test]
    fn a_value_with_one_wrong_bit_is_no_value(
        key in proptest::collection::vec(any::<u8>(), 1..40),
        content in proptest::collection::vec(any::<u8>(), 0..100),
        bit in any::<proptest::sample::Index>(),
    ) {
        let value = sealed(&key, &content);
        prop_assert_eq!(unsealed(&key, &value), Ok(&content[..]));
        let at = bit.index(value.len() * 8);
        let mut wrong = value.clone();
        wrong[at / 8] ^= 1 << (at % 8);
        prop_assert!(unsealed(&key, &wrong).is_err());
        let mut elsewhere = key.clone();
        elsewhere[0] ^= 1;
        prop_assert!(unsealed(&elsewhere, &value).is_err(), "under another key");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_scan_finds_all_records_and_no_others(messages in proptest::collection::vec(kept(), 0..5)) {
        let messages = distinct(messages);
        let (octets, places) = segment(&messages);
        for bodies in [Bodies::Checked, Bodies::Skipped] {
            let found = scanned(&octets, bodies);
            let wanted = places.iter().copied().zip(messages.iter().cloned());
            prop_assert_eq!(found, wanted.map(|(at, kept)| (at, kept, true)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cut_segment_keeps_what_lies_before_the_cut(
        messages in proptest::collection::vec(kept(), 1..5),
        cut in any::<proptest::sample::Index>(),
    ) {
        let messages = distinct(messages);
        let (octets, places) = segment(&messages);
        let cut = cut.index(octets.len());
        let whole = places.iter().take_while(|at| at.offset + at.len <= cut as u64).count();
        let found = scanned(&octets[..cut], Bodies::Checked);
        let ids: Vec<QueueId> = found.iter().map(|(_, kept, _)| kept.id).collect();
        prop_assert_eq!(ids, messages.iter().take(whole).map(|kept| kept.id).collect::<Vec<_>>());
        prop_assert!(found.iter().all(|(.., sound)| *sound));
    }

    #[test]
    fn one_wrong_bit_costs_one_record_at_most(
        messages in proptest::collection::vec(kept(), 1..5),
        bit in any::<proptest::sample::Index>(),
    ) {
        let messages = distinct(messages);
        let (mut octets, places) = segment(&messages);
        let at = FILE_HEAD_BYTES * 8 + bit.index((octets.len() - FILE_HEAD_BYTES) * 8);
        octets[at / 8] ^= 1 << (at % 8);
        let found = scanned(&octets, Bodies::Checked);
        for (place, kept) in places.iter().zip(&messages) {
            let hit = (place.offset..place.offset + place.len).contains(&(at as u64 / 8));
            let mine = found.iter().find(|(there, ..)| there == place);
            match mine {
                Some((_, same, sound)) => {
                    prop_assert_eq!(same, kept);
                    prop_assert_eq!(*sound, !hit, "a body with a wrong bit is told from a sound one");
                }
                None => prop_assert!(hit, "an untouched record was lost"),
            }
        }
        prop_assert!(found.iter().all(|(there, ..)| places.contains(there)), "nothing is made up");
    }

    #[test]
    fn a_journal_is_read_up_to_where_it_was_written(
        marks in proptest::collection::vec(mark(), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let disk = disk::MemoryDisk::default();
        let folder = Path::new("spool");
        let mut journal = Journal::begin(Arc::new(disk.clone()), folder.into(), 1, 5).expect("begun");
        let mut ends = Vec::new();
        for mark in &marks {
            journal.add(mark);
            journal.write().expect("written").sync().expect("synced");
            ends.push(journal.position().1);
        }
        let (number, nonce) = journal::list(&disk, folder).expect("listed").pop_first().expect("one");
        let path = folder.join(journal::file_name(number, &nonce));
        let end = *ends.last().expect("one");
        let cut = FILE_HEAD_BYTES as u64 + cut.index((end as usize) - FILE_HEAD_BYTES + 1) as u64;
        disk.open(&path).expect("there").truncate(cut).expect("cut");
        let mut read = Vec::new();
        let epoch = journal::read(&disk, &path, &nonce, &mut |line| read.push(line)).expect("read");
        prop_assert_eq!(epoch, Some(5));
        let mut wanted = Vec::new();
        for (mark, _) in marks.iter().zip(&ends).filter(|(_, end)| **end <= cut) {
            match mark {
                Mark::Together(marks) => wanted.extend(marks.iter().cloned()),
                mark => wanted.push(mark.clone()),
            }
        }
        let sound = read.iter().filter_map(|line| match line {
            journal::Entry::Mark(_, mark) => Some(mark.clone()),
            _ => None,
        });
        prop_assert_eq!(sound.collect::<Vec<_>>(), wanted);
        let unfinished = read.iter().filter(|line| matches!(line, journal::Entry::Unfinished { .. }));
        prop_assert_eq!(unfinished.count(), usize::from(cut != FILE_HEAD_BYTES as u64 && !ends.contains(&cut)));
    }
}
