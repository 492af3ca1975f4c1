//! The next step of a drain: send, wait, hold, or leave.
//!
//! The part of the drain that brings feed, window, books and sender together. Keeps D-12 to D-14 of the
//! requirements and the order "record, then go on".

use std::task::Context;
use std::time::Duration;

use futures::FutureExt;

use super::books::Books;
use super::clockwork::Held;
use super::feed::{Laden, News, Parcel};
use super::{Drain, Feeding, lines};
use crate::mail::{ClientProfile, Customer};
use crate::provider::mime::Obstacle;
use crate::smtp::sender::{EndKind, Input, Unfit, Want};
use crate::store::{Head, StoreError};

/// No message is begun while there is more than this in the outbox, in octets.
const OUTBOX_BYTES_MAX: usize = 64 << 10;
/// No more of a body is put into the outbox than this and one chunk of the store: chunks go as they are, several at once.
const CHUNKS_BYTES_MAX: usize = 192 << 10;
/// How long a server that lacks an extension may be mended before mail that needs it fails (requirements,
/// section 8).
const GRACE: u64 = 24 * 3600;

impl Drain {
    /// One step; true if something moved.
    pub(super) fn steer(&mut self, context: &mut Context<'_>) -> bool {
        if self.sender.is_over() {
            return false;
        }
        if self.poll_feed(context) {
            return true;
        }
        match self.sender.wants() {
            Want::Nothing => false,
            Want::Body => self.feed_body(context),
            Want::Message => self.next_message(),
        }
    }

    fn poll_feed(&mut self, context: &mut Context<'_>) -> bool {
        let offers = self.is_ready.then(|| self.sender.offers());
        match self.feed.poll(offers, self.outbox.is_empty(), context) {
            None => return false,
            Some(News::Moved) => {}
            Some(News::Page(heads)) => return self.turn_page(heads, context),
            Some(News::Unfit(parcel, unfit, obstacle)) => {
                self.decide_unfit(parcel, unfit, obstacle);
            }
            Some(News::Unreadable(parcel, error)) => self.pass_over(&parcel, &error),
            Some(News::Trouble(error)) => self.fail("read", &error),
        }
        true
    }

    fn turn_page(&mut self, heads: Vec<Head>, context: &mut Context<'_>) -> bool {
        let (books, is_last) = (&self.books, heads.is_empty());
        let is_new = self.feed.accept(heads.into_iter().filter(|head| !books.knows(head.id)));
        if !is_new && !is_last {
            // Many may be known, page after page, and every page at hand: others get their turn in between.
            context.waker().wake_by_ref();
        }
        is_new || is_last
    }

    /// It cannot be handed to this server: for ever (too big), or until the server is mended.
    fn decide_unfit(&mut self, parcel: Parcel, unfit: Unfit, obstacle: Option<Obstacle>) {
        let age = self.office.trusted_now().since(parcel.arrived).0;
        let can_wait = age < GRACE;
        let (code, mut reason) = unfit.reason();
        if let Some(obstacle) = obstacle {
            reason.push_str("; it cannot be converted: ");
            reason.push_str(obstacle.words());
        }
        let outcome = Books::unfit(unfit.is_final() || !can_wait, code, &reason);
        self.books.decide(parcel, &outcome);
    }

    fn pass_over(&mut self, parcel: &Parcel, error: &StoreError) {
        if !matches!(error, StoreError::Missing) {
            lines::unreadable(parcel.id, &self.lease, &error.to_string());
        }
        self.books.skip(parcel.id);
    }

    fn feed_body(&mut self, context: &mut Context<'_>) -> bool {
        if self.outbox.len() >= CHUNKS_BYTES_MAX {
            return false;
        }
        let Some(feeding) = self.feeding.as_mut() else { return false };
        let moved = feeding.body.poll(feeding.id, context);
        match feeding.body.take() {
            Ok(None) => moved,
            Ok(Some((octets, last))) => {
                if last {
                    self.feeding = None;
                }
                self.tell(Input::Body { octets, last });
                true
            }
            Err(error) => {
                lines::unreadable(feeding.id, &self.lease, &error.to_string());
                self.feeding = None;
                self.tell(Input::BodyLost);
                true
            }
        }
    }

    /// The sender is free for a message: give it one, wait for one, or leave.
    fn next_message(&mut self) -> bool {
        self.is_holding = false;
        if self.outbox.len() >= OUTBOX_BYTES_MAX {
            return false;
        }
        if self.leaving.is_none() {
            self.look_for_reasons_to_leave();
        }
        if self.leaving.is_none()
            && let Some(size) = self.feed.next_size()
        {
            return self.books.has_room(size) && self.offer();
        }
        // Recorded first, then QUIT or NOOP.
        if !self.books.is_settled() || !self.sender.is_idle() {
            return false;
        }
        if self.leaving.is_some() {
            self.tell(Input::Quit);
            return true;
        }
        self.feed.is_empty() && self.at_the_end()
    }

