//! The drain: emptying a customer's queues over one wire, under a lease.
//!
//! Begun by the shell with the lease that the turn left; driven by it as an [`Errand`]. It feeds the sender from
//! the store inside a window, has every outcome recorded before more than the window is in doubt, keeps the lease
//! while there is progress, stays for new mail where the customer wants that, and always hands the lease back. It
//! touches no socket, and looks at no reply: that is the sender's business.
//!
//! Keeps RFC 2645 §5.3; RFC 5321 §4.5.3.2 (time-outs), §4.5.4.1 (a new call is a new attempt), §6.1; decisions
//! D-10 to D-16 of the requirements.

mod body;
mod books;
mod clockwork;
mod feed;
mod lines;
mod seven;
mod shares;
mod steering;

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::board::LastDrain;
use super::errand::{Errand, Outbox};
use super::office::Office;
use super::policy::DrainRules;
use crate::mail::{ClientProfile, Customer, Lease, Timestamp};
use crate::smtp::sender::{Action, EndKind, Input, Sender, Style};
use crate::store::{Changed, StoreError};
use body::Body;
use books::Books;
use clockwork::Clockwork;
use feed::Feed;

/// How the customer was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The customer called and the roles reversed (RFC 2645).
    Atrn,
    /// We connected to the customer (RFC 1985).
    Etrn,
    /// We connected to somebody else's server, with a report of ours.
    Relay,
}

impl Way {
    /// The word in the log (`path=`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Atrn => "atrn",
            Self::Etrn => "etrn",
            Self::Relay => "relay",
        }
    }
}

/// A body that the sender is being fed with.
struct Feeding {
    id: crate::mail::QueueId,
    body: Body,
}

/// See the module's head.
pub struct Drain {
    office: Arc<Office>,
    lease: Arc<Lease>,
    way: Way,
    rules: DrainRules,
    /// The customer as it was when the drain began.
    customer: Option<Arc<Customer>>,
    sender: Sender,
    outbox: Outbox,
    feed: Feed,
    feeding: Option<Feeding>,
    books: Books,
    clockwork: Clockwork,
    renewing: Option<BoxFuture<'static, Result<(), StoreError>>>,
    /// What was learnt about the customer's side, on its way to being kept.
    learning: Option<BoxFuture<'static, ()>>,
    hints: BoxStream<'static, Changed>,
    /// Mail came since the queues were last looked through from their beginning.
    is_hinted: bool,
    is_ready: bool,
    /// Everything is sent and recorded; the connection is held.
    is_holding: bool,
    /// A transaction was answered in full.
    has_proof: bool,
    /// Why no further message is begun.
    leaving: Option<Leaving>,
    ended: Option<(&'static str, Option<String>)>,
    is_under_tls: bool,
    is_line_by_line: bool,
    started: Timestamp,
    actions: Vec<Action>,
}

/// A reason to leave before the queues are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leaving {
    word: &'static str,
    detail: Option<String>,
}

impl Drain {
    /// Begins a drain: what is left is to carry octets. `is_under_tls`: the wire is encrypted.
    pub async fn begin(
        office: Arc<Office>,
        lease: Lease,
        way: Way,
        is_under_tls: bool,
    ) -> Box<Self> {
        let policy = office.policy();
        let customer = office.directory.customer(lease.customer()).await.ok().flatten();
        let mut rules = match customer.as_deref() {
            Some(customer) => policy.drain_rules(customer),
            None => policy.relay_rules(),
        };
        let mut is_unknown = false;
        if rules.profile == ClientProfile::Auto {
            match office.servers.learnt_profile(lease.customer()) {
                // It was understood once; if it no longer is, that is learnt anew.
                ClientProfile::Standard => {}
                ClientProfile::Auto => is_unknown = is_under_tls,
                learnt => rules.profile = learnt,
            }
        }
        let is_line_by_line = rules.profile == ClientProfile::FetchmailTls;
        let hostname = policy.hostname.clone();
        let style = match () {
            () if is_line_by_line => Style::fetchmail_tls(hostname),
            () if is_unknown => Style::probing(hostname),
            () => Style::standard(hostname),
        };
        let mut outbox = Outbox::default();
        if is_line_by_line {
            outbox.keep_portions();
        }
        // Listen before looking: what arrives in between is seen by one of the two.
        let hints = office.store.changes(lease.domains());
        let lease = Arc::new(lease);
        office.board.draining();
        let books =
            Books::new(office.clone(), lease.clone(), rules.window, rules.rejects, way.as_str());
        let now = office.world.monotonic();
        Box::new(Self {
            feed: Feed::new(office.store.clone(), lease.clone()),
            clockwork: Clockwork::new(office.world.clone(), now, &rules),
            started: office.world.now(),
            sender: Sender::new(style),
            office,
            lease,
            way,
            rules,
            customer,
            outbox,
            feeding: None,
            books,
            renewing: None,
            learning: None,
            hints,
            is_hinted: false,
            is_ready: false,
            is_holding: false,
            has_proof: false,
            leaving: None,
            ended: None,
            is_under_tls,
            is_line_by_line,
            actions: Vec::new(),
        })
    }

