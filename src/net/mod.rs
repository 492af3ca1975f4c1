//! The shell: sockets, TLS and time. It moves bytes and carries out actions, and decides nothing.
//!
//! The only room, with `app/run.rs`, that names the async runtime.

pub mod call;
pub mod clock;
pub mod control;
pub mod deliver;
pub mod descriptors;
pub mod dial;
pub mod dns;
pub mod http;
pub mod listen;
pub mod manager;
pub mod patience;
pub mod pipe;
pub mod probe;
pub mod proxy;
pub mod serve;
mod socket;
pub mod stop;
pub mod tls;
pub mod unix;
pub mod wire;
