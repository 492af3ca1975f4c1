//! ETRN, reports and the way out, with the real program, real TLS and the real store; the hosts are ours.

mod deliveries;
mod host;
mod roads;
#[path = "../support/mod.rs"]
mod support;
