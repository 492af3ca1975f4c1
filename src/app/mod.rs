//! The program as its users see it: configuration, administration, control socket, one file a command.
//!
//! Called by `main` only. It brings the other rooms together and holds no rule of the protocol. Keeps
//! `interface.md`, the contract with operators and their scripts.

pub mod admin;
pub mod config;
pub mod pages;
