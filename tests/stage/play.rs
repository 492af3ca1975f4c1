//! Plays a transcript in one of three cuts and says where it went otherwise.

use std::collections::HashMap;
use std::time::Duration;

use futures::executor::LocalPool;
use restante::net::wire::Wire;
use restante::smtp::Door;
use restante::store::Store as _;

use super::house::House;
use super::peer::{Heard, Peer, beside};
use super::pipe::pipe;
use super::script::{Act, Script, Start, fits};

/// How the octets of the other side come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Line by line, each answered before the next, as far as the script has it so.
    Lines,
    /// Octet by octet.
    Octets,
    /// As much in one write as a client could have said without hearing an answer.
    Whole,
}

struct Play<'a> {
    script: &'a Script,
    cut: Cut,
    house: House,
    peers: HashMap<String, Peer>,
    current: String,
    spawner: futures::executor::LocalSpawner,
}

/// Plays it; panics with the line number where it goes otherwise.
pub(crate) fn play(script: &Script, cut: Cut) {
    let mut pool = LocalPool::new();
    let house = pool.run_until(House::build(&script.given));
    let mut play = Play {
        script,
        cut,
        house,
        peers: HashMap::new(),
        current: String::new(),
        spawner: pool.spawner(),
    };
    let mut at = 0;
    while at < script.acts.len() {
        if matches!(script.acts[at].1, Act::Reversed | Act::Pass(_) | Act::Stop | Act::Reports) {
            // What the provider can do by itself, it has done after this.
            pool.run_until_stalled();
        }
        at = pool.run_until(play.act(at));
    }
    pool.run_until(play.curtain());
}

impl Play<'_> {
    /// Does what stands at this place; gives the next.
    async fn act(&mut self, at: usize) -> usize {
        let (line, act) = &self.script.acts[at];
        let cut = self.cut;
        match act {
            Act::Connect(door, start, name) => self.connect(*door, *start, name).await,
            Act::Switch(name) => {
                assert!(self.peers.contains_key(name), "line {line}: no connection {name}");
                self.current = name.clone();
            }
            Act::Say(octets) if cut == Cut::Whole => return self.say_all(at, octets).await,
            Act::Say(octets) => self.peer().say(octets, cut).await,
            Act::Hear(_) | Act::HearRest => self.hear(at).await,
            Act::Login(mechanism, name, password) => {
                self.peer().log_in(mechanism, name, password, cut).await;
            }
            Act::Tls => {
                let wire = self.peer().wire.take().expect("still connected");
                let wire = House::handshake(wire, false).await;
                self.peer().wire = Some(wire.unwrap_or_else(|e| panic!("line {line}: {e}")));
            }
            Act::Reversed => {
                assert!(!self.peer().has_unread(), "line {line}: the provider speaks unasked");
                self.peer().is_server = true;
            }
            Act::Pause => {}
            Act::HangUp => self.peer().hang_up().await,
            Act::Closed => match self.peer().hear().await {
                Heard::End(rest) if rest.is_empty() => self.peer().hang_up().await,
                other => panic!("line {line}: not closed, but {other:?} ({cut:?})"),
            },
            Act::Pass(seconds) => self.house.world.pass(Duration::from_secs(*seconds)),
            Act::Stop => {
                if let Some(giver) = self.house.stop.take() {
                    giver.give();
                }
            }
            Act::Reports => {
                let office = &self.house.host.office;
                restante::provider::expiry::expire(office).await.expect("the store works");
                restante::provider::report::Reporter::new(office.clone()).round().await;
            }
            Act::StoreFails => self.house.memory.close().await.expect("closes"),
            Act::Then(fact) => {
                if let Err(found) = self.house.check(fact).await {
                    panic!("line {line}: not so: {fact}\n  but: {found} ({cut:?})");
                }
            }
        }
        at + 1
    }

    fn peer(&mut self) -> &mut Peer {
        self.peers.get_mut(&self.current).expect("a connection")
    }

    async fn connect(&mut self, door: Door, start: Start, name: &str) {
        let over_tls = start != Start::Clear;
        let piece = if self.cut == Cut::Octets { 1 } else { usize::MAX };
        let (near, far) = pipe(piece);
        let address = "192.0.2.1:40000".parse().expect("valid");
        let peek = far.peek();
        let theirs = Wire { stream: Box::new(near), peer: address, tls: None };
        let ours = Wire { stream: Box::new(far), peer: address, tls: None };
        let done = beside(&self.spawner, self.house.serve(theirs, door, over_tls));
        let ours = match over_tls {
            true => {
                let shows_certificate = start == Start::Certificate;
                House::handshake(ours, shows_certificate).await.expect("a handshake")
            }
            false => ours,
        };
        self.current = name.to_owned();
        self.peers.insert(name.to_owned(), Peer::new(ours, peek, done));
    }

    /// Says all that could be said without hearing an answer, then hears the answers.
    async fn say_all(&mut self, at: usize, first: &[u8]) -> usize {
        let mut octets = first.to_vec();
        let mut next = at + 1;
        let is_server = self.peer().is_server;
        if !must_wait(first) {
            for (_, act) in &self.script.acts[at + 1..] {
                match act {
                    Act::Say(more) => octets.extend_from_slice(more),
                    // A server answers what it has heard.
                    Act::Hear(_) | Act::HearRest if !is_server => {}
                    _ => break,
                }
                next += 1;
                if matches!(act, Act::Say(more) if must_wait(more)) {
                    break;
                }
            }
        }
        self.peer().say(&octets, Cut::Whole).await;
        for place in at + 1..next {
            if !matches!(self.script.acts[place].1, Act::Say(_)) {
                self.hear(place).await;
            }
        }
        next
    }

    async fn hear(&mut self, at: usize) {
        let (line, act) = &self.script.acts[at];
        let cut = self.cut;
        let Act::Hear(pattern) = act else { return self.hear_rest(*line).await };
        match self.peer().hear().await {
            Heard::Line(said) if fits(pattern, &said) => {}
            other => panic!("line {line}: expected {pattern:?}, heard {other:?} ({cut:?})"),
        }
    }

    /// All lines up to one that ends a reply.
    async fn hear_rest(&mut self, line: usize) {
        let cut = self.cut;
        loop {
            match self.peer().hear().await {
                Heard::Line(said) if said.as_bytes().get(3) == Some(&b'-') => {}
                Heard::Line(_) => return,
                other => panic!("line {line}: expected a reply, heard {other:?} ({cut:?})"),
            }
        }
    }

    /// All connections end; nothing may have been said that the script does not know.
    async fn curtain(&mut self) {
        let cut = self.cut;
        for (name, mut peer) in self.peers.drain() {
            if let Some(wire) = &mut peer.wire {
                let _ = futures::io::AsyncWriteExt::close(&mut wire.stream).await;
                match peer.hear().await {
                    Heard::End(rest) if rest.is_empty() => {}
                    other => panic!("at the end of {name:?}: {other:?} ({cut:?})"),
                }
            }
            peer.hang_up().await;
        }
    }
}

/// Whether a client has to hear the answer before it says more: the verbs that end a group because what follows
/// goes to another layer, or is an answer itself.
fn must_wait(octets: &[u8]) -> bool {
    [&b"STARTTLS"[..], b"ATRN", b"QUIT"]
        .iter()
        .any(|verb| octets.get(..verb.len()).is_some_and(|head| head.eq_ignore_ascii_case(verb)))
}
