//! The sidecar with the real engine and the demo model, over real sockets on loopback.
//!
//! Needs the program `inferno-engine`: `make test` builds it first; by hand, `cargo build -p inferno-engine`.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; clippy's own exception covers test functions only"
)]

mod answers;
mod bad_requests;
mod drain;
mod engine_loss;
mod fetching;
mod harness;
mod queueing;
mod reports;
mod storm;
