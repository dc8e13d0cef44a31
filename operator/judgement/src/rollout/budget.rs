//! How the permitted share of false rollbacks is divided among the gates.

/// Alpha of each gate, as shares. They are spent once over the whole rollout and never renewed by a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Time per decode call.
    pub decode: f64,
    /// Time per prompt token.
    pub prefill: f64,
    /// Time to first token without a queue.
    pub unqueued_ttft: f64,
    /// The early rule, for decode and for prefill each.
    pub early: f64,
    /// Errors of first attempts.
    pub errors: f64,
    /// Requests whose work exceeds twice its prediction.
    pub engine_tail: f64,
    /// Cached prefixes that were owed and missed.
    pub cache_reuse: f64,
    /// Waiting although a slot should have been free.
    pub slot_wait: f64,
}

impl Budget {
    /// The division of `total`. The two gates that most changes move get a fifth each; the seven others share the
    /// rest by how sharp they must be: 1 + 1 + 0.25 + 3·0.5 + 0.25 + 2·0.25 = 4.5. The last half of a percent is not
    /// spent. Errors come even in healthy rollouts, so their gate is the one that spends all it is given, and twenty
    /// times as many are found in half of the time allowed with a third of the 0.75 that the design gave them.
    pub fn of(total: f64) -> Self {
        let share = total / 5.0;
        Self {
            decode: share,
            prefill: share,
            unqueued_ttft: 0.5 * share,
            early: 0.25 * share,
            errors: 0.25 * share,
            engine_tail: 0.5 * share,
            cache_reuse: 0.5 * share,
            slot_wait: 0.25 * share,
        }
    }
}
