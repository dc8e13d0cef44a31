//! The control plane of Inferno: it turns pools and models into Deployments and Services, and says how they are.
//!
//! One reconcile is observe → plan → apply. `observe` does all reads, `apply` all writes, and everything between
//! them is a function of values.
#![forbid(unsafe_code)]

pub mod controller;
pub mod observe;
pub mod plan;

pub mod autoscale;
pub mod blame;
pub mod capacity;
pub mod conduct;
pub mod drain;
pub mod experiment;
pub mod figures;
pub mod gateway;
pub mod golden;
pub mod inventory;
pub mod objects;
pub mod pod;
pub mod policy;
pub mod pool;
pub mod problem;
pub mod revision;
pub mod rollout;
pub mod start;
pub mod status;

pub mod apply;
pub mod held;
pub mod load;
pub mod notify;
pub mod probe;
pub mod report;
pub mod trial;

pub mod endpoints;
pub mod explain;
pub mod leader;
pub mod metrics;
pub mod settings;
