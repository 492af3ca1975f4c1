//! Mail that goes to files: the customer's side plays the mail server itself, with the provider's own session.
//!
//! Called by the call in place of the pump. The 250 to a message leaves only after the mailbox has written and
//! flushed it. Everything that touches the disk runs on the blocking pool.
//!
//! Keeps RFC 5321 §4.4 (Return-Path and Received at final delivery).

pub(super) mod maildir;
pub(super) mod mbox;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::future::{Either, select};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use super::account::Account;
use super::call::Event;
use super::pump::PumpEnd;
use crate::mail::{Domain, Fact, ForwardPath, QueueId, ReversePath, Timestamp};
use crate::net::patience::within;
use crate::net::stop::Stop;
use crate::net::wire::{Stream, Wire};
use crate::smtp::bridge::Passed;
use crate::smtp::session::COMMAND_SECONDS_MAX;
use crate::smtp::{
    Action, Answer, CommitRequest, ContentRequest, Door, Input, Question, Receipt, Refusal,
    Session, Step, Terms,
};

/// The largest message that is taken, in octets; announced as SIZE.
const MESSAGE_BYTES_MAX: u64 = 2 << 30;

/// A mailbox in files. One message at a time; nothing of it can be seen by readers before `commit`.
pub(super) trait Mailbox: Send {
    /// Begins a message from `from`.
    ///
    /// # Errors
    /// The disk's; no message is open then.
    fn begin(&mut self, from: &ReversePath, now: Timestamp) -> io::Result<()>;

    /// Appends lines or parts of lines, with CRLF line ends.
    ///
    /// # Errors
    /// The disk's; the message can only be discarded then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Forgets the open message, if there is one.
    fn discard(&mut self);

    /// Makes the message visible and durable: when this returns, it survives a power cut.
    ///
    /// # Errors
    /// The disk's; the message is not there then.
    fn commit(&mut self) -> io::Result<()>;
}

/// CRLF to the LF that files have, over any cuts.
#[derive(Debug, Default)]
pub(super) struct LineEnds {
    had_cr: bool,
}

impl LineEnds {
    pub(super) fn convert(&mut self, bytes: &[u8], place: &mut Vec<u8>) {
        for octet in bytes {
            if std::mem::take(&mut self.had_cr) && *octet != b'\n' {
                place.push(b'\r');
            }
            match octet {
                b'\r' => self.had_cr = true,
                _ => place.push(*octet),
            }
        }
    }
}

/// Receives mail over `wire` into `mailbox`, until QUIT, a stop or the end of the connection.
pub(super) async fn receive(
    wire: Wire,
    early: &[u8],
    mailbox: Box<dyn Mailbox>,
    account: &Account,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> PumpEnd {
    let Wire { mut stream, peer, tls } = wire;
    let mut clerk = Clerk {
        mailbox: Some(mailbox),
        hello: account.hello.clone(),
        with_tls: tls.is_some(),
        peer: peer.ip().to_string(),
        from: ReversePath::Null,
        to: Vec::new(),
        trouble: None,
        octets: 0,
        tell,
    };
    let mut actions = Vec::new();
    let mut step = Step::Stay(Session::open(Door::Mx, terms(&account.hello), tls, &mut actions));
    let mut input = early.to_vec();
    let mut end = PumpEnd::Quit;
    // Once a stop was ordered: until when the message under way may take.
    let mut deadline: Option<Instant> = None;
    loop {
        let Some(session) = clerk.carry_out(step, &mut actions, &mut stream, &mut end).await else {
            break;
        };
        if !input.is_empty() {
            step = session.advance(Input::Bytes(&std::mem::take(&mut input)), &mut actions);
            continue;
        }
        let mut buffer = vec![0u8; 32 * 1024];
        let patience = match deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => session.patience().unwrap_or(COMMAND_SECONDS_MAX).into(),
        };
        let heard = {
            let read = std::pin::pin!(within(patience, stream.read(&mut buffer)));
            let order = std::pin::pin!(async {
                match deadline {
                    None => stop.given().await,
                    Some(_) => std::future::pending().await,
                }
            });
            match select(read, order).await {
                Either::Left((outcome, _)) => Some(outcome),
                Either::Right(((), _)) => None,
            }
        };
        step = match heard {
            Some(Some(Ok(length))) if length > 0 => {
                clerk.count(length);
                buffer.truncate(length);
                session.advance(Input::Bytes(&buffer), &mut actions)
            }
            Some(Some(_)) => {
                end = PumpEnd::ProviderGone;
                session.advance(Input::Ended, &mut actions)
            }
            Some(None) => {
                end = if deadline.is_some() { PumpEnd::StoppedInMessage } else { PumpEnd::Idle };
                session.advance(Input::Expired, &mut actions)
            }
            None => {
                deadline = Some(Instant::now() + account.stop_patience);
                end = PumpEnd::Stopped;
                session.advance(Input::ShuttingDown, &mut actions)
            }
        };
    }
    let _ = stream.close().await;
    end
}

