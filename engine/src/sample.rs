//! From scores to the next token. Order as in llama-server: bias and penalties, `top_k`, `top_p`, `min_p`,
//! temperature, dice. Pure, and quick for vocabularies of 150,000: what is kept is selected, not sorted out of
//! everything. Must not know llama.cpp.

use std::collections::HashMap;

use crate::request::{Sampling, Token};

/// One sequence's sampler: its parameters, its dice and what it has seen.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    dice: Dice,
    /// Tokens of the prompt and since, with how often each was generated: `repeat_penalty` looks at all of them,
    /// the other two only at the generated ones, as the OpenAI parameters are documented.
    seen: HashMap<Token, u32>,
    modified: Vec<f32>,
    candidates: Vec<Candidate>,
}

type Candidate = (f32, Token);

/// A chosen token, and its log-probability and the most likely ones if they were asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: Token,
    /// Before bias, penalties and temperature.
    pub logprob: Option<f32>,
    /// Most likely first.
    pub top: Vec<(Token, f32)>,
}

/// Candidates whose probability is below e^-30 of the best one's cannot be drawn in the life of a machine.
const NEGLIGIBLE: f32 = 30.0;

impl Sampler {
    /// `prompt` counts for `repeat_penalty`.
    pub fn new(sampling: Sampling, prompt: &[Token]) -> Sampler {
        let counts_prompt = is_set(sampling.repeat_penalty, 1.0);
        let seen =
            if counts_prompt { prompt.iter().map(|token| (*token, 0)).collect() } else { HashMap::new() };
        let dice = Dice::new(sampling.seed);
        Sampler { sampling, dice, seen, modified: Vec::new(), candidates: Vec::new() }
    }

    /// The next token. `logprobs` asks for log-probabilities, and for so many alternatives. `None` if no score
    /// is a number: the model is broken.
    pub fn choose(&mut self, logits: &[f32], logprobs: Option<u8>) -> Option<Choice> {
        let token = if self.modifies() {
            self.modify(logits);
            let modified = std::mem::take(&mut self.modified);
            let token = self.pick(&modified);
            self.modified = modified;
            token?
        } else {
            self.pick(logits)?
        };
        if self.counts() {
            *self.seen.entry(token).or_default() += 1;
        }
        let (logprob, top) = match logprobs {
            Some(alternatives) => {
                let (logprob, top) = self.logprobs(logits, token, alternatives.into());
                (Some(logprob), top)
            }
            None => (None, Vec::new()),
        };
        Some(Choice { token, logprob, top })
    }

    fn counts(&self) -> bool {
        let sampling = &self.sampling;
        is_set(sampling.frequency_penalty, 0.0)
            || is_set(sampling.presence_penalty, 0.0)
            || is_set(sampling.repeat_penalty, 1.0)
    }

    fn modifies(&self) -> bool {
        !self.sampling.logit_bias.is_empty() || (self.counts() && !self.seen.is_empty())
    }

    fn modify(&mut self, logits: &[f32]) {
        self.modified.clear();
        self.modified.extend_from_slice(logits);
        let sampling = &self.sampling;
        for (token, generated) in &self.seen {
            let Some(logit) = at(&mut self.modified, *token) else { continue };
            if is_set(sampling.repeat_penalty, 1.0) && sampling.repeat_penalty > 0.0 {
                *logit = if *logit > 0.0 {
                    *logit / sampling.repeat_penalty
                } else {
                    *logit * sampling.repeat_penalty
                };
            }
            if *generated > 0 {
                *logit -= sampling.frequency_penalty * *generated as f32 + sampling.presence_penalty;
            }
        }
        for (token, bias) in &sampling.logit_bias {
            if let Some(logit) = at(&mut self.modified, *token) {
                *logit += bias;
            }
        }
    }

