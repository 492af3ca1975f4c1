//! The traits on the engine: each call takes what it needs, asks a thread, and waits without blocking. What is in memory
//! is answered at once: a visit to another thread costs more than most answers.
//!
//! Called by everybody. Nothing is decided here but where the work is done.

use std::sync::Arc;

use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::mail::{Customer, CustomerName, Domain, Lease, QueueId, RecipientState, Timestamp};
use crate::store::{
    Answer, Archived, BodyReader, BodyWriter, Changed, Count, Directory, DirectoryError, Filter,
    Head, Health, LeaseAnswer, LeaseRequest, NewMessage, Opened, Position, QueueAction, Report,
    Settlement, Snapshot, Store, StoreError,
};

use super::body::{Incoming, Writer};
use super::committer::{Op, Waiter};
use super::directory::Change;
use super::index::Index;
use super::keeper;
use super::lookup::{self, Wanted};
use super::reader::Reader;
use super::shared::{Shared, closed, locked, reading};
use super::snapshot::SledSnapshot;
use super::sync::{Ordering, off};
use super::{Durability, SledStore};

/// Messages that one operation of `apply` touches at most.
const ACT_MESSAGES_MAX: usize = 500;

impl SledStore {
    /// Does `work` on a thread for blocking work.
    fn off<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'a, T> {
        let shared = self.shared.clone();
        Box::pin(off(move || work(&shared)))
    }

    /// The same, for a drain; its turn comes when not too many others read, and ends with the work, whether or not
    /// somebody still wants to know.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> T + Send + 'static,
    ) -> T {
        let turn = self.shared.readers.wait().await;
        let shared = self.shared.clone();
        off(move || {
            let _turn = turn;
            work(&shared)
        })
        .await
    }

    async fn ask<T>(&self, op: impl FnOnce(Waiter<T>) -> Op) -> Result<T, StoreError> {
        self.shared.check()?;
        let (waiter, answer) = oneshot::channel();
        self.shared.ops.send(op(waiter)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The engine's own parts of a body that was written for `id`.
    fn taken(&self, id: QueueId, body: Box<dyn BodyWriter>) -> Result<(u64, Incoming), StoreError> {
        let foreign = || StoreError::Transient("the body belongs to another message".into());
        let writer = body.into_any().downcast::<Writer>().map_err(|_| foreign())?;
        self.shared.check()?;
        let Some((of, written_for, size, body)) = writer.finish() else {
            return Err(StoreError::Transient("the body could not be written".into()));
        };
        if !Arc::ptr_eq(&of, &self.shared) || written_for != id {
            super::body::abort(&of, body);
            return Err(foreign());
        }
        Ok((size, body))
    }

    async fn direct(&self, change: Change) -> Result<(), DirectoryError> {
        self.shared.check()?;
        let (waiter, answer) = oneshot::channel();
        self.shared.ops.send(Op::Direct { change, waiter }).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed().into()))
    }
}

