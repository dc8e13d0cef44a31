//! Named situations of one model, and what is planned in each: values in, values out.
#![expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

mod bounds;
mod canary;
mod capacity;
mod conducting;
mod failing;
mod former;
mod golden;
mod naming;
mod refusing;
mod replacing;
mod resting;
mod roles;
mod scaling;
mod scene;
mod serving;
mod starting;
mod underpowered;
mod verdicts;
mod world;
