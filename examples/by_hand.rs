//! The protocol core driven by hand, octet by octet: a provider's session and a customer's caller face each other
//! with no socket, clock or task between them. The questions that the session asks are answered right here.

use std::error::Error;
use std::sync::Arc;

use restante::mail::{Account, Credential, Domain, Login, Seconds, Secret, Timestamp};
use restante::smtp::caller::{self, Caller, Encryption, Ending, Orders};
use restante::smtp::sasl::{self, client::Keys};
use restante::smtp::session::{Session, Step};
use restante::smtp::{Action, Answer, Door, Input, MECHANISMS, Proof, Question, Refusal, Terms};

fn main() -> Result<(), Box<dyn Error>> {
    let (transcript, ending) = run()?;
    print!("{transcript}");
    println!("-- the caller's verdict: {ending:?}");
    Ok(())
}

/// Plays a whole call; gives what was said, and how it ended for the customer.
pub(crate) fn run() -> Result<(String, Ending), Box<dyn Error>> {
    let mut play = Play { credential: credential()?, transcript: String::new() };
    let mut actions = Vec::new();
    let mut session = Some(Session::open(Door::Odmr, terms()?, None, &mut actions));
    let mut caller = Caller::new(orders(), None);
    loop {
        // What the provider says goes to the caller, one octet at a time.
        let mut said = Vec::new();
        for octet in play.perform(&mut actions) {
            let step = caller.advance(caller::Input::Bytes(&[octet]), &mut said);
            caller = match step {
                caller::Step::Stay(caller) => caller,
                // Here a program opens its mail server; only then it sends ATRN.
                caller::Step::Ready(ready) => ready.turn(&mut said),
                caller::Step::Over(ending) => return Ok((play.transcript, ending)),
                other => return Err(format!("unexpected: {other:?}").into()),
            };
        }
        // And the other way round.
        play.write('C', &said);
        for octet in said {
            session = match session {
                Some(session) => play.feed(session, Input::Bytes(&[octet]), &mut actions),
                None => None,
            };
        }
    }
}

struct Play {
    credential: Credential,
    transcript: String,
}

impl Play {
    /// Brings one input, and answers what is asked until the session wants more octets.
    fn feed(
        &mut self,
        session: Session,
        input: Input<'_>,
        actions: &mut Vec<Action>,
    ) -> Option<Session> {
        let mut step = session.advance(input, actions);
        loop {
            let question = match actions.pop() {
                Some(Action::Ask(question)) => question,
                other => {
                    actions.extend(other);
                    break;
                }
            };
            let Step::Stay(session) = step else { break };
            step = session.advance(Input::Answer(self.answer(question)), actions);
        }
        match step {
            Step::Stay(session) => Some(session),
            Step::Upgrade(_) | Step::Reverse(_) | Step::Close => None,
        }
    }

    /// The place of directory and store: there is a customer, and no mail for it.
    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Nonce => Answer::Nonce([4; 32]),
            Question::Credential(_) => Answer::Credential(Ok(Box::new(self.credential.clone()))),
            Question::Login(request) => Answer::Login(match request.proof {
                Proof::Proven(login) => Ok(Box::new(account(login))),
                _ => Err(Refusal::LoginFailed),
            }),
            Question::Turn(_) => Answer::Turn(Err(Refusal::NoMail)),
            Question::Etrn(_) => Answer::Etrn(Err(Refusal::NodeTrouble)),
            _ => Answer::Verdict(Err(Refusal::NotHere)),
        }
    }

    /// Everything that the session wants written.
    fn perform(&mut self, actions: &mut Vec<Action>) -> Vec<u8> {
        let mut wire = Vec::new();
        for action in actions.drain(..) {
            if let Action::Send(bytes) = action {
                wire.extend(bytes);
            }
        }
        self.write('P', &wire);
        wire
    }

    fn write(&mut self, party: char, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines() {
            self.transcript.push_str(&format!("{party}: {line}\n"));
        }
    }
}

fn account(login: Login) -> Account {
    Account { login, domains: Vec::new(), require_tls: false }
}

fn credential() -> Result<Credential, Box<dyn Error>> {
    let (scram, cram) = sasl::derive(&Secret::from("secret"), vec![7; 16], 4096)?;
    Ok(Credential { label: "".into(), scram, cram, created: Timestamp(0) })
}

fn orders() -> Orders {
    let secret = Some(Secret::from("secret"));
    Orders {
        hello: "home.example".into(),
        domains: Vec::new(),
        encryption: Encryption::Clear,
        keys: Keys { login: "demo".into(), secret, has_certificate: false },
        mechanisms: MECHANISMS.to_vec(),
        nonce: [9; 24],
        turn_patience: Seconds(600),
    }
}

fn terms() -> Result<Arc<Terms>, Box<dyn Error>> {
    Ok(Arc::new(Terms {
        hostname: Domain::parse("mx.provider.example")?,
        message_bytes_max: 1 << 20,
        recipients_max: 100,
        received_max: 100,
        tls_available: false,
        etrn: false,
        auth_requires_tls: false,
        mechanisms: MECHANISMS.to_vec(),
        auth_failures_max: 3,
        errors_max: 10,
    }))
}
