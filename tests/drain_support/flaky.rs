//! A store that takes its time, has passing trouble, and dies in the middle of a call: the power goes, and what was
//! not recorded is not recorded. The engine below keeps what it has taken, as a disk does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use restante::mail::*;
use restante::provider::World;
use restante::store::*;

use super::Clock;

/// Sound random numbers from one seed.
#[derive(Clone)]
pub struct Dice(Arc<AtomicU64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66)))
    }

    /// SplitMix64.
    pub fn roll(&self) -> u64 {
        let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 to `below - 1`.
    pub fn below(&self, below: usize) -> usize {
        (self.roll() % below as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// See the module's head.
pub struct Flaky {
    pub inner: Arc<Memory>,
    pub dice: Dice,
    pub clock: Clock,
    /// One call in so many goes wrong; 0: none.
    pub trouble: AtomicU64,
    /// The power goes in this call, counted down from there; 0: in none.
    pub dies_in: AtomicU64,
    /// The power is gone: nothing of this process happens any more.
    pub is_dead: Arc<AtomicBool>,
    /// The token of the newest lease of each queue.
    pub newest: Mutex<BTreeMap<Domain, u64>>,
    /// Calls of `count`, which are cheap, and of everything that looks at mail or queues.
    pub counts: AtomicU64,
    pub looks: AtomicU64,
}

impl Flaky {
    fn goes_wrong(&self) -> bool {
        let trouble = self.trouble.load(Ordering::Relaxed);
        trouble > 0 && self.dice.once_in(trouble as usize)
    }

    /// Only the newest lease of a queue may be served.
    fn is_newest(&self, lease: &Lease) {
        let newest = self.newest.lock().expect("whole");
        for domain in lease.domains() {
            let token = newest.get(domain).copied().unwrap_or_default();
            assert!(lease.token() >= token, "an old lease of {domain} is served");
        }
    }

    /// Takes time, fails for now, or dies.
    async fn weather(&self) -> Result<(), StoreError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return futures::future::pending().await;
        }
        let left = self.dies_in.load(Ordering::Relaxed);
        self.dies_in.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.is_dead.store(true, Ordering::Relaxed);
            return futures::future::pending().await;
        }
        if !self.goes_wrong() {
            return Ok(());
        }
        match self.dice.below(6) {
            0..=2 => {
                self.clock.wait(Duration::from_millis(self.dice.below(3000) as u64)).await;
                Ok(())
            }
            3 | 4 => Err(StoreError::Transient("simulated".into())),
            _ => {
                self.is_dead.store(true, Ordering::Relaxed);
                futures::future::pending().await
            }
        }
    }
}

