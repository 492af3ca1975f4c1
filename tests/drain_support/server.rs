//! A customer's server, written from the RFCs and not from our code: it takes mail, and can be told to refuse,
//! to wait and to die.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use restante::provider::World;

use super::clock::Clock;
use super::pipe::End;

/// What came in and was answered positively.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub messages: Vec<Message>,
    /// Commands in order, without contents.
    pub commands: Vec<String>,
    /// Connections' ends by QUIT.
    pub quit: bool,
    /// Where the stream broke, if it did not end by QUIT.
    pub broken: Option<&'static str>,
}

/// Messages in the order in which they were taken, by any server.
pub type Sink = Arc<Mutex<Vec<(usize, Message)>>>;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: String,
    pub to: Vec<String>,
    pub content: Vec<u8>,
}

/// Decides a reply: called with the command (contents are `.`, chunks `BDAT n`), the transaction's number from 1,
/// and a number counting all commands. `None`: the ordinary reply.
pub type Mood = Arc<dyn Fn(&str, usize, usize) -> Option<Reply> + Send + Sync>;

/// What to do instead of the ordinary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These octets; a first digit other than 2 and 3 refuses.
    Say(String),
    /// As usual, but after so many seconds.
    After(u64),
    /// Close without a word.
    Hang,
    /// Say the usual, then close.
    SayAndHang,
    /// Do as usual, but say nothing.
    Mute,
    /// Never answer, never read.
    Stall,
    /// As usual, and the same once more, which nobody asked for.
    Twice,
}

/// A server.
#[derive(Clone)]
pub struct Server {
    pub greeting: String,
    pub keywords: Vec<&'static str>,
    pub mood: Mood,
    /// Its number, and where messages are noted with it at the moment when they are taken.
    pub number: usize,
    pub sink: Sink,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            greeting: "220 customer.example ready\r\n".into(),
            keywords: vec!["PIPELINING", "8BITMIME", "SIZE 0"],
            mood: Arc::new(|_, _, _| None),
            number: 0,
            sink: Sink::default(),
        }
    }
}

struct Connection {
    end: End,
    clock: Clock,
    buffer: Vec<u8>,
    mood: Mood,
    number: usize,
    sink: Sink,
    count: usize,
    transactions: usize,
    taken: Taken,
    /// The mood was to close behind the last reply.
    hangs: bool,
    reading: Reading,
}

/// What it waits for.
enum Reading {
    Command,
    Content,
    Chunk,
}

enum Next {
    On(bool),
    Over,
}

