//! Tells people what has changed: in Slack, in `PagerDuty`, or at a webhook of their own.
//!
//! What is told are the notices that a plan publishes as events, which it makes only of changes of the status: whoever
//! leads next finds that status and tells nothing twice. [`message`] says what a notice means to people, [`routing`] who
//! gets it, [`farewell`] what closes with a model, [`format`] how it looks on the wire, and [`pace`] when a failed sending is tried again: functions of values.
//! [`receivers`] reads addresses and keys from a mounted directory at the moment of sending, so that the operator needs no
//! right to read a Secret; [`sender`] has the queues and the client, and nobody waits for it.

pub mod condition;
pub mod farewell;
pub mod format;
pub mod message;
pub mod pace;
mod queue;
pub mod receiver;
pub mod receivers;
pub mod routing;
pub mod sender;
