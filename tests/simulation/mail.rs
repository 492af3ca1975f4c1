//! Another mail server: it brings messages to the MX door as RFC 5321 says, or not quite, and may die anywhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use restante::provider::World;

use crate::drain_support::Clock;
use crate::drain_support::flaky::Dice;
use crate::drain_support::pipe::End;
use crate::places;

/// What its sender knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its end was never written: nobody may ever see any of it.
    Unfinished,
    /// It was refused, or withdrawn: the same.
    Refused,
    /// It was written to its end, and no reply came.
    Unknown,
    /// It was answered with 250: ours from now on.
    Promised,
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The recipients that were answered with 250.
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// All messages by number.
pub(crate) type Letters = Arc<Mutex<BTreeMap<u128, Letter>>>;

/// One that is to be brought.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) id: u128,
    pub(crate) to: Vec<String>,
    pub(crate) content: Vec<u8>,
}

/// See the module's head.
pub(crate) struct Sender {
    pub(crate) end: End,
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
    pub(crate) letters: Letters,
    /// Nothing but what is right.
    pub(crate) is_honest: bool,
    pub(crate) buffer: Vec<u8>,
}

/// Why a conversation ends early.
struct Gone;

/// Everybody's own, so that one under another's envelope is seen.
pub(crate) fn sender_of(id: u128) -> String {
    format!("t{id}@foo.example")
}

impl Sender {
    /// Brings these, and says QUIT if it comes so far.
    pub(crate) async fn bring(mut self, drafts: Vec<Draft>) {
        // Every message is known before a word of it is said.
        for draft in &drafts {
            let letter = Letter {
                to: Vec::new(),
                content: draft.content.clone(),
                verdict: Verdict::Unfinished,
            };
            self.letters.lock().expect("whole").insert(draft.id, letter);
        }
        // However it ends: what counts is in the letters.
        let _ = self.talk(drafts).await;
    }

    async fn talk(&mut self, drafts: Vec<Draft>) -> Result<(), Gone> {
        self.hear().await?;
        self.say("mail: inside a command", b"EHLO mail.foo.example\r\n").await?;
        self.hear().await?;
        for draft in drafts {
            if !self.is_honest {
                self.misbehave().await?;
            }
            let verdict = match self.dice.below(4) {
                0 => self.by_chunks(&draft).await,
                1 => self.in_one_write(&draft).await,
                _ => self.by_data(&draft).await,
            };
            if verdict? == Verdict::Refused {
                self.say("mail: inside a command", b"RSET\r\n").await?;
                self.hear().await?;
            }
        }
        self.say("mail: inside a command", b"QUIT\r\n").await?;
        self.hear().await?;
        Ok(())
    }

    fn note(&self, id: u128, verdict: Verdict) -> Verdict {
        if let Some(letter) = self.letters.lock().expect("whole").get_mut(&id) {
            letter.verdict = verdict;
        }
        verdict
    }

    fn accepted(&self, id: u128, to: &str) {
        if let Some(letter) = self.letters.lock().expect("whole").get_mut(&id) {
            letter.to.push(to.to_owned());
        }
    }

    /// Things that are wrong and must do no harm.
    async fn misbehave(&mut self) -> Result<(), Gone> {
        match self.dice.below(14) {
            0 => self.say("mail: inside a command", b"\x80\x00rubbish\r\n").await?,
            1 => self.say("mail: inside a command", b"DATA\r\n").await?,
            2 => self.say("mail: inside a command", b"ATRN example.com\r\n").await?,
            3 => self.say("mail: inside a command", b"BDAT 4 LAST\r\nabcd").await?,
            4 => {
                // Silence until the other side has had enough.
                self.clock.wait(Duration::from_secs(100_000)).await;
                return Err(Gone);
            }
            5 => return self.withdrawn().await,
            _ => return Ok(()),
        }
        self.hear().await?;
        Ok(())
    }

    /// A chunk that is taken back.
    async fn withdrawn(&mut self) -> Result<(), Gone> {
        let words = b"MAIL FROM:<t0@foo.example>\r\nRCPT TO:<u0@example.com>\r\nBDAT 7\r\nId: 0\r\nRSET\r\n";
        self.say("mail: inside a chunk", words).await?;
        for _ in 0..4 {
            self.hear().await?;
        }
        Ok(())
    }

