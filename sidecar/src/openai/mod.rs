//! The OpenAI wire format: what comes in is read into valid inner values here and nowhere else; what goes out is
//! shaped here. Knows nothing of HTTP statuses, the queue or the engine's process.
//!
//! In reading order: [`fields`] (a JSON object with named complaints), [`parameters`] (what both endpoints share),
//! [`chat`] and [`completion`] (the endpoints), [`template`] (messages to text), [`veil`] (what users write
//! does not become control tokens), [`answer`] (what goes out).

pub mod answer;
pub mod chat;
pub mod completion;
pub mod fields;
pub mod parameters;
pub mod template;
pub mod veil;

pub use fields::{Complaint, Refusal};
pub use parameters::Parameters;
