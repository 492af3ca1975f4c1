//! What must be true at the end of every seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use restante::mail::{CustomerName, QueueId};
use restante::store::{Filter, Head, Store};

use crate::drain_support::at_once;
use crate::drain_support::server::Message;
use crate::mail::{Verdict, sender_of};
use crate::places;
use crate::world::World;

/// Message and recipient to the calls that took it.
type Taken = BTreeMap<(u128, String), Vec<usize>>;

impl World {
    /// All invariants of design.md, section 6.
    pub(crate) fn check(&self) {
        let taken = self.what_was_taken();
        let told = self.what_was_told();
        self.nothing_is_queued();
        self.nobody_is_forgotten(&taken, &told);
        self.twice_only_what_was_in_doubt(&taken);
    }

    /// Each is one that was sent, whole, unchanged, under its own envelope, and for whoever called.
    fn what_was_taken(&self) -> Taken {
        let calls = self.calls.lock().expect("whole");
        let letters = self.letters.lock().expect("whole");
        let mut taken = Taken::new();
        for (number, message) in self.sink.lock().expect("whole").iter() {
            let call = &calls[*number];
            let content = without_trace(message);
            let id = id_of(content);
            let letter = letters.get(&id).unwrap_or_else(|| panic!("nobody sent message {id}"));
            assert!(
                matches!(letter.verdict, Verdict::Promised | Verdict::Unknown),
                "message {id} was delivered although its sender knows: {:?}",
                letter.verdict
            );
            assert!(
                content == letter.content || is_converted(content, &letter.content),
                "message {id} was changed"
            );
            assert_eq!(message.from, sender_of(id), "message {id}");
            for path in &message.to {
                assert!(letter.to.contains(path), "message {id} is not for {path}");
                let theirs =
                    call.domains.iter().any(|domain| path.ends_with(&format!("@{domain}")));
                assert!(theirs, "{path} on a call for {:?}", call.domains);
                taken.entry((id, path.clone())).or_default().push(*number);
            }
        }
        taken
    }

    fn all_queued(&self) -> Vec<Head> {
        at_once(self.memory.query(Filter::default(), None, usize::MAX)).expect("a listing")
    }

    fn body(&self, id: QueueId) -> Vec<u8> {
        let mut reader = at_once(self.memory.open_body(id, 0)).expect("there");
        let mut body = Vec::new();
        loop {
            let chunk = at_once(reader.read()).expect("sound");
            if chunk.is_empty() {
                return body;
            }
            body.extend(chunk);
        }
    }

    /// Whom reports tell of, each once, under the right sender.
    fn what_was_told(&self) -> BTreeSet<(u128, String)> {
        let relay = CustomerName::relay();
        let mut told = BTreeSet::new();
        for head in self.all_queued() {
            let Some(to) = head.recipients.iter().find(|held| held.owner == relay) else {
                continue;
            };
            let to = to.recipient.forward_path.to_string();
            let id = to.strip_prefix('t').and_then(|rest| rest.split('@').next());
            let id: u128 = id.and_then(|id| id.parse().ok()).expect("a sender of ours");
            let body = String::from_utf8_lossy(&self.body(head.id)).into_owned();
            for line in body.lines().filter_map(|line| line.strip_prefix("Final-Recipient: ")) {
                let path = line.trim_start_matches("rfc822; ").to_owned();
                assert!(
                    told.insert((id, path)),
                    "message {id}: told twice of one recipient: {line}"
                );
            }
        }
        told
    }

    /// Fair weather has emptied the queues; what was refused for good was told.
    fn nothing_is_queued(&self) {
        let relay = CustomerName::relay();
        for head in self.all_queued() {
            if let Some(held) = head.recipients.iter().find(|held| held.owner != relay) {
                let (path, from) = (&held.recipient.forward_path, &head.envelope.reverse_path);
                panic!("{path} of {} is still {:?}", from.as_str(), held.state);
            }
        }
    }

