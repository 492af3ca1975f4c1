//! Decisions: who may log in, which mail is taken, who may drain, and what becomes of it.
//!
//! Called by the shell (`net`) and the program (`app`); knows the protocol's questions and the store's promises,
//! and brings them together. It opens no socket and names no async runtime.

pub mod abuse;
mod account;
pub mod age;
pub mod bell;
pub mod board;
pub mod bounce;
pub mod call;
pub mod desk;
pub mod drain;
pub mod errand;
pub mod etrn;
pub mod expiry;
mod intake;
pub mod ledger;
pub mod mime;
pub mod office;
pub mod outing;
pub mod policy;
mod relay;
pub mod report;
pub mod rounds;
pub mod route;
pub mod servers;
mod trace;
pub mod turn;
pub mod watch;
pub mod world;

pub use board::Board;
pub use desk::Desk;
pub use drain::Drain;
pub use errand::{Errand, Outbox};
pub use office::Office;
pub use policy::{DrainRules, Policy, Window};
pub use world::World;
