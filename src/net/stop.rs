//! The order to stop: given once, heard by every connection.
//!
//! Made by the program, cloned into listeners, sessions and drains. After it was given, new work is refused and
//! what runs comes to its next safe point.

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;

/// Hears the order.
#[derive(Clone, Debug)]
pub struct Stop(Shared<oneshot::Receiver<()>>);

/// Gives the order, by being used or dropped.
#[derive(Debug)]
pub struct StopGiver(oneshot::Sender<()>);

impl Stop {
    /// The two ends.
    #[must_use]
    pub fn new() -> (StopGiver, Stop) {
        let (giver, hearer) = oneshot::channel();
        (StopGiver(giver), Stop(hearer.shared()))
    }

    /// Is ready once the order was given.
    pub async fn given(&self) {
        // A dropped giver counts as the order, so the outcome does not matter.
        let _ = self.0.clone().await;
    }

    /// Whether the order was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.clone().now_or_never().is_some()
    }
}

impl StopGiver {
    /// Gives the order.
    pub fn give(self) {
        // Nobody listening is fine.
        let _ = self.0.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_hears_it() {
        let (giver, stop) = Stop::new();
        let other = stop.clone();
        assert!(!other.is_given());
        giver.give();
        assert!(stop.is_given() && other.is_given());
        futures::executor::block_on(other.given());
    }
}