    /// Every recipient of every promised message was delivered or reported, and not both without a reason.
    fn nobody_is_forgotten(&self, taken: &Taken, told: &BTreeSet<(u128, String)>) {
        let calls = self.calls.lock().expect("whole");
        for (id, letter) in self.letters.lock().expect("whole").iter() {
            for path in &letter.to {
                let key = (*id, path.clone());
                let theirs = |domains: &[&str]| {
                    domains.iter().any(|domain| path.ends_with(&format!("@{domain}")))
                };
                let lied_to = calls
                    .iter()
                    .any(|call| call.lied.load(Ordering::Relaxed) && theirs(&call.domains));
                places::count(match (letter.verdict, taken.get(&key).map_or(0, Vec::len)) {
                    (Verdict::Promised, 0) => "recipients promised and reported",
                    (Verdict::Promised, 1) => "recipients promised and delivered",
                    (Verdict::Promised, _) => "recipients delivered more than once",
                    (Verdict::Unknown, 0) => "recipients in doubt, not delivered",
                    (Verdict::Unknown, _) => "recipients in doubt, delivered",
                    (Verdict::Refused, _) => "recipients whose message was refused",
                    (Verdict::Unfinished, _) => "recipients whose message was cut",
                });
                match (letter.verdict, taken.get(&key), told.contains(&key)) {
                    (Verdict::Promised, None, false) => {
                        assert!(lied_to, "message {id} for {path} is lost");
                    }
                    (Verdict::Refused | Verdict::Unfinished, _, true) => {
                        panic!("message {id} for {path} was never taken, and is reported");
                    }
                    (_, Some(numbers), true) => {
                        let excused = numbers.iter().all(|number| !calls[*number].is_orderly());
                        assert!(
                            excused || lied_to,
                            "message {id} for {path} is delivered and reported"
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    /// Twice only where a connection broke, or was overthrown with the message under way; at most one that ended in
    /// order took it, and those that did not doubled at most a window of messages each.
    fn twice_only_what_was_in_doubt(&self, taken: &Taken) {
        let calls = self.calls.lock().expect("whole");
        let mut doubled: BTreeMap<usize, BTreeSet<u128>> = BTreeMap::new();
        for ((id, path), numbers) in taken {
            let unique: BTreeSet<usize> = numbers.iter().copied().collect();
            assert_eq!(
                unique.len(),
                numbers.len(),
                "message {id} for {path} twice on one connection"
            );
            let honest = |number: &&usize| !calls[**number].lied.load(Ordering::Relaxed);
            let orderly: Vec<&usize> = numbers
                .iter()
                .filter(|number| calls[**number].is_orderly())
                .filter(honest)
                .collect();
            assert!(
                orderly.len() <= 1,
                "message {id} for {path} came on {orderly:?}, which all ended in order"
            );
            for pair in numbers.windows(2) {
                // Where two overlap, the first was overthrown, and what came twice is in the second's account.
                let is_after = calls[pair[1]].began > calls[pair[0]].over;
                if !calls[pair[0]].is_orderly() && is_after && honest(&&pair[0]) {
                    doubled.entry(pair[0]).or_default().insert(*id);
                }
            }
        }
        for (number, ids) in doubled {
            let window = calls[number].window;
            assert!(ids.len() as u64 <= window, "{} of a window of {window} came twice", ids.len());
        }
    }
}

/// What stands below the one Received line of ours.
fn without_trace(message: &Message) -> &[u8] {
    let content = &message.content;
    assert!(content.starts_with(b"Received: from "), "no trace on top");
    let mut at = 0;
    loop {
        at += memchr::memmem::find(&content[at..], b"\r\n").expect("a line") + 2;
        if !content[at..].starts_with(b"\t") {
            return &content[at..];
        }
    }
}

fn id_of(content: &[u8]) -> u128 {
    let text = String::from_utf8_lossy(content);
    let line = text.lines().next().expect("a line");
    line.strip_prefix("Id: ").expect("an id on top").parse().expect("a number")
}

/// Whether `content` is `original` made 7-bit for a server without 8BITMIME: an independent reader decodes it.
fn is_converted(content: &[u8], original: &[u8]) -> bool {
    let Some(parsed) = mail_parser::MessageParser::default().parse(content) else { return false };
    let Some(body) = original.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    // The reader shows octets that are no UTF-8 as U+FFFD.
    let expected = String::from_utf8_lossy(&original[body + 4..]).into_owned();
    !original.is_ascii()
        && content.is_ascii()
        && parsed.body_text(0).is_some_and(|text| text == expected)
}
