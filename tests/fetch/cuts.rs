//! Lines that break at any moment: nothing is lost, nothing arrives in part, and what comes twice was in doubt.

use std::sync::{Arc, Mutex};

use super::party::{Habits, Server, Talk, provider};
use super::{account, bodies, call, maildir};

/// How often the line is cut; `RESTANTE_CUTS` sets another number.
fn cuts() -> usize {
    std::env::var("RESTANTE_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// A small generator of chance from a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }
}

/// What the provider knows of its queue.
#[derive(Default)]
struct Queue {
    waiting: Vec<String>,
    /// Messages whose end was sent and whose reply never came.
    in_doubt: usize,
}

/// Delivers from the queue; cuts the line after `octets` of the reversed half, in both directions at once.
fn drain(mut talk: Talk, queue: &Mutex<Queue>, octets: usize) {
    talk.log_in();
    talk.say("250 reversing");
    let mut left = octets;
    if !talk.reply().starts_with("220") {
        return;
    }
    let mut say = |talk: &mut Talk, text: &str| -> bool {
        let length = text.len().min(left);
        talk.send(&text.as_bytes()[..length]);
        left -= length;
        if length < text.len() {
            talk.cut();
        }
        length == text.len()
    };
    if !say(&mut talk, "EHLO provider.example\r\n") || !talk.reply().starts_with("250") {
        return;
    }
    loop {
        let Some(message) = queue.lock().expect("no panic").waiting.first().cloned() else { break };
        let envelope = "MAIL FROM:<a@foo.example>\r\nRCPT TO:<b@home.example>\r\nDATA\r\n";
        if !say(&mut talk, envelope) {
            return;
        }
        for code in ["250", "250", "354"] {
            if !talk.reply().starts_with(code) {
                return;
            }
        }
        if !say(&mut talk, &message) || !say(&mut talk, ".\r\n") {
            return;
        }
        let reply = talk.reply();
        let mut queue = queue.lock().expect("no panic");
        if reply.starts_with("250") {
            queue.waiting.remove(0);
        } else {
            queue.in_doubt += 1;
            return;
        }
    }
    if say(&mut talk, "QUIT\r\n") {
        talk.reply();
    }
}

fn message(number: usize) -> String {
    let body = format!("line of message {number}\r\n").repeat(1 + number * 7 % 90);
    format!("Subject: {number}\r\n\r\nbegin {number}\r\n{body}end {number}\r\n")
}

/// Cuts `cuts()` lines at places chosen by `seed`, then drains the rest; gives the number of calls.
fn play(seed: u64, target: &str) -> (usize, usize) {
    let mut dice = Dice(seed);
    let messages = 30;
    let queue = Arc::new(Mutex::new(Queue::default()));
    queue.lock().expect("no panic").waiting.extend((0..messages).map(message));
    let mut calls = 0;
    for round in 0..=cuts() {
        let octets = if round == cuts() { usize::MAX } else { dice.below(5000) };
        let place = queue.clone();
        let provider = provider(move |talk| drain(talk, &place, octets));
        let report = call(&account(provider.address, target));
        provider.done();
        calls += 1;
        let is_empty = queue.lock().expect("no panic").waiting.is_empty();
        if is_empty && octets == usize::MAX {
            assert_eq!(report.verdict.exit_status(), 0, "seed {seed}: {report:?}");
        }
        if is_empty {
            // Fresh mail, so that every cut meets some.
            let again = (messages..messages + 5).map(message);
            if round + 1 < cuts() {
                queue.lock().expect("no panic").waiting.extend(again);
            }
        }
    }
    assert!(queue.lock().expect("no panic").waiting.is_empty(), "seed {seed}: mail is left");
    let in_doubt = queue.lock().expect("no panic").in_doubt;
    (calls, in_doubt)
}

fn check(bodies: &[String], in_doubt: usize, seed: u64) {
    let whole = |number: usize| {
        let text = message(number).replace("\r\n", "\n");
        text.split_once("\n\n").expect("a body").1.to_owned()
    };
    let known: Vec<String> = (0..35).map(whole).collect();
    for body in bodies {
        assert!(known.contains(body), "seed {seed}: not whole: {body:?}");
    }
    let mut twice = 0;
    for (number, body) in known.iter().enumerate().take(30) {
        let count = bodies.iter().filter(|one| *one == body).count();
        assert!(count >= 1, "seed {seed}: message {number} is lost");
        twice += count - 1;
    }
    assert!(twice <= in_doubt, "seed {seed}: {twice} copies too many, {in_doubt} in doubt");
}

#[test]
fn a_maildir_gets_every_message_whole() {
    let seed = 0x5eed_0001;
    let home = tempfile::tempdir().expect("a folder");
    let (calls, in_doubt) = play(seed, &maildir(home.path()));
    assert_eq!(calls, cuts() + 1);
    check(&bodies(home.path()), in_doubt, seed);
}

#[test]
fn a_server_gets_every_message_whole() {
    let seed = 0x5eed_0002;
    let server = Server::start(Habits::default());
    let (_, in_doubt) = play(seed, &format!("smtp://{}", server.address));
    let bodies: Vec<String> = server
        .got()
        .messages
        .iter()
        .map(|text| text.replace("\r\n", "\n").split_once("\n\n").expect("a body").1.to_owned())
        .collect();
    check(&bodies, in_doubt, seed);
}
