//! A world whose clock moves only when a transcript says so.

use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use restante::mail::Timestamp;
use restante::provider::World;

/// See the head of this file. Chance is real.
#[derive(Default)]
pub(crate) struct StagedWorld(Mutex<State>);

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl StagedWorld {
    /// This much time passes.
    pub(crate) fn pass(&self, span: Duration) {
        let mut state = self.0.lock().expect("no panic holds it");
        state.now += span;
        let now = state.now;
        let (awake, asleep) =
            std::mem::take(&mut state.sleepers).into_iter().partition(|(until, _)| *until <= now);
        state.sleepers = asleep;
        let awake: Vec<(Duration, oneshot::Sender<()>)> = awake;
        for (_, sleeper) in awake {
            // Whoever gave up waiting need not be woken.
            let _ = sleeper.send(());
        }
    }
}

impl World for StagedWorld {
    fn now(&self) -> Timestamp {
        let since = u64::try_from(self.monotonic().as_millis()).expect("small");
        Timestamp(1_795_317_540_000 + since)
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().expect("no panic holds it").now
    }

    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }

    fn wait(&self, span: Duration) -> BoxFuture<'static, ()> {
        if span.is_zero() {
            return Box::pin(async {});
        }
        let (sleeper, awake) = oneshot::channel();
        let mut state = self.0.lock().expect("no panic holds it");
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_canceled());
        let until = state.now + span;
        state.sleepers.push((until, sleeper));
        Box::pin(awake.map(|_| ()))
    }
}
