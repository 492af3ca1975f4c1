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
    pub(crate) use std::thread::{Builder, JoinHandle, scope};

    pub(crate) use futures::executor::block_on;

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
    pub(crate) use shuttle::thread::{Builder, JoinHandle, scope};
    pub(crate) use std::sync::PoisonError;

    /// The scheduler knows its own threads only: the work is done here, and others may go first.
    pub(crate) async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        shuttle::future::yield_now().await;
        work()
    }
}
