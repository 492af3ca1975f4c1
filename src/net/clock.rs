//! The real world: the system's clocks and its source of chance.
//!
//! Given to the provider by the program; tests give a virtual one instead.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;

use crate::mail::Timestamp;
use crate::provider::World;

/// The system's clocks and chance.
#[derive(Clone, Copy, Debug)]
pub struct RealWorld {
    start: Instant,
}

impl Default for RealWorld {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl World for RealWorld {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn chance(&self, place: &mut [u8]) {
        // A system without randomness can keep no secret; going on would be worse than stopping.
        if let Err(error) = getrandom::fill(place) {
            panic!("the system gives no random octets: {error}");
        }
    }

    fn wait(&self, span: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async_std::task::sleep(span))
    }
}