    /// As [`Drain::begin`], on a connection that we opened: the greeting is over, and `peer_name` is the name in
    /// it.
    pub async fn begin_opened(
        office: Arc<Office>,
        lease: Lease,
        way: Way,
        is_under_tls: bool,
        peer_name: Option<String>,
    ) -> Box<Self> {
        let mut drain = Self::begin(office, lease, way, is_under_tls).await;
        let style = drain.sender.style().clone();
        drain.sender = Sender::opened(style, peer_name);
        drain.tell(Input::Bytes(&[]));
        drain
    }

    /// Records what is known, hands the lease back, and says how it went. To be called once the errand is over,
    /// or was given up.
    pub async fn finish(mut self: Box<Self>) -> LastDrain {
        self.tell(Input::Ended);
        // Nothing more is read: others wait for their turn at the store.
        self.feed.stop();
        self.feeding = None;
        if let Err(error) = self.books.finish().await
            && !matches!(error, StoreError::LostLease)
        {
            lines::trouble("settle", &self.lease, &error.to_string());
        }
        let (ended, detail) = match (self.ended.take(), self.leaving.take()) {
            (Some(("quit", _)), Some(leaving)) => (leaving.word, leaving.detail),
            (Some(ended), _) => ended,
            (None, _) => (EndKind::Lost.as_str(), None),
        };
        let sums = self.books.sums;
        let drain = LastDrain {
            customer: self.lease.customer().clone(),
            path: self.way.as_str().to_owned(),
            started: self.started,
            milliseconds: self.clockwork.milliseconds(),
            delivered: sums.delivered,
            deferred: sums.deferred,
            failed: sums.failed,
            messages: sums.messages,
            bytes: sums.bytes,
            ended: ended.to_owned(),
            detail,
        };
        lines::drained(&drain);
        self.office.board.drained(drain.clone());
        let learning = self.learning.take();
        self.release().await;
        if let Some(learning) = learning {
            learning.await;
        }
        drain
    }

    /// All futures that share the lease end here, so that it is ours alone again.
    async fn release(self: Box<Self>) {
        let Self { office, lease, feed, feeding, books, renewing, hints, .. } = *self;
        drop((feed, feeding, books, renewing, hints));
        if let Ok(lease) = Arc::try_unwrap(lease)
            && let Err(error) = office.store.release(lease).await
        {
            log::warn!(target: super::ledger::TARGET, error = error.to_string(); "store-trouble");
        }
    }

    /// Tells the sender something and does what it says.
    fn tell(&mut self, input: Input<'_>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.sender.advance(input, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(octets) => self.outbox.push(octets),
                Action::Ready => {
                    self.is_ready = true;
                    let (name, offers) = (self.sender.peer_name(), self.sender.offers());
                    if self.office.servers.met(self.lease.customer(), name, offers) {
                        self.keep_lesson(false);
                    }
                }
                Action::Fate { tag, recipient, fate } => self.books.fate(tag, recipient, fate),
                Action::Finished(tag) => {
                    // What a broken connection leaves is finished, too, and proves nothing.
                    if !self.sender.is_over() {
                        self.proven();
                    }
                    self.books.close(tag);
                }
                Action::DropBody => self.feeding = None,
                Action::Over(end) => self.ended = Some((end.kind.as_str(), end.detail)),
            }
        }
        self.actions = actions;
    }

    /// A transaction was answered in full: a client that was not known is an ordinary one.
    fn proven(&mut self) {
        if std::mem::replace(&mut self.has_proof, true) || !self.sender.style().probes {
            return;
        }
        if self.office.servers.learn_profile(self.lease.customer(), ClientProfile::Standard) {
            self.keep_lesson(false);
        }
    }

    /// Gives back the room of busier moments: thousands of held customers must not each keep it.
    fn rest(&mut self) {
        self.outbox.rest();
        self.feed.rest();
        self.books.rest();
        self.sender.rest();
        self.actions.shrink_to_fit();
    }

    /// Begins no further message; what is under way is finished.
    fn leave(&mut self, word: &'static str, detail: Option<String>) {
        self.leaving.get_or_insert(Leaving { word, detail });
    }

    /// Stops in the middle.
    fn abandon(&mut self, kind: EndKind, detail: String) {
        self.feeding = None;
        self.tell(Input::Abandon(kind, detail));
    }
}

