//! Hints that a queue may hold something new, for drains that wait.
//!
//! Called by the engines after a commit or a release. A hint never blocks, and hints that nobody has read yet
//! merge into one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::Stream;
use futures::channel::mpsc;

use crate::mail::Domain;

use super::Changed;

#[derive(Debug, Default)]
struct Board {
    waiting: HashMap<Domain, Vec<u64>>,
    senders: HashMap<u64, mpsc::Sender<Changed>>,
    last: u64,
    closed: bool,
}

/// Who waits for which queue.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    board: Arc<Mutex<Board>>,
}

fn locked(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    // The board is consistent between any two of its statements that can panic: none can.
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hints {
    /// A stream of hints about `domains`; it ends when the engine closes.
    pub(crate) fn listen(&self, domains: &[Domain]) -> Listening {
        // One sender and no buffer leave room for exactly one hint that was not read yet.
        let (sender, receiver) = mpsc::channel(0);
        let mut board = locked(&self.board);
        board.last += 1;
        let key = board.last;
        if !board.closed {
            for domain in domains {
                board.waiting.entry(domain.clone()).or_default().push(key);
            }
            board.senders.insert(key, sender);
        }
        Listening { receiver, key, domains: domains.into(), board: Arc::downgrade(&self.board) }
    }

    /// Something may wait in `domain`.
    pub(crate) fn tell(&self, domain: &Domain) {
        let mut board = locked(&self.board);
        let Board { waiting, senders, .. } = &mut *board;
        for key in waiting.get(domain).into_iter().flatten() {
            if let Some(sender) = senders.get_mut(key) {
                // Full means that an unread hint is there already; disconnected, that `drop` is on its way.
                let _ = sender.try_send(Changed);
            }
        }
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        let mut board = locked(&self.board);
        board.closed = true;
        board.senders.clear();
        board.waiting.clear();
    }
}

/// The stream that [`Hints::listen`] gives.
pub(crate) struct Listening {
    receiver: mpsc::Receiver<Changed>,
    key: u64,
    domains: Box<[Domain]>,
    board: Weak<Mutex<Board>>,
}

impl Stream for Listening {
    type Item = Changed;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Changed>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(board) = self.board.upgrade() else { return };
        let mut board = locked(&board);
        board.senders.remove(&self.key);
        for domain in &self.domains {
            if let Some(keys) = board.waiting.get_mut(domain) {
                keys.retain(|key| *key != self.key);
                if keys.is_empty() {
                    board.waiting.remove(domain);
                }
            }
        }
    }
}
