//! End-to-end tests: a real cluster, the chart, real pods, real tokens. `make test` runs them inside
//! `tests/cluster/sandbox`; with `INFERNO_TEST_KUBECONFIG` they run on that cluster.
//!
//! They share one cluster of two cores, and each deletes what it created. Those in `together` run beside each other; the
//! others need the machine, the pool or the operator for themselves, and run one after another.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod autoscale;
mod capacity;
mod demand;
mod disruptions;
mod documents;
mod drain;
mod faulty_canaries;
mod kills;
mod priority;
mod propagation;
mod receiver;
mod rollouts;
mod room;
mod scene;
mod together;
mod zero;
