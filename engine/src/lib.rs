//! The engine of Inferno: llama.cpp in a child process, and the handle that the sidecar holds on it.
//!
//! It knows tokens, sequences and sampling. It must not know HTTP, priorities, tenants' names or Kubernetes.
//! Read in this order: `request` (what is asked and answered), `client` (spawn, supervise, talk), `protocol`
//! (frames), then, with feature `worker`, the loop in the child.

pub mod request;