impl Store for SledStore {
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        Box::pin(async move {
            self.shared.check()?;
            Ok(Box::new(Writer::new(self.shared.clone(), id, size_hint)) as Box<dyn BodyWriter>)
        })
    }

    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(async move {
            let (size, body) = self.taken(message.id, body)?;
            let message = Box::new(message);
            self.ask(|waiter| Op::Commit { message, size, body, waiter }).await
        })
    }

    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        Box::pin(async move {
            self.shared.check()?;
            let (answer, was_given) = {
                let mut leases = locked(&self.shared.leases);
                let was_given = leases.is_given(&request.domains);
                (leases.acquire(request, self.shared.now())?, was_given)
            };
            if was_given && matches!(answer, LeaseAnswer::Granted(_)) {
                // What an overthrown holder said before is on its way through the committer: the new one looks
                // only when that is done.
                let (marks, ids) = (Vec::new(), Vec::new());
                self.ask(|waiter| Op::Repeat { marks, ids, waiter }).await?;
            }
            Ok(answer)
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        Box::pin(async move {
            self.shared.check()?;
            let held = locked(&self.shared.leases).renew(lease, self.shared.now());
            if held { Ok(()) } else { Err(StoreError::LostLease) }
        })
    }

    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        Box::pin(async move {
            locked(&self.shared.leases).release(&lease);
            Ok(())
        })
    }

    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>> {
        Box::pin(async move {
            self.shared.check()?;
            if !locked(&self.shared.leases).is_held(lease, self.shared.now()) {
                return Err(StoreError::LostLease);
            }
            let (customer, domains) = (lease.customer().clone(), lease.domains().to_vec());
            let wanted = Wanted { customer, domains, after, limit };
            let (heads, is_whole) = wanted.at_hand(&self.shared);
            if is_whole {
                return Ok(heads);
            }
            let token = lease.token();
            self.read(move |shared| {
                // It may have been lost while others read.
                if !locked(&shared.leases).is_valid(token, shared.now()) {
                    return Err(StoreError::LostLease);
                }
                wanted.rest(shared, heads)
            })
            .await
        })
    }

    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        Box::pin(async move {
            let opened = self.off(move |shared| Reader::open(shared, id, offset)).await?;
            Ok(Box::new(opened) as Box<dyn BodyReader>)
        })
    }

    fn open_bodies(&self, ids: Vec<QueueId>) -> BoxFuture<'_, Vec<Opened>> {
        fn boxed(reader: Reader) -> Box<dyn BodyReader> {
            Box::new(reader)
        }
        Box::pin(async move {
            let at_hand = Reader::open_at_hand(&self.shared, &ids).into_iter();
            let mut opened: Vec<Opened> = at_hand.map(|reader| Ok(boxed(reader))).collect();
            let rest = ids[opened.len()..].to_vec();
            if !rest.is_empty() {
                let rest = self.read(move |shared| Reader::open_all(shared, &rest)).await;
                opened.extend(rest.into_iter().map(|one| one.map(boxed)));
            }
            opened
        })
    }

    fn settle<'a>(&'a self, lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()> {
        Box::pin(async move {
            let valid = locked(&self.shared.leases).progress(lease, self.shared.now());
            let (customer, domains) = (lease.customer().clone(), lease.domains().to_vec());
            let token = lease.token();
            self.ask(|waiter| Op::Settle { customer, domains, token, settlements, valid, waiter })
                .await
        })
    }

    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        Box::pin(async move {
            let report = match report {
                None => None,
                Some(Report { message, body }) => {
                    let (size, body) = self.taken(message.id, body)?;
                    Some((Box::new(message), size, body))
                }
            };
            self.ask(|waiter| Op::Conclude { about, states, report, waiter }).await
        })
    }

    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count> {
        let domain = domain.clone();
        self.off(move |shared| lookup::count(shared, &domain))
    }

    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count> {
        let customer = customer.clone();
        self.off(move |shared| lookup::usage(shared, &customer))
    }

    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        self.off(move |shared| lookup::queues(shared, after.as_ref(), limit))
    }

    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        self.off(move |shared| lookup::query(shared, &filter, after, limit))
    }

    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        Box::pin(async move {
            let (mut touched, mut after) = (0, None);
            loop {
                let page = self.query(filter.clone(), after, ACT_MESSAGES_MAX).await?;
                let Some(last) = page.last() else { return Ok(touched) };
                after = Some(last.id);
                let ids = page.iter().map(|head| head.id).collect();
                let filter = filter.clone();
                touched += self.ask(|waiter| Op::Act { filter, action, ids, waiter }).await?;
            }
        })
    }

    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        self.off(move |shared| lookup::overdue(shared, now, limit))
    }

    fn changes(&self, domains: &[Domain]) -> BoxStream<'static, Changed> {
        self.shared.hints.listen(domains).boxed()
    }

    fn health(&self) -> Answer<'_, Health> {
        self.off(|shared| {
            let index_bytes =
                reading(&shared.index).as_ref().map_or(0, super::index::Index::disk_bytes);
            let mut damage = locked(&shared.damage).clone();
            if shared.options.durability == Durability::Relaxed {
                damage.push("durability is relaxed: a power cut loses the last seconds".into());
            }
            Ok(Health {
                broken: locked(&shared.broken).clone(),
                free_bytes: shared.disk.space(&shared.spool.folder).ok().map(|(free, _)| free),
                live_bytes: reading(&shared.tally).live_bytes(),
                disk_bytes: shared.spool.disk_bytes().saturating_add(index_bytes),
                damage,
                sync_micros: shared.sync_micros.load(Ordering::Relaxed),
            })
        })
    }

    fn maintain(&self) -> Answer<'_, ()> {
        self.off(|shared| {
            shared.check()?;
            keeper::maintain(shared, usize::MAX, &mut |_| {}).map(|_| ())
        })
    }

    fn snapshot(&self) -> Answer<'_, Box<dyn Snapshot>> {
        self.off(|shared| {
            shared.check()?;
            Ok(Box::new(SledSnapshot::take(shared)?) as Box<dyn Snapshot>)
        })
    }

    fn enter(&self, message: Archived, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(async move {
            let (size, body) = self.taken(message.id(), body)?;
            let kept = Box::new(message.entering(size));
            self.ask(|waiter| Op::Enter { kept, body, waiter }).await
        })
    }

    fn compact<'a>(&'a self, tell: &'a mut (dyn FnMut(u64) + Send)) -> Answer<'a, u64> {
        Box::pin(async move {
            let mut done = 0;
            loop {
                let one = self.off(|shared| keeper::maintain(shared, 1, &mut |_| {})).await?;
                if one == 0 {
                    return Ok(done);
                }
                done += one;
                tell(done);
            }
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let Some(threads) = locked(&self.ended).take() else { return Ok(()) };
            let shared = self.shared.clone();
            off(move || super::end(&shared, threads)).await
        })
    }
}

