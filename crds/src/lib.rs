//! The API types of Inferno, and the messages that its processes exchange. Types only: nothing here acts.
#![forbid(unsafe_code)]

#[cfg(feature = "resources")]
pub mod amount;
#[cfg(feature = "resources")]
pub mod definitions;
#[cfg(feature = "resources")]
pub mod model;
#[cfg(feature = "resources")]
pub mod notification;
#[cfg(feature = "resources")]
pub mod pod_count;
#[cfg(feature = "resources")]
pub mod pool;
pub mod report;
pub mod split;

#[cfg(feature = "resources")]
pub use model::{InferenceModel, InferenceModelSpec, InferenceModelStatus};
#[cfg(feature = "resources")]
pub use pool::{InferencePool, InferencePoolSpec, InferencePoolStatus};
