//! Which sequence feeds which tokens in this step, and how many prompt tokens a step may hold so that running
//! streams keep their pace. Pure: must not know the model, the clock or the socket.

/// What one sequence has to feed. The list that `plan` gets is in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Which slot it occupies.
    pub slot: usize,
    /// Tokens that are known but not yet fed; at least 1.
    pub tokens: u32,
    /// Whether they belong to the prompt. A decoding sequence always needs exactly one.
    pub is_prompt: bool,
}

/// How many tokens a slot feeds in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which slot.
    pub slot: usize,
    /// At least 1.
    pub tokens: u32,
    /// As in `Need`.
    pub is_prompt: bool,
}

/// Decodes first, one token each; then prompts in order of arrival within `prompt_tokens_max`. Never more than
/// `batch_tokens_max` together, which is at least the number of slots plus one.
pub fn plan(needs: &[Need], prompt_tokens_max: u32, batch_tokens_max: u32) -> Vec<Share> {
    let decodes = needs.iter().filter(|need| !need.is_prompt);
    let mut shares: Vec<Share> =
        decodes.map(|need| Share { slot: need.slot, tokens: 1, is_prompt: false }).collect();
    let decoding = u32::try_from(shares.len()).unwrap_or(u32::MAX);
    let mut left = prompt_tokens_max.min(batch_tokens_max.saturating_sub(decoding));
    for need in needs.iter().filter(|need| need.is_prompt) {
        if left == 0 {
            break;
        }
        let tokens = need.tokens.min(left);
        left -= tokens;
        shares.push(Share { slot: need.slot, tokens, is_prompt: true });
    }
    shares
}

/// The number of prompt tokens that may ride along with running streams. Falls at once when a step took longer
/// than the goal between two tokens, and grows back by a quarter per step.
#[derive(Debug, Clone)]
pub struct PromptBudget {
    tokens: u32,
    tokens_max: u32,
    goal_us: u64,
}

/// Prompts advance by this much per step however slow the machine is.
const PROMPT_TOKENS_MIN: u32 = 16;

impl PromptBudget {
    /// Begins at the most a batch can hold.
    pub fn new(tokens_max: u32, goal_us: u64) -> PromptBudget {
        PromptBudget { tokens: tokens_max, tokens_max, goal_us }
    }

    /// The prompt tokens for the next step. Without a running stream nobody waits, so the whole batch is used.
    pub fn tokens(&self, has_decodes: bool) -> u32 {
        if has_decodes { self.tokens } else { self.tokens_max }
    }