    fn offer(&mut self) -> bool {
        let Some(Laden { mut parcel, body }) = self.feed.take() else { return false };
        self.clockwork.busy();
        self.books.open(&mut parcel, self.sender.offers().dsn);
        self.feeding = Some(Feeding { id: parcel.id, body });
        self.tell(Input::Message(Box::new(parcel.outgoing)));
        true
    }

    /// The queues have been seen to their end, and everything is recorded.
    fn at_the_end(&mut self) -> bool {
        if self.is_hinted && self.books.can_look_again() {
            self.is_hinted = false;
            self.feed.restart();
            return true;
        }
        match self.clockwork.hold() {
            Held::Quiet => {
                self.is_holding = true;
                self.rest();
                false
            }
            Held::Leave => {
                self.tell(Input::Quit);
                true
            }
            Held::Noop => {
                self.tell(Input::Noop);
                self.renew();
                true
            }
        }
    }

    fn look_for_reasons_to_leave(&mut self) {
        if self.books.is_flooded() {
            let detail = "the customer's server defers message after message; it was left in peace";
            self.leave("deferring", Some(detail.to_owned()));
        }
        if self.sender.is_exhausted() {
            let detail = "the customer's server takes no more messages on one connection";
            self.leave("mailmax", Some(detail.to_owned()));
        }
        // The directory is in memory; an answer that is not there at once is not waited for.
        let now = self.office.directory.customer(self.lease.customer()).now_or_never();
        if let Some(Ok(now)) = now
            && !self.is_still(now.as_deref())
        {
            let detail = "the customer was changed meanwhile";
            self.leave("customer-changed", Some(detail.to_owned()));
        }
    }

    /// Whether the customer may still have this mail: not removed, suspended, or given another password.
    fn is_still(&self, now: Option<&Customer>) -> bool {
        match (self.customer.as_deref(), now) {
            (Some(then), Some(now)) => {
                !now.suspended
                    && now.credentials == then.credentials
                    && self.lease.domains().iter().all(|domain| now.domains.contains(domain))
            }
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// Patience, lease and hold. True if something moved.
    pub(super) fn watch_the_clock(&mut self, context: &mut Context<'_>) -> bool {
        if self.sender.is_over() {
            return false;
        }
        if self.clockwork.is_renewal_due() {
            self.renew();
        }
        let is_writing = !self.outbox.is_empty();
        let patience = self.clockwork.patience_ends(self.sender.patience(), is_writing);
        let stall = self.stall_ends(is_writing);
        let hold = self.clockwork.hold_ends().filter(|_| self.is_holding);
        let Some(nearest) = [patience, stall, hold].into_iter().flatten().min() else {
            return false;
        };
        if !self.clockwork.has_come(nearest, context) {
            return false;
        }
        if Some(nearest) == patience {
            self.lose_patience();
        } else if Some(nearest) == stall {
            self.learn_from_stall();
        }
        true
    }

    /// Nothing came in time. A first transaction that hangs under TLS is told from other silence.
    fn lose_patience(&mut self) {
        let is_suspect = self.is_unproven() && self.sender.is_in_transaction();
        self.tell(Input::Expired);
        let advice = self.advice();
        if is_suspect && let Some((_, detail)) = &mut self.ended {
            *detail = Some(format!("{}; {advice}", detail.take().unwrap_or_default()));
        }
    }

    /// Under TLS, without a profile, and no transaction has been answered in full.
    fn is_unproven(&self) -> bool {
        self.is_under_tls && !self.is_line_by_line && !self.has_proof
    }

    /// Under TLS, a group of commands that was answered in part and then met silence is the mark of a client that
    /// reads one line of a TLS record and forgets the rest.
    fn stall_ends(&self, is_writing: bool) -> Option<Duration> {
        let is_suspect = self.rules.profile == ClientProfile::Auto
            && self.is_unproven()
            && !is_writing
            && self.sender.is_stuck_in_group();
        is_suspect.then(|| self.clockwork.since_progress(self.rules.stall_after))
    }

    fn learn_from_stall(&mut self) {
        // A client that was understood before may just have lost the line: the next drain finds out.
        let (profile, next) = if self.sender.style().probes {
            (ClientProfile::FetchmailTls, "sends it line by line")
        } else {
            (ClientProfile::Auto, "tries it with one message")
        };
        if self.office.servers.learn_profile(self.lease.customer(), profile) {
            self.keep_lesson(true);
        }
        let detail = format!(
            "the customer's client answered the first command of a group and then nothing; the next drain \
             {next}; {}",
            self.advice()
        );
        self.abandon(EndKind::Timeout, detail);
    }

    fn advice(&self) -> String {
        format!(
            "if it is fetchmail over TLS: restante customer set {} client-profile fetchmail-tls",
            self.lease.customer()
        )
    }
}
