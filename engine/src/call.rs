//! What one call of the model held, and whose its time was. Pure: must not know the model, the clock or sequences.

use crate::{batch::Share, request::EngineStats};

/// One call of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which one, counted from 1 since the worker began.
    pub number: u64,
    /// Prompt tokens in it, of all sequences together.
    pub prompt_tokens: u32,
    /// Sequences that fed a generated token.
    pub decodes: u32,
    /// How long it took, in microseconds.
    pub us: u64,
}

impl Call {
    /// The call that was made for these shares.
    pub fn of(number: u64, shares: &[Share], us: u64) -> Call {
        let prompt_tokens = shares.iter().filter(|share| share.is_prompt).map(|share| share.tokens).sum();
        let decodes = shares.iter().filter(|share| !share.is_prompt).count();
        Call { number, prompt_tokens, decodes: u32::try_from(decodes).unwrap_or(u32::MAX), us }
    }

    /// The part of its time, in microseconds, that a prompt has to bear which fed `tokens` in it. Prompts in one call
    /// divide its time by their tokens, so that a short one is not charged with a long one beside it. What the
    /// decodes in it took cannot be told apart; [`Call::is_mixed`] says that there were any.
    pub fn prompt_us(&self, tokens: u32) -> u64 {
        if self.prompt_tokens == 0 {
            return 0;
        }
        self.us.saturating_mul(tokens.into()) / u64::from(self.prompt_tokens)
    }

    /// Whether sequences were decoding beside a prompt.
    pub fn is_mixed(&self) -> bool {
        self.prompt_tokens > 0 && self.decodes > 0
    }

    /// Adds the call to the counters. `kv_tokens` is the sum of the context tokens that its decodes attended to. Only
    /// a call without any prompt token says what decoding costs.
    pub fn count(&self, kv_tokens: u64, stats: &mut EngineStats) {
        stats.prompt_tokens_total += u64::from(self.prompt_tokens);
        if self.prompt_tokens > 0 {
            stats.prefill_us_total += self.us;
            return;
        }
        let cell = (self.decodes as usize).checked_sub(1).and_then(|at| stats.decode_by_batch.get_mut(at));
        if let Some((calls, us, kv)) = cell {
            *calls += 1;
            *us += self.us;
            *kv += kv_tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(tokens: u32, is_prompt: bool) -> Share {
        Share { slot: 0, tokens, is_prompt }
    }

    fn stats() -> EngineStats {
        EngineStats { decode_by_batch: vec![(0, 0, 0); 4], ..EngineStats::default() }
    }

    #[test]
    fn only_calls_without_prompt_tokens_say_what_decoding_costs() {
        let mut stats = stats();
        Call::of(1, &[share(1, false), share(1, false)], 30).count(700, &mut stats);
        Call::of(2, &[share(1, false), share(1, false), share(1, true)], 500).count(700, &mut stats);
        Call::of(3, &[share(9, true)], 90).count(0, &mut stats);
        assert_eq!(stats.decode_by_batch, [(0, 0, 0), (1, 30, 700), (0, 0, 0), (0, 0, 0)]);
        assert_eq!((stats.prompt_tokens_total, stats.prefill_us_total), (10, 590));
    }

    #[test]
    fn prompts_in_one_call_divide_its_time_by_their_tokens() {
        let call = Call::of(1, &[share(1, false), share(4, true), share(96, true)], 1_000);
        assert_eq!((call.prompt_us(4), call.prompt_us(96)), (40, 960));
        assert!(call.is_mixed());
        assert!(
            !Call::of(1, &[share(1, false)], 5).is_mixed() && !Call::of(1, &[share(1, true)], 5).is_mixed()
        );
    }

    proptest! {
        #[test]
        fn the_parts_add_up_to_the_call(
            prompts in proptest::collection::vec(1u32..3_000, 1..20),
            decodes in 0usize..20,
            us in 0u64..100_000_000,
        ) {
            let mut shares: Vec<_> = prompts.iter().map(|tokens| share(*tokens, true)).collect();
            shares.extend(std::iter::repeat_n(share(1, false), decodes));
            let call = Call::of(1, &shares, us);
            let sum: u64 = prompts.iter().map(|tokens| call.prompt_us(*tokens)).sum();
            prop_assert!(sum <= us && us - sum < prompts.len() as u64, "{sum} of {us}");
        }
    }
}
