//! The caller: a customer that calls for its mail, from the greeting to the reply to ATRN.
//!
//! Driven by the customer's side of the program (or by hand): bytes in, bytes and the next step out. It knows no
//! socket, clock or chance, opens no target and moves no mail; it ends where the roles reverse. It believes
//! nothing that was said before TLS, and nothing that came in clear text behind the reply to STARTTLS.
//!
//! Keeps RFC 2645 §5.1 to §5.3 (the customer's part), RFC 3207 §4 (STARTTLS) and RFC 4954 §4 (AUTH).

mod offers;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::mail::{Domain, Seconds, TlsFacts};
use crate::smtp::sasl::client::{Exchange, Keys, LoginFault, choose};
use crate::smtp::sender::{Malformed, PeerReply, ReplyReader};
pub use offers::Offers;

/// An AUTH line longer than this carries no initial response (RFC 4954 §4 with RFC 5321 §4.5.3.1.4).
const COMMAND_BYTES_MAX: usize = 510;
/// Patience for an ordinary reply (RFC 5321 §4.5.3.2).
const REPLY_SECONDS_MAX: u64 = 300;
/// The least patience for the reply to ATRN (RFC 2645 §5.2.1).
const TURN_SECONDS_LEAST: u64 = 600;

/// How the connection is to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// STARTTLS, without which nothing else is said.
    StartTls,
    /// TLS was there before the first byte.
    Implicit,
    /// Clear text, because the user asked for it.
    Clear,
}

/// What the customer wants.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Our name in EHLO.
    pub hello: String,
    /// The domains of ATRN; none: all that the login may have (RFC 2645 §5.2.1).
    pub domains: Vec<Domain>,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// Name and proof.
    pub keys: Keys,
    /// Allowed mechanisms, from [`crate::smtp::MECHANISMS`].
    pub mechanisms: Vec<&'static str>,
    /// Unpredictable octets, new for each call.
    pub nonce: [u8; 24],
    /// How long the reply to ATRN may take; never less than ten minutes.
    pub turn_patience: Seconds,
}

/// What the shell tells.
#[derive(Debug)]
pub enum Input<'a> {
    /// Octets from the wire.
    Bytes(&'a [u8]),
    /// [`Caller::patience`] is over.
    Expired,
    /// The provider closed, or the wire broke.
    Ended,
}

/// Where in the dialogue something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The greeting.
    Greeting,
    /// EHLO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Login,
    /// ATRN.
    Turn,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Greeting => "the greeting",
            Self::Hello => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Login => "AUTH",
            Self::Turn => "ATRN",
        })
    }
}

/// How a call ended without mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// 453: nothing is waiting.
    NoMail(PeerReply),
    /// The provider said no.
    Refused(Stage, PeerReply),
    /// STARTTLS was ordered and is not offered.
    NoStartTls,
    /// No mechanism that both sides have and the orders allow; these are offered.
    NoMechanism(Vec<String>),
    /// Something came in clear text behind the reply to STARTTLS: an attacker's, or a broken server's.
    Injected,
    /// The login could not be carried through.
    Login(LoginFault),
    /// What came is no reply.
    Garbled(Stage, Malformed),
    /// The connection ended too early.
    Lost(Stage),
    /// No reply in time.
    Silent(Stage),
    /// We left before ATRN, as ordered.
    Left,
}

/// What comes next.
#[derive(Debug)]
#[must_use = "a dropped step drops the call"]
#[expect(clippy::large_enum_variant, reason = "one step exists at a time, and nothing keeps it")]
pub enum Step {
    /// Go on.
    Stay(Caller),
    /// Do the TLS handshake, then [`Upgrade::secured`].
    Upgrade(Upgrade),
    /// Logged in. Open the target; then [`Ready::turn`], or [`Ready::leave`].
    Ready(Ready),
    /// The roles have reversed.
    Turned(Turned),
    /// It is over.
    Over(Ending),
}

/// A call under way.
#[derive(Debug)]
pub struct Caller {
    orders: Orders,
    reader: ReplyReader,
    /// Bytes behind the last reply.
    unread: Vec<u8>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Greeting {
        tls: Option<TlsFacts>,
    },
    Hello {
        tls: Option<TlsFacts>,
    },
    StartTls,
    Login {
        exchange: Exchange,
        offers: Offers,
        mechanism: &'static str,
        first: Option<Zeroizing<Vec<u8>>>,
    },
    Turn,
    Leaving(Ending),
}

/// The wire must become TLS now.
#[derive(Debug)]
pub struct Upgrade {
    orders: Orders,
}

