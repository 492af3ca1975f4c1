//! The reporter: brings what is owed to the senders, one report for each message, and forgets what was told.
//!
//! Run by the program as a background task; rung by drains and by expiry. A report and the end of what it tells of
//! are one transaction of the store, so that whatever happens a recipient is queued, delivered or reported, and
//! reported once. What may be told to nobody stays in the queue as failed, visible, until its time is over twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};

use super::decide::{Action, Due, due, returns_whole};
use super::notice::{Notice, Returned, Told, has_utf8_header};
use crate::mail::{
    BodyKind, ContentFacts, CustomerName, Envelope, ForwardPath, Notify, QueueId, Recipient,
    RecipientState, ReversePath, Timestamp,
};
use crate::provider::bell::Call;
use crate::provider::ledger::TARGET;
use crate::provider::office::Office;
use crate::provider::rounds::Flush;
use crate::store::{Filter, Head, NewMessage, Report, StateFilter, StoreError};

/// Largest message that goes back whole on RET=FULL, octets.
pub const WHOLE_BYTES_MAX: u64 = 256 << 10;
/// Largest header section that goes back, octets; the rest is left out.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Messages asked for at once.
const PAGE: usize = 64;
/// When what could not be told for trouble of ours is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// After so many of these, everything is looked through: what is kept must end some day.
const RETRIES_IN_ROUND: u32 = 60;

/// See the module's head.
pub struct Reporter {
    office: Arc<Office>,
    /// Kept ones that the log has told of.
    kept: Mutex<HashSet<QueueId>>,
    /// Those that could not be told for trouble of ours.
    again: Mutex<HashSet<QueueId>>,
}

/// Where a report goes.
struct Route {
    to: ForwardPath,
    owner: CustomerName,
    expires: Timestamp,
}

impl Reporter {
    /// A reporter for this office.
    #[must_use]
    pub fn new(office: Arc<Office>) -> Self {
        Self { office, kept: Mutex::default(), again: Mutex::default() }
    }

