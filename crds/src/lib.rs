//! The API types of Inferno, and the messages that its processes exchange. Types only: nothing here acts.
#![forbid(unsafe_code)]

pub mod report;