impl Directory for SledStore {
    fn customer<'a>(&'a self, name: &'a CustomerName) -> Answer<'a, Option<Arc<Customer>>> {
        Box::pin(async move {
            self.shared.check()?;
            Ok(reading(&self.shared.roster).customer(name))
        })
    }

    fn owner<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Option<Arc<Customer>>> {
        Box::pin(async move {
            self.shared.check()?;
            Ok(reading(&self.shared.roster).owner(domain))
        })
    }

    fn customers(
        &self,
        after: Option<CustomerName>,
        limit: usize,
    ) -> Answer<'_, Vec<Arc<Customer>>> {
        Box::pin(async move {
            self.shared.check()?;
            Ok(reading(&self.shared.roster).page(after.as_ref(), limit))
        })
    }

    fn create(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(self.direct(Change::Create(customer)))
    }

    fn update(&self, customer: Customer) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(self.direct(Change::Update(customer)))
    }

    fn remove<'a>(&'a self, name: &'a CustomerName) -> BoxFuture<'a, Result<(), DirectoryError>> {
        Box::pin(async move {
            self.direct(Change::Remove(name.clone())).await?;
            self.learn(name, None, true).await.map_err(DirectoryError::from)
        })
    }

    fn learn<'a>(
        &'a self,
        name: &'a CustomerName,
        lesson: Option<String>,
        is_pressing: bool,
    ) -> Answer<'a, ()> {
        let name = name.clone();
        self.off(move |shared| {
            shared.ask(|index| super::directory::learn(index, &name, lesson.as_deref()))?;
            if is_pressing {
                return shared.ask(Index::flush);
            }
            // So that it outlives the process, with the keeper's next round.
            shared.has_lessons.store(true, Ordering::Release);
            Ok(())
        })
    }

    fn learnt(&self) -> Answer<'_, Vec<(CustomerName, String)>> {
        self.off(|shared| shared.ask(super::directory::learnt))
    }

    fn server_key(&self) -> Answer<'_, [u8; 32]> {
        Box::pin(async move {
            self.shared.check()?;
            if let Some(key) = *locked(&self.shared.server_key) {
                return Ok(key);
            }
            let mut key = [0; 32];
            getrandom::fill(&mut key)
                .map_err(|e| StoreError::Transient(format!("no random octets: {e}")))?;
            match self.direct(Change::Key(key)).await {
                Ok(()) => {}
                Err(DirectoryError::Store(error)) => return Err(error),
                Err(other) => return Err(StoreError::Transient(other.to_string())),
            }
            // Somebody else may have been first.
            locked(&self.shared.server_key).ok_or_else(closed)
        })
    }

    fn take_server_key(&self, key: [u8; 32]) -> BoxFuture<'_, Result<(), DirectoryError>> {
        Box::pin(self.direct(Change::Key(key)))
    }
}