impl Upgrade {
    /// TLS is up and the certificate was found good.
    #[must_use]
    pub fn secured(self, tls: TlsFacts, out: &mut Vec<u8>) -> Caller {
        let caller = Caller::at(self.orders, Phase::Hello { tls: Some(tls) });
        caller.say_hello(out);
        caller
    }
}

/// Logged in; ATRN has not been sent. The only way to the turn, so the target is opened in between.
#[derive(Debug)]
pub struct Ready {
    orders: Orders,
    unread: Vec<u8>,
    /// What the provider offers.
    pub offers: Offers,
    /// How we logged in.
    pub mechanism: &'static str,
}

impl Ready {
    /// Sends ATRN.
    #[must_use]
    pub fn turn(self, out: &mut Vec<u8>) -> Caller {
        let names: Vec<&str> = self.orders.domains.iter().map(Domain::as_str).collect();
        let line =
            if names.is_empty() { "ATRN".into() } else { format!("ATRN {}", names.join(",")) };
        push_line(out, &line);
        Caller { unread: self.unread, ..Caller::at(self.orders, Phase::Turn) }
    }

    /// Sends QUIT instead.
    #[must_use]
    pub fn leave(self, out: &mut Vec<u8>) -> Caller {
        push_line(out, "QUIT");
        Caller { unread: self.unread, ..Caller::at(self.orders, Phase::Leaving(Ending::Left)) }
    }
}

/// After the turn: the provider is the client now.
#[derive(Debug)]
pub struct Turned {
    /// Its reply to ATRN.
    pub reply: PeerReply,
    /// What it sent behind the reply without waiting for our greeting; the first bytes for the target.
    pub early: Vec<u8>,
}

impl Caller {
    /// Begins: waits for the greeting. `tls` is given with [`Encryption::Implicit`].
    #[must_use]
    pub fn new(orders: Orders, tls: Option<TlsFacts>) -> Self {
        Self::at(orders, Phase::Greeting { tls })
    }

    fn at(orders: Orders, phase: Phase) -> Self {
        Self { orders, reader: ReplyReader::default(), unread: Vec::new(), phase }
    }

    /// How long to wait for the next bytes before [`Input::Expired`].
    #[must_use]
    pub fn patience(&self) -> Seconds {
        match self.phase {
            Phase::Turn => Seconds(self.orders.turn_patience.0.max(TURN_SECONDS_LEAST)),
            Phase::Leaving(_) => Seconds(10),
            _ => Seconds(REPLY_SECONDS_MAX),
        }
    }

    /// Takes what happened; appends to `out` what must be sent before anything else is read.
    pub fn advance(mut self, input: Input<'_>, out: &mut Vec<u8>) -> Step {
        match input {
            Input::Bytes(bytes) => self.unread.extend_from_slice(bytes),
            Input::Expired => return self.cut(Ending::Silent),
            Input::Ended => return self.cut(Ending::Lost),
        }
        loop {
            let stage = self.stage();
            let mut rest = self.unread.as_slice();
            let outcome = self.reader.read(&mut rest);
            let used = self.unread.len() - rest.len();
            self.unread.drain(..used);
            match outcome {
                Ok(None) => return Step::Stay(self),
                Err(fault) => return self.cut(|_| Ending::Garbled(stage, fault)),
                Ok(Some(reply)) => match self.heard(reply, out) {
                    Step::Stay(next) => self = next,
                    other => return other,
                },
            }
        }
    }

    fn stage(&self) -> Stage {
        match self.phase {
            Phase::Greeting { .. } => Stage::Greeting,
            Phase::Hello { .. } => Stage::Hello,
            Phase::StartTls => Stage::StartTls,
            Phase::Login { .. } => Stage::Login,
            Phase::Turn | Phase::Leaving(_) => Stage::Turn,
        }
    }

    /// The wire is of no use any more. While leaving, the verdict stands already.
    fn cut(self, ending: impl FnOnce(Stage) -> Ending) -> Step {
        let stage = self.stage();
        Step::Over(match self.phase {
            Phase::Leaving(verdict) => verdict,
            _ => ending(stage),
        })
    }

    fn leave(self, ending: Ending, out: &mut Vec<u8>) -> Step {
        push_line(out, "QUIT");
        Step::Stay(Self { phase: Phase::Leaving(ending), ..self })
    }

    /// A refusal; after 421 the provider closes by itself (RFC 5321 §3.8).
    fn refused(self, reply: PeerReply, out: &mut Vec<u8>) -> Step {
        let stage = self.stage();
        if reply.code == 421 {
            return Step::Over(Ending::Refused(stage, reply));
        }
        self.leave(Ending::Refused(stage, reply), out)
    }

    fn say_hello(&self, out: &mut Vec<u8>) {
        push_line(out, &format!("EHLO {}", self.orders.hello));
    }

