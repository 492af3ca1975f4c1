//! Rounds: the calls that the provider makes by itself, for ETRN and for the way out.
//!
//! Run by the program as background tasks, one for each path. One connection for each destination at a time (a
//! customer's host, a foreign domain, the smart host); wishes that come meanwhile join it. A destination that
//! cannot be reached is tried again with growing pauses for as long as mail waits; expiry puts an end to it. A
//! thousand wishes cost one call.
//!
//! Keeps RFC 1985 §5.1, RFC 5321 §4.5.4.1 (retry strategies).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, Either, FutureExt, select};
use futures::stream::FuturesUnordered;

use super::bell::Call as Ring;
use super::board::LastDrain;
use super::call::{Call, CallError, Caller};
use super::drain::Way;
use super::ledger::TARGET;
use super::office::Office;
use super::policy::RelayRoute;
use super::turn::{LEASE_LASTS, OVERTHROW_AFTER};
use super::{etrn, relay};
use crate::mail::{CustomerName, Domain, Lease, Secret};
use crate::store::{LeaseAnswer, LeaseRequest, StoreError};

/// Calls under way at the same time on one path.
const CALLS_MAX: usize = 64;
/// A destination whose last call moved no mail is not called again sooner, however often that is asked for.
pub const PAUSE: Duration = Duration::from_secs(60);

/// A wish to have a queue delivered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush {
    /// Whose.
    pub customer: CustomerName,
    /// Which queue.
    pub domain: Domain,
    /// The operator wants it now, whatever the pauses are.
    pub by_hand: bool,
}

/// On whose behalf.
#[derive(Clone)]
enum Plan {
    Etrn,
    /// With the login at a smart host.
    Relay(Option<(String, Secret)>),
}

impl Plan {
    const fn way(&self) -> Way {
        match self {
            Self::Etrn => Way::Etrn,
            Self::Relay(_) => Way::Relay,
        }
    }
}

/// Messages ready in these queues.
pub(super) async fn waiting(office: &Office, domains: &[Domain]) -> Result<u64, StoreError> {
    let mut sum = 0u64;
    for domain in domains {
        sum = sum.saturating_add(office.store.count(domain).await?.ready);
    }
    Ok(sum)
}

/// What is to be done for one destination.
#[derive(Debug, Default)]
struct Round {
    customer: Option<CustomerName>,
    domains: BTreeSet<Domain>,
    /// Not before this time.
    due: Duration,
    is_running: bool,
    /// Failed calls in a row.
    failures: usize,
    /// When the last call that moved no mail began.
    in_vain: Option<Duration>,
}

/// How a call ended.
enum End {
    /// A drain was made.
    Drained(Box<LastDrain>),
    /// The host could not be used.
    Unreachable(String),
    /// Somebody drains the queue already.
    Busy,
    /// There is nothing to do any more.
    Nothing,
}

type Ended = (Box<str>, Duration, End);

/// What [`Rounds`] wait for.
enum Happening {
    Wished(Vec<Flush>),
    Ended(Ended),
    Due,
}

