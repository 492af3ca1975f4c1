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
use super::call::Caller;
use super::ledger::TARGET;
use super::office::Office;
use super::outing::{End, Plan, call, waiting};
use super::policy::RelayRoute;
use super::relay;
use crate::mail::{CustomerName, Domain};

/// Calls under way at the same time on one path.
const CALLS_MAX: usize = 64;
/// A destination whose last call moved no mail is not called again sooner, however often that is asked for. Short,
/// since a customer that asks again may have mended its server.
pub const PAUSE: Duration = Duration::from_secs(10);
/// When a queue that somebody else drains is looked at again.
const BUSY: Duration = Duration::from_secs(60);

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

type Ended = (Box<str>, Duration, End);

/// What [`Rounds`] wait for.
enum Happening {
    Wished(Vec<Flush>),
    /// Look at everything; these were wished for as well.
    Everything(Vec<Flush>),
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
    /// The route of the way out by which the keys were made.
    route: RelayRoute,
    /// When what is over was last forgotten.
    tidied: Duration,
}

impl Rounds {
    /// The rounds of the ETRN path.
    #[must_use]
    pub fn etrn(office: Arc<Office>, caller: Arc<dyn Caller>) -> Self {
        Self::new(office, caller, Plan::Etrn)
    }

    /// The rounds of the way out.
    #[must_use]
    pub fn relay(office: Arc<Office>, caller: Arc<dyn Caller>) -> Self {
        Self::new(office, caller, Plan::Relay)
    }

    fn new(office: Arc<Office>, caller: Arc<dyn Caller>, plan: Plan) -> Self {
        let (rounds, running) = (BTreeMap::new(), FuturesUnordered::new());
        let (route, tidied) = (office.policy().relay.route.clone(), Duration::ZERO);
        Self { office, caller, plan, rounds, running, route, tidied }
    }

    /// Works until dropped. A call under way is dropped with it.
    pub async fn run(mut self) {
        self.look_around().await;
        loop {
            let next = self.start();
            match self.happens(next).await {
                Happening::Wished(flushes) => flushes.into_iter().for_each(|f| self.wish(f)),
                Happening::Everything(flushes) => {
                    // On the ETRN path, who was forgotten asks again.
                    flushes.into_iter().for_each(|f| self.wish(f));
                    self.look_around().await;
                }
                Happening::Ended(ended) => {
                    self.ended(ended).await;
                    while let Some(Some(ended)) = self.running.next().now_or_never() {
                        self.ended(ended).await;
                    }
                }
                Happening::Due => {}
            }
        }
    }