    fn pick(&mut self, logits: &[f32]) -> Option<Token> {
        // Also for a temperature that is no number.
        if self.sampling.temperature.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return best(logits).map(|(_, token)| token);
        }
        let (max, _) = best(logits)?;
        let top_k = self.sampling.top_k as usize;
        self.candidates.clear();
        if top_k > 0 && top_k < logits.len() {
            most_likely(logits, top_k, &mut self.candidates);
        }
        let is_cut_by_k = !self.candidates.is_empty();
        // The mass that `top_p` is a share of is that of everything `top_k` has kept.
        let top_p = self.sampling.top_p;
        let total = match (top_p < 1.0, is_cut_by_k) {
            (false, _) => 0.0,
            (true, true) => self.candidates.iter().map(|(logit, _)| (logit - max).exp()).sum(),
            (true, false) => logits.iter().map(|logit| weight(logit - max)).sum::<f32>(),
        };
        let floor = max + self.sampling.min_p.clamp(0.0, 1.0).ln().max(-NEGLIGIBLE);
        if is_cut_by_k {
            self.candidates.retain(|(logit, _)| *logit >= floor);
        } else {
            let kept = (0..).zip(logits).filter(|(_, logit)| **logit >= floor);
            self.candidates.extend(kept.map(|(token, logit)| (*logit, token)));
        }
        if top_p < 1.0 {
            keep_nucleus(&mut self.candidates, max, top_p.max(0.0) * total);
        }
        Some(self.roll(max))
    }

    fn roll(&mut self, max: f32) -> Token {
        let temperature = self.sampling.temperature;
        let weight = |logit: f32| f64::from((logit - max) / temperature).exp();
        let total: f64 = self.candidates.iter().map(|(logit, _)| weight(*logit)).sum();
        let mut left = self.dice.roll() * total;
        for (logit, token) in &self.candidates {
            left -= weight(*logit);
            if left < 0.0 {
                return *token;
            }
        }
        // Only rounding leads here.
        self.candidates.last().expect("the best candidate is never removed").1
    }

    fn logprobs(&mut self, logits: &[f32], token: Token, alternatives: usize) -> (f32, Vec<(Token, f32)>) {
        let max = best(logits).map_or(0.0, |(logit, _)| logit);
        let sum: f64 = logits.iter().map(|logit| f64::from(weight(logit - max))).sum();
        // In this order the large numbers cancel before precision is lost.
        let logprob = |logit: f32| logit - max - log_of(sum);
        most_likely(logits, alternatives, &mut self.candidates);
        let top = self.candidates.iter().map(|(logit, token)| (*token, logprob(*logit))).collect();
        let chosen = usize::try_from(token).ok().and_then(|index| logits.get(index)).copied();
        (chosen.map_or(f32::NEG_INFINITY, logprob), top)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the logarithm of a sum of up to a million is small")]
fn log_of(sum: f64) -> f32 {
    sum.ln() as f32
}

/// e^x; nothing for scores that are no numbers.
fn weight(difference: f32) -> f32 {
    if difference.is_nan() { 0.0 } else { difference.exp() }
}

/// Whether a parameter differs from the value at which it does nothing.
fn is_set(value: f32, neutral: f32) -> bool {
    (value - neutral).abs() > f32::EPSILON
}

fn at(logits: &mut [f32], token: Token) -> Option<&mut f32> {
    logits.get_mut(usize::try_from(token).ok()?)
}

/// The highest score; of equal ones the first, so that greedy decoding is deterministic.
fn best(logits: &[f32]) -> Option<Candidate> {
    // Compared in independent lanes, since one running maximum would wait for each comparison.
    const LANES: usize = 16;
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (max, logit) in maxima.iter_mut().zip(chunk) {
            *max = if *logit > *max { *logit } else { *max };
        }
    }
    let max = maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        return None;
    }
    let index = logits.iter().position(|logit| *logit >= max)?;
    Some((max, Token::try_from(index).ok()?))
}

/// The `count` highest scores, highest first; of equal ones those with the lower token.
fn most_likely(logits: &[f32], count: usize, out: &mut Vec<Candidate>) {
    out.clear();
    if count == 0 {
        return;
    }
    // A pool of twice the size, thinned when full: after the first few the threshold turns almost all away.
    let pool = count * 2 + 64;
    let mut threshold = f32::NEG_INFINITY;
    for (token, logit) in (0..).zip(logits) {
        if *logit > threshold {
            out.push((*logit, token));
            if out.len() >= pool {
                out.select_nth_unstable_by(count - 1, by_likelihood);
                out.truncate(count);
                threshold = out[count - 1].0;
            }
        }
    }
    out.sort_unstable_by(by_likelihood);
    out.truncate(count);
}

