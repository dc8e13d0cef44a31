//! What came of copies of requests beside the answers that clients got.

use serde::{Deserialize, Serialize};

/// Copies that one revision, the canary, answered beside the revision that clients were answered by. Sums only grow;
/// texts are nowhere kept. Times begin when both were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShadowCounts {
    /// Pairs of which both have ended. Those whose client left, or had asked for what cannot be, do not count.
    pub compared_total: u64,
    /// Those of them whose copy got no whole answer.
    pub canary_errors_total: u64,
    /// Those of them whose client got none.
    pub stable_errors_total: u64,
    /// Those of them with two answers; all that follows is of these.
    pub answered_total: u64,
    /// The same text twice.
    pub same_text_total: u64,
    /// Pairs that should have the same text: with temperature 0, or with a seed.
    pub deterministic_total: u64,
    /// Those of them that have.
    pub deterministic_same_text_total: u64,
    /// Characters of the answers that clients got.
    pub stable_characters_total: u64,
    /// Characters of the copies' answers.
    pub canary_characters_total: u64,
    /// Time to the end of the answers that clients got, in microseconds.
    pub stable_micros_total: u64,
    /// Time to the end of the copies' answers, in microseconds.
    pub canary_micros_total: u64,
    /// Pairs of streams that both said something: only these have a first token.
    pub streamed_total: u64,
    /// Time to the first text of the streams that clients got, in microseconds.
    pub stable_first_micros_total: u64,
    /// Time to the first text of the copies' streams, in microseconds.
    pub canary_first_micros_total: u64,
}

impl ShadowCounts {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |read: fn(&Self) -> u64| read(self).saturating_add(read(other));
        Self {
            compared_total: sum(|counts| counts.compared_total),
            canary_errors_total: sum(|counts| counts.canary_errors_total),
            stable_errors_total: sum(|counts| counts.stable_errors_total),
            answered_total: sum(|counts| counts.answered_total),
            same_text_total: sum(|counts| counts.same_text_total),
            deterministic_total: sum(|counts| counts.deterministic_total),
            deterministic_same_text_total: sum(|counts| counts.deterministic_same_text_total),
            stable_characters_total: sum(|counts| counts.stable_characters_total),
            canary_characters_total: sum(|counts| counts.canary_characters_total),
            stable_micros_total: sum(|counts| counts.stable_micros_total),
            canary_micros_total: sum(|counts| counts.canary_micros_total),
            streamed_total: sum(|counts| counts.streamed_total),
            stable_first_micros_total: sum(|counts| counts.stable_first_micros_total),
            canary_first_micros_total: sum(|counts| counts.canary_first_micros_total),
        }
    }
}
