//! End-to-end tests: a real cluster, the chart, real pods, real tokens. `make test` runs them inside
//! `tests/cluster/sandbox`; with `INFERNO_TEST_KUBECONFIG` they run on that cluster.
//!
//! They share one cluster of two cores, so they run one after another and each deletes what it created.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod admission;
mod autoscale;
mod bad_sources;
mod canary;
mod capacity;
mod changes;
mod clients;
mod disruptions;
mod documents;
mod drain;
mod experiments;
mod faults;
mod faulty_canaries;
mod golden;
mod kills;
mod models;
mod priority;
mod propagation;
mod receiver;
mod rollouts;
mod room;
mod scene;
mod serving;
mod verdict;
mod zero;
