//! The data plane of Inferno: the server in a model's pod, and the fetcher that runs before it.
//!
//! In reading order: what a request is (`openai`), how it waits (`queue`, `dispatch`), how it runs (`generate`), how
//! it is asked for (`http`), how the process lives (`lifecycle`, `serve`, `logs`, `metrics`, `work`, `report`), and before all
//! that, how the model comes to the pod (`fetch`, and `files` for the other end).
#![forbid(unsafe_code)]

pub mod openai;

pub mod dispatch;
pub mod generate;
pub mod queue;

pub mod http;

pub mod lifecycle;
pub mod logs;
pub mod metrics;
pub mod push;
pub mod report;
pub mod serve;
pub mod termination;
pub mod work;

pub mod gateway;

pub mod fetch;
pub mod files;
pub mod web;