fn terms(hello: &str) -> Arc<Terms> {
    let localhost = || Domain::parse("localhost");
    let hostname = match Domain::parse(hello).or_else(|_| localhost()) {
        Ok(hostname) => hostname,
        // "localhost" is a domain name.
        Err(fault) => unreachable!("{fault}"),
    };
    Arc::new(Terms {
        hostname,
        message_bytes_max: MESSAGE_BYTES_MAX,
        recipients_max: 1000,
        received_max: 100,
        tls_available: false,
        etrn: false,
        auth_requires_tls: true,
        mechanisms: Vec::new(),
        auth_failures_max: 3,
        errors_max: 100,
    })
}

/// Answers the session's questions out of a mailbox.
struct Clerk<'a> {
    /// Away only while the blocking pool has it.
    mailbox: Option<Box<dyn Mailbox>>,
    hello: String,
    with_tls: bool,
    peer: String,
    from: ReversePath,
    to: Vec<ForwardPath>,
    /// What the disk said about the open message.
    trouble: Option<Refusal>,
    octets: u64,
    tell: &'a mut dyn FnMut(Event<'_>),
}

impl Clerk<'_> {
    fn count(&mut self, length: usize) {
        self.octets += length as u64;
        (self.tell)(Event::Moved { octets: self.octets });
    }

    /// Carries out the actions of a step, and of the steps that the answers lead to; gives the session back when
    /// it wants more octets.
    async fn carry_out(
        &mut self,
        step: Step,
        actions: &mut Vec<Action>,
        stream: &mut Box<dyn Stream>,
        end: &mut PumpEnd,
    ) -> Option<Session> {
        let mut step = step;
        loop {
            let mut answer = None;
            let mut content = Vec::new();
            for action in actions.drain(..) {
                match action {
                    Action::Send(bytes) => {
                        let sent = stream.write_all(&bytes).await;
                        let has_left = sent.is_ok() && stream.flush().await.is_ok();
                        // Who said QUIT need not wait for its reply.
                        if !has_left && !bytes.starts_with(b"221") {
                            *end = PumpEnd::ProviderGone;
                        }
                    }
                    Action::Store(mut bytes) => content.append(&mut bytes),
                    Action::Discard => {
                        content.clear();
                        self.discard().await;
                    }
                    Action::Ask(question) => {
                        self.append(std::mem::take(&mut content)).await;
                        answer = Some(self.answer(question).await);
                    }
                    Action::Note(fact) => self.note(&fact),
                    // Leases exist only where ATRN is served.
                    Action::Release(_) => {}
                }
            }
            self.append(content).await;
            match (step, answer) {
                (Step::Stay(session), Some(answer)) => {
                    step = session.advance(Input::Answer(answer), actions);
                }
                (Step::Stay(session), None) => return Some(session),
                // Neither TLS nor a turn is on offer here.
                (Step::Close | Step::Upgrade(_) | Step::Reverse(_), _) => return None,
            }
        }
    }

    async fn append(&mut self, content: Vec<u8>) {
        if !content.is_empty() && self.trouble.is_none() {
            self.with_mailbox(move |mailbox| mailbox.append(&content)).await;
        }
    }

    async fn discard(&mut self) {
        self.with_mailbox(|mailbox| {
            mailbox.discard();
            Ok(())
        })
        .await;
    }

    /// Runs `work` on the blocking pool and remembers its trouble.
    async fn with_mailbox(
        &mut self,
        work: impl FnOnce(&mut dyn Mailbox) -> io::Result<()> + Send + 'static,
    ) {
        let Some(mut mailbox) = self.mailbox.take() else {
            self.trouble = Some(Refusal::StoreTrouble);
            return;
        };
        let (mailbox, outcome) = blocking::unblock(move || {
            let outcome = work(mailbox.as_mut());
            (mailbox, outcome)
        })
        .await;
        self.mailbox = Some(mailbox);
        if let Err(error) = outcome {
            log::error!("the mailbox cannot be written: {error}");
            self.trouble = Some(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::DiskFull,
                _ => Refusal::StoreTrouble,
            });
        }
    }

    async fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Mail(request) => {
                self.from = request.reverse_path;
                self.to.clear();
                Answer::Verdict(Ok(()))
            }
            Question::Recipient(request) => {
                self.to.push(request.forward_path);
                Answer::Verdict(Ok(()))
            }
            Question::Content(request) => {
                self.trouble = None;
                let now = now();
                let heading = self.heading(&request, now);
                let from = self.from.clone();
                self.with_mailbox(move |mailbox| {
                    mailbox.begin(&from, now)?;
                    mailbox.append(heading.as_bytes())
                })
                .await;
                Answer::Verdict(self.trouble.map_or(Ok(()), Err))
            }
            Question::Commit(request) => self.commit(*request).await,
            // There is no login and no turn at this door.
            Question::Nonce => Answer::Nonce([0; 32]),
            Question::Credential(_) => Answer::Credential(Err(Refusal::LoginTrouble)),
            Question::Login(_) => Answer::Login(Err(Refusal::LoginTrouble)),
            Question::Turn(_) => Answer::Turn(Err(Refusal::TurnTrouble)),
            Question::Etrn(_) => Answer::Etrn(Err(Refusal::NodeTrouble)),
        }
    }

    async fn commit(&mut self, request: CommitRequest) -> Answer {
        if self.trouble.is_none() {
            self.with_mailbox(|mailbox| mailbox.commit()).await;
        }
        if self.trouble.is_some() {
            self.discard().await;
        }
        let trouble = self.trouble.take();
        let mut passed = Passed {
            from: request.envelope.reverse_path.as_str().to_owned(),
            to: request
                .envelope
                .recipients
                .iter()
                .map(|one| one.forward_path.to_string())
                .collect(),
            octets: request.facts.size,
            reply: "250 written".to_owned(),
            taken: trouble.is_none(),
        };
        if let Some(refusal) = trouble {
            passed.reply = refusal.reply().summary();
        }
        (self.tell)(Event::Passed(&passed));
        Answer::Committed(match trouble {
            None => Ok(Receipt {
                id: QueueId::at(now().0, u128::from(self.octets)),
                size: request.facts.size,
            }),
            Some(refusal) => Err(refusal),
        })
    }

    /// A message that the session itself refused for its content.
    fn note(&mut self, fact: &Fact) {
        if let Fact::Refused { at: "content", reply, from, .. } = fact {
            let passed = Passed {
                from: from.clone().unwrap_or_default(),
                to: self.to.iter().map(ToString::to_string).collect(),
                octets: 0,
                reply: reply.clone(),
                taken: false,
            };
            (self.tell)(Event::Passed(&passed));
        }
    }

    /// The lines that final delivery adds (RFC 5321 §4.4), and the recipients, which no header else tells.
    fn heading(&self, request: &ContentRequest, now: Timestamp) -> String {
        let mut heading = format!("Return-Path: <{}>\r\n", self.from.as_str());
        for recipient in &self.to {
            heading.push_str(&format!("Delivered-To: {recipient}\r\n"));
        }
        let protocol = match (request.smtputf8, request.is_esmtp, self.with_tls) {
            (true, _, true) => "UTF8SMTPS",
            (true, _, false) => "UTF8SMTP",
            (false, true, true) => "ESMTPS",
            (false, true, false) => "ESMTP",
            (false, false, _) => "SMTP",
        };
        heading.push_str(&format!(
            "Received: from {} ([{}])\r\n\tby {} (restante fetch) with {protocol};\r\n\t{}\r\n",
            request.helo,
            self.peer,
            self.hello,
            now.rfc5322(),
        ));
        heading
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
