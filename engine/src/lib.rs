//! The engine of Inferno: llama.cpp in a child process, and the handle that the sidecar holds on it.
//!
//! It knows tokens, sequences and sampling. It must not know HTTP, priorities, tenants' names or Kubernetes.
//! Read in this order: `request` (what is asked and answered), `client` (the handle), `supervisor` (spawns the
//! child, talks to it, replaces it), `last_words` (what a child said before its end), `protocol` (frames), `gguf`
//! (pre-flight reader of model files); then the worker's pure parts `sequence`, `batch`, `call`, `prefix`, `reuse`, `sample`, `stop`, `memory`, and, with feature
//! `worker`, `worker` (the child process), `decoding` (its loop) and `llama` (the only file that touches llama.cpp).

pub mod request;

pub mod client;
mod last_words;
pub mod protocol;
mod supervisor;

pub mod gguf;

pub mod batch;
pub mod call;
pub mod memory;
pub mod prefix;
pub mod reuse;
pub mod sample;
pub mod sequence;
pub mod stop;

#[cfg(feature = "worker")]
mod decoding;
#[cfg(feature = "worker")]
#[expect(unsafe_code, reason = "llama.cpp has no safe interface; this module asserts each precondition")]
mod llama;
#[cfg(feature = "worker")]
mod pieces;
#[cfg(feature = "worker")]
pub mod worker;

pub use client::{Engine, EngineError, EngineState, Running};
pub use request::{
    EngineConfig, EngineStats, Event, FinishReason, FlashAttention, Generation, KvCacheType, LoadFailure,
    LoadFailureKind, ModelFacts, Reuse, Sampling, Token, TokenOutput, Usage,
};