    /// MAIL and RCPT, one at a time; whether anybody is to get it.
    async fn envelope(&mut self, draft: &Draft) -> Result<bool, Gone> {
        let mail = format!("MAIL FROM:<{}> BODY=8BITMIME\r\n", sender_of(draft.id));
        self.say("mail: inside a command", mail.as_bytes()).await?;
        if self.hear().await? != 2 {
            return Ok(false);
        }
        let mut somebody = false;
        for to in &draft.to {
            self.say("mail: inside a command", format!("RCPT TO:<{to}>\r\n").as_bytes()).await?;
            if self.hear().await? == 2 {
                self.accepted(draft.id, to);
                somebody = true;
            }
        }
        Ok(somebody)
    }

    async fn by_data(&mut self, draft: &Draft) -> Result<Verdict, Gone> {
        if !self.envelope(draft).await? {
            return Ok(self.note(draft.id, Verdict::Refused));
        }
        self.say("mail: inside a command", b"DATA\r\n").await?;
        if self.hear().await? != 3 {
            return Ok(self.note(draft.id, Verdict::Refused));
        }
        let spoils = !self.is_honest && self.dice.once_in(12);
        let mut content = stuffed(&draft.content);
        if spoils {
            // A bare line feed: refused as a whole.
            content.extend_from_slice(b"one\ntwo\r\n");
        }
        self.say("mail: inside the content", &content).await?;
        self.say("mail: inside the final dot", b".\r\n").await?;
        self.final_reply(draft.id).await
    }

    async fn by_chunks(&mut self, draft: &Draft) -> Result<Verdict, Gone> {
        if !self.envelope(draft).await? {
            return Ok(self.note(draft.id, Verdict::Refused));
        }
        let mut rest = &draft.content[..];
        loop {
            let size = 1 + self.dice.below(rest.len().max(1));
            let (chunk, behind) = rest.split_at(size.min(rest.len()));
            let last = if behind.is_empty() { " LAST" } else { "" };
            self.say(
                "mail: inside a command",
                format!("BDAT {}{last}\r\n", chunk.len()).as_bytes(),
            )
            .await?;
            self.say("mail: inside a chunk", chunk).await?;
            if behind.is_empty() {
                return self.final_reply(draft.id).await;
            }
            if self.hear().await? != 2 {
                return Ok(self.note(draft.id, Verdict::Refused));
            }
            rest = behind;
        }
    }

    /// All that RFC 2920 and RFC 3030 let go together.
    async fn in_one_write(&mut self, draft: &Draft) -> Result<Verdict, Gone> {
        let mut words = format!("MAIL FROM:<{}> BODY=8BITMIME\r\n", sender_of(draft.id));
        for to in &draft.to {
            words.push_str(&format!("RCPT TO:<{to}>\r\n"));
        }
        words.push_str(&format!("BDAT {} LAST\r\n", draft.content.len()));
        let words = [words.as_bytes(), &draft.content].concat();
        self.say("mail: inside a group", &words).await?;
        self.note(draft.id, Verdict::Unknown);
        // Until their replies are read, any of them may have been taken.
        for to in &draft.to {
            self.accepted(draft.id, to);
        }
        if self.hear().await? != 2 {
            // The rest is answered, too.
            for _ in 0..=draft.to.len() {
                self.hear().await?;
            }
            return Ok(self.note(draft.id, Verdict::Refused));
        }
        for to in &draft.to {
            if self.hear().await? != 2
                && let Some(letter) = self.letters.lock().expect("whole").get_mut(&draft.id)
            {
                letter.to.retain(|other| other != to);
            }
        }
        self.final_reply(draft.id).await
    }

    /// What became of it.
    async fn final_reply(&mut self, id: u128) -> Result<Verdict, Gone> {
        self.note(id, Verdict::Unknown);
        let class = self.hear().await?;
        Ok(self.note(id, if class == 2 { Verdict::Promised } else { Verdict::Refused }))
    }

    async fn say(&mut self, place: &'static str, octets: &[u8]) -> Result<(), Gone> {
        self.end.write_all(octets).await.map_err(|_| {
            places::seen(place);
            Gone
        })
    }

    /// The class of the next reply. 421 is the end.
    async fn hear(&mut self) -> Result<u8, Gone> {
        loop {
            let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") else {
                let mut place = [0; 512];
                match self.end.read(&mut place).await {
                    Ok(0) | Err(_) => {
                        let place = if self.buffer.is_empty() {
                            "mail: before a reply"
                        } else {
                            "mail: inside a reply"
                        };
                        places::seen(place);
                        return Err(Gone);
                    }
                    Ok(octets) => self.buffer.extend_from_slice(&place[..octets]),
                }
                continue;
            };
            let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
            if line.starts_with(b"421") {
                return Err(Gone);
            }
            if line.get(3) != Some(&b'-') {
                return Ok(line[0] - b'0');
            }
        }
    }
}

/// Content as DATA carries it, without the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}
