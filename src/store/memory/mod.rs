//! The engine for tests and examples: everything in memory, nothing survives.
//!
//! Called by whoever wants a provider without a disk. It keeps every promise of the traits but durability, so
//! that the contract suite runs over it as over the others.

mod snapshot;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;

use crate::mail::{Customer, CustomerName, Domain, Lease, QueueId, RecipientState, Timestamp};

use super::hints::Hints;
use super::kept::{Class, Kept, Place};
use super::roster::Roster;
use super::tally::plus;
use super::{
    Answer, Archived, BodyReader, BodyWriter, Changed, Count, Directory, DirectoryError, Filter,
    Head, Health, LeaseAnswer, LeaseRequest, NewMessage, Position, QueueAction, Report, Settlement,
    Snapshot, Store, StoreError,
};
use state::State;

/// Octets of one chunk that a body's reader gives.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;
/// A store and directory in memory.
pub struct Memory {
    state: Mutex<State>,
    hints: Hints,
    clock: Clock,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let start = Instant::now();
        Self::with_clock(Arc::new(move || start.elapsed()))
    }

    /// An empty store whose leases run by `clock`: the time since any fixed point, never going back.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Fn() -> Duration + Send + Sync>) -> Self {
        Self { state: Mutex::new(State::new()), hints: Hints::default(), clock }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.locked();
        if state.closed {
            return Err(StoreError::Broken("it was closed".into()));
        }
        Ok(state)
    }

    /// Does `work` when the answer is awaited.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move { work(&mut *self.open()?) })
    }

    fn change<'a, T: Send + 'a>(
        &'a self,
        work: impl FnOnce(&mut Roster) -> Result<T, DirectoryError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, DirectoryError>> {
        Box::pin(async move { work(&mut self.open()?.roster) })
    }

    fn keep(&self, kept: Kept, body: Bytes) -> Result<(), StoreError> {
        let places = kept.places();
        {
            let mut state = self.open()?;
            if state.messages.contains_key(&kept.id) {
                return Ok(());
            }
            state.replace(kept, body);
        }
        self.tell(&places);
        Ok(())
    }

    fn tell(&self, places: &[Place]) {
        for place in places.iter().filter(|p| p.class <= Class::Late) {
            self.hints.tell(&place.domain);
        }
    }
}

#[derive(Debug)]
struct Writer(Vec<u8>);

impl BodyWriter for Writer {
    fn write<'a>(&'a mut self, chunk: &'a [u8]) -> Answer<'a, ()> {
        self.0.extend_from_slice(chunk);
        Box::pin(ready(Ok(())))
    }
    fn written(&self) -> u64 {
        self.0.len() as u64
    }
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

#[derive(Debug)]
struct Reader {
    /// What was not given yet.
    rest: Bytes,
    size: u64,
}

impl Reader {
    fn new(body: &Bytes, offset: u64) -> Self {
        let begin = usize::try_from(offset).map_or(body.len(), |offset| offset.min(body.len()));
        Self { rest: body.slice(begin..), size: body.len() as u64 }
    }
}

impl BodyReader for Reader {
    fn read(&mut self) -> Answer<'_, Bytes> {
        let chunk = self.rest.split_to(self.rest.len().min(CHUNK_BYTES_MAX));
        Box::pin(ready(Ok(chunk)))
    }
    fn size(&self) -> u64 {
        self.size
    }
}

/// The octets of a body that was written for this store.
fn taken(body: Box<dyn BodyWriter>) -> Result<Bytes, StoreError> {
    let foreign = |_| StoreError::Transient("the body belongs to another store".into());
    let octets = body.into_any().downcast::<Writer>().map_err(foreign)?.0;
    // No more room than it needs.
    Ok(octets.into_boxed_slice().into())
}

/// The record and the octets of a message that is to exist.
fn entering(report: Report) -> Result<(Kept, Bytes), StoreError> {
    let body = taken(report.body)?;
    Ok((Kept::new(report.message, body.len() as u64)?, body))
}

