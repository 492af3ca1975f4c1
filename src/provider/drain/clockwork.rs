//! The clock of a drain: how long anything may take, when the lease is renewed, when a held connection speaks.
//!
//! Called by the drain at each step. It keeps points in time on the monotonic clock and one alarm for the nearest;
//! what happens then is the drain's decision. Keeps RFC 5321 §4.5.3.2.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::provider::policy::DrainRules;
use crate::provider::world::World;

/// How long the wire may take for a block of [`BLOCK_BYTES`] (RFC 5321 §4.5.3.2.5).
const BLOCK_SECONDS_MAX: Duration = Duration::from_secs(3 * 60);
/// A block, in octets: progress of less does not extend the patience, so nobody can stretch it octet by octet.
const BLOCK_BYTES: usize = 64 << 10;
/// A drain with progress renews its lease this often.
const RENEW_EVERY: Duration = Duration::from_secs(15);
/// A held connection speaks no more often than this, whatever the configuration says.
const PACE_MIN: Duration = Duration::from_secs(1);
/// NOOPs on one connection: Exim drops a client at the tenth command that is not about mail.
const NOOPS_MAX: u32 = 8;

/// What is to be done about a held connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Nothing.
    Quiet,
    /// Say NOOP.
    Noop,
    /// Say QUIT.
    Leave,
}

/// See the module's head.
pub(super) struct Clockwork {
    world: Arc<dyn World>,
    began: Duration,
    /// The last reply, or the last time that a block left.
    progress: Duration,
    unblocked: usize,
    renewed: Duration,
    hold_open: Duration,
    /// A held connection speaks after this silence.
    noop_after: Duration,
    /// Since when the queues are empty and nothing is said.
    idle_since: Option<Duration>,
    /// When the hold began; it begins anew with each message.
    held_since: Option<Duration>,
    noops: u32,
    alarm: Option<(Duration, BoxFuture<'static, ()>)>,
}

impl Clockwork {
    pub(super) fn new(world: Arc<dyn World>, now: Duration, rules: &DrainRules) -> Self {
        Self {
            world,
            began: now,
            progress: now,
            unblocked: 0,
            renewed: now,
            hold_open: rules.hold_open,
            noop_after: rules.noop_after.max(PACE_MIN),
            idle_since: None,
            held_since: None,
            noops: 0,
            alarm: None,
        }
    }

    pub(super) fn milliseconds(&self) -> u64 {
        let spent = self.world.monotonic().saturating_sub(self.began).as_millis();
        u64::try_from(spent).unwrap_or(u64::MAX)
    }

    pub(super) fn progressed(&mut self) {
        self.progress = self.world.monotonic();
    }

    pub(super) fn left(&mut self, octets: usize, is_all: bool) {
        self.unblocked += octets;
        if is_all || self.unblocked >= BLOCK_BYTES {
            self.unblocked = 0;
            self.progressed();
        }
    }

    /// A settlement is progress in the eyes of the store.
    pub(super) fn settled(&mut self) {
        self.idle_since = None;
    }

    /// The point `span` after the last progress.
    pub(super) fn since_progress(&self, span: Duration) -> Duration {
        self.progress.saturating_add(span)
    }

    /// When the peer has used up our patience: `awaited` is what the sender allows for the reply due.
    pub(super) fn patience_ends(
        &self,
        awaited: Option<Duration>,
        is_writing: bool,
    ) -> Option<Duration> {
        let span = match (awaited, is_writing) {
            (None, false) => return None,
            (None, true) => BLOCK_SECONDS_MAX,
            (Some(awaited), false) => awaited,
            // A server that is busy with a message need not read what stands behind it.
            (Some(awaited), true) => awaited.max(BLOCK_SECONDS_MAX),
        };
        Some(self.progress.saturating_add(span))
    }

    /// Whether it is time to renew: only a drain that makes progress keeps its lease alive.
    pub(super) fn is_renewal_due(&mut self) -> bool {
        let now = self.world.monotonic();
        let is_due = now >= self.renewed + RENEW_EVERY && self.progress > self.renewed;
        if is_due {
            self.renewed = now;
        }
        is_due
    }

    /// There is something to send.
    pub(super) fn busy(&mut self) {
        self.idle_since = None;
        self.held_since = None;
    }

    /// The queues are empty and everything is recorded: what now?
    pub(super) fn hold(&mut self) -> Held {
        let now = self.world.monotonic();
        let held_since = *self.held_since.get_or_insert(now);
        let idle_since = *self.idle_since.get_or_insert(now);
        if now >= held_since + self.hold_open {
            return Held::Leave;
        }
        if now < idle_since + self.noop_after {
            return Held::Quiet;
        }
        if self.noops >= NOOPS_MAX {
            return Held::Leave;
        }
        self.noops += 1;
        self.idle_since = None;
        Held::Noop
    }

    /// When [`Clockwork::hold`] must be asked again.
    pub(super) fn hold_ends(&self) -> Option<Duration> {
        let (held, idle) = (self.held_since?, self.idle_since?);
        Some((held + self.hold_open).min(idle + self.noop_after))
    }

    /// Whether `at` has come; otherwise sees to being woken then. Ask with the nearest point.
    pub(super) fn has_come(&mut self, at: Duration, context: &mut Context<'_>) -> bool {
        loop {
            let now = self.world.monotonic();
            if now >= at {
                self.alarm = None;
                return true;
            }
            // An alarm that rings early is set again then; one that would ring late is replaced.
            if self.alarm.as_ref().is_none_or(|(rings, _)| *rings > at) {
                self.alarm = Some((at, self.world.wait(at - now)));
            }
            let Some((_, alarm)) = self.alarm.as_mut() else { return false };
            match alarm.poll_unpin(context) {
                Poll::Pending => return false,
                Poll::Ready(()) => self.alarm = None,
            }
        }
    }
}