/// Keeps the most likely candidates, most likely first, until their mass reaches `mass`; at least one.
fn keep_nucleus(candidates: &mut Vec<Candidate>, max: f32, mass: f32) {
    let mut kept = 0;
    let mut sum = 0.0;
    let mut sorted = 0;
    while kept < candidates.len() {
        if kept == sorted {
            // Sorting goes on in growing pieces, because the nucleus is small almost always.
            let piece = (sorted * 3).max(256).min(candidates.len() - sorted);
            let tail = &mut candidates[sorted..];
            if piece < tail.len() {
                tail.select_nth_unstable_by(piece - 1, by_likelihood);
            }
            tail[..piece].sort_unstable_by(by_likelihood);
            sorted += piece;
        }
        sum += (candidates[kept].0 - max).exp();
        kept += 1;
        if sum >= mass {
            break;
        }
    }
    candidates.truncate(kept);
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that sorting asks for")]
fn by_likelihood(one: &Candidate, other: &Candidate) -> std::cmp::Ordering {
    other.0.total_cmp(&one.0).then(one.1.cmp(&other.1))
}

/// A small generator of pseudo-random numbers (a counter, mixed): good enough for drawing tokens, and the same
/// on every machine for ever, which is what a seed promises.
#[derive(Debug)]
struct Dice {
    counter: u64,
}

impl Dice {
    fn new(seed: u32) -> Dice {
        Dice { counter: u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }

    /// At least 0 and below 1.
    fn roll(&mut self) -> f64 {
        // The odd constant is 2^64 divided by the golden ratio, so that successive counters spread evenly.
        self.counter = self.counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.counter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // 53 bits are what an f64 holds exactly.
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain() -> Sampling {
        Sampling {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 1,
        }
    }

    fn draw(sampling: Sampling, logits: &[f32], count: usize) -> Vec<Token> {
        let mut sampler = Sampler::new(sampling, &[]);
        (0..count).map(|_| sampler.choose(logits, None).unwrap().token).collect()
    }

    /// Which tokens come up at all in many draws.
    fn support(sampling: Sampling, logits: &[f32]) -> Vec<Token> {
        let mut tokens = draw(sampling, logits, 4000);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
    fn halves() -> Vec<f32> {
        [0.5f32, 0.25, 0.125, 0.0625, 0.0625].map(f32::ln).to_vec()
    }

    #[test]
    fn temperature_zero_takes_the_best_and_of_equals_the_first() {
        let greedy = Sampling { temperature: 0.0, ..plain() };
        assert_eq!(draw(greedy, &[1.0, 3.0, 3.0, 2.0], 1), [1]);
    }

    #[test]
    fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
        let logits = vec![0.0; 1000];
        let with_seed = |seed| draw(Sampling { seed, ..plain() }, &logits, 20);
        assert_eq!(with_seed(5), with_seed(5));
        assert_ne!(with_seed(5), with_seed(6));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let tokens = draw(plain(), &halves(), 20_000);
        for (token, expected) in [(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.0625)] {
            let share = tokens.iter().filter(|drawn| **drawn == token).count() as f64 / 20_000.0;
            assert!((share - expected).abs() < 0.015, "token {token}: {share}");
        }
    }

    #[test]
    fn top_k_keeps_so_many() {
        assert_eq!(support(Sampling { top_k: 2, ..plain() }, &halves()), [0, 1]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_the_mass() {
        assert_eq!(support(Sampling { top_p: 0.74, ..plain() }, &halves()), [0, 1]);
        assert_eq!(support(Sampling { top_p: 0.76, ..plain() }, &halves()), [0, 1, 2]);
        assert_eq!(support(Sampling { top_p: 0.0, ..plain() }, &halves()), [0]);
    }

    #[test]
    fn min_p_keeps_what_is_near_the_best() {
        assert_eq!(support(Sampling { min_p: 0.24, ..plain() }, &halves()), [0, 1, 2]);
    }

    #[test]
    fn a_bias_can_force_and_forbid_a_token() {
        let forced = Sampling { logit_bias: vec![(3, 100.0)], ..plain() };
        assert_eq!(support(forced, &halves()), [3]);
        let forbidden = Sampling { logit_bias: vec![(0, -100.0), (99, 5.0), (-1, 5.0)], ..plain() };
        assert_eq!(support(forbidden, &halves()), [1, 2, 3, 4]);
    }

    #[test]
    fn penalties_push_repeats_away() {
        let sampling = Sampling { temperature: 0.0, presence_penalty: 0.5, ..plain() };
        assert_eq!(draw(sampling, &[1.0, 0.8, 0.6], 4), [0, 1, 2, 0]);
        let sampling = Sampling { temperature: 0.0, frequency_penalty: 0.3, ..plain() };
        assert_eq!(draw(sampling, &[1.0, 0.8, 0.0], 4), [0, 1, 0, 1]);
    }

    #[test]
    fn the_repeat_penalty_also_sees_the_prompt() {
        let sampling = Sampling { temperature: 0.0, repeat_penalty: 2.0, ..plain() };
        let mut sampler = Sampler::new(sampling, &[0]);
        assert_eq!(sampler.choose(&[1.0, 0.8, -1.0], None).unwrap().token, 1);
    }

    #[test]
    fn log_probabilities_are_those_before_bias() {
        let sampling = Sampling { logit_bias: vec![(3, 100.0)], ..plain() };
        let choice = Sampler::new(sampling, &[]).choose(&halves(), Some(2)).unwrap();
        assert_eq!(choice.token, 3);
        assert!((choice.logprob.unwrap() - 0.0625f32.ln()).abs() < 1e-5);
        assert_eq!(choice.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
        assert!((choice.top[1].1 - 0.25f32.ln()).abs() < 1e-5);
    }

    #[test]
    fn scores_that_are_no_numbers_are_never_chosen() {
        assert_eq!(support(plain(), &[f32::NAN, 0.0, f32::NEG_INFINITY]), [1]);
        assert!(Sampler::new(plain(), &[]).choose(&[f32::NAN; 40], None).is_none());
        assert!(Sampler::new(plain(), &[]).choose(&[f32::INFINITY, 1.0], None).is_none());
    }

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        proptest::collection::vec(-20.0f32..20.0, 1..700)
    }

    proptest! {
        #[test]
        fn selection_equals_sorting(logits in logits(), count in 0usize..200) {
            let mut expected: Vec<Candidate> = logits.iter().copied().zip(0..).collect();
            expected.sort_by(by_likelihood);
            expected.truncate(count);
            let mut selected = Vec::new();
            most_likely(&logits, count, &mut selected);
            prop_assert_eq!(selected, expected);
        }

        #[test]
        fn the_nucleus_equals_that_of_a_full_sort(logits in logits(), share in 0.0f32..1.0) {
            let (max, _) = best(&logits).unwrap();
            let mut all: Vec<Candidate> = logits.iter().copied().zip(0..).collect();
            let mass: f32 = share * all.iter().map(|(logit, _)| (logit - max).exp()).sum::<f32>();
            let mut nucleus = all.clone();
            keep_nucleus(&mut nucleus, max, mass);
            all.sort_by(by_likelihood);
            prop_assert!(!nucleus.is_empty());
            prop_assert_eq!(&nucleus[..], &all[..nucleus.len()]);
            let before: f32 = nucleus[..nucleus.len() - 1].iter().map(|(logit, _)| (logit - max).exp()).sum();
            prop_assert!(before < mass || nucleus.len() == 1);
        }

        #[test]
        fn any_parameters_choose_a_token_that_exists(
            logits in logits(),
            (temperature, top_p, top_k, min_p) in (any::<f32>(), any::<f32>(), 0u32..2000, any::<f32>()),
            (frequency_penalty, presence_penalty, repeat_penalty) in (any::<f32>(), any::<f32>(), any::<f32>()),
            seed: u32,
        ) {
            let sampling = Sampling {
                temperature, top_p, top_k, min_p, frequency_penalty, presence_penalty, repeat_penalty,
                logit_bias: vec![(0, 1.0)], seed,
            };
            let mut sampler = Sampler::new(sampling, &[0]);
            for _ in 0..3 {
                if let Some(choice) = sampler.choose(&logits, Some(5)) {
                    prop_assert!((0..logits.len()).contains(&usize::try_from(choice.token).unwrap()));
                }
            }
        }

        #[test]
        fn the_best_is_the_first_of_the_highest(logits in logits()) {
            let (max, token) = best(&logits).unwrap();
            let index = usize::try_from(token).unwrap();
            prop_assert!(logits.iter().all(|logit| *logit <= max));
            prop_assert!(logits[..index].iter().all(|logit| *logit < max));
        }
    }
}
