//! Abuse: how long a verdict waits after failed logins, and how often a customer may ask in vain.
//!
//! Called by the account desk and by the turn, with the monotonic clock. It never locks anybody out: a right
//! password that comes from an address without failures is never kept waiting by the guesses of others, and every
//! wait has an end. All of it is forgotten after a while and at a restart.
//!
//! Keeps RFC 4954 §9 (limits on guessing), RFC 2645 §5.2.1 (450 to a customer that asks too often).

mod table;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::table::Table;
use super::board::counted_as;
use crate::mail::CustomerName;

/// Addresses, names and customers that are remembered, each. The oldest make room for new ones.
const REMEMBERED_MAX: usize = 16_384;
/// Failures are forgotten when none came for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// No verdict waits longer, however many guesses stand in the line of one address.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long calls in vain are counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// Failures of an address or a name.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: usize,
    /// The next verdict for this address is not due before.
    free_at: Duration,
}

/// Calls in vain, as a bucket that fills evenly over a minute.
#[derive(Clone, Copy, Debug)]
struct Calls {
    left: f64,
    as_of: Duration,
}

#[derive(Default)]
struct State {
    addresses: Table<IpAddr, Failures>,
    names: Table<Box<str>, Failures>,
    calls: Table<CustomerName, Calls>,
}

/// The memory of failures. Cheap to share; every call is short.
#[derive(Default)]
pub struct Abuse(Mutex<State>);

impl Abuse {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counters, not invariants, half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the verdict on a login from `peer` waits, right or wrong: only the address's own failures count.
    #[must_use]
    pub fn before_verdict(&self, peer: IpAddr, now: Duration) -> Duration {
        let state = self.state();
        let known = state.addresses.find(&counted_as(peer), now, FORGOTTEN_AFTER);
        let due = known.map_or(Duration::ZERO, |failures| failures.free_at);
        due.saturating_sub(now).min(WAIT_MAX)
    }

    /// A login failed: how long the refusal waits. `delays` are those after the first, second, … failure; the last
    /// repeats. Names that nobody has count like others, so that the wait tells nothing.
    #[must_use]
    pub fn failed(&self, peer: IpAddr, name: &str, now: Duration, delays: &[Duration]) -> Duration {
        let after = |count: usize| {
            let place = count.min(delays.len()).checked_sub(1);
            place.and_then(|place| delays.get(place)).copied().unwrap_or_default()
        };
        let mut state = self.state();
        let address = state.addresses.take(counted_as(peer), now, FORGOTTEN_AFTER);
        address.count += 1;
        // Guesses in parallel stand in one line, so that many sessions gain nothing.
        address.free_at = address.free_at.max(now).saturating_add(after(address.count));
        let own = address.free_at.saturating_sub(now);
        let name = state.names.take(name.into(), now, FORGOTTEN_AFTER);
        name.count += 1;
        own.max(after(name.count)).min(WAIT_MAX)
    }

    /// Whether the customer may call now: not if it used up its calls in vain, `per_minute` of them.
    #[must_use]
    pub fn may_call(&self, customer: &CustomerName, now: Duration, per_minute: u32) -> bool {
        let known = self.state().calls.find(customer, now, MINUTE).copied();
        known.is_none_or(|calls| calls.refilled(now, per_minute) >= 1.0)
    }

    /// A call of this customer moved no mail.
    pub fn called_in_vain(&self, customer: &CustomerName, now: Duration, per_minute: u32) {
        let mut state = self.state();
        let full = Calls { left: f64::from(per_minute), as_of: now };
        let calls = state.calls.take_or(customer.clone(), now, MINUTE, full);
        *calls = Calls { left: (calls.refilled(now, per_minute) - 1.0).max(0.0), as_of: now };
    }
}

impl Calls {
    fn refilled(self, now: Duration, per_minute: u32) -> f64 {
        let gone = now.saturating_sub(self.as_of).as_secs_f64() / MINUTE.as_secs_f64();
        f64::from(per_minute).min(self.left + gone * f64::from(per_minute))
    }
}

#[cfg(test)]
mod tests;
