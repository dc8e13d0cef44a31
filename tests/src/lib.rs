//! What the tests on a cluster share. Everything here acts through the tools that a user has: `kubectl`, `helm`
//! and HTTP; nothing reaches into our processes. Apart from them stand [`bench`] and [`simulator`],
//! which need no cluster.
#![forbid(unsafe_code)]

pub mod bench;
pub mod client;
pub mod kubectl;
pub mod models;
pub mod pods;
pub mod release;
pub mod simulator;
pub mod traffic;