impl Store for Memory {
    fn begin_body(&self, _id: QueueId, _size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        self.answer(|_| Ok(Box::new(Writer(Vec::new())) as Box<dyn BodyWriter>))
    }

    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(async move {
            let (kept, body) = entering(Report { message, body })?;
            self.keep(kept, body)
        })
    }

    fn snapshot(&self) -> Answer<'_, Box<dyn Snapshot>> {
        self.answer(|state| Ok(Box::new(snapshot::Copy::of(state)) as Box<dyn Snapshot>))
    }

    fn enter(&self, message: Archived, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(async move {
            let body = taken(body)?;
            self.keep(message.entering(body.len() as u64), body)
        })
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        self.answer(move |state| state.leases.acquire(request, (self.clock)()))
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        self.answer(|state| {
            let held = state.leases.renew(lease, (self.clock)());
            if held { Ok(()) } else { Err(StoreError::LostLease) }
        })
    }

    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        self.answer(move |state| {
            state.leases.release(&lease);
            Ok(())
        })
    }

    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>> {
        self.answer(move |state| {
            if !state.leases.is_held(lease, (self.clock)()) {
                return Err(StoreError::LostLease);
            }
            Ok(state.next(lease, after, limit))
        })
    }

    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        self.answer(move |state| {
            let (_, body) = state.messages.get(&id).ok_or(StoreError::Missing)?;
            Ok(Box::new(Reader::new(body, offset)) as Box<dyn BodyReader>)
        })
    }

    fn settle<'a>(&'a self, lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()> {
        self.answer(move |state| {
            let valid = state.leases.progress(lease, (self.clock)());
            state.settle(lease, &settlements, valid);
            if valid { Ok(()) } else { Err(StoreError::LostLease) }
        })
    }

    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        self.answer(move |state| {
            let entering = report.map(entering).transpose()?;
            let Some((kept, body)) = state.messages.get(&about) else { return Ok(false) };
            let (mut kept, body) = (kept.clone(), body.clone());
            if !kept.conclude(&states)? {
                return Ok(false);
            }
            state.replace(kept, body);
            if let Some((report, body)) = entering
                && !state.messages.contains_key(&report.id)
            {
                let places = report.places();
                state.replace(report, body);
                self.tell(&places);
            }
            Ok(true)
        })
    }

    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count> {
        self.answer(|state| {
            let owners = state.tally.of_domain(domain);
            let counts = owners.into_iter().map(|(o, count)| state.with_oldest(domain, &o, count));
            Ok(counts.fold(Count::default(), plus))
        })
    }

    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count> {
        self.answer(|state| {
            let queues = state.tally.of_customer(customer);
            let counts =
                queues.into_iter().map(|(d, count)| state.with_oldest(&d, customer, count));
            Ok(counts.fold(Count::default(), plus))
        })
    }

    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        self.answer(move |state| {
            let mut page = state.tally.page(after.as_ref(), limit);
            for (domain, owner, count) in &mut page {
                *count = state.with_oldest(domain, owner, *count);
            }
            Ok(page)
        })
    }

    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        self.answer(move |state| Ok(state.query(&filter, after, limit)))
    }

    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        self.answer(move |state| {
            let mut touched = 0;
            for head in state.query(&filter, None, usize::MAX) {
                let Some((kept, body)) = state.messages.get(&head.id) else { continue };
                let (mut kept, body) = (kept.clone(), body.clone());
                if kept.act(&filter, action) {
                    touched += 1;
                    let places = kept.places();
                    state.replace(kept, body);
                    if action == QueueAction::Release {
                        self.tell(&places);
                    }
                }
            }
            Ok(touched)
        })
    }

    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        self.answer(move |state| Ok(state.overdue(now, limit)))
    }

    fn changes(&self, domains: &[Domain]) -> BoxStream<'static, Changed> {
        self.hints.listen(domains).boxed()
    }

    fn health(&self) -> Answer<'_, Health> {
        self.answer(|state| {
            Ok(Health { live_bytes: state.tally.live_bytes(), ..Health::default() })
        })
    }

    fn maintain(&self) -> Answer<'_, ()> {
        self.answer(|_| Ok(()))
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            self.locked().closed = true;
            self.hints.close();
            Ok(())
        })
    }
}

impl Directory for Memory {
    fn customer<'a>(&'a self, name: &'a CustomerName) -> Answer<'a, Option<Arc<Customer>>> {
        self.answer(|state| Ok(state.roster.customer(name)))
    }

    fn owner<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Option<Arc<Customer>>> {
        self.answer(|state| Ok(state.roster.owner(domain)))
    }

    fn customers(
        &self,
        after: Option<CustomerName>,
        limit: usize,
    ) -> Answer<'_, Vec<Arc<Customer>>> {
        self.answer(move |state| Ok(state.roster.page(after.as_ref(), limit)))
    }

    fn create(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        self.change(|roster| {
            let record = roster.created(customer)?;
            roster.put(record);
            Ok(())
        })
    }

    fn update(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        self.change(|roster| {
            let record = roster.updated(customer)?;
            roster.put(record);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a CustomerName) -> BoxFuture<'a, Result<(), DirectoryError>> {
        Box::pin(async move {
            let mut state = self.open()?;
            state.learnt.remove(name);
            if state.roster.remove(name) { Ok(()) } else { Err(DirectoryError::Missing) }
        })
    }

    fn learn<'a>(
        &'a self,
        name: &'a CustomerName,
        lesson: Option<String>,
        _is_pressing: bool,
    ) -> Answer<'a, ()> {
        self.answer(move |state| {
            match lesson {
                Some(lesson) => state.learnt.insert(name.clone(), lesson),
                None => state.learnt.remove(name),
            };
            Ok(())
        })
    }

    fn learnt(&self) -> Answer<'_, Vec<(CustomerName, String)>> {
        self.answer(|state| {
            let all = state.learnt.iter();
            Ok(all.map(|(name, lesson)| (name.clone(), lesson.clone())).collect())
        })
    }

    fn server_key(&self) -> Answer<'_, [u8; 32]> {
        self.answer(|state| match state.server_key {
            Some(key) => Ok(key),
            None => {
                let mut key = [0; 32];
                getrandom::fill(&mut key)
                    .map_err(|e| StoreError::Transient(format!("no random octets: {e}")))?;
                state.server_key = Some(key);
                Ok(key)
            }
        })
    }

    fn take_server_key(&self, key: [u8; 32]) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(async move {
            self.open()?.server_key.get_or_insert(key);
            Ok(())
        })
    }
}
