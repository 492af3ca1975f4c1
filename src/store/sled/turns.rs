//! Turns: at most so many do something at once, and the others go in the order in which they came.
//!
//! Used where drains read. A turn is handed to the next in the row and never put down between two of them, so nobody who
//! comes back at once goes before those who wait.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use futures::channel::oneshot;

use super::shared::locked;
use super::sync::Mutex;

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Mutex<State>>);

/// Somebody's turn; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Weak<Mutex<State>>);

impl Turns {
    /// So many at once.
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(State { free: most, waiting: VecDeque::new() })))
    }

    /// Waits for one's turn.
    pub(crate) async fn wait(&self) -> Turn {
        let granted = {
            let mut state = locked(&self.0);
            if state.free > 0 {
                state.free -= 1;
                return Turn(Arc::downgrade(&self.0));
            }
            let (waiter, granted) = oneshot::channel();
            state.waiting.push_back(waiter);
            granted
        };
        // Its other end is dropped with all of it only, and then nobody needs a turn.
        granted.await.unwrap_or(Turn(Weak::new()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let home = std::mem::take(&mut self.0);
        let Some(turns) = home.upgrade() else { return };
        loop {
            let next = {
                let mut state = locked(&turns);
                let next = state.waiting.pop_front();
                state.free += usize::from(next.is_none());
                next
            };
            let Some(next) = next else { return };
            match next.send(Turn(home.clone())) {
                Ok(()) => return,
                // One that waits no more; not by its own end, which would begin this once more for each of them.
                Err(mut unwanted) => unwanted.0 = Weak::new(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn turns_go_in_order_and_past_those_who_left() {
        shuttle::check_random(
            || {
                let turns = Turns::new(2);
                let first = turns.wait().now_or_never().expect("free");
                let second = turns.wait().now_or_never().expect("free");
                let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.wait())).collect();
                for one in &mut waiting {
                    assert!(one.as_mut().now_or_never().is_none());
                }
                drop(waiting.remove(0));
                drop(first);
                assert!(turns.wait().now_or_never().is_none(), "it was handed on");
                assert!(
                    waiting[1].as_mut().now_or_never().is_none(),
                    "not before those who came before"
                );
                let third = waiting[0].as_mut().now_or_never().expect("its turn");
                drop((second, third));
                assert!(waiting[1].as_mut().now_or_never().is_some());
                drop(waiting);
                // Granted, and dropped before it was looked at.
                let both: Vec<_> = (0..2).filter_map(|_| turns.wait().now_or_never()).collect();
                let mut unread = Box::pin(turns.wait());
                assert!(unread.as_mut().now_or_never().is_none());
                drop(both);
                drop(unread);
                let all: Vec<_> = (0..3).map(|_| turns.wait().now_or_never()).collect();
                assert_eq!(all.iter().filter(|turn| turn.is_some()).count(), 2, "none is lost");
            },
            1,
        );
    }
}