impl Errand for Drain {
    fn received(&mut self, octets: &[u8]) {
        let before = self.sender.replied();
        self.tell(Input::Bytes(octets));
        if self.sender.replied() > before {
            self.clockwork.progressed();
        }
    }

    fn ended(&mut self) {
        self.tell(Input::Ended);
    }

    fn stop(&mut self) {
        self.leave("shutdown", None);
        if !self.is_ready {
            self.abandon(EndKind::Lost, String::new());
            self.ended = Some(("shutdown", None));
        }
    }

    fn work(&mut self, context: &mut Context<'_>) -> bool {
        if self.is_over() {
            return false;
        }
        let mut moved = self.poll_store(context);
        while self.steer(context) {
            moved = true;
        }
        moved | self.watch_the_clock(context)
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn left(&mut self, octets: usize) {
        self.sender.left(octets);
        self.clockwork.left(octets, self.outbox.is_empty());
    }

    fn is_over(&self) -> bool {
        self.sender.is_over()
    }
}

impl Drain {
    /// Whatever the store has answered.
    fn poll_store(&mut self, context: &mut Context<'_>) -> bool {
        let mut moved = false;
        match self.books.poll(context) {
            Ok(done) => {
                moved |= done;
                if done {
                    self.clockwork.settled();
                }
            }
            Err(error) => {
                self.fail("settle", &error);
                return true;
            }
        }
        while let Poll::Ready(Some(Changed)) = self.hints.poll_next_unpin(context) {
            self.is_hinted = true;
            moved = true;
        }
        if let Some(learning) = self.learning.as_mut()
            && learning.poll_unpin(context).is_ready()
        {
            self.learning = None;
        }
        if let Some(renewing) = self.renewing.as_mut()
            && let Poll::Ready(answer) = renewing.poll_unpin(context)
        {
            self.renewing = None;
            moved = true;
            if let Err(error) = answer {
                self.fail("renew", &error);
            }
        }
        moved
    }

    /// The store says no: without the lease, or without a store, nothing more may be sent.
    fn fail(&mut self, what: &'static str, error: &StoreError) {
        let (kind, detail) = match error {
            StoreError::LostLease => (
                EndKind::LeaseLost,
                "another connection of this customer has taken over".to_owned(),
            ),
            error => {
                lines::trouble(what, &self.lease, &error.to_string());
                (EndKind::Store, error.to_string())
            }
        };
        self.feed.stop();
        if self.is_ready && self.sender.is_idle() {
            // Nothing is under way, so there is time for QUIT.
            self.leave(kind.as_str(), Some(detail));
        } else {
            self.abandon(kind, detail);
        }
    }

    /// What was learnt just now is to outlive a restart, and a kill if it was dear; nobody waits for it before the end.
    fn keep_lesson(&mut self, is_pressing: bool) {
        let (office, customer) = (self.office.clone(), self.lease.customer().clone());
        let before = self.learning.take();
        let work = async move {
            if let Some(before) = before {
                before.await;
            }
            office.keep_lesson(&customer, is_pressing).await;
        };
        self.learning = Some(work.boxed());
    }

    fn renew(&mut self) {
        if self.renewing.is_none() {
            let (store, lease) = (self.office.store.clone(), self.lease.clone());
            self.renewing = Some(async move { store.renew(&lease).await }.boxed());
        }
    }
}