    /// Learns from a step that held both: `prompt_tokens` beside running streams took `step_us`.
    pub fn observe(&mut self, prompt_tokens: u32, step_us: u64) {
        let min = PROMPT_TOKENS_MIN.min(self.tokens_max);
        if step_us > self.goal_us {
            let fitting = u64::from(prompt_tokens) * self.goal_us / step_us;
            self.tokens = u32::try_from(fitting).unwrap_or(u32::MAX).clamp(min, self.tokens);
        } else if prompt_tokens >= self.tokens {
            // Only a step that used the budget up says that more would fit.
            self.tokens = (self.tokens + self.tokens.div_ceil(4)).clamp(min, self.tokens_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(slot: usize) -> Need {
        Need { slot, tokens: 1, is_prompt: false }
    }

    fn prompt(slot: usize, tokens: u32) -> Need {
        Need { slot, tokens, is_prompt: true }
    }

    fn check(needs: &[Need], budget: u32, batch: u32, expected: &[(usize, u32)]) {
        let shares: Vec<_> =
            plan(needs, budget, batch).into_iter().map(|share| (share.slot, share.tokens)).collect();
        assert_eq!(shares, expected);
    }

    #[test]
    fn running_streams_come_before_prompts() {
        check(&[prompt(0, 100), decode(1), decode(2)], 10, 64, &[(1, 1), (2, 1), (0, 10)]);
    }

    #[test]
    fn a_prompt_that_ends_leaves_the_rest_of_the_budget_to_the_next() {
        check(&[prompt(0, 4), prompt(1, 100)], 10, 64, &[(0, 4), (1, 6)]);
    }

    #[test]
    fn the_batch_is_never_overfilled() {
        check(&[decode(0), decode(1), prompt(2, 100)], 100, 8, &[(0, 1), (1, 1), (2, 6)]);
    }

    #[test]
    fn the_budget_falls_in_proportion_and_grows_by_a_quarter() {
        let mut budget = PromptBudget::new(512, 50_000);
        budget.observe(512, 200_000);
        assert_eq!(budget.tokens(true), 128);
        budget.observe(128, 40_000);
        assert_eq!(budget.tokens(true), 160);
        assert_eq!(budget.tokens(false), 512);
    }

    #[test]
    fn a_small_prompt_in_a_quick_step_proves_nothing() {
        let mut budget = PromptBudget::new(512, 50_000);
        budget.observe(512, 200_000);
        budget.observe(3, 1_000);
        assert_eq!(budget.tokens(true), 128);
    }

    fn needs() -> impl Strategy<Value = Vec<Need>> {
        proptest::collection::vec((any::<bool>(), 1u32..2000), 0..32).prop_map(|list| {
            list.into_iter()
                .enumerate()
                .map(
                    |(slot, (is_prompt, tokens))| if is_prompt { prompt(slot, tokens) } else { decode(slot) },
                )
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_plan_keeps_its_limits(needs in needs(), budget in 1u32..1000, room in 1u32..600) {
            let batch = u32::try_from(needs.len()).unwrap() + room;
            let shares = plan(&needs, budget, batch);
            let total: u32 = shares.iter().map(|share| share.tokens).sum();
            let prompts: u32 = shares.iter().filter(|share| share.is_prompt).map(|share| share.tokens).sum();
            prop_assert!(total <= batch);
            prop_assert!(prompts <= budget);
            for need in &needs {
                let mine: Vec<_> = shares.iter().filter(|share| share.slot == need.slot).collect();
                prop_assert!(mine.len() <= 1);
                prop_assert!(mine.iter().all(|share| share.tokens >= 1 && share.tokens <= need.tokens));
                // Streams never wait for prompts.
                prop_assert!(need.is_prompt || mine.len() == 1);
            }
        }

        #[test]
        fn the_oldest_prompt_always_advances_and_nobody_overtakes_it(needs in needs(), budget in 1u32..1000) {
            let batch = u32::try_from(needs.len()).unwrap() + 1;
            let shares = plan(&needs, budget, batch);
            let waiting: Vec<_> = needs.iter().filter(|need| need.is_prompt).collect();
            let served: Vec<_> = shares.iter().filter(|share| share.is_prompt).collect();
            prop_assert!(waiting.is_empty() || served[0].slot == waiting[0].slot);
            // Whoever is served partly is the last one served.
            for (index, share) in served.iter().enumerate() {
                prop_assert!(index + 1 == served.len() || share.tokens == waiting[index].tokens);
            }
        }

        #[test]
        fn whatever_is_measured_the_budget_stays_useful(steps in proptest::collection::vec((0u32..600, 0u64..10_000_000), 0..50)) {
            let mut budget = PromptBudget::new(512, 50_000);
            for (tokens, step_us) in steps {
                budget.observe(tokens, step_us);
                prop_assert!((PROMPT_TOKENS_MIN..=512).contains(&budget.tokens(true)));
            }
        }

        #[test]
        fn on_a_machine_of_steady_speed_the_step_settles_near_the_goal(us_per_token in 20u64..2_000, base_us in 0u64..20_000) {
            let mut budget = PromptBudget::new(512, 50_000);
            let mut step_us = 0;
            for _ in 0..40 {
                let tokens = budget.tokens(true);
                step_us = base_us + u64::from(tokens) * us_per_token;
                budget.observe(tokens, step_us);
            }
            prop_assert!(step_us <= 50_000 * 5 / 4 + 2 * us_per_token, "{step_us}");
        }
    }
}
