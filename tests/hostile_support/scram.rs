//! A SCRAM-SHA-256 client that can be told to do everything wrong.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Peer;

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(key).expect("a key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// What the client says, and where it departs from the rules.
pub struct Scram<'a> {
    pub mechanism: &'a str,
    /// The GS2 header: `n,,`, `y,,`, `p=tls-exporter,,`, `n,a=somebody,`.
    pub header: &'a str,
    /// The channel binding, behind the header in `c=`.
    pub binding: &'a [u8],
    pub name: &'a str,
    pub password: &'a str,
    pub client_nonce: &'a str,
    /// Put in front of `n=`.
    pub extension: &'a str,
    /// Changes the nonce of the final message.
    pub other_nonce: bool,
    /// What `c=` says instead.
    pub other_binding: Option<&'a str>,
    pub empty_proof: bool,
}

impl Default for Scram<'_> {
    fn default() -> Self {
        Self {
            mechanism: "SCRAM-SHA-256",
            header: "n,,",
            binding: b"",
            name: "acme",
            password: super::PASSWORD,
            client_nonce: "fyko+d2lbbFgONRv9qkxdawL",
            extension: "",
            other_nonce: false,
            other_binding: None,
            empty_proof: false,
        }
    }
}

/// What the provider said in the first round.
pub struct Challenge {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub nonce: String,
    text: String,
}

impl Scram<'_> {
    fn bare(&self) -> String {
        format!("{}n={},r={}", self.extension, self.name, self.client_nonce)
    }

    /// The first round; gives the refusal if it ends there.
    pub fn begin(&self, peer: &mut Peer) -> Result<Challenge, Vec<String>> {
        let first = BASE64.encode(format!("{}{}", self.header, self.bare()));
        peer.say(format!("AUTH {} {first}\r\n", self.mechanism));
        let reply = peer.reply().expect("an answer");
        let Some(challenge) = reply[0].strip_prefix("334 ") else { return Err(reply) };
        let text = String::from_utf8(BASE64.decode(challenge).expect("base64")).expect("text");
        let part = |name: &str| {
            let found = text.split(',').find_map(|part| part.strip_prefix(name));
            found.expect("an attribute").to_owned()
        };
        Ok(Challenge {
            salt: BASE64.decode(part("s=")).expect("base64"),
            iterations: part("i=").parse().expect("a number"),
            nonce: part("r="),
            text: text.clone(),
        })
    }

    /// client-final-message for this challenge.
    pub fn final_message(&self, challenge: &Challenge) -> String {
        let mut salted = [0; 32];
        let password = self.password.as_bytes();
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &challenge.salt, challenge.iterations, &mut salted);
        let client_key = hmac(&salted, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let bound = BASE64.encode([self.header.as_bytes(), self.binding].concat());
        let bound = self.other_binding.unwrap_or(&bound);
        let mut nonce = challenge.nonce.clone();
        if self.other_nonce {
            nonce.push('x');
        }
        let without_proof = format!("c={bound},r={nonce}");
        let signed = format!("{},{},{without_proof}", self.bare(), challenge.text);
        let signature = hmac(&stored_key, signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let proof = if self.empty_proof { String::new() } else { BASE64.encode(proof) };
        format!("{without_proof},p={proof}")
    }

    /// The whole exchange; the last reply. The server's signature is not looked at here.
    pub fn run(&self, peer: &mut Peer) -> Vec<String> {
        let challenge = match self.begin(peer) {
            Ok(challenge) => challenge,
            Err(reply) => return reply,
        };
        peer.say(format!("{}\r\n", BASE64.encode(self.final_message(&challenge))));
        let reply = peer.reply().expect("an answer");
        if !reply[0].starts_with("334 ") {
            return reply;
        }
        let signed = BASE64.decode(&reply[0][4..]).expect("base64");
        assert!(signed.starts_with(b"v="), "{signed:?}");
        peer.say("\r\n");
        peer.reply().expect("an answer")
    }
}
