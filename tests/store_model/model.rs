//! What the traits of the store promise, in the simplest form: a map of messages with recipients, and leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use restante::mail::{CustomerName, Domain, Lease, Outcome, QueueId, RecipientState, Timestamp};
use restante::store::{
    Count, Filter, Head, LeaseRequest, NewMessage, QueueAction, Settlement, StateFilter, Verdict,
};

use super::store_support::reply;

/// A verdict by name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Delivered,
    Later,
    Failed,
    Relayed,
    InDoubt,
}

impl Wish {
    pub(crate) fn about(self, n: u64, index: u32) -> Settlement {
        let verdict = match self {
            Self::Delivered => Verdict::Said(Outcome::Delivered(reply("250 ok"))),
            Self::Later => Verdict::Said(Outcome::Later(reply("450 later"))),
            Self::Failed => Verdict::Said(Outcome::Failed(reply("550 no such user"))),
            Self::Relayed => Verdict::Relayed(reply("250 ok")),
            Self::InDoubt => Verdict::InDoubt,
        };
        Settlement { id: super::id(n), index, verdict }
    }
}

/// A recipient as the store shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    index: u32,
    path: String,
    owner: CustomerName,
    state: RecipientState,
    held: bool,
    expires: Timestamp,
    attempts: u32,
}

/// Messages with their recipients.
pub(crate) type Seen = Vec<(QueueId, Vec<Shown>)>;

