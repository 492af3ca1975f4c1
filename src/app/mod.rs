//! The program as its users see it: configuration, administration, control socket, one file a command.
//!
//! Called by `main` only. It brings the other rooms together and holds no rule of the protocol. Keeps
//! `interface.md`, the contract with operators and their scripts.

pub mod admin;
pub mod backend;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod doctor;
pub mod logging;
mod mbox;
pub mod output;
pub mod pages;
mod progress;
pub mod quickstart;
pub mod run;
