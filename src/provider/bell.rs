//! A bell: tells one waiting task which things want to be looked at.
//!
//! Rung by whoever changed something, heard by the one task that works on it. Things rung twice are told once. All
//! of it is forgotten at a restart; the listener therefore begins with a look at everything.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::task::AtomicWaker;

/// Most things remembered; beyond that the listener is told to look at everything.
const REMEMBERED_MAX: usize = 10_000;

/// What was rung for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<T> {
    /// These.
    Some(Vec<T>),
    /// Too many to remember, or rung for as a whole; these are the ones remembered.
    Everything(Vec<T>),
}

/// See the module's head.
#[derive(Debug)]
pub struct Bell<T> {
    rung: Mutex<Rung<T>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct Rung<T> {
    things: BTreeSet<T>,
    is_over: bool,
}

impl<T> Default for Bell<T> {
    fn default() -> Self {
        let rung = Mutex::new(Rung { things: BTreeSet::new(), is_over: false });
        Self { rung, waker: AtomicWaker::new() }
    }
}

impl<T: Ord> Bell<T> {
    fn locked(&self) -> MutexGuard<'_, Rung<T>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rings for `thing`.
    pub fn ring(&self, thing: T) {
        let mut rung = self.locked();
        if rung.things.len() < REMEMBERED_MAX {
            rung.things.insert(thing);
        } else {
            rung.is_over = true;
        }
        drop(rung);
        self.waker.wake();
    }

    /// Rings for everything there is: the listener is to look around.
    pub fn ring_everything(&self) {
        self.locked().is_over = true;
        self.waker.wake();
    }

    /// What was rung for since the last call; waits for the first. Only one task may listen.
    pub async fn heard(&self) -> Call<T> {
        futures::future::poll_fn(|context| {
            self.waker.register(context.waker());
            let mut rung = self.locked();
            if rung.things.is_empty() && !rung.is_over {
                return Poll::Pending;
            }
            let things = std::mem::take(&mut rung.things).into_iter().collect();
            if std::mem::take(&mut rung.is_over) {
                return Poll::Ready(Call::Everything(things));
            }
            Poll::Ready(Call::Some(things))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_thing_once_and_too_many_as_everything() {
        let bell = Bell::default();
        assert!(bell.heard().now_or_never().is_none());
        for thing in [2, 1, 2] {
            bell.ring(thing);
        }
        assert_eq!(bell.heard().now_or_never(), Some(Call::Some(vec![1, 2])));
        assert!(bell.heard().now_or_never().is_none());
        (0..=REMEMBERED_MAX).for_each(|thing| bell.ring(thing));
        let Some(Call::Everything(remembered)) = bell.heard().now_or_never() else { panic!() };
        assert_eq!(remembered.len(), REMEMBERED_MAX);
        bell.ring_everything();
        assert_eq!(bell.heard().now_or_never(), Some(Call::Everything(vec![])));
        assert!(bell.heard().now_or_never().is_none());
    }

    #[test]
    fn the_listener_is_woken() {
        let bell = std::sync::Arc::new(Bell::default());
        let other = bell.clone();
        let listener = std::thread::spawn(move || futures::executor::block_on(other.heard()));
        bell.ring(7);
        assert_eq!(listener.join().expect("heard"), Call::Some(vec![7]));
    }
}
