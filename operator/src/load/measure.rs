//! What one pod can do, from the counters of its engine. Pure.

use std::collections::BTreeMap;

use crds::report::DecodeWork;
use judgement::autoscale::PodModel;

/// Calls without prompts that say how long a step takes: a few seconds of work.
const CALLS_MIN: u64 = 200;
/// Prompt tokens that say how fast prompts are read.
const PROMPT_TOKENS_MIN: u64 = 1_000;

/// Of a step whose batch size never changed, so much more with each request in it: memory traffic is shared, so that
/// it is little.
const STEP_GROWTH: f64 = 0.1;

/// Work of all pods of a model since they began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Measured {
    slots: u32,
    /// Calls and microseconds by batch size.
    steps: BTreeMap<u32, (u64, u64)>,
    prompt_tokens: u64,
    prompt_micros: u64,
}

impl Measured {
    /// Adds the counters of one pod.
    pub(super) fn add(&mut self, slots: u32, decode: &[DecodeWork], prompt_tokens: u64, prompt_micros: u64) {
        self.slots = self.slots.max(slots);
        for work in decode {
            let (calls, micros) = self.steps.entry(work.batch).or_default();
            *calls = calls.saturating_add(work.calls);
            *micros = micros.saturating_add(work.micros);
        }
        self.prompt_tokens = self.prompt_tokens.saturating_add(prompt_tokens);
        self.prompt_micros = self.prompt_micros.saturating_add(prompt_micros);
    }

    /// What one of the pods can do; `None` until they have done enough to tell.
    pub(super) fn pod(&self) -> Option<PodModel> {
        let calls: u64 = self.steps.values().map(|(calls, _)| *calls).sum();
        let is_enough = calls >= CALLS_MIN && self.prompt_tokens >= PROMPT_TOKENS_MIN;
        if !is_enough || self.slots == 0 || self.prompt_micros == 0 {
            return None;
        }
        let (base, per_request) = self.step();
        Some(PodModel {
            slots: self.slots,
            prefill_tokens_per_second: whole(self.prompt_tokens as f64 * 1e6 / self.prompt_micros as f64)
                .max(1),
            step_base_us: whole(base),
            step_per_request_us: whole(per_request),
            // Each slot has a cache of its own for a whole context, and a request that does not fit is refused: caches are
            // full only when all slots are. Reports also count what they keep for later, which would never let go.
            kv_tokens: None,
        })
    }

    /// Microseconds of a step: without a request, and for each in it. A line through the means, by least squares.
    fn step(&self) -> (f64, f64) {
        let steps = || {
            let counted = self.steps.iter().filter(|(_, (calls, _))| *calls > 0);
            counted.map(|(batch, (calls, micros))| (f64::from(*batch), *calls as f64, *micros as f64))
        };
        let count: f64 = steps().map(|(_, calls, _)| calls).sum();
        let batch = steps().map(|(batch, calls, _)| batch * calls).sum::<f64>() / count;
        let micros = steps().map(|(_, _, micros)| micros).sum::<f64>() / count;
        let spread: f64 = steps().map(|(size, calls, _)| calls * (size - batch) * (size - batch)).sum();
        if spread / count < 0.05 {
            let base = micros / (1.0 + STEP_GROWTH * batch);
            return (base, STEP_GROWTH * base);
        }
        let product: f64 = steps().map(|(size, calls, sum)| (size - batch) * (sum - calls * micros)).sum();
        let per_request = (product / spread).clamp(0.0, micros / batch);
        (micros - per_request * batch, per_request)
    }
}

/// Rounded; never negative, and never more than fits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and the cast saturates"
)]
fn whole(value: f64) -> u32 {
    value.max(0.0).round() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn work(batch: u32, calls: u64, micros_each: u64) -> DecodeWork {
        DecodeWork { batch, calls, micros: calls * micros_each, kv_tokens: 0 }
    }

    fn pod(decode: &[DecodeWork], prompt_tokens: u64, prompt_micros: u64) -> Option<PodModel> {
        let mut measured = Measured::default();
        measured.add(8, decode, prompt_tokens, prompt_micros);
        measured.pod()
    }

    #[test]
    fn a_step_is_a_base_and_a_share_of_each_request() {
        let found =
            pod(&[work(1, 500, 20_000), work(4, 300, 26_000), work(8, 100, 34_000)], 6_000, 2_000_000);
        let expected = PodModel {
            slots: 8,
            prefill_tokens_per_second: 3_000,
            step_base_us: 18_000,
            step_per_request_us: 2_000,
            kv_tokens: None,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn one_batch_size_gives_its_own_time_back() {
        let found = pod(&[work(4, 500, 28_000)], 6_000, 2_000_000).unwrap();
        assert_eq!((found.step_base_us, found.step_per_request_us), (20_000, 2_000));
    }

    #[test]
    fn little_work_says_nothing() {
        assert_eq!(pod(&[work(1, CALLS_MIN - 1, 20_000)], 6_000, 2_000_000), None);
        assert_eq!(pod(&[work(1, CALLS_MIN, 20_000)], PROMPT_TOKENS_MIN - 1, 2_000_000), None);
        assert_eq!(pod(&[work(1, CALLS_MIN, 20_000)], 6_000, 0), None);
    }

    proptest! {
        #[test]
        fn whatever_was_counted_a_step_takes_time(
            cells in proptest::collection::vec((1_u32..=256, 1_u64..1_000, 1_u64..1_000_000), 1..20),
        ) {
            let decode: Vec<DecodeWork> =
                cells.iter().map(|(batch, calls, micros)| work(*batch, *calls, *micros)).collect();
            if let Some(pod) = pod(&decode, 10_000, 1_000_000) {
                let slowest = decode.iter().map(|work| work.micros / work.calls).max().unwrap();
                prop_assert!(pod.step_base_us > 0 || pod.step_per_request_us > 0);
                prop_assert!(u64::from(pod.step_base_us) <= slowest + 1);
            }
        }
    }
}
