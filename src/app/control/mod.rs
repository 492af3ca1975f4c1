//! The control socket's language: one JSON object a line in both directions.
//!
//! A command says `{"request":…}`. The provider's first line is `{"hello":{"version":1,…}}`; then come any number
//! of `{"item":…}` and one `{"done":…}` or `{"refused":…}` for each request, in order. Behind the request for an import
//! the command says `{"octets":…}` any number of times and `"end"`. Nothing else is spoken.

pub mod client;
pub mod server;

use super::admin::{Done, Item, Refused, Request};

/// Of this language; another one is refused by both sides.
pub const VERSION: u32 = 1;

/// What a command says.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Ask {
    /// [`VERSION`] of the command.
    pub version: u32,
    /// What it wants.
    pub request: Request,
}

/// What the provider says.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// First of all.
    Hello {
        /// [`VERSION`] of the provider.
        version: u32,
        /// Its name and release.
        server: String,
    },
    /// A part of the answer.
    Item(Item),
    /// The end of the answer.
    Done(Done),
    /// The end, and nothing was done.
    Refused(Refused),
}
