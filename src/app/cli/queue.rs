//! `restante queue …`: its commands and the filter that they share.
//!
//! A part of the command line; see there.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::app::admin::{Select, State};
use crate::app::config::units;
use crate::mail::{CustomerName, Domain, QueueId};

/// `restante queue …`
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// A line for each message in each domain's queue
    List(FilterArgs),
    /// One message: envelope, states, replies
    Show {
        /// Which
        id: QueueId,
        /// Print the content too, octet by octet as it arrived
        #[arg(long)]
        body: bool,
    },
    /// Keep messages back from their customer
    Hold(ActionArgs),
    /// Offer held and failed messages again
    Release(ActionArgs),
    /// Forget messages; nobody is told
    Remove(ActionArgs),
    /// Return messages to their senders now, with a report, and forget them
    ///
    /// The report goes the ordinary way: into the queue of a customer, or out by the relay. Messages with the null
    /// reverse-path have nobody to be told; they stay as they are.
    Bounce(ActionArgs),
    /// Copy messages into files: ID.eml with ID.json beside it, or one mbox
    ///
    /// The messages stay in the queue. In a mbox (mboxrd form: `>` before `From ` and `>From `, lines ending in LF) the
    /// envelope is a header field of its own, X-Restante-Envelope.
    Export(ExportArgs),
    /// Put exported messages into the queue
    ///
    /// A message whose id is in the queue already is not taken a second time. One whose domain belongs to nobody here is
    /// refused; the others are taken.
    #[command(after_help = "Exit status 1: some messages were not taken; each is named.")]
    Import {
        /// Files of `queue export`: .eml (its envelope beside it as .json), or mbox
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Say nothing of how far it is
        #[arg(short, long)]
        quiet: bool,
    },
}

/// `restante queue export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Messages for this domain
    #[arg(long, required_unless_present = "all")]
    pub domain: Option<Domain>,
    /// All messages
    #[arg(long, conflicts_with = "domain")]
    pub all: bool,
    /// Into this folder; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// One file, DOMAIN.mbox or all.mbox
    #[arg(long)]
    pub mbox: bool,
    /// Say nothing of how far it is
    #[arg(short, long)]
    pub quiet: bool,
}

/// Which messages; all conditions must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filter (conditions are combined by and)")]
pub struct FilterArgs {
    /// These messages
    #[arg(value_name = "ID")]
    pub ids: Vec<QueueId>,
    /// For this customer
    #[arg(long, value_name = "NAME")]
    pub customer: Option<CustomerName>,
    /// For this domain
    #[arg(long)]
    pub domain: Option<Domain>,
    /// The reverse-path contains this; `<>` is the null reverse-path
    #[arg(long, value_name = "TEXT")]
    pub sender: Option<String>,
    /// A forward-path contains this
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Arrived longer ago than this, as in 2d
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub older: Option<u64>,
    /// Arrived within this time, as in 1h
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub newer: Option<u64>,
    /// At least this large, as in "10 MiB"
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    pub larger: Option<u64>,
    /// In this state
    #[arg(long, value_enum)]
    pub state: Option<StateArg>,
    /// Refused for good by the customer's server; the same as --state failed
    #[arg(long, conflicts_with = "state")]
    pub failed: bool,
}

impl FilterArgs {
    /// As it is asked.
    #[must_use]
    pub fn select(&self) -> Select {
        Select {
            ids: self.ids.clone(),
            customer: self.customer.clone(),
            domain: self.domain.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            older: self.older,
            newer: self.newer,
            larger: self.larger,
            state: if self.failed { Some(State::Failed) } else { self.state.map(State::from) },
        }
    }
}

/// Which messages, and how carefully.
#[derive(Debug, Args)]
pub struct ActionArgs {
    /// Which
    #[command(flatten)]
    pub filter: FilterArgs,
    /// All messages of all customers
    #[arg(long)]
    pub all: bool,
    /// Only list what is meant
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask when a filter means more than one message
    #[arg(short = 'y', long)]
    pub yes: bool,
}

/// States by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum StateArg {
    /// Waiting, never refused
    Queued,
    /// On its way right now
    Draining,
    /// Waiting after a 4xx of the customer's server
    Deferred,
    /// Held by the operator
    Held,
    /// Refused for good by the customer's server
    Failed,
}

impl From<StateArg> for State {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Queued => Self::Queued,
            StateArg::Draining => Self::Draining,
            StateArg::Deferred => Self::Deferred,
            StateArg::Held => Self::Held,
            StateArg::Failed => Self::Failed,
        }
    }
}
