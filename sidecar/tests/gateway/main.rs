//! The gateway over real sockets on loopback. Pods are sockets that the tests themselves speak on, so that a test says
//! when each byte comes; the last file has a real pod.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; clippy's own exception covers test functions only"
)]

mod draws;
mod failures;
mod harness;
mod holding;
mod leaving;
mod passing;
mod real_pod;
mod reporting;
mod routing;
mod shadow;
mod storm;
mod streams;
mod tunnels;