/// The recipients of a head.
pub(crate) fn recipients(head: &Head) -> Vec<Shown> {
    let all = head.recipients.iter();
    all.map(|r| Shown {
        index: r.index,
        path: r.recipient.forward_path.as_str().to_owned(),
        owner: r.owner.clone(),
        state: r.state.clone(),
        held: r.held,
        expires: r.expires,
        attempts: r.attempts,
    })
    .collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Person {
    shown: Shown,
    domain: Domain,
    breaks: u32,
    /// The lease under which it was counted last.
    counted: u64,
}

impl Person {
    fn is_over(&self) -> bool {
        matches!(self.shown.state, RecipientState::Failed(_) | RecipientState::Relayed(_))
    }
    fn is_offered(&self) -> bool {
        !self.is_over() && !self.shown.held
    }
    fn count(&mut self, token: u64) -> bool {
        let fresh = self.counted != token;
        self.counted = token;
        self.shown.attempts += u32::from(fresh);
        fresh
    }
    fn is_meant(&self, filter: &Filter) -> bool {
        let lower = self.shown.path.to_lowercase();
        filter.customer.as_ref().is_none_or(|name| *name == self.shown.owner)
            && filter.domain.as_ref().is_none_or(|domain| *domain == self.domain)
            && filter.recipient.as_ref().is_none_or(|text| lower.contains(&text.to_lowercase()))
            && filter.state.is_none_or(|state| match state {
                StateFilter::Failed => matches!(self.shown.state, RecipientState::Failed(_)),
                StateFilter::Relayed => matches!(self.shown.state, RecipientState::Relayed(_)),
                StateFilter::Held => !self.is_over() && self.shown.held,
                StateFilter::Queued => {
                    !self.shown.held && self.shown.state == RecipientState::Queued
                }
                StateFilter::Deferred => {
                    !self.shown.held && matches!(self.shown.state, RecipientState::Deferred(_))
                }
            })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Letter {
    people: Vec<Person>,
    arrived: Timestamp,
    size: usize,
    seed: u64,
}

impl Letter {
    fn is_meant(&self, id: QueueId, filter: &Filter) -> bool {
        (filter.ids.is_empty() || filter.ids.contains(&id))
            && filter.before.is_none_or(|time| self.arrived < time)
            && filter.since.is_none_or(|time| self.arrived >= time)
            && filter.larger.is_none_or(|size| self.size as u64 >= size)
    }
    fn shown(&self) -> Vec<Shown> {
        self.people.iter().map(|p| p.shown.clone()).collect()
    }
}

#[derive(Clone, Debug)]
struct Holder {
    domains: Vec<Domain>,
    lasts: Duration,
    ends: Duration,
    progress: Duration,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    letters: BTreeMap<QueueId, Letter>,
    holders: BTreeMap<u64, Holder>,
    asked: Option<LeaseRequest>,
    /// Messages that the last step changed together.
    together: Vec<BTreeSet<QueueId>>,
    pub(crate) now: Duration,
}

impl Model {
    pub(crate) fn commit(&mut self, sent: &NewMessage, seed: u64, size: usize) {
        if self.letters.contains_key(&sent.id) {
            return;
        }
        let people = sent.envelope.recipients.iter().zip(&sent.owners).zip(&sent.expires);
        let people = people.zip(0u32..).map(|(((recipient, owner), expires), index)| Person {
            shown: Shown {
                index,
                path: recipient.forward_path.as_str().to_owned(),
                owner: owner.clone(),
                state: RecipientState::Queued,
                held: false,
                expires: *expires,
                attempts: 0,
            },
            domain: recipient.forward_path.domain().clone(),
            breaks: 0,
            counted: 0,
        });
        let letter = Letter { people: people.collect(), arrived: sent.arrived, size, seed };
        self.letters.insert(sent.id, letter);
        if let Some(concluded) = self.together.last_mut() {
            concluded.insert(sent.id);
        }
    }

    /// Whether all queues of the request are free; those who stood in its way without right are overthrown.
    pub(crate) fn acquire(&mut self, request: &LeaseRequest) -> bool {
        let in_the_way =
            |holder: &Holder| holder.domains.iter().any(|domain| request.domains.contains(domain));
        let alive = |holder: &Holder| {
            self.now < holder.ends && self.now - holder.progress < request.overthrow_after
        };
        let free = !self.holders.values().any(|holder| in_the_way(holder) && alive(holder));
        if free {
            self.holders.retain(|_, holder| !in_the_way(holder));
            self.asked = Some(request.clone());
        }
        free
    }

    pub(crate) fn granted(&mut self, lease: &Lease) {
        let request = self.asked.take().expect("asked for");
        let holder = Holder {
            domains: request.domains,
            lasts: request.lasts,
            ends: self.now + request.lasts,
            progress: self.now,
        };
        assert!(self.holders.keys().all(|token| *token < lease.token()), "tokens grow");
        self.holders.insert(lease.token(), holder);
    }

    pub(crate) fn is_held(&self, token: u64) -> bool {
        self.holders.get(&token).is_some_and(|holder| self.now < holder.ends)
    }

    pub(crate) fn renew(&mut self, token: u64) -> bool {
        let (held, now) = (self.progress(token), self.now);
        if let Some(holder) = self.holders.get_mut(&token).filter(|_| held) {
            holder.ends = now + holder.lasts;
        }
        held
    }

    pub(crate) fn progress(&mut self, token: u64) -> bool {
        let (held, now) = (self.is_held(token), self.now);
        if let Some(holder) = self.holders.get_mut(&token).filter(|_| held) {
            holder.progress = now;
        }
        held
    }

    pub(crate) fn release(&mut self, token: u64) {
        self.holders.remove(&token);
    }

    /// They live as long as the process.
    pub(crate) fn forget_leases(&mut self) {
        self.holders.clear();
    }

    pub(crate) fn offered(&self, lease: &Lease) -> Vec<(QueueId, u8, Vec<Shown>)> {
        let mut all = Vec::new();
        for (id, letter) in &self.letters {
            let wanted = |p: &&Person| {
                p.is_offered()
                    && p.shown.owner == *lease.customer()
                    && lease.domains().contains(&p.domain)
            };
            let people: Vec<&Person> = letter.people.iter().filter(wanted).collect();
            let Some(breaks) = people.iter().map(|p| p.breaks).max() else { continue };
            let shown = people.iter().map(|p| p.shown.clone()).collect();
            all.push((u8::from(breaks >= 3), *id, shown));
        }
        all.sort_by_key(|(rank, id, _)| (*rank, *id));
        all.into_iter().map(|(rank, id, shown)| (id, rank, shown)).collect()
    }

    pub(crate) fn settle(
        &mut self,
        lease: &Lease,
        held: bool,
        id: QueueId,
        index: u32,
        wish: Wish,
    ) {
        if !held && !matches!(wish, Wish::Delivered | Wish::Relayed) {
            return;
        }
        let Some(letter) = self.letters.get_mut(&id) else { return };
        let Some(at) = letter.people.iter().position(|p| p.shown.index == index) else { return };
        let person = &mut letter.people[at];
        let inside =
            person.shown.owner == *lease.customer() && lease.domains().contains(&person.domain);
        if !inside || (person.is_over() && !matches!(wish, Wish::Delivered | Wish::Relayed)) {
            return;
        }
        match wish {
            Wish::Delivered => {
                letter.people.remove(at);
            }
            Wish::Later => {
                person.shown.state = RecipientState::Deferred(reply("450 later"));
                person.count(lease.token());
            }
            Wish::Failed => person.shown.state = RecipientState::Failed(reply("550 no such user")),
            Wish::Relayed => person.shown.state = RecipientState::Relayed(reply("250 ok")),
            Wish::InDoubt => person.breaks += u32::from(person.count(lease.token())),
        }
        self.letters.retain(|_, letter| !letter.people.is_empty());
    }

    pub(crate) fn state(&self, id: QueueId, index: u32) -> Option<RecipientState> {
        let people = &self.letters.get(&id)?.people;
        people.iter().find(|p| p.shown.index == index).map(|p| p.shown.state.clone())
    }

    pub(crate) fn conclude(&mut self, id: QueueId, states: &[(u32, RecipientState)]) -> bool {
        let Some(letter) = self.letters.get_mut(&id) else { return false };
        let stands = |(index, state): &(u32, RecipientState)| {
            letter.people.iter().any(|p| p.shown.index == *index && p.shown.state == *state)
        };
        if !states.iter().all(stands) {
            return false;
        }
        letter.people.retain(|p| !states.iter().any(|(index, _)| *index == p.shown.index));
        self.letters.retain(|_, letter| !letter.people.is_empty());
        self.together.push([id].into());
        true
    }

    pub(crate) fn apply(&mut self, filter: &Filter, action: QueueAction) -> u64 {
        let mut touched = 0;
        for (id, letter) in &mut self.letters {
            if !letter.is_meant(*id, filter) {
                continue;
            }
            let before = letter.people.clone();
            letter.people.retain(|p| action != QueueAction::Remove || !p.is_meant(filter));
            for person in letter.people.iter_mut().filter(|p| p.is_meant(filter)) {
                person.shown.held = action == QueueAction::Hold;
                if action == QueueAction::Release
                    && matches!(person.shown.state, RecipientState::Failed(_))
                {
                    person.shown.state = RecipientState::Queued;
                }
            }
            touched += u64::from(letter.people != before);
        }
        self.letters.retain(|_, letter| !letter.people.is_empty());
        touched
    }

    pub(crate) fn query(&self, filter: &Filter) -> Seen {
        let meant = self.letters.iter().filter(|(id, letter)| letter.is_meant(**id, filter));
        meant
            .map(|(id, letter)| {
                let people = letter.people.iter().filter(|p| p.is_meant(filter));
                (*id, people.map(|p| p.shown.clone()).collect::<Vec<_>>())
            })
            .filter(|(_, people)| !people.is_empty())
            .collect()
    }

    pub(crate) fn check_overdue(&self, now: Timestamp, limit: usize, seen: &Seen) {
        let due = |p: &&Person| p.is_offered() && p.shown.expires <= now;
        let people = || self.letters.values().flat_map(|letter| letter.people.iter().filter(due));
        let given: usize = seen.iter().map(|(_, people)| people.len()).sum();
        assert_eq!(given, limit.min(people().count()), "all that are due, up to the limit");
        let mut last = Timestamp(0);
        for (id, shown) in seen {
            for one in shown {
                let mut mine = self.letters[id].people.iter().filter(due);
                assert!(mine.any(|p| p.shown == *one), "{one:?} is not due");
            }
            let oldest = self.letters[id].people.iter().filter(due).map(|p| p.shown.expires).min();
            let oldest = oldest.expect("one is due");
            assert!(last <= oldest, "oldest first");
            last = oldest;
        }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.letters.iter().map(|(id, letter)| (*id, letter.shown())).collect()
    }

    pub(crate) fn size(&self, id: QueueId) -> Option<usize> {
        self.letters.get(&id).map(|letter| letter.size)
    }

    pub(crate) fn bodies(&self) -> Vec<(QueueId, u64)> {
        self.letters.iter().map(|(id, letter)| (*id, letter.seed)).collect()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.letters.values().map(|letter| letter.size as u64).sum()
    }

    fn pairs(&self) -> BTreeSet<(Domain, CustomerName)> {
        let people = self.letters.values().flat_map(|letter| &letter.people);
        people.map(|p| (p.domain.clone(), p.shown.owner.clone())).collect()
    }

    pub(crate) fn queues(&self) -> Vec<(Domain, CustomerName, Count)> {
        let pairs = self.pairs().into_iter();
        pairs
            .map(|(domain, owner)| {
                let count = self.count(|d, o| *d == domain && *o == owner);
                (domain, owner, count)
            })
            .collect()
    }

    /// The sum over the queues that are wanted.
    pub(crate) fn count(&self, wanted: impl Fn(&Domain, &CustomerName) -> bool) -> Count {
        let mut whole = Count::default();
        for (domain, owner) in self.pairs().iter().filter(|(d, o)| wanted(d, o)) {
            for letter in self.letters.values() {
                let mine = |p: &&Person| p.domain == *domain && p.shown.owner == *owner;
                let people: Vec<&Person> = letter.people.iter().filter(mine).collect();
                if people.is_empty() {
                    continue;
                }
                if people.iter().all(|p| p.is_over()) {
                    whole.failed += 1;
                    continue;
                }
                whole.messages += 1;
                whole.bytes += letter.size as u64;
                whole.ready += u64::from(people.iter().any(|p| p.is_offered()));
                let first = whole.oldest.is_none_or(|oldest| letter.arrived < oldest);
                whole.oldest = if first { Some(letter.arrived) } else { whole.oldest };
            }
        }
        whole
    }

    /// The power went during a step: every message stands as in `before` or as now, and what belongs together alike.
    pub(crate) fn between(&mut self, before: &Self, seen: &Seen) {
        let seen: BTreeMap<QueueId, Vec<Shown>> = seen.iter().cloned().collect();
        let shown = |model: &Self, id: &QueueId| model.letters.get(id).map(Letter::shown);
        let ids: BTreeSet<QueueId> =
            self.letters.keys().chain(before.letters.keys()).chain(seen.keys()).copied().collect();
        let mut old = BTreeSet::new();
        for id in ids {
            let now = seen.get(&id).cloned();
            if now == shown(self, &id) {
                continue;
            }
            assert_eq!(now, shown(before, &id), "message {id} is neither as before nor as after");
            old.insert(id);
        }
        for group in self.together.iter().skip(before.together.len()) {
            let changed = group.iter().filter(|id| shown(self, id) != shown(before, id));
            let back = changed.clone().filter(|id| old.contains(*id)).count();
            assert!(back == 0 || back == changed.count(), "half of what belongs together");
        }
        for id in old {
            match before.letters.get(&id) {
                Some(letter) => self.letters.insert(id, letter.clone()),
                None => self.letters.remove(&id),
            };
        }
    }
}