impl Store for Flaky {
    fn begin_body(&self, id: QueueId, size_hint: u64) -> Answer<'_, Box<dyn BodyWriter>> {
        Box::pin(async move {
            self.weather().await?;
            if self.goes_wrong() {
                return Err(StoreError::Full("simulated".into()));
            }
            self.inner.begin_body(id, size_hint).await
        })
    }
    fn commit(&self, message: NewMessage, body: Box<dyn BodyWriter>) -> Answer<'_, ()> {
        Box::pin(async move {
            self.weather().await?;
            self.inner.commit(message, body).await?;
            // Durable, and perhaps nobody hears of it; but a store never takes that back.
            match self.weather().await {
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }
    fn lease(&self, request: LeaseRequest) -> Answer<'_, LeaseAnswer> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.weather().await?;
            let answer = self.inner.lease(request).await?;
            if let LeaseAnswer::Granted(lease) = &answer {
                let mut newest = self.newest.lock().expect("whole");
                for domain in lease.domains() {
                    let before = newest.insert(domain.clone(), lease.token());
                    assert!(before < Some(lease.token()), "two leases of {domain} with one token");
                }
            }
            Ok(answer)
        })
    }
    fn renew<'a>(&'a self, lease: &'a Lease) -> Answer<'a, ()> {
        Box::pin(async move {
            self.weather().await?;
            self.inner.renew(lease).await?;
            self.is_newest(lease);
            Ok(())
        })
    }
    fn release(&self, lease: Lease) -> Answer<'_, ()> {
        self.inner.release(lease)
    }
    fn next<'a>(
        &'a self,
        lease: &'a Lease,
        after: Option<Position>,
        limit: usize,
    ) -> Answer<'a, Vec<Head>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.weather().await?;
            // Small pages, so that their seams are met.
            let heads = self.inner.next(lease, after, limit.min(1 + self.dice.below(7))).await?;
            self.is_newest(lease);
            if self.dice.once_in(4) {
                // A page may be old when it arrives.
                self.clock.wait(Duration::from_millis(self.dice.below(200) as u64)).await;
            }
            Ok(heads)
        })
    }
    fn open_body(&self, id: QueueId, offset: u64) -> Answer<'_, Box<dyn BodyReader>> {
        Box::pin(async move {
            self.weather().await?;
            let inner = self.inner.open_body(id, offset).await?;
            let breaks = (self.goes_wrong() && inner.size() > 0)
                .then(|| self.dice.below(usize::try_from(inner.size()).expect("small")) as u64);
            let (dice, given) = (self.dice.clone(), 0);
            Ok(Box::new(Reader { inner, dice, rest: Bytes::new(), given, breaks, id })
                as Box<dyn BodyReader>)
        })
    }
    fn settle<'a>(&'a self, lease: &'a Lease, settlements: Vec<Settlement>) -> Answer<'a, ()> {
        Box::pin(async move {
            self.weather().await?;
            self.inner.settle(lease, settlements).await?;
            self.is_newest(lease);
            // Recorded, and nobody hears of it.
            self.weather().await
        })
    }
    fn conclude(
        &self,
        about: QueueId,
        states: Vec<(u32, RecipientState)>,
        report: Option<Report>,
    ) -> Answer<'_, bool> {
        Box::pin(async move {
            self.weather().await?;
            let done = self.inner.conclude(about, states, report).await?;
            match self.weather().await {
                Ok(()) | Err(_) => Ok(done),
            }
        })
    }
    fn count<'a>(&'a self, domain: &'a Domain) -> Answer<'a, Count> {
        self.counts.fetch_add(1, Ordering::Relaxed);
        self.inner.count(domain)
    }
    fn usage<'a>(&'a self, customer: &'a CustomerName) -> Answer<'a, Count> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.usage(customer)
    }
    fn queues(
        &self,
        after: Option<Domain>,
        limit: usize,
    ) -> Answer<'_, Vec<(Domain, CustomerName, Count)>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.inner.queues(after, limit)
    }
    fn query(&self, filter: Filter, after: Option<QueueId>, limit: usize) -> Answer<'_, Vec<Head>> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.weather().await?;
            self.inner.query(filter, after, limit).await
        })
    }
    fn apply(&self, filter: Filter, action: QueueAction) -> Answer<'_, u64> {
        self.inner.apply(filter, action)
    }
    fn overdue(&self, now: Timestamp, limit: usize) -> Answer<'_, Vec<Head>> {
        self.inner.overdue(now, limit)
    }
    fn changes(&self, domains: &[Domain]) -> futures::stream::BoxStream<'static, Changed> {
        self.inner.changes(domains)
    }
    fn health(&self) -> Answer<'_, Health> {
        self.inner.health()
    }
    fn maintain(&self) -> Answer<'_, ()> {
        self.inner.maintain()
    }
    fn close(&self) -> Answer<'_, ()> {
        self.inner.close()
    }
}

/// Gives chunks of any size, and may break off.
struct Reader {
    inner: Box<dyn BodyReader>,
    dice: Dice,
    rest: Bytes,
    given: u64,
    breaks: Option<u64>,
    id: QueueId,
}

impl BodyReader for Reader {
    fn read(&mut self) -> Answer<'_, Bytes> {
        Box::pin(async move {
            if self.rest.is_empty() {
                self.rest = self.inner.read().await?;
            }
            if self.breaks.is_some_and(|at| self.given >= at) {
                return Err(StoreError::Corrupt(self.id));
            }
            let octets = if self.dice.once_in(2) {
                self.rest.len()
            } else {
                self.rest.len().min(1 + self.dice.below(900))
            };
            let chunk = self.rest.split_to(octets);
            self.given += chunk.len() as u64;
            Ok(chunk)
        })
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
}
