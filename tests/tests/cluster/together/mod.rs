//! Tests that bear others beside them: each looks at its own model alone and changes nothing that all share. Four at a
//! time keep two cores busy, because each of them mostly waits for a pod to start.

mod admission;
mod autoscaled;
mod bad_sources;
mod broken_canaries;
pub(crate) mod canary;
mod changes;
mod clients;
mod experiments;
mod faults;
mod golden;
mod models;
mod serving;
mod verdict;
