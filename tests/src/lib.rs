//! What the tests on a cluster share. Everything here acts through the tools that a user has: `kubectl`, `helm`
//! and HTTP; nothing reaches into our processes.
#![forbid(unsafe_code)]

pub mod client;
pub mod kubectl;
pub mod release;
