//! Locks, channels and threads of this room: the standard library's, but in its own tests those of a scheduler that
//! chooses at every step who goes on.
//!
//! Called by everything in here that waits for somebody. It decides nothing.

pub(crate) use chosen::*;

#[cfg(not(test))]
mod chosen {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    pub(crate) use std::sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };
    pub(crate) use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, scope};

    pub(crate) use futures::executor::block_on;

    /// A thread for the scope; `None` where the system gives none.
    pub(crate) fn beside<'scope, T: Send + 'scope>(
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Option<ScopedJoinHandle<'scope, T>> {
        Builder::new().spawn_scoped(scope, work).ok()
    }

    /// Does blocking work where it holds nobody up.
    pub(crate) async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        blocking::unblock(work).await
    }
}

#[cfg(test)]
mod chosen {
    pub(crate) use shuttle::future::block_on;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use shuttle::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use shuttle::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, scope};
    pub(crate) use std::sync::PoisonError;

    /// A thread of the scheduler, which always has one.
    pub(crate) fn beside<'scope, T: Send + 'static>(
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Option<ScopedJoinHandle<'scope, T>> {
        Some(scope.spawn(work))
    }

    /// The scheduler knows its own threads only: the work is done here, and others may go first.
    pub(crate) async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        shuttle::future::yield_now().await;
        work()
    }
}
