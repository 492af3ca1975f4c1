//! The command line: every command and option, with the help that teaches them.
//!
//! Read by `main`; the completions and man pages are made from it as well. It checks the form of arguments and
//! does nothing.

mod queue;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::fetch::FetchArgs;
use crate::mail::{CustomerName, Domain};

pub use queue::{ActionArgs, ExportArgs, FilterArgs, QueueCommand, StateArg};

/// Holds mail for servers that have no fixed address, until they call for it (RFC 2645, ATRN).
#[derive(Debug, Parser)]
#[command(
    name = "restante",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Start with `restante quickstart`: it sets up a provider on this machine and prints the \
                  commands that send a message through it.\n\nExit status: 0 done; 1 what was asked for failed; \
                  2 wrong usage or a bad configuration."
)]
pub struct Cli {
    /// The configuration [default: $RESTANTE_CONFIG, else /etc/restante/restante.toml]
    #[arg(short = 'c', long = "config", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Print one JSON object a line instead of text
    #[arg(long, global = true, conflicts_with = "json")]
    pub json_lines: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the provider in the foreground
    ///
    /// SIGTERM and SIGINT end it in order: running drains come to their next safe point, then the store is closed.
    /// SIGHUP reads the configuration again: certificates, limits and log level change, and no connection is lost.
    Serve,
    /// Set up a provider to try out, and run it
    ///
    /// In a new or empty DIR: writes a commented configuration and a self-signed certificate, creates the customer
    /// `demo` for `demo.example` with a generated password, prints the commands to send a message and to collect
    /// it, and serves on 127.0.0.1 (mx 2525, mxs 4650, odmr 3660, odmrs 3661). In a DIR that it made before, it
    /// serves what is there.
    Quickstart {
        /// Where to put everything
        #[arg(default_value = "./restante-data", value_name = "DIR")]
        dir: PathBuf,
        /// Set it up and print the commands, but do not serve
        #[arg(long)]
        no_serve: bool,
    },
    /// Read the configuration and say every fault with file, line and column
    Check {
        /// Print the effective settings as well, each with where it comes from
        #[arg(long)]
        show: bool,
    },
    /// Examine a deployment: ports, certificate, DNS, disk, clock, store, and the way out for reports
    ///
    /// One line for each thing: ok, warning or fault, with what to do about it. It works beside a running provider and
    /// without one, and changes nothing. With --as it also plays the customer against the running server, up to the
    /// login; it never asks for mail. Exit status 0 without faults, 1 with any.
    Doctor {
        /// Play this customer against the running server
        #[arg(long = "as", value_name = "CUSTOMER")]
        customer: Option<CustomerName>,
        /// With --as: read its password from the first line of standard input, and log in
        #[arg(long, requires = "customer")]
        password_stdin: bool,
        /// Ask this name server instead of the system's; may repeat
        #[arg(long = "name-server", value_name = "ADDRESS:PORT")]
        name_servers: Vec<std::net::SocketAddr>,
    },
    /// Customers: who collects mail here
    #[command(subcommand)]
    Customer(CustomerCommand),
    /// Domains of customers; each belongs to one customer only
    #[command(subcommand)]
    Domain(DomainCommand),
    /// The mail that waits
    #[command(subcommand)]
    Queue(QueueCommand),
    /// The store itself: look through it, make it smaller, make its index again
    #[command(subcommand)]
    Store(StoreCommand),
    /// Write all customers and all mail into FILE
    ///
    /// Beside a running provider too: what is in FILE existed at one moment, and nothing is held up meanwhile. FILE is
    /// there whole or not at all; one of the same name is replaced at the end. `-` is standard output, for a pipe.
    #[command(
        after_help = "Exit status 1: FILE was not written; or it was, and messages that cannot be read are not in it (they are named)."
    )]
    Dump {
        /// Where to; it holds what proves passwords, and is readable by its owner only
        file: PathBuf,
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
    /// Read a FILE of `restante dump` into an empty store
    ///
    /// No provider may run on it. FILE is read twice, the first time only to see whether it is whole. When a load is
    /// interrupted, the store says that it is half loaded and no provider starts on it; loading again begins anew.
    Load {
        /// Where from; `-` is standard input
        file: PathBuf,
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
    /// Watch sessions as they run
    ///
    /// One line for each command and reply, until Ctrl-C. Secrets and contents are never shown, only their lengths. A
    /// trace that cannot keep up misses events and says how many; no session waits for it.
    Trace {
        /// Sessions of this customer only, from its login on
        #[arg(long, value_name = "NAME")]
        customer: Option<CustomerName>,
        /// Sessions from this address only
        #[arg(long, value_name = "IP")]
        address: Option<std::net::IpAddr>,
    },
    /// The snapshot of `status`, live in a terminal
    ///
    /// It is drawn anew every second; `q` or Ctrl-C ends it. Where standard output is no terminal, it is printed once.
    Top,
    /// A snapshot: listeners, sessions, queues, and how the last drain of each customer ended
    Status,
    /// The customer's side: collect waiting mail from a provider and hand it to a local server or mailbox
    ///
    /// Calls the provider, logs in, turns the connection round (RFC 2645, ATRN) and passes the mail on. The target is
    /// opened before the turn: while it is down, no mail is touched. Works with every provider of RFC 2645.
    Fetch(Box<FetchArgs>),
    /// Start the delivery of a domain's queue to its customer's `etrn-host` now
    ///
    /// Beside a running provider it is started, and the answer comes at once; without one it is done before the
    /// command ends.
    Flush {
        /// The domain
        domain: Domain,
    },
    /// Print shell completions
    ///
    /// For example: restante completions bash > /etc/bash_completion.d/restante
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write man pages into DIR
    Man {
        /// An existing folder
        dir: PathBuf,
    },
}

/// `restante customer …`
#[derive(Debug, Subcommand)]
pub enum CustomerCommand {
    /// Create a customer
    ///
    /// The name is also the login. Without --password-stdin a password is made and printed once; it is not stored
    /// in a form from which it could be printed again.
    Add {
        /// 1 to 64 characters of a-z 0-9 . _ -
        name: CustomerName,
        /// A domain whose mail is held for this customer; may repeat
        #[arg(long = "domain", required = true, value_name = "DOMAIN")]
        domains: Vec<Domain>,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// All customers, with what waits for them
    List,
    /// One customer with its domains, logins and settings
    Show {
        /// Whom
        name: CustomerName,
    },
    /// Replace the password of the customer's own login
    Passwd {
        /// Whose
        name: CustomerName,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// Refuse the customer's logins and new mail for it; queued mail stays
    Suspend {
        /// Whom
        name: CustomerName,
    },
    /// End a suspension
    Resume {
        /// Whom
        name: CustomerName,
    },
    /// Remove a customer; refused while mail is queued
    Remove {
        /// Whom
        name: CustomerName,
        /// Lose the queued mail
        #[arg(long)]
        discard_mail: bool,
    },
    /// Change a setting
    #[command(after_help = settings_help())]
    Set {
        /// Whose
        name: CustomerName,
        /// Which, see below
        key: String,
        /// Its value, see below
        value: String,
    },
    /// Put a setting back to the configuration's default
    Unset {
        /// Whose
        name: CustomerName,
        /// Which
        key: String,
    },
    /// Ready text for the customer: fetchmail, Exim, `restante fetch` and DNS, with the real names
    Kit {
        /// For whom
        name: CustomerName,
    },
    /// Further logins, each with a label: NAME/LABEL
    #[command(subcommand)]
    Credential(CredentialCommand),
}

/// `restante customer credential …`
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Make another login, NAME/LABEL, with a password of its own
    Add {
        /// Whose
        name: CustomerName,
        /// What the login is for, as in `office`
        #[arg(long)]
        label: String,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// The customer's logins
    List {
        /// Whose
        name: CustomerName,
    },
    /// Take a login back; `""` is the customer's own
    Revoke {
        /// Whose
        name: CustomerName,
        /// Which
        label: String,
    },
}

/// `restante domain …`
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Give a customer one more domain
    Add {
        /// Whom
        customer: CustomerName,
        /// Which
        domain: Domain,
    },
    /// Take a domain from its customer; refused while mail is queued for it
    #[command(override_usage = "restante domain remove [CUSTOMER] <DOMAIN>")]
    Remove {
        /// The domain, with or without its customer's name before it
        #[arg(num_args = 1..=2, required = true, value_names = ["CUSTOMER", "DOMAIN"])]
        names: Vec<String>,
        /// Lose the queued mail
        #[arg(long)]
        discard_mail: bool,
    },
    /// Domains with their customers
    List {
        /// Of this customer only
        customer: Option<CustomerName>,
    },
}

/// `restante store …`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read all mail from the first octet to the last, and say what is damaged
    ///
    /// It changes nothing. A running provider looks through its own store and goes on working.
    #[command(after_help = "Exit status 1: something is damaged; each thing is named.")]
    Verify {
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
    /// Give back the room of mail that has gone
    ///
    /// A provider does so by itself; this does all of it now.
    Compact {
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make the index again from the spool
    ///
    /// The provider must be stopped. Nothing is in the index that is not in the spool too.
    #[command(
        after_help = "Exit status 1: it was not done; or it was, and something is damaged: each thing is named."
    )]
    Rebuild {
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
}

fn settings_help() -> String {
    let mut help = String::from("Settings:\n");
    for (key, form) in super::admin::settings::KEYS {
        help += &format!("  {key:<18} {form}\n");
    }
    help
}
