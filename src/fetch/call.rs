//! One call: dial, negotiate, open the target, turn, and move the mail.
//!
//! Called by the rhythm of `restante fetch`, or by a program through [`collect`]. The target is opened after the
//! login and before ATRN; a target that is down ends the call with QUIT, and no mail was touched.

use std::time::{Duration, Instant};

use futures::future::{Either, select};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};

use super::account::Account;
use super::files;
use super::pump::{PumpEnd, pump};
use super::target::{self, Opened, Target};
use super::verdict::{Trouble, Verdict};
use crate::mail::TlsFacts;
use crate::net::dial;
use crate::net::patience::within;
use crate::net::stop::Stop;
use crate::net::tls::ClientTls;
use crate::net::wire::{Stream, Wire};
use crate::smtp::bridge::{Bridge, Passed};
use crate::smtp::caller::{Caller, Encryption, Input, Ready, Step, Turned};

/// Patience for a TLS handshake.
const HANDSHAKE_SECONDS_MAX: u64 = 60;

/// What happens during a call, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection stands, with these facts if it is encrypted.
    Connected(Option<&'a TlsFacts>),
    /// Logged in with this mechanism.
    LoggedIn(&'static str),
    /// ATRN is on its way; the reply may take minutes.
    Waiting,
    /// The roles have reversed; the provider's reply.
    Turned(&'a str),
    /// The target has answered for a message.
    Passed(&'a Passed),
    /// So many octets have come through since the turn.
    Moved {
        /// Their count.
        octets: u64,
    },
}

/// How a call went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Messages that the target has taken.
    pub taken: u64,
    /// Messages that the target has refused; the provider knows what to do with them.
    pub refused: u64,
    /// Octets of the messages taken.
    pub octets: u64,
    /// From dialling to the end.
    pub span: Duration,
    /// Whether the roles were reversed.
    pub was_turned: bool,
}

/// Calls the provider of `account` once. `tell` hears what happens; `stop` ends the call at the next boundary
/// between messages.
pub async fn collect(account: &Account, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Report {
    let mut call = Call::new(account, stop, tell);
    let connected = call.connect().await;
    call.finish(connected).await
}

/// The same over a connection that stands already: a pipe in memory, a tunnel. With [`Encryption::Implicit`] it
/// must be encrypted already.
pub async fn collect_over(
    account: &Account,
    wire: Wire,
    stop: &Stop,
    tell: &mut dyn FnMut(Event<'_>),
) -> Report {
    Call::new(account, stop, tell).finish(Ok(wire)).await
}

struct Call<'a> {
    account: &'a Account,
    stop: &'a Stop,
    tell: &'a mut dyn FnMut(Event<'_>),
    began: Instant,
    report: Report,
}

impl<'a> Call<'a> {
    fn new(account: &'a Account, stop: &'a Stop, tell: &'a mut dyn FnMut(Event<'_>)) -> Self {
        let report = Report {
            verdict: Verdict::Collected,
            taken: 0,
            refused: 0,
            octets: 0,
            span: Duration::ZERO,
            was_turned: false,
        };
        Self { account, stop, tell, began: Instant::now(), report }
    }

    async fn finish(mut self, connected: Result<Wire, Verdict>) -> Report {
        self.report.verdict = match connected {
            Ok(wire) => self.converse(wire).await.unwrap_or_else(|verdict| verdict),
            Err(verdict) => verdict,
        };
        self.report.span = self.began.elapsed();
        self.report
    }

    async fn connect(&mut self) -> Result<Wire, Verdict> {
        let Account { host, port, .. } = self.account;
        let wire = self.unless_stopped(dial::connect(host, *port)).await?.map_err(|error| {
            Verdict::Later(Trouble::new(
                format!("no connection to {host} port {port}: {error}"),
                "check host and port, and whether a firewall lets you out",
            ))
        })?;
        match self.account.encryption {
            Encryption::Implicit => self.secure(wire).await,
            Encryption::StartTls | Encryption::Clear => Ok(wire),
        }
    }

    /// The TLS handshake with the certificate's check.
    async fn secure(&mut self, wire: Wire) -> Result<Wire, Verdict> {
        let account = self.account;
        let tls = ClientTls::new(&account.trust, account.identity.as_ref()).map_err(|fault| {
            Verdict::Refused(Trouble::new(fault, "check --ca, --certificate and --key"))
        })?;
        let patience = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        let handshake = within(patience, tls.connect(&account.host, wire));
        match self.unless_stopped(handshake).await? {
            Some(Ok(wire)) => Ok(wire),
            // What is wrong with a certificate comes as invalid data; it will not come right by itself.
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(Verdict::Refused(Trouble::new(
                    format!("TLS with {}: {error}", account.host),
                    "give the provider's authority with --ca or its key with --pin; if it worked before, ask first",
                )))
            }
            Some(Err(error)) => Err(Verdict::Later(Trouble::new(
                format!("TLS with {}: {error}", account.host),
                "try again; if it stays so, check port and --tls",
            ))),
            None => Err(Verdict::Later(Trouble::new(
                format!("TLS with {}: no handshake in time", account.host),
                "check port and --tls",
            ))),
        }
    }

    /// From the greeting to the end; an error is a verdict as well, only reached early.
    async fn converse(&mut self, wire: Wire) -> Result<Verdict, Verdict> {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(|error| {
            Verdict::Later(Trouble::new(format!("no randomness: {error}"), "look at the system"))
        })?;
        (self.tell)(Event::Connected(wire.tls.as_ref()));
        let caller = Caller::new(self.account.orders(nonce), wire.tls.clone());
        let (mut wire, ready) = self.log_in(wire, caller).await?;
        (self.tell)(Event::LoggedIn(ready.mechanism));
        if self.account.dry_run {
            let offers = ready.offers.clone();
            let mut out = Vec::new();
            let leaving = ready.leave(&mut out);
            let _ = self.drive(&mut wire.stream, leaving, out).await;
            return Ok(Verdict::Offered(Box::new(offers)));
        }
        self.turn(wire, ready).await
    }

    async fn log_in(&mut self, wire: Wire, caller: Caller) -> Result<(Wire, Ready), Verdict> {
        let mut wire = wire;
        let mut out = Vec::new();
        let mut caller = caller;
        loop {
            match self.drive(&mut wire.stream, caller, out).await? {
                Step::Upgrade(upgrade) => {
                    wire = self.secure(wire).await?;
                    let facts = wire.tls.clone().unwrap_or_default();
                    (self.tell)(Event::Connected(Some(&facts)));
                    out = Vec::new();
                    caller = upgrade.secured(facts, &mut out);
                }
                Step::Ready(ready) => return Ok((wire, ready)),
                Step::Over(ending) => return Err(Verdict::of(ending)),
                Step::Stay(_) | Step::Turned(_) => return Err(unreachable_step()),
            }
        }
    }

    /// Sends `out`, then moves bytes between wire and caller until the caller wants something else.
    async fn drive(
        &mut self,
        stream: &mut Box<dyn Stream>,
        caller: Caller,
        out: Vec<u8>,
    ) -> Result<Step, Verdict> {
        self.unless_stopped(drive(stream, caller, out)).await
    }

    async fn turn(&mut self, mut wire: Wire, ready: Ready) -> Result<Verdict, Verdict> {
        let opened = match self
            .unless_stopped(target::open(&self.account.target, &self.account.hello))
            .await?
        {
            Ok(opened) => opened,
            Err(error) => {
                let mut out = Vec::new();
                let leaving = ready.leave(&mut out);
                let _ = self.drive(&mut wire.stream, leaving, out).await;
                return Err(target_down(&self.account.target, &error));
            }
        };
        let mut out = Vec::new();
        let caller = ready.turn(&mut out);
        (self.tell)(Event::Waiting);
        let turned = match self.drive(&mut wire.stream, caller, out).await? {
            Step::Turned(turned) => turned,
            Step::Over(ending) => return Err(Verdict::of(ending)),
            Step::Stay(_) | Step::Upgrade(_) | Step::Ready(_) => return Err(unreachable_step()),
        };
        self.report.was_turned = true;
        (self.tell)(Event::Turned(turned.reply.said().as_str()));
        let opened = if opened.is_stale(self.account.reopen_after) {
            drop(opened);
            match target::open(&self.account.target, &self.account.hello).await {
                Ok(opened) => opened,
                Err(error) => {
                    // The provider waits for our greeting; this one says "later" (RFC 5321 §3.8).
                    let _ = wire.stream.write_all(b"421 4.3.2 Local server gone\r\n").await;
                    let _ = wire.stream.close().await;
                    return Err(target_down(&self.account.target, &error));
                }
            }
        } else {
            opened
        };
        Ok(self.carry(wire, &turned, opened).await)
    }

    async fn carry(&mut self, wire: Wire, turned: &Turned, opened: Opened) -> Verdict {
        let (report, tell) = (&mut self.report, &mut *self.tell);
        let mut deferred = 0u64;
        let mut count = |event: Event<'_>| {
            if let Event::Passed(passed) = &event {
                if passed.taken {
                    report.taken += 1;
                    report.octets += passed.octets;
                } else {
                    report.refused += 1;
                    deferred += u64::from(passed.reply.starts_with('4'));
                }
            }
            tell(event);
        };
        let end = match opened {
            Opened::Server(server) => {
                let bridge = Bridge::new(server.dialect, wire.tls.is_some());
                let stop = (self.stop, self.account.stop_patience);
                let target = (server.stream, server.said.as_slice());
                pump(wire.stream, &turned.early, target, bridge, stop, &mut count).await
            }
            Opened::Files(mailbox) => {
                let early = &turned.early;
                files::receive(wire, early, mailbox, self.account, self.stop, &mut count).await
            }
        };
        let later = |cause: String, mend| Verdict::Later(Trouble::new(cause, mend));
        match end {
            PumpEnd::Quit if deferred > 0 => later(
                format!("the target put off {deferred} of the messages"),
                "they stay at the provider; look at the local server's log",
            ),
            PumpEnd::Quit => Verdict::Collected,
            PumpEnd::Stopped | PumpEnd::StoppedInMessage => Verdict::Stopped,
            PumpEnd::ProviderGone => later(
                "the connection to the provider ended without QUIT".into(),
                "what was not taken stays at the provider; try again",
            ),
            PumpEnd::TargetGone => later(
                format!("{} closed the connection", self.account.target),
                "what was not taken stays at the provider; look at the local server's log",
            ),
            PumpEnd::Idle => later("nothing moved for a long time".into(), "try again"),
            PumpEnd::Fault(fault) => later(fault.to_string(), "look at the local server's log"),
        }
    }

    /// The outcome of `work`, unless a stop is ordered first: before the turn nothing needs to be finished.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Verdict> {
        let work = std::pin::pin!(work);
        let order = std::pin::pin!(self.stop.given());
        match select(work, order).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(((), _)) => Err(Verdict::Stopped),
        }
    }
}

async fn drive(stream: &mut Box<dyn Stream>, mut caller: Caller, mut out: Vec<u8>) -> Step {
    let mut buffer = vec![0u8; 4096];
    loop {
        let patience = Duration::from(caller.patience());
        let exchange = async {
            if !out.is_empty() {
                stream.write_all(&out).await?;
                stream.flush().await?;
            }
            stream.read(&mut buffer).await
        };
        let outcome = within(patience, exchange).await;
        out.clear();
        let input = match &outcome {
            Some(Ok(length)) if *length > 0 => Input::Bytes(&buffer[..*length]),
            Some(_) => Input::Ended,
            None => Input::Expired,
        };
        match caller.advance(input, &mut out) {
            Step::Stay(next) => caller = next,
            other => return other,
        }
    }
}

fn target_down(target: &Target, error: &std::io::Error) -> Verdict {
    Verdict::Later(Trouble::new(
        format!("{target} cannot be opened: {error}"),
        "start the local server or correct --to; no mail was touched",
    ))
}

/// The caller's steps come in one order only; should that ever change, the call ends and nothing is lost.
fn unreachable_step() -> Verdict {
    Verdict::Later(Trouble::new("the negotiation is out of order", "report this as a fault"))
}
