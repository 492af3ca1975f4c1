//! A clock that jumps to the next thing that somebody waits for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use restante::mail::Timestamp;
use restante::provider::World;

#[derive(Default)]
struct State {
    now: Duration,
    last: u64,
    waiting: BTreeMap<(Duration, u64), Waker>,
    chance: u64,
    /// Seconds that the wall clock goes ahead of the other.
    wall_ahead: i64,
}

/// The virtual world; clones share it.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<State>>);

/// The wall clock at the start.
pub const BEGIN: u64 = 1_795_317_540_000;

impl Clock {
    pub fn now(&self) -> Duration {
        self.0.lock().expect("whole").now
    }

    /// Sets the wall clock by hand.
    pub fn set_wall_ahead(&self, seconds: i64) {
        self.0.lock().expect("whole").wall_ahead = seconds;
    }

    /// Jumps to the nearest point that is waited for; false if there is none.
    pub fn jump(&self) -> bool {
        let mut state = self.0.lock().expect("whole");
        let Some((at, _)) = state.waiting.keys().next().copied() else { return false };
        state.now = state.now.max(at);
        let now = state.now;
        let later = state.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }
}

struct Wait {
    clock: Clock,
    key: (Duration, u64),
}

impl Future for Wait {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.0.lock().expect("whole");
        if state.now >= self.key.0 {
            return Poll::Ready(());
        }
        state.waiting.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.clock.0.lock().expect("whole").waiting.remove(&self.key);
    }
}

impl World for Clock {
    fn now(&self) -> Timestamp {
        let ahead = self.0.lock().expect("whole").wall_ahead * 1000;
        let since = u64::try_from(Clock::now(self).as_millis()).expect("in this age");
        Timestamp((BEGIN + since).saturating_add_signed(ahead))
    }
    fn monotonic(&self) -> Duration {
        Clock::now(self)
    }
    fn chance(&self, place: &mut [u8]) {
        let mut state = self.0.lock().expect("whole");
        for octet in place {
            state.chance = state.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *octet = (state.chance >> 33) as u8;
        }
    }
    fn wait(&self, span: Duration) -> futures::future::BoxFuture<'static, ()> {
        let mut state = self.0.lock().expect("whole");
        state.last += 1;
        let key = (state.now + span, state.last);
        drop(state);
        Box::pin(Wait { clock: self.clone(), key })
    }
}
