//! Restante holds mail for servers that have no fixed address, until they call for it.
//!
//! It is a provider server for On-Demand Mail Relay (RFC 2645, ATRN). The rooms of the house, and who may know
//! whom (imports go down only; rooms on one floor do not know each other; `tests/architecture.rs` checks it):
//!
//! | floor | room | what it does |
//! | --- | --- | --- |
//! | 0 | [`mail`] | the field's words as types |
//! | 1 | [`smtp`] | the protocol without I/O: bytes and answers in, actions out |
//! | 1 | [`store`] | what survives a power cut; knows no reply code |
//! | 2 | [`provider`] | decisions: intake, account, turn, drain |
//! | 3 | [`net`] | the shell: sockets, TLS, time |
//! | 4 | [`app`] | the program: configuration, control socket, one file a command |
//! | 4 | [`fetch`] | the customer's side: calls a provider and hands the mail to a local server |

// What tests/ shares with tests of single rooms names the house as everybody else does.
#[cfg(test)]
extern crate self as restante;

pub mod app;
pub mod fetch;
pub mod mail;
pub mod net;
pub mod provider;
pub mod smtp;
pub mod store;
