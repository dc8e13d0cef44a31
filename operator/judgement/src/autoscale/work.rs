//! What a pod can do and what a request costs, in pod-seconds: the unit of everything here. One pod-second of work keeps
//! one pod busy for one second at its full batch.

use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// What one pod can do, as measured. Integers, so that a stored decision reads back exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodModel {
    /// Requests that are generated at the same time; at least 1.
    pub slots: u32,
    /// Prompt tokens per second while nothing else runs; at least 1.
    pub prefill_tokens_per_second: u32,
    /// A generation step with no request in it, microseconds (the α of α+β·batch).
    pub step_base_us: u32,
    /// What each request in the batch adds to a step, microseconds (β).
    pub step_per_request_us: u32,
    /// Tokens of key-value cache; `None` while unknown, which sets no floor.
    pub kv_tokens: Option<u64>,
}

impl PodModel {
    /// Work of a number of tokens, in pod-seconds: prompts alone could keep a pod's prefill busy for `prompt/rate`;
    /// together with generation a prompt slows the batch to half its pace while it runs.
    pub(super) fn work(&self, tokens: Amount) -> f64 {
        let prefill = tokens.prompt / f64::from(self.prefill_tokens_per_second.max(1));
        let generation = tokens.output * self.seconds_per_output_token();
        prefill.max(generation + 0.5 * prefill)
    }

    /// Pod-seconds of one generated token at a full batch: (α+β·slots)/slots.
    fn seconds_per_output_token(&self) -> f64 {
        let slots = f64::from(self.slots.max(1));
        let step_us = f64::from(self.step_base_us) + f64::from(self.step_per_request_us) * slots;
        step_us / slots / 1e6
    }

    /// Work of one request in pod-seconds.
    pub fn request(&self, prompt_tokens: u32, output_tokens: u32) -> f64 {
        self.work(Amount { prompt: f64::from(prompt_tokens), output: f64::from(output_tokens) })
    }
}

/// A count of requests and their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct Tokens {
    /// Requests.
    pub requests: u64,
    /// Tokens of their prompts that no cache had.
    pub prompt: u64,
    /// Tokens that they generate, as expected when they came ([`OutputLengths`]).
    pub output: u64,
}

/// Tokens that need not be whole: a share of a bin.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Amount {
    pub(super) prompt: f64,
    pub(super) output: f64,
}

impl Amount {
    pub(super) fn add(&mut self, tokens: Tokens, share: f64) {
        self.prompt += tokens.prompt as f64 * share;
        self.output += tokens.output as f64 * share;
    }
}

impl Tokens {
    /// Nothing arrived.
    pub const fn is_empty(self) -> bool {
        self.requests == 0 && self.prompt == 0 && self.output == 0
    }

    pub(super) fn amount(self) -> Amount {
        Amount { prompt: self.prompt as f64, output: self.output as f64 }
    }

    /// The part of it that falls into the first `part` of `whole`, rounded down; parts add up to the whole exactly
    /// when taken as differences of growing parts.
    pub(super) fn first(self, part: u64, whole: u64) -> Self {
        let share = |count: u64| {
            let first = u128::from(count) * u128::from(part) / u128::from(whole.max(1));
            u64::try_from(first).unwrap_or(count)
        };
        Self { requests: share(self.requests), prompt: share(self.prompt), output: share(self.output) }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt: self.prompt.saturating_add(other.prompt),
            output: self.output.saturating_add(other.output),
        }
    }
}

impl Sub for Tokens {
    type Output = Self;

    /// Counters that went back count as no progress.
    fn sub(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            prompt: self.prompt.saturating_sub(other.prompt),
            output: self.output.saturating_sub(other.output),
        }
    }
}

impl From<[u64; 3]> for Tokens {
    fn from([requests, prompt, output]: [u64; 3]) -> Self {
        Self { requests, prompt, output }
    }
}

impl From<Tokens> for [u64; 3] {
    fn from(tokens: Tokens) -> Self {
        [tokens.requests, tokens.prompt, tokens.output]
    }
}

/// Classes of `max_tokens`: class `i` holds limits up to 2^i. Sixteen of them reach 32 768; longer ones share the last.
const CLASSES: usize = 16;

/// Weight of a finished request in its class's mean: about the last 50 requests count.
const GAIN: f64 = 0.02;

/// How long answers probably are, learned from finished requests with a similar `max_tokens`. Kept by whoever counts
/// arrivals; the counters carry its expectation, so the decision itself needs no memory of single requests.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputLengths {
    means: [Option<f64>; CLASSES],
}

impl Default for OutputLengths {
    fn default() -> Self {
        Self { means: [None; CLASSES] }
    }
}

impl OutputLengths {
    /// Expected tokens of a request that may generate `max_tokens`; never more than that. Before the first finished
    /// request of its class: half the limit, at most 256.
    pub fn expect(&self, max_tokens: u32) -> u32 {
        let guess = f64::from(max_tokens / 2).min(256.0);
        let mean = self.means[class(max_tokens)].unwrap_or(guess).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of u32s fits; the cast saturates"
        )]
        let tokens = mean as u32;
        tokens.min(max_tokens)
    }

    /// A request that might have generated `max_tokens` has generated `tokens`.
    pub fn finished(&mut self, max_tokens: u32, tokens: u32) {
        let mean = &mut self.means[class(max_tokens)];
        let tokens = f64::from(tokens);
        *mean = Some(mean.map_or(tokens, |mean| mean + GAIN * (tokens - mean)));
    }
}

fn class(max_tokens: u32) -> usize {
    let bits = u32::BITS - max_tokens.saturating_sub(1).leading_zeros();
    usize::try_from(bits).unwrap_or(CLASSES).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: PodModel = PodModel {
        slots: 8,
        prefill_tokens_per_second: 3_000,
        step_base_us: 18_000,
        step_per_request_us: 2_000,
        kv_tokens: None,
    };

    #[test]
    fn a_mean_conversation_costs_one_point_one_pod_seconds() {
        // 1 155 prompt tokens are 0.385 s of prefill, 211 tokens at 34 ms / 8 are 0.897 s, half the prefill is 0.193 s.
        assert!((POD.request(1_155, 211) - 1.089).abs() < 0.001, "{}", POD.request(1_155, 211));
        // Code completion is bound by its prompt: 2 048 tokens are 0.683 s.
        assert!((POD.request(2_048, 28) - 0.683).abs() < 0.001);
    }

    #[test]
    fn parts_of_a_count_add_up() {
        let all = Tokens { requests: 7, prompt: 1_000, output: 13 };
        let sum =
            (1..=9).fold(Tokens::default(), |sum, part| sum + (all.first(part, 9) - all.first(part - 1, 9)));
        assert_eq!(sum, all);
    }

    #[test]
    fn output_length_is_learned_by_class_and_capped() {
        let mut lengths = OutputLengths::default();
        assert_eq!(lengths.expect(100), 50);
        assert_eq!(lengths.expect(4_096), 256);
        lengths.finished(4_096, 400);
        assert_eq!(lengths.expect(4_096), 400);
        assert_eq!(lengths.expect(100), 50, "another class");
        lengths.finished(100, 100);
        assert_eq!(lengths.expect(70), 70, "never more than the request allows");
        assert_eq!(class(1), 0);
        assert_eq!(class(u32::MAX), CLASSES - 1);
    }
}
