//! How requests wait while no pod is ready: one room per model, in the gateway's memory.
//!
//! [`held`] decides (who goes, who has waited too long, who is not let in), [`room`] is the same for async callers.
//!
//! Others answer 503 while a model is at zero, or let everybody go at once when the first pod is up, which then has the
//! whole crowd while the second and third pod stay idle. Here a ready pod is *so many places*: as many requests go as
//! the ready pods work on at once, the most urgent first, and each that is being answered lets the next one go. Whoever
//! was let go and lost its pod comes back to its old place.

pub mod held;
pub mod room;

pub use held::{HeldCounts, HeldRequest, HoldRefusal, Turn};
pub use room::{HoldRoom, Ticket};
