//! The stage for transcripts: the provider as it is, over connections in memory and a clock that stands still.

pub(crate) mod house;
pub(crate) mod peer;
pub(crate) mod pipe;
pub(crate) mod play;
pub(crate) mod script;
pub(crate) mod world;
