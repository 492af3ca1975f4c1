//! Age: the time by which mail is given up, which a jump of the wall clock does not move forward.
//!
//! Asked by expiry and by the reporter. A host whose clock jumps a year ahead must not give up all its mail at once:
//! a jump forward of more than an hour is not followed; the time goes on from before it at the pace of the
//! monotonic clock, until the wall clock comes back or the program is started again. A jump back is followed at
//! once, since it makes mail younger.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::world::World;
use crate::mail::{Seconds, Timestamp};

/// The largest step forward, beyond what the monotonic clock says, that is believed.
pub const JUMP_MAX: Seconds = Seconds(3600);

/// See the module's head.
#[derive(Debug)]
pub struct Age(Mutex<Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    trusted: Timestamp,
    at: Duration,
    /// The log was told of this jump.
    is_told: bool,
}

impl Age {
    /// Believes the clock as it is now.
    #[must_use]
    pub fn new(world: &dyn World) -> Self {
        let seen = Seen { trusted: world.now(), at: world.monotonic(), is_told: false };
        Self(Mutex::new(seen))
    }

    /// The time to measure ages with.
    pub fn now(&self, world: &dyn World) -> Timestamp {
        let (wall, at) = (world.now(), world.monotonic());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = u64::try_from(at.saturating_sub(seen.at).as_millis()).unwrap_or(u64::MAX);
        let steady = Timestamp(seen.trusted.0.saturating_add(passed));
        let has_jumped = wall > steady.after(JUMP_MAX);
        if has_jumped && !seen.is_told {
            let seconds = wall.since(steady).0;
            let detail = "mail is given up by the old time until the clock comes back or we are started again";
            log::warn!(target: super::ledger::TARGET, seconds = seconds, detail = detail; "clock-jumped");
        }
        let trusted = if has_jumped { steady } else { wall };
        *seen = Seen { trusted, at, is_told: has_jumped };
        trusted
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;

    #[derive(Default)]
    struct Clocks(Mutex<(u64, Duration)>);

    impl Clocks {
        fn set(&self, wall_seconds: u64, monotonic_seconds: u64) {
            *self.0.lock().expect("free") =
                (wall_seconds * 1000, Duration::from_secs(monotonic_seconds));
        }
    }

    impl World for Clocks {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.lock().expect("free").0)
        }
        fn monotonic(&self) -> Duration {
            self.0.lock().expect("free").1
        }
        fn chance(&self, _place: &mut [u8]) {}
        fn wait(&self, _span: Duration) -> BoxFuture<'static, ()> {
            Box::pin(futures::future::pending())
        }
    }

    #[test]
    fn small_steps_and_steps_back_are_followed_and_jumps_ahead_are_not() {
        let clocks = Clocks::default();
        clocks.set(1_000_000, 0);
        let age = Age::new(&clocks);
        let now = |wall, monotonic| {
            clocks.set(wall, monotonic);
            age.now(&clocks).seconds()
        };
        assert_eq!(now(1_000_060, 60), 1_000_060);
        assert_eq!(now(1_003_000, 120), 1_003_000, "less than an hour is a correction");
        let year = 365 * 86_400;
        assert_eq!(now(1_003_060 + year, 180), 1_003_060, "a year is not");
        assert_eq!(now(1_003_120 + year, 240), 1_003_120, "nor a minute later");
        assert_eq!(now(1_003_180, 300), 1_003_180, "it came back");
        assert_eq!(now(900_000, 360), 900_000, "a day back");
        assert_eq!(now(900_060, 420), 900_060);
    }
}
