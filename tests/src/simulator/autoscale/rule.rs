//! What the rules of others see and say.

/// What can be seen of the fleet at one moment.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Now, seconds from the start.
    pub now_s: f64,
    /// Pods that serve and do not drain.
    pub ready: u32,
    /// Pods that are ordered.
    pub pending: u32,
    /// Requests in slots.
    pub in_flight: u32,
    /// Requests that wait for a slot.
    pub queued: u32,
    /// Tokens in key-value caches: prompts, and what was generated from them.
    pub resident_tokens: f64,
}

impl View {
    /// Pods that serve or are ordered.
    pub fn replicas(&self) -> u32 {
        self.ready + self.pending
    }

    /// Requests in slots and waiting.
    pub fn requests(&self) -> u32 {
        self.in_flight + self.queued
    }
}

/// A rule with its memory.
pub trait Rule {
    /// Seconds between two looks.
    fn period_s(&self) -> f64;

    /// How many replicas there shall be.
    fn replicas(&mut self, view: &View) -> u32;
}
