//! The front door of a pool: one URL, all models.
//!
//! Read in this order: what is known ([`view`]), what a request asks ([`ask`]), what it takes part in ([`draw`]), who
//! serves it ([`route`]), at which pod
//! ([`endpoints`]), how it waits while there is none ([`hold`]) and what it is told ([`outlook`]). These decide; they
//! know neither sockets nor Kubernetes, and time and chance are their arguments.
//!
//! Around them, what acts: requests come in ([`serve`], [`answer`], [`body`]), go to a pod ([`forward`], [`trouble`],
//! [`envelope`], [`pods`], [`shadow`], [`upgrade`]), and answers come back ([`relay`], [`scan`], [`waiting`]); all share one state ([`app`],
//! [`account`], [`metrics`]); views come from [`kubernetes`] or [`file`], and [`report`] tells the operator.

pub mod ask;
pub mod draw;
pub mod endpoints;
pub mod hold;
pub mod outlook;
pub mod route;
pub mod view;

pub mod account;
pub mod admin;
pub mod answer;
pub mod app;
pub mod body;
pub mod envelope;
pub mod file;
pub mod forward;
pub mod kubernetes;
pub mod metrics;
pub mod models;
pub mod pods;
pub mod recent;
pub mod relay;
pub mod report;
pub mod run;
pub mod scan;
pub mod serve;
pub mod settings;
pub mod shadow;
pub mod trouble;
pub mod upgrade;
pub mod waiting;
