//! The stage for transcripts: the provider as it is, over connections in memory and a clock that stands still.

pub mod house;
pub mod peer;
pub mod pipe;
pub mod play;
pub mod script;
pub mod world;
