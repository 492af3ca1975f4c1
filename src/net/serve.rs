//! One connection, from greeting to goodbye: bytes to the session, its questions to the desk, its actions done.
//!
//! Called by the listener for every accepted wire. It keeps time (RFC 5321 §4.5.3.2.7) and memory bounded, makes
//! the TLS switch and the turn on the session's word, and decides nothing itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroize;

use super::stop::Stop;
use super::tls::ServerTls;
use super::wire::{Reversed, Wire};
use crate::mail::TlsFacts;
use crate::provider::watch::Spy;
use crate::provider::{Desk, Office};
use crate::smtp::session::{Session, Step};
use crate::smtp::{Action, Door, Input, Question, TurnRequest};

/// Smallest and largest read, octets: an idle session costs little, a body moves in big pieces.
const READ_BYTES: std::ops::RangeInclusive<usize> = 2 << 10..=64 << 10;
/// How long the peer may take to read what we wrote, or to shake hands.
const WRITE_SECONDS_MAX: u64 = 300;
const HANDSHAKE_SECONDS_MAX: u64 = 60;
/// How long and how much is read after our goodbye, so that the peer can read it before the wire breaks.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Replies are gathered up to this many octets before they are written without need.
const GATHER_BYTES_MAX: usize = 16 << 10;

/// Content has to come at this pace, once the grace is used up: a peer that sends an octet now and then holds a
/// place, a body and a descriptor for nothing. Only time that we waited for the peer counts.
const CONTENT_BYTES_PER_SECOND: u32 = 500;
/// Waiting that is free of charge in each content.
const CONTENT_GRACE: Duration = Duration::from_secs(180);

/// What all connections of a provider share.
#[derive(Clone)]
pub struct Host {
    /// The office.
    pub office: Arc<Office>,
    /// The certificate, if there is one.
    pub tls: Option<Arc<ServerTls>>,
    /// The order to stop.
    pub stop: Stop,
}

/// Talks with one peer until the connection ends (`None`) or the roles reverse.
///
/// # Errors
/// The wire's failure; the peer is gone, and nothing is left to do for it.
pub async fn converse(wire: Wire, door: Door, host: &Host) -> io::Result<Option<Reversed>> {
    let desk = Desk::new(host.office.clone(), wire.peer, wire.tls.clone());
    let (gathered, buffer) = (Vec::new(), vec![0; *READ_BYTES.start()]);
    let round = (0, host.office.world.monotonic());
    let spy = Spy::new(host.office.clone(), wire.peer, door);
    let (told, pace) = (false, Pace::default());
    let talk = Talk { host, wire, desk, spy, gathered, buffer, told, round, pace };
    talk.run(door).await
}

/// Shakes hands on an implicit-TLS listener.
///
/// # Errors
/// The handshake's failure, or that it took too long.
pub async fn secure(wire: Wire, host: &Host) -> io::Result<Wire> {
    let Some(tls) = &host.tls else {
        return Err(io::Error::other("no certificate is configured"));
    };
    in_time(host, HANDSHAKE_SECONDS_MAX, tls.accept(wire)).await
}

/// Runs `work`, but not for longer than this.
pub(super) async fn in_time<T>(
    host: &Host,
    seconds: u64,
    work: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let limit = host.office.world.wait(Duration::from_secs(seconds));
    match select(Box::pin(work), limit).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

struct Talk<'a> {
    host: &'a Host,
    wire: Wire,
    desk: Desk,
    spy: Spy,
    /// Replies not yet written.
    gathered: Vec<u8>,
    buffer: Vec<u8>,
    /// Whether the session knows that we stop.
    told: bool,
    /// The session's round, and when it began: the clock of its patience.
    round: (u64, Duration),
    /// The pace of the content that is coming in.
    pace: Pace,
}

/// How fast content comes.
#[derive(Clone, Copy, Default)]
struct Pace {
    waited: Duration,
    octets: u64,
}