    fn locked<'a>(&self, set: &'a Mutex<HashSet<QueueId>>) -> MutexGuard<'a, HashSet<QueueId>> {
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until dropped: looks at everything, and then at what is rung for.
    pub async fn run(&self) {
        loop {
            self.round().await;
            for _ in 0..RETRIES_IN_ROUND {
                let mut over = self.office.world.wait(RETRY);
                loop {
                    match select(Box::pin(self.office.owed.heard()), over).await {
                        Either::Left((Call::Everything(_), rest)) => {
                            over = rest;
                            self.round().await;
                        }
                        Either::Left((Call::Some(ids), rest)) => {
                            over = rest;
                            self.look_at(ids).await;
                        }
                        Either::Right(_) => break,
                    }
                }
                let again = std::mem::take(&mut *self.locked(&self.again));
                self.look_at(again.into_iter().collect()).await;
            }
        }
    }

    /// These messages.
    pub async fn look_at(&self, ids: Vec<QueueId>) {
        for ids in ids.chunks(PAGE) {
            let filter = Filter { ids: ids.to_vec(), ..Filter::default() };
            match self.office.store.query(filter, None, PAGE).await {
                Ok(heads) => self.work_off(heads).await,
                Err(error) => complain("reports", &error),
            }
        }
    }

    /// Everything that is owed.
    pub async fn round(&self) {
        for state in [StateFilter::Failed, StateFilter::Relayed] {
            let mut after = None;
            loop {
                let filter = Filter { state: Some(state), ..Filter::default() };
                let ids: Vec<QueueId> = match self.office.store.query(filter, after, PAGE).await {
                    Ok(heads) => heads.iter().map(|head| head.id).collect(),
                    Err(error) => return complain("reports", &error),
                };
                let Some(last) = ids.last() else { break };
                after = Some(*last);
                self.look_at(ids).await;
            }
        }
    }

    async fn work_off(&self, heads: Vec<Head>) {
        for head in heads {
            if let Err(error) = self.message(&head).await {
                let id = head.id.to_string();
                let error = error.to_string();
                log::error!(target: TARGET, id = id, error = error; "report-failed");
                self.locked(&self.again).insert(head.id);
            }
        }
    }

    /// One message: all its recipients that are over, in one report.
    async fn message(&self, head: &Head) -> Result<(), StoreError> {
        let reverse_path = &head.envelope.reverse_path;
        let (mut told, mut silent, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for held in &head.recipients {
            match due(reverse_path, held.recipient.notify, &held.state) {
                Due::Report(action) => {
                    let server = self.office.servers.name_of(&held.owner);
                    told.push(Told { held, action, server });
                }
                Due::Nothing => silent.push((held.index, held.state.clone())),
                Due::Keep => kept.push(held),
                Due::Wait => {}
            }
        }
        if !told.is_empty() {
            match self.route(reverse_path).await? {
                Some(route) => self.report(head, told, route).await?,
                None => {
                    // Mail that was handed on well needs no postmaster.
                    let (failed, fine): (Vec<_>, Vec<_>) =
                        told.iter().partition(|told| told.action == Action::Failed);
                    kept.extend(failed.iter().map(|told| told.held));
                    silent
                        .extend(fine.iter().map(|told| (told.held.index, told.held.state.clone())));
                }
            }
        }
        if !silent.is_empty() {
            self.office.store.conclude(head.id, silent, None).await?;
        }
        self.keep(head, &kept).await
    }

    /// Where a report to this reverse-path goes; `None`: nowhere, the postmaster has to look.
    async fn route(&self, reverse_path: &ReversePath) -> Result<Option<Route>, StoreError> {
        let ReversePath::Mailbox(address) = reverse_path else { return Ok(None) };
        // Deviation (RFC 5321 §6.1): queues are named by domains, and mail to a bare address is taken nowhere any more;
        // failed mail from an address literal stays for the postmaster.
        let Ok(to) = ForwardPath::parse(address) else { return Ok(None) };
        let policy = self.office.policy();
        let now = self.office.world.now();
        if let Some(customer) = self.office.directory.owner(to.domain()).await? {
            let expires = now.after(customer.settings.expire_after.unwrap_or(policy.expire_after));
            return Ok(Some(Route { to, owner: customer.name.clone(), expires }));
        }
        let expires = now.after(policy.expire_after);
        if *to.domain() == policy.hostname {
            let owner = CustomerName::postmaster();
            return Ok(to.is_postmaster().then_some(Route { to, owner, expires }));
        }
        let expires = expires.min(now.after(super::RELAY_EXPIRES));
        Ok(Some(Route { to, owner: CustomerName::relay(), expires }))
    }

    /// Writes the report and lets it enter as what it tells of leaves.
    async fn report(
        &self,
        head: &Head,
        told: Vec<Told<'_>>,
        route: Route,
    ) -> Result<(), StoreError> {
        let office = &self.office;
        let policy = office.policy();
        let has_failure = told.iter().any(|t| matches!(t.held.state, RecipientState::Failed(_)));
        let facts = &head.facts;
        let whole = returns_whole(head.envelope.dsn.ret, has_failure, facts.size, WHOLE_BYTES_MAX)
            // Deviation (RFC 3461 §4.3): a whole message with 8-bit header fields cannot go to a 7-bit address.
            && (!facts.has_8bit_header || has_utf8_header(&head.envelope.reverse_path));
        let mut chance = [0u8; 16];
        office.world.chance(&mut chance);
        let notice = Notice {
            hostname: &policy.hostname,
            id: office.next_id(),
            now: office.world.now(),
            boundary: format!("=_{:032x}", u128::from_be_bytes(chance)),
            head,
            told,
            returned: if whole { Returned::Whole } else { Returned::Headers },
        };
        let states: Vec<(u32, RecipientState)> =
            notice.told.iter().map(|t| (t.held.index, t.held.state.clone())).collect();
        let report = self.written(&notice, &route).await?;
        if office.store.conclude(head.id, states, Some(report)).await? {
            note_sent(&notice, &route);
            if route.owner == CustomerName::relay() {
                let (customer, domain) = (route.owner.clone(), route.to.domain().clone());
                office.outgoing.ring(Flush { customer, domain, by_hand: false });
            }
        }
        Ok(())
    }

    /// The report in the store, not yet existing.
    async fn written(&self, notice: &Notice<'_>, route: &Route) -> Result<Report, StoreError> {
        let store = &self.office.store;
        let mut body = store.begin_body(notice.id, 0).await?;
        body.write(&notice.beginning()).await?;
        let mut reader = store.open_body(notice.head.id, 0).await?;
        match notice.returned {
            Returned::Whole => loop {
                let chunk = reader.read().await?;
                if chunk.is_empty() {
                    break;
                }
                body.write(&chunk).await?;
            },
            Returned::Headers => {
                let mut section = Vec::new();
                while header_end(&section).is_none() && section.len() < HEADER_BYTES_MAX {
                    let chunk = reader.read().await?;
                    if chunk.is_empty() {
                        break;
                    }
                    section.extend_from_slice(&chunk);
                }
                section.truncate(header_end(&section).unwrap_or(section.len()));
                cut_at_line(&mut section);
                body.write(&notice.returned_headers(&section)).await?;
            }
        }
        body.write(&notice.end()).await?;
        let (facts, is_global) = (&notice.head.facts, notice.is_global());
        let has_8bit_body =
            is_global || (notice.returned == Returned::Whole && facts.has_8bit_body);
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient {
                forward_path: route.to.clone(),
                // RFC 3461 §6.1: no report about a report.
                notify: Some(Notify::default()),
                orcpt: None,
            }],
            body: if has_8bit_body { BodyKind::EightBitMime } else { BodyKind::SevenBit },
            smtputf8: is_global,
            ..Envelope::default()
        };
        let facts = ContentFacts {
            size: body.written(),
            has_8bit_body,
            has_8bit_header: is_global,
            line_bytes_longest: facts.line_bytes_longest.max(600),
            received_count: 0,
            message_id: Some(notice.message_id().into()),
        };
        let message = NewMessage {
            id: notice.id,
            envelope,
            owners: vec![route.owner.clone()],
            facts,
            arrived: notice.now,
            expires: vec![route.expires],
        };
        Ok(Report { message, body })
    }

    /// Nobody may be told: it stays, the log says so once, and after the same time again it goes.
    async fn keep(
        &self,
        head: &Head,
        kept: &[&crate::store::HeldRecipient],
    ) -> Result<(), StoreError> {
        let Some(first) = kept.first() else { return Ok(()) };
        let (id, to) = (head.id.to_string(), first.recipient.forward_path.as_str());
        let from = head.envelope.reverse_path.as_str();
        let now = self.office.trusted_now();
        let last = self.office.policy().expire_after;
        let over: Vec<(u32, RecipientState)> = kept
            .iter()
            .filter(|held| now > held.expires.after(last))
            .map(|held| (held.index, held.state.clone()))
            .collect();
        if !over.is_empty() {
            self.office.store.conclude(head.id, over, None).await?;
            self.locked(&self.kept).remove(&head.id);
            log::warn!(target: TARGET, id = id, from = from, to = to; "forgotten");
            return Ok(());
        }
        let is_new = self.locked(&self.kept).insert(head.id);
        if is_new {
            let detail = "nobody can be told; see queue list --failed";
            log::warn!(target: TARGET, id = id, from = from, to = to, detail = detail; "kept-for-postmaster");
        }
        Ok(())
    }
}

fn complain(what: &str, error: &StoreError) {
    let error = error.to_string();
    log::error!(target: TARGET, what = what, error = error; "store-trouble");
}

fn note_sent(notice: &Notice<'_>, route: &Route) {
    let (id, about) = (notice.id.to_string(), notice.head.id.to_string());
    let (to, customer) = (route.to.as_str(), route.owner.as_str());
    let actions: Vec<&str> = notice.told.iter().map(|told| told.action.word()).collect();
    let actions = actions.join(",");
    log::info!(target: TARGET, id = id, about = about, to = to, customer = customer, actions = actions; "report");
}

/// Where the header section ends, its last line end included.
fn header_end(octets: &[u8]) -> Option<usize> {
    if octets.starts_with(b"\r\n") {
        return Some(0);
    }
    memchr::memmem::find(octets, b"\r\n\r\n").map(|place| place + 2)
}

/// Nothing ends in the middle of a line.
fn cut_at_line(section: &mut Vec<u8>) {
    section.truncate(HEADER_BYTES_MAX);
    let whole = memchr::memrchr(b'\n', section).map_or(0, |place| place + 1);
    section.truncate(whole);
}
