//! The opening of a connection that we made: greeting, STARTTLS and login, up to where the sender begins.
//!
//! Driven by the shell for the ETRN path and the way out: octets in, octets and the next step out. It believes
//! nothing that was said before TLS, nor anything that came in clear text behind the reply to STARTTLS
//! (CVE-2021-38371), and it never gives a password to a connection without TLS. The sender says EHLO once more.
//!
//! Keeps RFC 5321 §3.1 and §3.2, RFC 3207 §4, RFC 4954 §4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::sasl::client::{Exchange, Keys, choose};
use super::sender::{Extensions, Malformed, PeerReply, ReplyReader};
use crate::mail::{Domain, Seconds, TlsFacts};

/// Patience for each reply (RFC 5321 §4.5.3.2).
pub const REPLY_SECONDS_MAX: Seconds = Seconds(300);
/// An AUTH line longer than this carries no initial response (RFC 4954 §4 with RFC 5321 §4.5.3.1.4).
const COMMAND_BYTES_MAX: usize = 510;

/// Whether TLS is to come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// Not even if it is offered.
    Never,
    /// If it is offered.
    IfOffered,
    /// Or nothing else is said.
    Must,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Our name in EHLO.
    pub hostname: Domain,
    /// TLS.
    pub starttls: StartTls,
    /// Whether the wire is encrypted from the first octet on.
    pub tls: Option<TlsFacts>,
    /// A login, if the server wants one; only under TLS.
    pub keys: Option<Keys>,
    /// Unpredictable octets, new for each connection.
    pub nonce: [u8; 24],
}

/// What comes next.
#[derive(Debug)]
#[must_use = "a dropped step drops the connection"]
pub enum Step {
    /// Go on.
    Stay(Opening),
    /// Do the TLS handshake, then [`Opening::secured`].
    Upgrade(Opening),
    /// The sender may begin; the name in the greeting.
    Open(Option<String>),
    /// It is over, for this reason; QUIT has been written where that makes sense.
    Over(String),
}

#[derive(Debug)]
enum Phase {
    Greeting,
    Hello,
    StartTls,
    Login(Box<Exchange>, Option<Vec<u8>>),
}

/// See the module's head.
#[derive(Debug)]
pub struct Opening {
    wish: Wish,
    reader: ReplyReader,
    phase: Phase,
    peer_name: Option<String>,
}

impl Opening {
    /// Waits for the greeting.
    #[must_use]
    pub fn new(wish: Wish) -> Self {
        Self { wish, reader: ReplyReader::default(), phase: Phase::Greeting, peer_name: None }
    }

    /// TLS is up. Nothing that was said before counts (RFC 3207 §4.2), but the greeting does not come again.
    #[must_use]
    pub fn secured(self, tls: TlsFacts, out: &mut Vec<u8>) -> Self {
        let wish = Wish { tls: Some(tls), ..self.wish };
        let fresh = Self { wish, reader: ReplyReader::default(), phase: Phase::Hello, ..self };
        fresh.say_hello(out);
        fresh
    }

    /// Takes octets from the wire.
    pub fn advance(mut self, mut octets: &[u8], out: &mut Vec<u8>) -> Step {
        loop {
            let reply = match self.reader.read(&mut octets) {
                Ok(Some(reply)) => reply,
                Ok(None) => return Step::Stay(self),
                Err(why) => return over(out, garbled(why)),
            };
            if !octets.is_empty() {
                // Each of our lines waits for its reply, so nothing more can be due.
                return Step::Over("the server sent more than was asked for".into());
            }
            match self.take(&reply, out) {
                Step::Stay(same) => self = same,
                step => return step,
            }
        }
    }