impl Pace {
    /// How long the peer may make us wait now.
    fn left(self) -> Duration {
        let earned =
            Duration::from_millis(self.octets.saturating_mul(1000)) / CONTENT_BYTES_PER_SECOND;
        CONTENT_GRACE.saturating_add(earned).saturating_sub(self.waited)
    }
}

impl Talk<'_> {
    async fn run(mut self, door: Door) -> io::Result<Option<Reversed>> {
        let mut actions = Vec::new();
        let terms = Arc::new(self.host.office.policy().terms(door));
        let mut step = Step::Stay(Session::open(door, terms, self.wire.tls.clone(), &mut actions));
        loop {
            let question = self.perform(&mut actions).await?;
            step = match (step, question) {
                (Step::Stay(session), Some(Question::Turn(request))) => {
                    Box::pin(self.turn(session, request, &mut actions)).await?
                }
                (Step::Stay(session), Some(question)) => {
                    if matches!(question, Question::Commit(_) | Question::Login(_)) {
                        self.flush().await?;
                    }
                    let answer = Box::pin(self.desk.answer(question)).await;
                    session.advance(Input::Answer(answer), &mut actions)
                }
                (Step::Stay(session), None) => self.listen(session, &mut actions).await?,
                (Step::Upgrade(upgrade), _) => {
                    self.flush().await?;
                    self.wire = Box::pin(secure(self.wire, self.host)).await?;
                    let facts: TlsFacts = self.wire.tls.clone().unwrap_or_default();
                    self.desk.secured(facts.clone());
                    self.spy.secured();
                    Step::Stay(upgrade.secured(facts, &mut actions))
                }
                (Step::Reverse(reversal), _) => {
                    if let Err(error) = self.flush().await {
                        // The customer is gone, and its next call must not wait for the clock of this lease.
                        self.desk.release(reversal.into_parts().0).await;
                        return Err(error);
                    }
                    return Ok(Some(self.wire.reverse(reversal)));
                }
                (Step::Close, _) => {
                    Box::pin(self.goodbye()).await;
                    return Ok(None);
                }
            };
        }
    }

    /// Does what the session wants; its question, if it has one, is always the last.
    async fn perform(&mut self, actions: &mut Vec<Action>) -> io::Result<Option<Question>> {
        let mut asked = None;
        for action in actions.drain(..) {
            match action {
                Action::Send(bytes) => {
                    self.spy.said(&bytes);
                    self.gathered.extend_from_slice(&bytes);
                }
                Action::Store(chunk) => self.desk.store(&chunk).await,
                Action::Discard => self.desk.discard(),
                Action::Release(lease) => self.desk.release(lease).await,
                Action::Note(fact) => {
                    self.spy.fact(&fact);
                    self.desk.note(&fact);
                }
                Action::Ask(question) => asked = Some(question),
            }
        }
        if self.gathered.len() > GATHER_BYTES_MAX {
            self.flush().await?;
        }
        Ok(asked)
    }

    /// Waits for the next input: bytes, the end, too long a silence, or the order to stop.
    async fn listen(&mut self, session: Session, actions: &mut Vec<Action>) -> io::Result<Step> {
        self.flush().await?;
        if !session.is_taking_content() {
            self.pace = Pace::default();
        }
        let limit = self.limit(&session);
        let began = self.host.office.world.monotonic();
        let read = self.wire.stream.read(&mut self.buffer);
        let (told, order) = (self.told, self.host.stop.clone());
        let stop = async move {
            if told {
                futures::future::pending::<()>().await;
            }
            order.given().await;
        };
        let outcome = select(read, select(limit, Box::pin(stop))).await;
        let step = match outcome {
            Either::Left((Ok(0) | Err(_), _)) => session.advance(Input::Ended, actions),
            Either::Left((Ok(count), _)) => {
                let waited = self.host.office.world.monotonic().saturating_sub(began);
                self.pace.waited = self.pace.waited.saturating_add(waited);
                self.pace.octets = self.pace.octets.saturating_add(count as u64);
                let is_content = session.is_taking_content();
                self.spy.heard(&self.buffer[..count], is_content);
                let step = session.advance(Input::Bytes(&self.buffer[..count]), actions);
                if !is_content {
                    // It may have been a password.
                    self.buffer[..count].zeroize();
                }
                self.fit_buffer(count);
                step
            }
            Either::Right((Either::Left(_), _)) => session.advance(Input::Expired, actions),
            Either::Right((Either::Right(_), _)) => {
                self.told = true;
                session.advance(Input::ShuttingDown, actions)
            }
        };
        Ok(step)
    }

    /// What is left of the session's patience in this round.
    fn limit(&mut self, session: &Session) -> BoxFuture<'static, ()> {
        let Some(patience) = session.patience() else {
            return Box::pin(futures::future::pending());
        };
        let world = &self.host.office.world;
        let now = world.monotonic();
        if self.round.0 != session.round() {
            self.round = (session.round(), now);
        }
        let mut left = (self.round.1 + Duration::from(patience)).saturating_sub(now);
        if session.is_taking_content() {
            left = left.min(self.pace.left());
        }
        world.wait(left)
    }

    /// Reads that fill the buffer make it grow, small ones let it shrink again.
    fn fit_buffer(&mut self, count: usize) {
        let size = self.buffer.len();
        if count == size && size < *READ_BYTES.end() {
            self.buffer.resize(size * 4, 0);
            self.buffer.truncate(*READ_BYTES.end());
        } else if count < size / 16 && size > *READ_BYTES.start() {
            self.buffer.truncate(*READ_BYTES.start());
            self.buffer.shrink_to_fit();
        }
    }

    /// ATRN: waits until deciding makes sense, with an eye on the wire, then asks.
    async fn turn(
        &mut self,
        mut session: Session,
        request: TurnRequest,
        actions: &mut Vec<Action>,
    ) -> io::Result<Step> {
        self.flush().await?;
        // It may take long, and then the room for reading is not needed.
        self.buffer = Vec::new();
        let mut early = [0u8; 64];
        let worth = Box::pin(self.desk.worth_deciding(&request));
        let stop = Box::pin(self.host.stop.given());
        let read = self.wire.stream.read(&mut early);
        let came = match select(worth, select(stop, read)).await {
            Either::Right((Either::Right((came, _)), _)) => Some(came),
            _ => None,
        };
        self.buffer = vec![0; *READ_BYTES.start()];
        // Bytes behind ATRN end the wait; the session judges them (503), the turn is refused there.
        if let Some(came) = came {
            let input = match came {
                Ok(0) | Err(_) => Input::Ended,
                Ok(count) => Input::Bytes(&early[..count]),
            };
            session = match session.advance(input, actions) {
                Step::Stay(session) => session,
                other => return Ok(other),
            };
        }
        let answer = Box::pin(self.desk.answer(Question::Turn(request))).await;
        Ok(session.advance(Input::Answer(answer), actions))
    }

    /// Writes what was gathered.
    async fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let stream = &mut self.wire.stream;
        let gathered = &self.gathered;
        let work = async {
            stream.write_all(gathered).await?;
            stream.flush().await
        };
        in_time(self.host, WRITE_SECONDS_MAX, work).await?;
        self.gathered.clear();
        Ok(())
    }

    /// Says the last words, closes our side, and reads on for a moment: a wire that is cut with input unread
    /// would take the last words with it.
    async fn goodbye(mut self) {
        if self.flush().await.is_err() {
            return;
        }
        let Wire { mut stream, .. } = self.wire;
        let work = async {
            stream.close().await?;
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                match stream.read(&mut self.buffer).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            io::Result::Ok(())
        };
        // Whatever happens now, the peer has been told.
        let _ = select(Box::pin(work), self.host.office.world.wait(LINGER)).await;
    }
}
