//! How many replicas, and is the canary well? Two judgements as pure functions of recorded inputs and `now`.
//!
//! Nothing here touches a clock, a client or a socket; the operator feeds it, and the simulator proves it.
#![forbid(unsafe_code)]

pub mod autoscale;
pub mod explain;
pub mod rollout;
pub mod statistics;
