//! Waiting with an end.
//!
//! Called by whoever may wait on the monotonic clock of the system and holds no `World`.

use std::future::Future;
use std::time::Duration;

/// Is ready after `span`.
pub async fn pause(span: Duration) {
    async_std::task::sleep(span).await;
}

/// The outcome of `work`, or `None` if it takes longer than `span`; it is dropped then.
pub async fn within<T>(span: Duration, work: impl Future<Output = T>) -> Option<T> {
    async_std::future::timeout(span, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_quick_work_comes_through() {
        let soon = Duration::from_millis(1);
        let outcome = futures::executor::block_on(async {
            pause(soon).await;
            (within(soon, std::future::pending::<()>()).await, within(soon, async { 7 }).await)
        });
        assert_eq!(outcome, (None, Some(7)));
    }
}
