//! SASL: how a customer proves who it is (RFC 4422), one file a mechanism.
//!
//! Called by the session, which frames the exchange as RFC 4954 has it, and by the account desk and the
//! administration for what is stored. It never looks anything up: credentials and chance come in as answers.

pub mod credential;

pub use credential::{
    ITERATIONS, PasswordError, SALT_BYTES, derive, dummy_credential, verify_password,
};
