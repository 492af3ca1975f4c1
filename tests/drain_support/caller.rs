//! A customer that calls: EHLO, login, ATRN until it is let in, and then its server behind the same wire.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use hmac::{KeyInit as _, Mac as _};
use restante::provider::World;

use super::clock::Clock;
use super::pipe::End;
use super::server::Server;

/// The password of everybody.
pub const PASSWORD: &str = "an ordinary password";

/// See the module's head.
pub struct Caller {
    pub end: End,
    pub clock: Clock,
    pub name: &'static str,
    /// As it stands behind ATRN; empty: all domains.
    pub domains: String,
    /// How often it asks again when somebody else is being served.
    pub tries: usize,
    pub server: Server,
}

/// The wire broke at this place.
struct Gone(&'static str);

impl Caller {
    /// Calls, and takes mail if it is let in. Tells where the wire broke.
    pub async fn call(mut self) -> Option<&'static str> {
        match self.ask().await {
            Err(Gone(place)) => Some(place),
            Ok(false) => {
                // Whatever is said to QUIT, it is over.
                let _ = self.end.write_all(b"QUIT\r\n").await;
                let _ = self.hear().await;
                None
            }
            Ok(true) => self.server.serve(self.end, self.clock).await.broken,
        }
    }

    /// Whether the roles are reversed now.
    async fn ask(&mut self) -> Result<bool, Gone> {
        self.hear().await?;
        self.say("call: before the turn", "EHLO customer.example\r\n").await?;
        self.hear().await?;
        self.say("call: inside the login", "AUTH CRAM-MD5\r\n").await?;
        let challenge = self.hear().await?;
        let Some(challenge) = challenge.strip_prefix("334 ") else { return Ok(false) };
        let challenge = BASE64.decode(challenge).expect("base64");
        let mut mac =
            hmac::Hmac::<md5::Md5>::new_from_slice(PASSWORD.as_bytes()).expect("any length");
        mac.update(&challenge);
        let digest: String =
            mac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
        let response = BASE64.encode(format!("{} {digest}", self.name));
        self.say("call: inside the login", &format!("{response}\r\n")).await?;
        let reply = self.hear().await?;
        if !reply.starts_with("235") {
            // Only trouble with the store excuses that.
            assert!(reply.starts_with('4'), "the right password is refused: {reply}");
            return Ok(false);
        }
        for _ in 0..self.tries {
            let space = if self.domains.is_empty() { "" } else { " " };
            let command = format!("ATRN{space}{}\r\n", self.domains);
            self.say("call: inside ATRN", &command).await?;
            let reply = self.hear().await?;
            match &reply[..3] {
                "250" => return Ok(true),
                "453" => return Ok(false),
                "451" | "450" => self.clock.wait(Duration::from_secs(30)).await,
                _ => panic!("an answer to ATRN that nobody expects: {reply}"),
            }
        }
        Ok(false)
    }

    async fn say(&mut self, place: &'static str, words: &str) -> Result<(), Gone> {
        self.end.write_all(words.as_bytes()).await.map_err(|_| Gone(place))
    }

    /// The last line of the next reply. Octet by octet: what stands behind is the server's. 421 is the end.
    async fn hear(&mut self) -> Result<String, Gone> {
        let mut line = Vec::new();
        loop {
            let mut place = [0];
            match self.end.read(&mut place).await {
                Ok(1..) => line.push(place[0]),
                _ => return Err(Gone("call: before the turn")),
            }
            if !line.ends_with(b"\r\n") {
                continue;
            }
            if line.starts_with(b"421") {
                return Err(Gone("call: sent away"));
            }
            if line.get(3) != Some(&b'-') {
                line.truncate(line.len() - 2);
                return Ok(String::from_utf8(line).expect("text"));
            }
            line.clear();
        }
    }
}