impl Server {
    pub fn offering(keywords: &[&'static str]) -> Self {
        Self { keywords: keywords.to_vec(), ..Self::default() }
    }

    pub fn moody(
        mut self,
        mood: impl Fn(&str, usize, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        self.mood = Arc::new(mood);
        self
    }

    pub async fn serve(self, end: End, clock: Clock) -> Taken {
        let mut connection = Connection {
            end,
            clock,
            buffer: Vec::new(),
            mood: self.mood.clone(),
            number: self.number,
            sink: self.sink.clone(),
            count: 0,
            transactions: 0,
            taken: Taken::default(),
            hangs: false,
            reading: Reading::Command,
        };
        connection.run(&self).await;
        connection.taken
    }
}

impl Connection {
    /// A line without its CRLF; `None` at the end of the stream.
    async fn line(&mut self) -> Option<String> {
        self.reading = Reading::Command;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                assert!(!line.contains(&b'\r') && !line.contains(&b'\n'), "bare line end");
                return Some(String::from_utf8(line).expect("commands are UTF-8"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let mut place = [0; 4096];
        match self.end.read(&mut place).await {
            Ok(0) | Err(_) => {
                let place = match (&self.reading, &self.buffer[..]) {
                    (Reading::Command, []) => "drain: between commands",
                    (Reading::Command, _) => "drain: inside a command",
                    (Reading::Content, b"." | b".\r") => "drain: inside the final dot",
                    (Reading::Content, _) => "drain: inside the content",
                    (Reading::Chunk, _) => "drain: inside a chunk",
                };
                self.taken.broken.get_or_insert(place);
                None
            }
            Ok(octets) => {
                self.buffer.extend_from_slice(&place[..octets]);
                Some(())
            }
        }
    }

    async fn octets(&mut self, count: usize) -> Option<Vec<u8>> {
        self.reading = Reading::Chunk;
        while self.buffer.len() < count {
            self.more().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// The content up to the lone dot, unstuffed; every line is checked to end in CRLF.
    async fn content(&mut self) -> Option<Vec<u8>> {
        self.reading = Reading::Content;
        let mut content = Vec::new();
        // Lines up to here are done; the buffer moves only once for each read.
        let mut at = 0;
        loop {
            while let Some(length) = memchr::memmem::find(&self.buffer[at..], b"\r\n") {
                let line = &self.buffer[at..at + length];
                assert!(memchr::memchr2(b'\r', b'\n', line).is_none(), "bare line end");
                let is_end = line == b".";
                if !is_end {
                    content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                    content.extend_from_slice(b"\r\n");
                }
                at += length + 2;
                if is_end {
                    self.buffer.drain(..at);
                    return Some(content);
                }
            }
            self.buffer.drain(..at);
            at = 0;
            self.more().await?;
        }
    }

    /// Asks the mood; once for each command.
    fn feel(&mut self, command: &str) -> Option<Reply> {
        self.count += 1;
        let mood = (self.mood)(command, self.transactions, self.count);
        log::debug!("{} about {command}: {mood:?}", self.number);
        // RFC 5321 §3.8: 421 is followed by the end.
        let closes = matches!(&mood, Some(Reply::Say(text)) if text.starts_with("421"));
        self.hangs = closes || mood == Some(Reply::SayAndHang);
        mood
    }

    /// Answers as the mood is; tells whether the command was accepted.
    async fn answer(&mut self, command: &str, usual: &str) -> Next {
        let mood = self.feel(command);
        self.answer_so(mood, usual).await
    }

    async fn answer_so(&mut self, mood: Option<Reply>, usual: &str) -> Next {
        match mood {
            None => self.say(usual).await,
            Some(Reply::Say(text)) => self.say(&text).await,
            Some(Reply::After(seconds)) => {
                self.clock.wait(Duration::from_secs(seconds)).await;
                self.say(usual).await
            }
            Some(Reply::Twice) => self.say(&usual.repeat(2)).await,
            Some(Reply::Hang) => {
                self.taken.broken.get_or_insert("drain: instead of a reply");
                Next::Over
            }
            Some(Reply::Mute) => Next::On(matches!(usual.as_bytes().first(), Some(b'2' | b'3'))),
            // What was said counts, though the line dies behind it.
            Some(Reply::SayAndHang) => {
                self.taken.broken.get_or_insert("drain: behind a reply");
                self.say(usual).await
            }
            Some(Reply::Stall) => {
                self.clock.wait(Duration::from_secs(1 << 20)).await;
                Next::Over
            }
        }
    }

    async fn say(&mut self, text: &str) -> Next {
        // A reply that could not be sent was decided all the same.
        if self.end.write_all(text.as_bytes()).await.is_err() {
            self.taken.broken.get_or_insert("drain: inside a reply");
        }
        Next::On(matches!(text.as_bytes().first(), Some(b'2' | b'3')))
    }

    async fn run(&mut self, server: &Server) -> Option<()> {
        let mut open: Option<Message> = None;
        let mut chunks: Option<Vec<u8>> = None;
        // RFC 3030 §2: after a refused chunk only RSET helps.
        let mut is_spoilt = false;
        let Next::On(_) = self.answer("(greeting)", &server.greeting.clone()).await else {
            return None;
        };
        if self.hangs {
            return None;
        }
        loop {
            let line = self.line().await?;
            log::debug!("{} hears {line}", self.number);
            self.taken.commands.push(line.clone());
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let (reply, then): (String, fn(&mut Option<Message>, &str)) = match verb.as_str() {
                "EHLO" => {
                    let mut lines = vec!["customer.example".to_owned()];
                    lines.extend(server.keywords.iter().map(|word| (*word).to_owned()));
                    let last = lines.len() - 1;
                    let reply = lines.iter().enumerate().map(|(at, text)| {
                        format!("250{}{text}\r\n", if at == last { ' ' } else { '-' })
                    });
                    (reply.collect(), |open, _| *open = None)
                }
                "HELO" => ("250 customer.example\r\n".into(), |open, _| *open = None),
                "RSET" => {
                    (chunks, is_spoilt) = (None, false);
                    ("250 2.0.0 reset\r\n".into(), |open, _| *open = None)
                }
                "NOOP" => ("250 2.0.0 still here\r\n".into(), |_, _| {}),
                "MAIL" if open.is_some() => ("503 5.5.1 nested MAIL\r\n".into(), |_, _| {}),
                "MAIL" => {
                    self.transactions += 1;
                    ("250 2.1.0 sender\r\n".into(), |open, line| {
                        *open = Some(Message { from: path(line), to: vec![], content: vec![] });
                    })
                }
                "RCPT" if open.is_none() => ("503 5.5.1 MAIL first\r\n".into(), |_, _| {}),
                "RCPT" => ("250 2.1.5 recipient\r\n".into(), |open, line| {
                    if let Some(open) = open {
                        open.to.push(path(line));
                    }
                }),
                "DATA" if open.as_ref().is_none_or(|open| open.to.is_empty()) => {
                    ("554 5.5.1 no valid recipients\r\n".into(), |_, _| {})
                }
                "DATA" => {
                    match self.answer("DATA", "354 go\r\n").await {
                        Next::Over => return None,
                        Next::On(false) => continue,
                        Next::On(true) if self.hangs => return None,
                        Next::On(true) => {}
                    }
                    let content = self.content().await?;
                    self.finish(".", &mut open, content).await?;
                    continue;
                }
                "BDAT" => {
                    let mut words = line.split(' ').skip(1);
                    let size = words.next()?.parse().expect("a size");
                    let octets = self.octets(size).await?;
                    let is_last = words.next() == Some("LAST");
                    if is_spoilt || open.as_ref().is_none_or(|open| open.to.is_empty()) {
                        chunks = None;
                        let next = self.answer(&line, "503 5.5.1 nobody to take it\r\n").await;
                        match next {
                            Next::On(_) if !self.hangs => continue,
                            _ => return None,
                        }
                    }
                    chunks.get_or_insert_default().extend(octets);
                    if is_last {
                        let content = chunks.take().unwrap_or_default();
                        self.finish(&line, &mut open, content).await?;
                        continue;
                    }
                    (format!("250 2.0.0 {size} octets\r\n"), |_, _| {})
                }
                "QUIT" => {
                    self.taken.quit = true;
                    self.answer(&line, "221 2.0.0 bye\r\n").await;
                    return None;
                }
                _ => ("500 5.5.1 what?\r\n".into(), |_, _| {}),
            };
            let refused = reply.starts_with('5');
            match self.answer(&line, &reply).await {
                Next::Over => return None,
                Next::On(true) if !refused => then(&mut open, &line),
                Next::On(_) if verb == "BDAT" => (chunks, is_spoilt) = (None, true),
                Next::On(_) => {}
            }
            if self.hangs {
                return None;
            }
        }
    }

    async fn finish(
        &mut self,
        command: &str,
        open: &mut Option<Message>,
        content: Vec<u8>,
    ) -> Option<()> {
        let message = open.take().map(|open| Message { content, ..open });
        let mood = self.feel(command);
        match mood {
            Some(Reply::Hang) => {
                self.taken.broken = Some("drain: instead of the reply to the end of data");
            }
            Some(Reply::SayAndHang) => {
                self.taken.broken = Some("drain: behind the reply to the end of data");
            }
            _ => {}
        }
        // It is taken before the reply is on the wire: that is what makes doubt possible.
        let is_refused = matches!(&mood, Some(Reply::Say(text)) if !text.starts_with('2'));
        if !is_refused {
            let noted = message.clone().map(|message| (self.number, message));
            self.sink.lock().expect("whole").extend(noted);
            self.taken.messages.extend(message);
        }
        match self.answer_so(mood, "250 2.0.0 taken\r\n").await {
            Next::On(_) if !self.hangs => Some(()),
            _ => None,
        }
    }
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let from = line.find('<').expect("a path") + 1;
    line[from..from + line[from..].find('>').expect("a path")].to_owned()
}
