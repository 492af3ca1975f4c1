//! The world as the provider sees it: two clocks and chance. The shell gives the real one, tests a virtual one.

use std::time::Duration;

use crate::mail::Timestamp;

/// Clocks and chance.
pub trait World: Send + Sync {
    /// The wall clock; it may jump.
    fn now(&self) -> Timestamp;

    /// A clock that never jumps, since an arbitrary start.
    fn monotonic(&self) -> Duration;

    /// Fills `place` with unpredictable octets.
    fn chance(&self, place: &mut [u8]);

    /// Is ready after `span` of the monotonic clock.
    fn wait(&self, span: Duration) -> futures::future::BoxFuture<'static, ()>;
}
