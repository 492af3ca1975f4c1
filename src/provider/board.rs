//! The status board: what goes on right now, and how the last drain of each customer ended.
//!
//! Written by the desk, the drain and the listeners; read by `status`. It holds no mail and decides nothing; all
//! of it is forgotten at a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::mail::{CustomerName, Fact, QueueId, Timestamp};
use crate::smtp::Door;

/// From so many places on, some are kept for customers.
const MANY: usize = 1000;

/// One bound listener.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listener {
    /// Its name in `[listen]`: `mx`, `mxs`, `odmr`, `odmrs`, `http`.
    pub name: String,
    /// The address it is really bound to.
    pub address: SocketAddr,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LastDrain {
    /// Whose.
    pub customer: CustomerName,
    /// `atrn` or `etrn`.
    pub path: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients kept for later.
    pub deferred: u64,
    /// Recipients refused for good.
    pub failed: u64,
    /// Messages of which at least one recipient was delivered.
    pub messages: u64,
    /// Octets of those messages.
    pub bytes: u64,
    /// `quit`, `lost`, `timeout`, … as in the log's `drained ended=`.
    pub ended: String,
    /// What to know or do about it, if it did not end with `quit`.
    pub detail: Option<String>,
}

/// Sessions by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Sessions {
    /// On `mx` and `mxs`.
    pub mx: u64,
    /// On `odmr` and `odmrs`, before the turn.
    pub odmr: u64,
    /// Reversed connections.
    pub drains: u64,
}

#[derive(Default)]
struct State {
    listeners: Vec<Listener>,
    sessions: Sessions,
    addresses: HashMap<IpAddr, usize>,
    drains: BTreeMap<CustomerName, LastDrain>,
    on_the_way: HashSet<QueueId>,
    tally: Tally,
}

/// Counted since the start.
#[derive(Clone, Copy, Default)]
struct Tally {
    accepted: u64,
    accepted_bytes: u64,
    refused: u64,
    logins: u64,
    login_failures: u64,
    turns: u64,
    turns_refused: u64,
    drains: u64,
    delivered: u64,
    deferred: u64,
    failed: u64,
}

/// The board. Cheap to share; every call is short.
#[derive(Default)]
pub struct Board(Mutex<State>);

