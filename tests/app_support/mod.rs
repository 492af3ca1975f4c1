//! A provider's office in memory, behind a real control socket, for the tests of the program's commands.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use restante::app::admin::{self, Done, Item, Refused, Request};
use restante::app::control::server::Attendant;
use restante::mail::*;
use restante::net::control::Control;
use restante::net::stop::{Stop, StopGiver};
use restante::provider::{Office, Policy, World};
use restante::store::{LeaseAnswer, LeaseRequest, Memory, NewMessage, Settlement, Verdict};

/// A world whose clock stands still.
pub struct StillWorld;

/// Its time: 2026-11-22T03:19:00Z.
pub const NOW: Timestamp = Timestamp(1_795_317_540_000);

impl World for StillWorld {
    fn now(&self) -> Timestamp {
        NOW
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn chance(&self, place: &mut [u8]) {
        getrandom::fill(place).expect("chance");
    }
    fn wait(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

pub fn name(text: &str) -> CustomerName {
    CustomerName::parse(text).expect("a name")
}

pub fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

/// An empty office in memory.
pub fn office() -> Arc<Office> {
    let memory = Arc::new(Memory::new());
    let policy = Policy::new(domain("mx.provider.example"));
    Arc::new(Office::new(memory.clone(), memory, Arc::new(StillWorld), policy))
}

/// Asks the office, as a command without a running provider does.
pub fn ask(office: &Office, request: Request) -> Result<(Done, Vec<Item>), Refused> {
    let mut items = Vec::new();
    let done = block_on(admin::perform(office, "test", request, &mut items))?;
    Ok((done, items))
}

pub fn add(office: &Office, who: &str, domains: &[&str]) {
    let domains = domains.iter().map(|d| domain(d)).collect();
    let password = Some(admin::Password::new("an ordinary password".into()));
    ask(office, Request::CustomerAdd { name: name(who), domains, password }).expect("added");
}

/// Queues a message that arrived `age` seconds ago; each recipient's domain must be some customer's.
pub fn put(
    office: &Office,
    serial: u128,
    age: u64,
    from: &str,
    to: &[&str],
    body: &[u8],
) -> QueueId {
    let arrived = Timestamp(NOW.0 - age * 1000);
    let id = QueueId::at(arrived.0, serial);
    let recipients: Vec<Recipient> = to
        .iter()
        .map(|path| Recipient {
            forward_path: ForwardPath::parse(path).expect("a path"),
            notify: None,
            orcpt: None,
        })
        .collect();
    let owner = |r: &Recipient| {
        let found = block_on(office.directory.owner(r.forward_path.domain())).expect("works");
        found.expect("a customer's").name.clone()
    };
    let owners: Vec<CustomerName> = recipients.iter().map(owner).collect();
    let message = NewMessage {
        id,
        expires: vec![arrived.after(Seconds(30 * 86_400)); owners.len()],
        owners,
        envelope: Envelope {
            reverse_path: ReversePath::parse(from).expect("a path"),
            recipients,
            ..Envelope::default()
        },
        facts: ContentFacts { size: body.len() as u64, ..ContentFacts::default() },
        arrived,
    };
    block_on(async {
        let mut writer = office.store.begin_body(id, 0).await.expect("begun");
        writer.write(body).await.expect("written");
        office.store.commit(message, writer).await.expect("committed");
    });
    id
}

/// Lets the customer's server say something about the first recipient of a message.
pub fn settle(office: &Office, who: &str, place: &str, id: QueueId, outcome: Outcome) {
    block_on(async {
        let request = LeaseRequest {
            customer: name(who),
            domains: vec![domain(place)],
            owner: "test".into(),
            lasts: Duration::from_secs(60),
            overthrow_after: Duration::from_secs(60),
        };
        let LeaseAnswer::Granted(lease) = office.store.lease(request).await.expect("asked") else {
            panic!("busy")
        };
        let head = office.store.next(&lease, None, 10).await.expect("read");
        let head = head.into_iter().find(|head| head.id == id).expect("in the queue");
        let index = head.recipients[0].index;
        let settlement = Settlement { id, index, verdict: Verdict::Said(outcome) };
        office.store.settle(&lease, vec![settlement]).await.expect("settled");
        office.store.release(lease).await.expect("released");
    });
}

/// A configuration in a folder of its own, and an office behind its control socket.
pub struct Running {
    pub office: Arc<Office>,
    pub folder: tempfile::TempDir,
    pub config: PathBuf,
    stop: Option<StopGiver>,
    serving: Option<async_std::task::JoinHandle<()>>,
}

impl Running {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let config = folder.path().join("restante.toml");
        let text = "hostname = \"mx.provider.example\"\ndata_dir = \"data\"\n";
        std::fs::write(&config, text).expect("written");
        let office = office();
        let (giver, stop) = Stop::new();
        let control = block_on(Control::bind(&data.join("control.sock"))).expect("bound");
        let attend = Arc::new(Attendant(office.clone()));
        let serving = async_std::task::spawn(control.serve(attend, stop));
        Self { office, folder, config, stop: Some(giver), serving: Some(serving) }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("data/control.sock")
    }

    /// The program with this configuration.
    pub fn command(&self, arguments: &[&str]) -> assert_cmd::Command {
        let mut command = program();
        command.arg("-c").arg(&self.config).args(arguments);
        command
    }

    /// Runs it, expects success, gives standard output.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs it with `--json`.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(&arguments)).expect("one JSON document")
    }

    /// Runs it, expects this status, gives standard error.
    pub fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("started");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(serving) = self.serving.take() {
            block_on(serving);
        }
    }
}

/// The program, without the caller's environment variable.
pub fn program() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_restante"));
    command.env_remove("RESTANTE_CONFIG").timeout(Duration::from_secs(60));
    command
}
