//! The priority queue: who goes next, who has to leave, who is not let in.
//!
//! Read in this order: [`tier`] (urgency and how it grows), [`fair`] (sharing by weight), [`waiting`] (the pure
//! structure that decides), [`handle`] (the same for async callers). Nothing here knows HTTP or the engine.

pub mod fair;
pub mod handle;
pub mod tier;
pub mod waiting;

pub use handle::{Admission, Queue, Queued};
pub use tier::Tier;
pub use waiting::{Expired, Full, FullLimit, Id, Limits, Snapshot, Ticket, Waiting};
