//! Golden prompts: questions with known answers that a new revision must pass before it gets its first request, and again
//! at each later step of its rollout.
//!
//! [`set`] reads them from a ConfigMap, [`expect`] holds an answer against what is expected, and [`standing`] says what the
//! results mean for a revision: functions of values. [`runner`] asks a pod and remembers what came of it.

pub mod expect;
pub mod runner;
pub mod set;
pub mod standing;

/// What came of asking a revision all prompts of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Prompts whose answers were as expected.
    pub passed: usize,
    /// All prompts.
    pub total: usize,
    /// Their share, rounded down.
    pub pass_percent: u32,
    /// Each that was not, by name and with the cause; never with the answer.
    pub failures: Vec<String>,
}

impl Outcome {
    /// The outcome of a set of so many prompts with these failures.
    pub fn new(total: usize, failures: Vec<String>) -> Self {
        let passed = total.saturating_sub(failures.len());
        let pass_percent = u32::try_from(passed * 100 / total.max(1)).unwrap_or(0);
        Self { passed, total, pass_percent, failures }
    }
}
