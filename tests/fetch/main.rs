//! `restante fetch` as a library against a scripted provider and small servers over loopback: what it does with
//! odd but legal replies, with refusals, with attacks, and with lines that break.
//!
//! covers RFC 2645 §5.1 §5.2.1 §5.3, RFC 3207 §4 §6, RFC 2033

mod carrying;
mod cuts;
mod negotiating;
mod ours;
mod party;
mod program;

use std::net::SocketAddr;
use std::path::Path;

use restante::fetch::{Account, Event, Report, Target, collect};
use restante::mail::Secret;
use restante::net::stop::Stop;
use restante::smtp::caller::Encryption;

/// An account at `provider` in clear text, for `target`.
fn account(provider: SocketAddr, target: &str) -> Account {
    let provider = format!("localhost:{}", provider.port());
    let target: Target = target.parse().expect("a target");
    let mut account =
        Account::new(&provider, "demo", Some(Secret::from("secret")), target).expect("an account");
    account.encryption = Encryption::Clear;
    account.hello = "home.example".into();
    account
}

fn call(account: &Account) -> Report {
    let (_giver, stop) = Stop::new();
    call_with(account, &stop, &mut |_| {})
}

fn call_with(account: &Account, stop: &Stop, tell: &mut dyn FnMut(Event<'_>)) -> Report {
    futures::executor::block_on(collect(account, stop, tell))
}

fn maildir(folder: &Path) -> String {
    format!("maildir:{}", folder.join("Maildir").display())
}

/// The bodies of a Maildir's new messages: what stands behind the first empty line, sorted.
fn bodies(folder: &Path) -> Vec<String> {
    let new = folder.join("Maildir/new");
    let mut bodies: Vec<String> = std::fs::read_dir(new)
        .expect("a Maildir")
        .map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("text"))
        .map(|text| text.split_once("\n\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
        .collect();
    bodies.sort();
    bodies
}
