//! The customer's side: calls a provider for mail (RFC 2645) and hands it to a local server or mailbox.
//!
//! Called by the program as `restante fetch`, or as a library with [`collect`]. It uses the protocol without I/O
//! (`smtp::caller` up to the turn, `smtp::bridge` behind it) and the shell's sockets; it knows no queue.
//!
//! | file | what it does |
//! | --- | --- |
//! | `args`, `settings` | the command line and the TOML file, both become [`Account`]s |
//! | `account`, `secret` | one account, and where its password comes from |
//! | `target`, `files` | where the mail goes |
//! | `call`, `pump` | one call: negotiation, turn, and moving the bytes |
//! | `verdict` | how a call ended, and what to do about it |
//! | `rhythm` | when to call again |
//! | `tell`, `notify` | lines, progress and JSON; systemd |
//! | `run` | all of it, from arguments to exit status |
//!
//! Everything of one account runs in one thread on the `futures` traits: a call holds a few buffers of 64 KiB each
//! and moves bytes in both directions through one TLS connection, which two blocking threads could only do by
//! taking turns at a lock.

mod account;
mod args;
mod call;
mod files;
mod notify;
mod pump;
mod rhythm;
mod run;
mod secret;
mod settings;
mod target;
mod tell;
mod verdict;

pub use account::{Account, AccountError};
pub use args::{FetchArgs, Form};
pub use call::{Event, Report, collect, collect_over};
pub use run::run;
pub use target::{Target, TargetError};
pub use verdict::{Trouble, Verdict};
