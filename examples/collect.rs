//! A customer as a library call: log in at a provider, collect the waiting mail, say how it went.
//!
//! ```sh
//! cargo run --example collect -- mx.provider.example:366 demo password-file maildir:Maildir
//! ```

use std::error::Error;

use restante::fetch::{Account, Event, Report, collect};
use restante::mail::Secret;
use restante::net::stop::Stop;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [provider, user, password_file, target] = arguments.as_slice() else {
        return Err("usage: collect PROVIDER[:PORT] USER PASSWORD-FILE TARGET".into());
    };
    let password = std::fs::read_to_string(password_file)?;
    let secret = Secret::from(password.trim_end());
    let account = Account::new(provider, user, Some(secret), target.parse()?)?;
    let report = call(&account);
    println!("{}: {} messages, {} octets", report.verdict.word(), report.taken, report.octets);
    match report.verdict.trouble() {
        None => Ok(()),
        Some(trouble) => Err(format!("{}; {}", trouble.cause, trouble.mend).into()),
    }
}

pub(crate) fn call(account: &Account) -> Report {
    let (_giver, stop) = Stop::new();
    futures::executor::block_on(collect(account, &stop, &mut |event| {
        if let Event::Passed(message) = event {
            println!("{} for {:?}: {}", message.from, message.to, message.reply);
        }
    }))
}