    fn heard(mut self, reply: PeerReply, out: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Turn) {
            Phase::Greeting { tls } => {
                self.phase = Phase::Greeting { tls: None };
                if reply.class() != 2 {
                    return self.refused(reply, out);
                }
                self.phase = Phase::Hello { tls };
                self.say_hello(out);
                Step::Stay(self)
            }
            Phase::Hello { tls } => {
                self.phase = Phase::Hello { tls: None };
                self.heard_hello(&reply, tls, out)
            }
            Phase::StartTls => {
                self.phase = Phase::StartTls;
                if reply.code != 220 {
                    return self.refused(reply, out);
                }
                if !self.unread.is_empty() {
                    return Step::Over(Ending::Injected);
                }
                Step::Upgrade(Upgrade { orders: self.orders })
            }
            Phase::Login { exchange, offers, mechanism, first } => {
                self.heard_login(reply, Login { exchange, offers, mechanism, first }, out)
            }
            Phase::Turn => self.heard_turn(reply, out),
            Phase::Leaving(ending) => Step::Over(ending),
        }
    }

    fn heard_hello(mut self, reply: &PeerReply, tls: Option<TlsFacts>, out: &mut Vec<u8>) -> Step {
        if reply.class() != 2 {
            return self.refused(reply.clone(), out);
        }
        let offers = Offers::read(reply);
        if self.orders.encryption == Encryption::StartTls && tls.is_none() {
            if !offers.starttls {
                return self.leave(Ending::NoStartTls, out);
            }
            push_line(out, "STARTTLS");
            self.phase = Phase::StartTls;
            return Step::Stay(self);
        }
        let keys = &self.orders.keys;
        let Some(mechanism) =
            choose(&offers.mechanisms, &self.orders.mechanisms, keys, tls.as_ref())
        else {
            return self.leave(Ending::NoMechanism(offers.mechanisms), out);
        };
        let begun =
            Exchange::begin(mechanism, &offers.mechanisms, keys, &self.orders.nonce, tls.as_ref());
        let mut exchange = match begun {
            Ok(exchange) => exchange,
            Err(fault) => return self.leave(Ending::Login(fault), out),
        };
        let mut first = exchange.initial();
        let line = Zeroizing::new(match &first {
            None => format!("AUTH {mechanism}"),
            // An empty initial response is "=" (RFC 4954 §4).
            Some(empty) if empty.is_empty() => format!("AUTH {mechanism} ="),
            Some(message) => format!("AUTH {mechanism} {}", BASE64.encode(message)),
        });
        if line.len() > COMMAND_BYTES_MAX {
            push_line(out, &format!("AUTH {mechanism}"));
        } else {
            push_line(out, &line);
            first = None;
        }
        self.phase = Phase::Login { exchange, offers, mechanism, first };
        Step::Stay(self)
    }

    fn heard_login(mut self, reply: PeerReply, login: Login, out: &mut Vec<u8>) -> Step {
        let Login { mut exchange, offers, mechanism, first } = login;
        if reply.code == 235 {
            if !exchange.is_satisfied() {
                // Logged in or not, this may not be our provider: no mail is taken from it.
                return self.leave(Ending::Login(LoginFault::Unproven), out);
            }
            let Self { orders, unread, .. } = self;
            return Step::Ready(Ready { orders, unread, offers, mechanism });
        }
        if reply.code != 334 {
            self.phase = Phase::Login { exchange, offers, mechanism, first };
            return self.refused(reply, out);
        }
        let answer = match first {
            Some(message) => Ok(message),
            None => BASE64
                .decode(reply.lines().next().unwrap_or_default().trim())
                .map_err(|_| LoginFault::Garbled)
                .and_then(|challenge| exchange.respond(&challenge)),
        };
        match answer {
            Ok(answer) => {
                push_line(out, &Zeroizing::new(BASE64.encode(answer)));
                self.phase = Phase::Login { exchange, offers, mechanism, first: None };
                Step::Stay(self)
            }
            Err(fault) => {
                // "*" ends the exchange; its 501 is then read while leaving (RFC 4954 §4).
                push_line(out, "*");
                self.leave(Ending::Login(fault), out)
            }
        }
    }

    fn heard_turn(self, reply: PeerReply, out: &mut Vec<u8>) -> Step {
        match reply.code {
            250 => Step::Turned(Turned { reply, early: self.unread }),
            453 => self.leave(Ending::NoMail(reply), out),
            _ => self.refused(reply, out),
        }
    }
}

/// The parts of the login phase on their way through one reply.
struct Login {
    exchange: Exchange,
    offers: Offers,
    mechanism: &'static str,
    first: Option<Zeroizing<Vec<u8>>>,
}

fn push_line(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}