/// See the module's head.
pub struct Rounds {
    office: Arc<Office>,
    caller: Arc<dyn Caller>,
    plan: Plan,
    rounds: BTreeMap<Box<str>, Round>,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Rounds {
    /// The rounds of the ETRN path.
    #[must_use]
    pub fn etrn(office: Arc<Office>, caller: Arc<dyn Caller>) -> Self {
        Self::new(office, caller, Plan::Etrn)
    }

    /// The rounds of the way out, with the login at a smart host.
    #[must_use]
    pub fn relay(
        office: Arc<Office>,
        caller: Arc<dyn Caller>,
        login: Option<(String, Secret)>,
    ) -> Self {
        Self::new(office, caller, Plan::Relay(login))
    }

    fn new(office: Arc<Office>, caller: Arc<dyn Caller>, plan: Plan) -> Self {
        Self { office, caller, plan, rounds: BTreeMap::new(), running: FuturesUnordered::new() }
    }

    /// Works until dropped. A call under way is dropped with it.
    pub async fn run(mut self) {
        if matches!(self.plan, Plan::Relay(_)) {
            relay::look_around(&self.office).await;
        }
        loop {
            let next = self.start();
            match self.happens(next).await {
                Happening::Wished(flushes) => flushes.into_iter().for_each(|f| self.wish(f)),
                Happening::Ended(ended) => self.ended(ended).await,
                Happening::Due => {}
            }
        }
    }

    /// Waits for the next thing to happen, at most until something is due.
    async fn happens(&mut self, next: Option<Duration>) -> Happening {
        let nap = match next {
            Some(span) => self.office.world.wait(span),
            None => futures::future::pending().boxed(),
        };
        let running = &mut self.running;
        let ended = async {
            match running.next().await {
                Some(ended) => ended,
                None => futures::future::pending().await,
            }
        };
        let heard = match self.plan {
            Plan::Etrn => self.office.flushes.heard().boxed(),
            Plan::Relay(_) => self.office.outgoing.heard().boxed(),
        };
        match select(heard, select(Box::pin(ended), nap)).await {
            Either::Left((Ring::Some(flushes), _)) => Happening::Wished(flushes),
            // More wishes than can be remembered: who was forgotten asks again.
            Either::Left((Ring::Everything, _)) | Either::Right((Either::Right(_), _)) => {
                Happening::Due
            }
            Either::Right((Either::Left((ended, _)), _)) => Happening::Ended(ended),
        }
    }

    fn wish(&mut self, flush: Flush) {
        let now = self.office.world.monotonic();
        let key: Box<str> = match &self.plan {
            Plan::Etrn => flush.customer.as_str().into(),
            Plan::Relay(_) => match &self.office.policy().relay.route {
                RelayRoute::Exchangers => flush.domain.as_str().into(),
                RelayRoute::Host(_) => "smart host".into(),
                RelayRoute::Nowhere => return,
            },
        };
        let round = self.rounds.entry(key).or_default();
        round.customer = Some(flush.customer);
        round.domains.insert(flush.domain);
        let soonest = match round.in_vain {
            Some(began) if !flush.by_hand => began + PAUSE,
            _ => now,
        };
        // A new wish shortens the pause after failures, and never lengthens it.
        round.due =
            if round.due > now { round.due.min(soonest.max(now)) } else { soonest.max(now) };
    }

    /// Starts what is due; answers how long until the next is.
    fn start(&mut self) -> Option<Duration> {
        let now = self.office.world.monotonic();
        let mut next: Option<Duration> = None;
        for (key, round) in &mut self.rounds {
            let Some(customer) = round.customer.clone() else { continue };
            if round.is_running || round.domains.is_empty() {
                continue;
            }
            if round.due > now {
                next = Some(next.map_or(round.due, |next| next.min(round.due)));
                continue;
            }
            if self.running.len() >= CALLS_MAX {
                continue;
            }
            round.is_running = true;
            let domains: Vec<Domain> = round.domains.iter().cloned().collect();
            let (office, caller, key) = (self.office.clone(), self.caller.clone(), key.clone());
            let plan = self.plan.clone();
            self.running.push(
                async move {
                    let end = call(&office, &*caller, &plan, &customer, domains).await;
                    (key, now, end)
                }
                .boxed(),
            );
        }
        next.map(|due| due.saturating_sub(now))
    }

    async fn ended(&mut self, (key, began, end): Ended) {
        let now = self.office.world.monotonic();
        let Some(round) = self.rounds.get_mut(&key) else { return };
        round.is_running = false;
        round.in_vain = match &end {
            End::Drained(last) if last.delivered > 0 => None,
            _ => Some(began),
        };
        let domains: Vec<Domain> = round.domains.iter().cloned().collect();
        let left = match end {
            End::Nothing => 0,
            _ => waiting(&self.office, &domains).await.unwrap_or(1),
        };
        if left == 0 {
            // What is in vain is remembered for a while, so that asking again does not call again at once.
            round.domains.clear();
            round.failures = 0;
            round.due = Duration::ZERO;
            if round.in_vain.is_none() {
                self.rounds.remove(&key);
            }
            return;
        }
        let policy = self.office.policy();
        let retry = match &self.plan {
            Plan::Etrn => policy.etrn.as_deref().unwrap_or_default(),
            Plan::Relay(_) => relay::RETRY,
        };
        let pause = match &end {
            // Mail came in while the drain was ending.
            End::Drained(last)
                if last.delivered > 0 && last.deferred == 0 && last.ended == "quit" =>
            {
                round.failures = 0;
                Duration::ZERO
            }
            End::Busy => PAUSE,
            _ => {
                let pause = retry.get(round.failures).or(retry.last()).copied();
                round.failures += 1;
                pause.map_or(PAUSE, Duration::from)
            }
        };
        round.due = now + pause;
        if let End::Unreachable(why) = end {
            let (to, path, again) = (&*key, self.plan.way().as_str(), pause.as_secs());
            log::warn!(target: TARGET, to = to, path = path, error = why, retry = again; "unreachable");
        }
    }
}

/// Makes the first call of the ETRN path that is wished for, if any; for a command without a running provider.
///
/// # Errors
/// Why the host could not be used, in one line.
pub async fn once(office: &Office, caller: &dyn Caller) -> Result<Option<LastDrain>, String> {
    let Some(Ring::Some(wishes)) = office.flushes.heard().now_or_never() else { return Ok(None) };
    let Some(first) = wishes.first() else { return Ok(None) };
    let domains = wishes
        .iter()
        .filter(|wish| wish.customer == first.customer)
        .map(|wish| wish.domain.clone())
        .collect();
    match call(office, caller, &Plan::Etrn, &first.customer, domains).await {
        End::Drained(last) => Ok(Some(*last)),
        End::Unreachable(why) => Err(why),
        End::Busy | End::Nothing => Ok(None),
    }
}

/// One call for one destination.
async fn call(
    office: &Office,
    caller: &dyn Caller,
    plan: &Plan,
    customer: &CustomerName,
    mut domains: Vec<Domain>,
) -> End {
    let (order, login) = match plan {
        Plan::Etrn => {
            let Ok(Some(customer)) = office.directory.customer(customer).await else {
                return End::Nothing;
            };
            domains.retain(|domain| customer.domains.contains(domain));
            (etrn::order(&customer), None)
        }
        Plan::Relay(login) => relay::order(&office.policy(), domains.first(), login.as_ref()),
    };
    let Some((place, tls, identity)) = order else { return End::Nothing };
    match waiting(office, &domains).await {
        Ok(0) => return End::Nothing,
        Ok(_) => {}
        Err(error) => return End::Unreachable(error.to_string()),
    }
    let lease = match lease(office, customer, domains, plan.way()).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return End::Busy,
        Err(error) => return End::Unreachable(error.to_string()),
    };
    let leased = lease.domains().to_vec();
    match caller.call(Call { lease, way: plan.way(), place, tls, identity, login }).await {
        Ok(last) => End::Drained(Box::new(last)),
        Err(CallError::Later(why)) => End::Unreachable(why),
        Err(CallError::Never(why)) => {
            if let Err(error) = relay::give_up(office, customer, leased, &why).await {
                return End::Unreachable(error.to_string());
            }
            End::Unreachable(why)
        }
    }
}

/// The queues that are free now, all in one lease.
pub(super) async fn lease(
    office: &Office,
    customer: &CustomerName,
    mut domains: Vec<Domain>,
    way: Way,
) -> Result<Option<Lease>, StoreError> {
    while !domains.is_empty() {
        let wish = LeaseRequest {
            customer: customer.clone(),
            domains: domains.clone(),
            owner: way.as_str().to_owned(),
            lasts: LEASE_LASTS,
            overthrow_after: OVERTHROW_AFTER,
        };
        match office.store.lease(wish).await? {
            LeaseAnswer::Granted(lease) => return Ok(Some(lease)),
            LeaseAnswer::Busy { domain, .. } => domains.retain(|other| *other != domain),
        }
    }
    Ok(None)
}
