//! The first judgement in the simulator: how many replicas.
//!
//! [`pod`] and [`fleet`] are the world, [`scenario`] its loads; [`ours`] drives the judgement as the operator does,
//! [`rule`] and [`others`] are what it is compared with; [`run`] puts one run together, [`study`] many. [`tables`] shows
//! them, [`claims`] holds them against what the project claims, [`options`] is the command line.

pub mod claims;
pub mod fleet;
pub mod options;
pub mod others;
pub mod ours;
pub mod pod;
pub mod rule;
pub mod run;
pub mod scenario;
pub mod study;
pub mod tables;

pub use claims::check as gates;
pub use options::{Options, run};
