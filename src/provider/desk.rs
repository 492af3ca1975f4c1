//! The desk: one session's place in the office, where its questions are answered.
//!
//! Made by the shell for each connection and thrown away with it. It brings each question to the one who decides
//! it (intake, account, turn) and writes the session's facts down. It never writes to the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use super::intake::Intake;
use super::office::Office;
use super::trace::Trace;
use super::{account, etrn, ledger, turn};
use crate::mail::{Fact, Lease, TlsFacts};
use crate::smtp::{Answer, Question, TurnRequest};

/// One session's desk.
pub struct Desk {
    office: Arc<Office>,
    peer: SocketAddr,
    tls: Option<TlsFacts>,
    intake: Intake,
}

impl Desk {
    /// A desk for a session with `peer`.
    #[must_use]
    pub fn new(office: Arc<Office>, peer: SocketAddr, tls: Option<TlsFacts>) -> Self {
        Self { office, peer, tls, intake: Intake::default() }
    }

    /// The connection is encrypted now.
    pub fn secured(&mut self, tls: TlsFacts) {
        self.tls = Some(tls);
        self.intake = Intake::default();
    }

    /// Answers a question of the session. Must not be dropped half-way, unless the whole session ends.
    pub async fn answer(&mut self, question: Question) -> Answer {
        let office = &self.office;
        match question {
            Question::Mail(request) => Answer::Verdict(self.intake.mail(office, &request).await),
            Question::Recipient(request) => {
                Answer::Verdict(self.intake.recipient(office, &request).await)
            }
            Question::Content(request) => {
                let policy = office.policy();
                let (peer, tls, now) = (self.peer.ip(), self.tls.as_ref(), office.world.now());
                let trace = |id| Trace { hostname: &policy.hostname, peer, tls, id, now };
                Answer::Verdict(self.intake.content(office, trace, &request).await)
            }
            Question::Commit(request) => {
                Answer::Committed(self.intake.commit(office, *request).await)
            }
            Question::Nonce => {
                let mut nonce = [0; 32];
                office.world.chance(&mut nonce);
                Answer::Nonce(nonce)
            }
            Question::Credential(name) => {
                Answer::Credential(account::credential(office, &name).await)
            }
            Question::Login(request) => {
                let (peer, tls) = (self.peer.ip(), self.tls.as_ref());
                Answer::Login(account::login(office, request, peer, tls).await)
            }
            Question::Etrn(request) => {
                Answer::Etrn(etrn::request(office, &request, self.peer.ip()).await)
            }
            Question::Turn(request) => {
                let owner = self.peer.to_string();
                Answer::Turn(turn::grant(office, &request, &owner).await)
            }
        }
    }

    /// Is ready when a turn is worth deciding: `wait-for-mail` happens here, before the question is put to
    /// [`Desk::answer`]. May be dropped at any time, as when the customer hangs up.
    pub async fn worth_deciding(&mut self, request: &TurnRequest) {
        turn::worth_deciding(&self.office, request).await;
    }

    /// The next octets of the content.
    pub async fn store(&mut self, chunk: &[u8]) {
        self.intake.store(chunk).await;
    }

    /// Forgets the open body.
    pub fn discard(&mut self) {
        self.intake.discard();
    }

    /// Hands a lease back that was granted for a turn that did not happen.
    pub async fn release(&mut self, lease: Lease) {
        if let Err(error) = self.office.store.release(lease).await {
            log::warn!("a lease could not be handed back: {error}");
        }
    }

    /// Writes a fact down.
    pub fn note(&self, fact: &Fact) {
        self.office.board.count(fact);
        ledger::record(fact, self.peer, self.tls.as_ref());
    }
}
