//! A store whose settling is switched off: everything else is the store's own.
//!
//! What a drain reaches over it is what the sender and the reading of the store allow; beside it one sees what
//! recording the outcomes costs. Nothing is ever forgotten by it, so each drain sends the whole queue again.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use restante::mail::{CustomerName, Domain, Lease, QueueId, RecipientState, Timestamp};
use restante::store::{
    Answer, BodyReader, BodyWriter, Changed, Count, Filter, Head, Health, LeaseAnswer,
    LeaseRequest, NewMessage, Opened, Position, QueueAction, Report, Settlement, Store,
};

/// See the module's head.
pub(crate) struct Unsettled(pub(crate) Arc<dyn Store>);

impl Store for Unsettled {
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        self.0.begin_body(id, size_hint)
    }
    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        self.0.commit(message, body)
    }
    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        self.0.lease(request)
    }
    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        self.0.renew(lease)
    }
    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        self.0.release(lease)
    }
    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>> {
        self.0.next(lease, after, limit)
    }
    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        self.0.open_body(id, offset)
    }
    fn open_bodies(&self, ids: Vec<QueueId>) -> BoxFuture<'_, Vec<Opened>> {
        self.0.open_bodies(ids)
    }
    fn settle<'a>(&'a self, _: &'a Lease, _: Vec<Settlement>) -> Answer<'a, ()> {
        futures::future::ready(Ok(())).boxed()
    }
    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        self.0.conclude(about, states, report)
    }
    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count> {
        self.0.count(domain)
    }
    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count> {
        self.0.usage(customer)
    }
    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        self.0.queues(after, limit)
    }
    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        self.0.query(filter, after, limit)
    }
    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        self.0.apply(filter, action)
    }
    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        self.0.overdue(now, limit)
    }
    fn changes(&self, domains: &[Domain]) -> BoxStream<'static, Changed> {
        self.0.changes(domains)
    }
    fn health(&self) -> Answer<'_, Health> {
        self.0.health()
    }
    fn maintain(&self) -> Answer<'_, ()> {
        self.0.maintain()
    }
    fn close(&self) -> Answer<'_, ()> {
        self.0.close()
    }
}