    fn say_hello(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("EHLO {}\r\n", self.wish.hostname).as_bytes());
    }

    fn take(mut self, reply: &PeerReply, out: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Hello) {
            Phase::Greeting if reply.code == 220 => {
                self.peer_name = reply.text.split_ascii_whitespace().next().map(str::to_owned);
                self.say_hello(out);
                Step::Stay(self)
            }
            Phase::Greeting => over(out, format!("the server greeted with `{}`", reply.said())),
            Phase::Hello => self.hello(reply, out),
            Phase::StartTls if reply.code == 220 => Step::Upgrade(self),
            Phase::StartTls if self.wish.starttls == StartTls::IfOffered => self.after_tls("", out),
            Phase::StartTls => over(out, format!("STARTTLS was refused: {}", reply.said())),
            Phase::Login(exchange, first) => self.login(*exchange, first, reply, out),
        }
    }

    fn hello(mut self, reply: &PeerReply, out: &mut Vec<u8>) -> Step {
        let is_greeted = reply.class() == 2;
        let offers =
            if is_greeted { Extensions::parse(&reply.text) } else { Extensions::default() };
        if self.wish.tls.is_none() && self.wish.starttls != StartTls::Never {
            if offers.starttls {
                out.extend_from_slice(b"STARTTLS\r\n");
                self.phase = Phase::StartTls;
                return Step::Stay(self);
            }
            if self.wish.starttls == StartTls::Must {
                return over(out, "the server does not offer STARTTLS, and TLS is required".into());
            }
        }
        if !is_greeted && reply.class() != 5 {
            return over(out, format!("EHLO was refused: {}", reply.said()));
        }
        self.after_tls(&reply.text, out)
    }

    /// As encrypted as it gets: log in, or be done.
    fn after_tls(mut self, hello: &str, out: &mut Vec<u8>) -> Step {
        let Some(keys) = &self.wish.keys else { return Step::Open(self.peer_name) };
        if self.wish.tls.is_none() {
            return over(out, "a login is set, and it is not used without TLS".into());
        }
        let offered = mechanisms(hello);
        let allowed = super::MECHANISMS;
        let Some(mechanism) = choose(&offered, &allowed, keys, self.wish.tls.as_ref()) else {
            return over(out, "the server offers no login that we could use".into());
        };
        let begun =
            Exchange::begin(mechanism, &offered, keys, &self.wish.nonce, self.wish.tls.as_ref());
        let mut exchange = match begun {
            Ok(exchange) => exchange,
            Err(fault) => return over(out, fault.to_string()),
        };
        let mut line = format!("AUTH {mechanism}");
        let mut first = exchange.initial().map(|octets| octets.to_vec());
        if let Some(octets) = &first {
            let text = if octets.is_empty() { "=".to_owned() } else { BASE64.encode(octets) };
            if line.len() + 1 + text.len() <= COMMAND_BYTES_MAX {
                line.push(' ');
                line.push_str(&text);
                first = None;
            }
        }
        line.push_str("\r\n");
        out.extend_from_slice(line.as_bytes());
        self.phase = Phase::Login(Box::new(exchange), first);
        Step::Stay(self)
    }

    fn login(
        mut self,
        mut exchange: Exchange,
        first: Option<Vec<u8>>,
        reply: &PeerReply,
        out: &mut Vec<u8>,
    ) -> Step {
        match reply.code {
            235 if exchange.is_satisfied() => Step::Open(self.peer_name),
            235 => Step::Over("the server did not prove that it knows the password".into()),
            334 => {
                let answer = match first {
                    Some(octets) => Ok(octets),
                    None => match BASE64.decode(reply.text.trim()) {
                        Ok(challenge) => exchange
                            .respond(&challenge)
                            .map(|octets| octets.to_vec())
                            .map_err(|fault| fault.to_string()),
                        Err(_) => Err("the server's challenge is not base64".into()),
                    },
                };
                match answer {
                    Ok(octets) => {
                        out.extend_from_slice(BASE64.encode(octets).as_bytes());
                        out.extend_from_slice(b"\r\n");
                        self.phase = Phase::Login(Box::new(exchange), None);
                        Step::Stay(self)
                    }
                    Err(why) => Step::Over(why),
                }
            }
            _ => over(out, format!("the login was refused: {}", reply.said())),
        }
    }
}

fn over(out: &mut Vec<u8>, why: String) -> Step {
    out.extend_from_slice(b"QUIT\r\n");
    Step::Over(why)
}

fn garbled(why: Malformed) -> String {
    format!("the server sent {why}")
}

