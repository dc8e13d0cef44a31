//! The seeded simulator that proves the two judgements: no GPU, no cluster, no clock. It drives the same functions that
//! the operator calls and compares them with what others do.
//!
//! Shared by both halves, in reading order:
//! - [`random`]: one seed, any number of named independent streams;
//! - [`arrivals`]: when requests come and how large they are (synthetic shapes);
//! - [`trace`]: the same from the Azure traces (a resampled extract ships in `tests/data/azure-llm`);
//! - [`parallel`]: one thread per core, a progress line, results in the order of the jobs;
//! - [`plot`], [`report`]: SVG plots, and the folder that results go to;
//! - [`gates`]: a named figure, its threshold, and whether it was met;
//! - [`cli`]: what the binary `simulate` understands.
//!
//! Then the two halves: [`autoscale`] and [`canary`].

pub mod arrivals;
pub mod autoscale;
pub mod canary;
pub mod cli;
pub mod gates;
pub mod parallel;
pub mod plot;
pub mod random;
pub mod report;
pub mod trace;