    /// The way out: wishes for everything that waits, since nobody else remembers it: after a start, with another
    /// route, and when there was more than can be remembered.
    async fn look_around(&mut self) {
        if self.plan == Plan::Etrn {
            return;
        }
        // Pauses of a route that is no more mean nothing.
        self.rounds.retain(|_, round| round.is_running);
        let mut after = None;
        loop {
            match relay::waiting_after(&self.office, after).await {
                Ok((_, None)) => return,
                Ok((flushes, last)) => {
                    flushes.into_iter().for_each(|flush| self.wish(flush));
                    after = last;
                }
                Err(error) => {
                    let error = error.to_string();
                    log::error!(target: TARGET, what = "relay", error = error; "store-trouble");
                    return;
                }
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
            Plan::Relay => self.office.outgoing.heard().boxed(),
        };
        match select(heard, select(Box::pin(ended), nap)).await {
            Either::Left((Ring::Some(flushes), _)) => Happening::Wished(flushes),
            Either::Left((Ring::Everything(flushes), _)) => Happening::Everything(flushes),
            Either::Right((Either::Right(_), _)) => Happening::Due,
            Either::Right((Either::Left((ended, _)), _)) => Happening::Ended(ended),
        }
    }

    /// Who would be called for this queue: what is one destination has one connection at a time.
    fn key(&self, customer: &CustomerName, domain: &Domain) -> Option<Box<str>> {
        match self.plan {
            Plan::Etrn => Some(customer.as_str().into()),
            Plan::Relay => match &self.office.policy().relay.route {
                RelayRoute::Exchangers => Some(domain.as_str().into()),
                host @ RelayRoute::Host(_) => Some(format!("smart host {host}").into()),
                RelayRoute::Nowhere => None,
            },
        }
    }

    fn wish(&mut self, flush: Flush) {
        let now = self.office.world.monotonic();
        let Some(key) = self.key(&flush.customer, &flush.domain) else { return };
        let round = self.rounds.entry(key).or_default();
        round.customer = Some(flush.customer);
        round.domains.insert(flush.domain);
        let soonest = match round.in_vain {
            Some(began) if !flush.by_hand => began + PAUSE,
            _ => now,
        };
        round.due = match round.due {
            // One more report says nothing about the host that could not be reached (RFC 5321 §4.5.4.1).
            due if due > now && self.plan == Plan::Relay => due,
            // A customer's own wish shortens the pause after failures, and never lengthens it.
            due if due > now => due.min(soonest.max(now)),
            _ => soonest.max(now),
        };
    }

    /// Follows a route that changed, and forgets what was in vain a while ago: else every forged sender would leave
    /// a trace.
    fn tidy(&mut self, now: Duration) {
        let route = &self.office.policy().relay.route;
        if self.plan == Plan::Relay && self.route != *route {
            self.route = route.clone();
            let moved: Vec<Box<str>> =
                self.rounds.keys().filter(|key| self.has_moved(key)).cloned().collect();
            moved.iter().for_each(|key| self.move_on(key));
        }
        if now < self.tidied + PAUSE {
            return;
        }
        self.tidied = now;
        self.rounds.retain(|_, round| {
            let is_idle = round.domains.is_empty() && !round.is_running;
            !is_idle || round.in_vain.is_some_and(|began| began + PAUSE > now)
        });
    }

    /// Starts what is due; answers how long until the next is.
    fn start(&mut self) -> Option<Duration> {
        let now = self.office.world.monotonic();
        self.tidy(now);
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
                // Before one of them ends there is nothing to do.
                return None;
            }
            round.is_running = true;
            let domains: Vec<Domain> = round.domains.iter().cloned().collect();
            let (office, caller, key) = (self.office.clone(), self.caller.clone(), key.clone());
            let plan = self.plan;
            self.running.push(
                async move {
                    let end = call(&office, &*caller, plan, &customer, domains).await;
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
            End::Empty => None,
            _ => Some(began),
        };
        if self.plan == Plan::Etrn
            && let Some(name) = &round.customer
            && let Ok(Some(customer)) = self.office.directory.customer(name).await
        {
            // What became somebody else's meanwhile is not this customer's to be called for.
            round.domains.retain(|domain| customer.domains.contains(domain));
        }
        let domains: Vec<Domain> = round.domains.iter().cloned().collect();
        if self.has_moved(&key) {
            return self.move_on(&key);
        }
        // Mail and wishes that came meanwhile count, whatever this call was for.
        let left = match end {
            End::Nowhere => 0,
            _ => waiting(&self.office, &domains).await.unwrap_or(1),
        };
        let Some(round) = self.rounds.get_mut(&key) else { return };
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
            Plan::Relay => relay::RETRY,
        };
        let pause = match &end {
            // Mail came in while the drain was ending.
            End::Drained(last)
                if last.delivered > 0 && last.deferred == 0 && last.ended == "quit" =>
            {
                round.failures = 0;
                Duration::ZERO
            }
            End::Busy => BUSY,
            // Counted as waiting, and yet nothing to call for: at once would be for ever.
            End::Empty => PAUSE,
            _ => {
                let pause = retry.get(round.failures).or(retry.last()).copied();
                round.failures += 1;
                pause.map_or(BUSY, Duration::from)
            }
        };
        round.due = now + pause;
        if let End::Unreachable(why) = end {
            let (to, path, again) = (&*key, self.plan.way().as_str(), pause.as_secs());
            log::warn!(target: TARGET, to = to, path = path, error = why, retry = again; "unreachable");
        }
    }

    /// Whether this destination is none any more, since the route changed. While it is called, it stays.
    fn has_moved(&self, key: &str) -> bool {
        let Some(round) = self.rounds.get(key).filter(|round| !round.is_running) else {
            return false;
        };
        let customer = round.customer.as_ref();
        customer
            .zip(round.domains.first())
            .is_some_and(|(customer, domain)| self.key(customer, domain).as_deref() != Some(key))
    }

    /// Wishes for the queues of such a destination, by the route as it is now.
    fn move_on(&mut self, key: &str) {
        let Some(round) = self.rounds.remove(key) else { return };
        let Some(customer) = round.customer else { return };
        for domain in round.domains {
            self.wish(Flush { customer: customer.clone(), domain, by_hand: false });
        }
    }
}