/// The mechanisms in a reply to EHLO (RFC 4954 §3).
fn mechanisms(hello: &str) -> Vec<String> {
    hello
        .split('\n')
        .skip(1)
        .filter_map(|line| {
            let (keyword, rest) = line.split_at_checked(4)?;
            keyword.eq_ignore_ascii_case("AUTH").then_some(rest)
        })
        .flat_map(|rest| rest.split([' ', '=']))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_uppercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(starttls: StartTls, keys: bool) -> Wish {
        Wish {
            hostname: Domain::parse("mx.provider.example").expect("valid"),
            starttls,
            tls: None,
            keys: keys.then(|| Keys {
                login: "u".into(),
                secret: Some("p".into()),
                has_certificate: false,
            }),
            nonce: [7; 24],
        }
    }

    /// Plays replies; `tls` in between stands for the handshake. What was said, and how it ended.
    fn play(wish: Wish, replies: &[&str]) -> (String, String) {
        let mut opening = Opening::new(wish);
        let mut out = Vec::new();
        let mut end = "stays".to_owned();
        for reply in replies {
            match opening.advance(format!("{reply}\r\n").as_bytes(), &mut out) {
                Step::Stay(next) => opening = next,
                Step::Upgrade(next) => {
                    out.extend_from_slice(b"<tls>\r\n");
                    opening = next.secured(TlsFacts::default(), &mut out);
                }
                Step::Open(name) => {
                    end = format!("open {}", name.unwrap_or_default());
                    break;
                }
                Step::Over(why) => {
                    end = why;
                    break;
                }
            }
        }
        (String::from_utf8(out).expect("text").replace("\r\n", ","), end)
    }

    const HELLO: &str = "250-mx.example\r\n250 STARTTLS";

    #[test]
    fn with_and_without_tls() {
        let ehlo = "EHLO mx.provider.example,";
        let greeting = "220 mx.example ESMTP";
        assert_eq!(
            play(wish(StartTls::IfOffered, false), &[greeting, "250 mx.example"]),
            (ehlo.into(), "open mx.example".into())
        );
        assert_eq!(
            play(wish(StartTls::Must, false), &[greeting, HELLO, "220 go", "250 mx.example"]),
            (format!("{ehlo}STARTTLS,<tls>,{ehlo}"), "open mx.example".into())
        );
        assert_eq!(
            play(wish(StartTls::Never, false), &[greeting, HELLO]),
            (ehlo.into(), "open mx.example".into())
        );
        assert_eq!(
            play(wish(StartTls::IfOffered, false), &[greeting, HELLO, "454 not now"]).1,
            "open mx.example"
        );
        assert_eq!(
            play(wish(StartTls::IfOffered, false), &[greeting, "502 no EHLO here"]).1,
            "open mx.example"
        );
        for (replies, why) in [
            (&[greeting, "250 mx.example"][..], "the server does not offer STARTTLS"),
            (&[greeting, HELLO, "454 not now"], "STARTTLS was refused: 454 not now"),
            (&["554 go away"], "the server greeted with `554 go away`"),
            (&["hello"], "the server sent a line that is no SMTP reply"),
        ] {
            let (said, end) = play(wish(StartTls::Must, false), replies);
            assert!(end.starts_with(why) && said.ends_with("QUIT,"), "{end}");
        }
    }

    // covers: B2
    #[test]
    fn nothing_behind_starttls_is_believed() {
        let injected = "220 go\r\n250-x\r\n250 PIPELINING";
        let (_, end) = play(wish(StartTls::Must, false), &["220 x", HELLO, injected]);
        assert_eq!(end, "the server sent more than was asked for");
    }

    // covers: W-13
    #[test]
    fn logins_only_under_tls() {
        let (said, end) =
            play(wish(StartTls::IfOffered, true), &["220 x", "250-x\r\n250 AUTH PLAIN"]);
        assert!(!said.contains("AUTH") && end.contains("not used without TLS"), "{end}");
        let secure = ["220 x", HELLO, "220 go", "250-x\r\n250 AUTH LOGIN PLAIN", "235 yes"];
        let (said, end) = play(wish(StartTls::Must, true), &secure);
        assert!(said.contains("AUTH PLAIN AHUAcA==,"), "{said}");
        assert_eq!(end, "open x");
        let refused = ["220 x", HELLO, "220 go", "250-x\r\n250 AUTH PLAIN", "535 no"];
        assert_eq!(play(wish(StartTls::Must, true), &refused).1, "the login was refused: 535 no");
    }
}