/// What a session occupies; dropping it frees the place.
pub struct Place<'a> {
    board: &'a Board,
    door: Door,
    address: IpAddr,
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counters, not invariants, half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a session, if the limits leave one. Of many places some are kept from the MX door, so that
    /// a flood of mail leaves customers a way in.
    #[must_use]
    pub fn enter(
        &self,
        door: Door,
        peer: IpAddr,
        sessions_max: usize,
        per_address: usize,
    ) -> Option<Place<'_>> {
        let address = counted_as(peer);
        let mut state = self.state();
        let all = state.sessions.mx + state.sessions.odmr + state.sessions.drains;
        let here = state.addresses.get(&address).copied().unwrap_or_default();
        let kept = if door == Door::Mx && sessions_max >= MANY { sessions_max / 16 } else { 0 };
        if all >= (sessions_max - kept) as u64 || here >= per_address {
            return None;
        }
        *state.addresses.entry(address).or_default() += 1;
        match door {
            Door::Mx => state.sessions.mx += 1,
            Door::Odmr => state.sessions.odmr += 1,
        }
        drop(state);
        Some(Place { board: self, door, address })
    }

    /// A drain begins: these counts show it as such until [`Board::drained`].
    pub fn draining(&self) {
        self.state().sessions.drains += 1;
    }

    /// A drain ended.
    pub fn drained(&self, drain: LastDrain) {
        let mut state = self.state();
        state.sessions.drains = state.sessions.drains.saturating_sub(1);
        state.tally.drains += 1;
        state.tally.delivered += drain.delivered;
        state.tally.deferred += drain.deferred;
        state.tally.failed += drain.failed;
        state.drains.insert(drain.customer.clone(), drain);
    }

    /// Counts a session's fact.
    pub fn count(&self, fact: &Fact) {
        let mut state = self.state();
        let tally = &mut state.tally;
        match fact {
            Fact::Accepted { size, .. } => {
                tally.accepted += 1;
                tally.accepted_bytes += size;
            }
            Fact::Refused { .. } => tally.refused += 1,
            Fact::LoggedIn { .. } => tally.logins += 1,
            Fact::LoginFailed { .. } => tally.login_failures += 1,
            Fact::Turn { .. } => tally.turns += 1,
            Fact::TurnRefused { .. } => tally.turns_refused += 1,
            Fact::Etrn { .. } | Fact::Tolerated(_) => {}
        }
    }

    /// What was counted since the start: name of the counter, what it means, its value.
    #[must_use]
    pub fn tally(&self) -> Vec<(&'static str, &'static str, u64)> {
        let tally = self.state().tally;
        vec![
            ("messages_accepted_total", "Messages made durable.", tally.accepted),
            ("bytes_accepted_total", "Octets of those messages.", tally.accepted_bytes),
            ("refusals_total", "Commands and messages refused.", tally.refused),
            ("logins_total", "Successful logins.", tally.logins),
            ("login_failures_total", "Failed logins.", tally.login_failures),
            ("turns_total", "ATRN granted.", tally.turns),
            ("turns_refused_total", "ATRN refused.", tally.turns_refused),
            ("drains_total", "Drains ended.", tally.drains),
            ("recipients_delivered_total", "Recipients delivered.", tally.delivered),
            ("recipients_deferred_total", "Recipients kept after a 4yz.", tally.deferred),
            ("recipients_failed_total", "Recipients refused for good.", tally.failed),
        ]
    }

    /// This message is on its way to its customer.
    pub fn offered(&self, id: QueueId) {
        self.state().on_the_way.insert(id);
    }

    /// It no longer is.
    pub fn settled(&self, id: QueueId) {
        self.state().on_the_way.remove(&id);
    }

    /// Whether this message is on its way.
    #[must_use]
    pub fn is_on_the_way(&self, id: QueueId) -> bool {
        self.state().on_the_way.contains(&id)
    }

    /// A listener is bound.
    pub fn listening(&self, listener: Listener) {
        self.state().listeners.push(listener);
    }

    /// The listeners.
    #[must_use]
    pub fn listeners(&self) -> Vec<Listener> {
        self.state().listeners.clone()
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.state().sessions
    }

    /// The last drain of each customer that had one since the start, by name.
    #[must_use]
    pub fn last_drains(&self) -> Vec<LastDrain> {
        self.state().drains.values().cloned().collect()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.board.state();
        match self.door {
            Door::Mx => state.sessions.mx = state.sessions.mx.saturating_sub(1),
            Door::Odmr => state.sessions.odmr = state.sessions.odmr.saturating_sub(1),
        }
        if let Some(count) = state.addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.addresses.remove(&self.address);
            }
        }
    }
}

/// IPv6 counts by /64, since one line has that many addresses; IPv4 as it is.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & (!0u128 << 64)).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_freed() {
        let board = Board::default();
        let near: IpAddr = "2001:db8::1".parse().expect("valid");
        let same_line: IpAddr = "2001:db8::2".parse().expect("valid");
        let far: IpAddr = "192.0.2.1".parse().expect("valid");
        let first = board.enter(Door::Mx, near, 2, 1).expect("a place");
        assert!(board.enter(Door::Mx, same_line, 2, 1).is_none());
        let second = board.enter(Door::Odmr, far, 2, 1).expect("a place");
        assert!(board.enter(Door::Odmr, "192.0.2.2".parse().expect("valid"), 2, 1).is_none());
        assert_eq!(board.sessions(), Sessions { mx: 1, odmr: 1, drains: 0 });
        drop((first, second));
        assert_eq!(board.sessions(), Sessions::default());
        assert!(board.enter(Door::Mx, same_line, 2, 1).is_some());
    }

    #[test]
    fn a_flood_of_mail_leaves_customers_a_way_in() {
        let board = Board::default();
        let peer: IpAddr = "192.0.2.1".parse().expect("valid");
        let enter = |door| board.enter(door, peer, MANY, usize::MAX);
        let mut mail: Vec<Place<'_>> = Vec::new();
        while let Some(place) = enter(Door::Mx) {
            mail.push(place);
        }
        assert_eq!(mail.len(), MANY - MANY / 16);
        assert!(enter(Door::Odmr).is_some());
    }
}
