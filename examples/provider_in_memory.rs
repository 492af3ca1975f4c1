//! A provider in memory and a customer, joined by a pipe: a message comes in by SMTP, rests, and is collected by
//! ATRN into a Maildir. No socket is opened and nothing but the Maildir touches the disk.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use restante::fetch::{Account, Report, Target, collect_over};
use restante::mail::{Credential, Customer, CustomerName, Domain, Secret, Settings, Timestamp};
use restante::net::clock::RealWorld;
use restante::net::deliver::deliver;
use restante::net::pipe::{PipeEnd, pipe};
use restante::net::serve::{Host, converse};
use restante::net::stop::Stop;
use restante::net::wire::Wire;
use restante::provider::{Office, Policy};
use restante::smtp::caller::Encryption;
use restante::smtp::{Door, sasl};
use restante::store::{Directory as _, Memory};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("provider-in-memory-{}", std::process::id()));
    let report = run(&folder)?;
    println!("{} message collected into {}", report.taken, folder.display());
    Ok(())
}

/// Opens a provider, sends it a message, and collects it into a Maildir at `folder`.
pub(crate) fn run(folder: &Path) -> Outcome<Report> {
    futures::executor::block_on(async {
        let (_giver, stop) = Stop::new();
        let host = open_provider(stop.clone()).await?;
        send(&host).await?;

        let target = Target::Maildir(folder.to_owned());
        let mut account = Account::new("memory", "demo", Some(Secret::from("secret")), target)?;
        account.encryption = Encryption::Clear; // A pipe in one process has no listeners.
        let (customer, provider) = pipe();
        let mut quiet = |_: restante::fetch::Event<'_>| {};
        let collecting = collect_over(&account, wire(customer), &stop, &mut quiet);
        let providing = async {
            if let Some(reversed) = converse(wire(provider), Door::Odmr, &host).await? {
                deliver(reversed, &host.office, &stop).await;
            }
            Ok::<_, std::io::Error>(())
        };
        let (report, provided) = futures::join!(collecting, providing);
        provided?;
        Ok(report)
    })
}

/// A provider with one customer, `demo` of `demo.example`.
async fn open_provider(stop: Stop) -> Outcome<Host> {
    let (scram, cram) = sasl::derive(&Secret::from("secret"), vec![7; 16], 4096)?;
    let credential = Credential { label: "".into(), scram, cram, created: Timestamp(0) };
    let memory = Arc::new(Memory::new());
    memory
        .create(Customer {
            name: CustomerName::parse("demo").map_err(|fault| fault.to_string())?,
            domains: vec![Domain::parse("demo.example")?],
            suspended: false,
            credentials: vec![credential],
            settings: Settings::default(),
            created: Timestamp(0),
            revision: 0,
        })
        .await?;
    let mut policy = Policy::new(Domain::parse("mx.provider.example")?);
    policy.auth_requires_tls = false;
    let world = Arc::new(RealWorld::default());
    let office = Arc::new(Office::new(memory.clone(), memory, world, policy));
    Ok(Host { office, tls: None, stop })
}

/// Hands the provider a message, as any mail server would.
async fn send(host: &Host) -> Outcome<()> {
    let (mut sender, provider) = pipe();
    let sending = async {
        let dialogue = "EHLO mail.sender.example\r\nMAIL FROM:<a@sender.example>\r\n\
            RCPT TO:<b@demo.example>\r\nDATA\r\nSubject: hello\r\n\r\nIt rests here.\r\n.\r\nQUIT\r\n";
        let mut replies = String::new();
        for line in dialogue.split_inclusive('\n') {
            sender.write_all(line.as_bytes()).await?;
        }
        sender.read_to_string(&mut replies).await?;
        Ok::<_, std::io::Error>(replies)
    };
    let (replies, served) = futures::join!(sending, converse(wire(provider), Door::Mx, host));
    served?;
    let replies = replies?;
    if !replies.contains("queued as") {
        return Err(format!("the provider did not take the message: {replies}").into());
    }
    Ok(())
}

fn wire(end: PipeEnd) -> Wire {
    Wire { stream: Box::new(end), peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tls: None }
}
