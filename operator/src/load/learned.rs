//! What requests turn out to be, beside what gateways guess of them. A gateway sees bytes and limits; pods see tokens.
//! Pure.

use judgement::autoscale::Tokens;

/// Weight of one request in a mean: about the last fifty count.
const GAIN: f64 = 0.02;

/// Tokens that an answer has whose limit nobody knows; chats average between 100 and 300.
const OUTPUT_USUAL: f64 = 256.0;

/// A mean in which the latest count most.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Mean(Option<f64>);

impl Mean {
    fn add(&mut self, sum: u64, count: u64) {
        if count == 0 {
            return;
        }
        let found = sum as f64 / count as f64;
        let weight = 1.0 - (1.0 - GAIN).powi(i32::try_from(count).unwrap_or(i32::MAX));
        self.0 = Some(self.0.map_or(found, |mean| mean + weight * (found - mean)));
    }
}

/// Requests and tokens that are not whole.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Expected {
    pub(super) requests: u64,
    pub(super) prompt: f64,
    pub(super) output: f64,
}

impl Expected {
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.prompt += other.prompt;
        self.output += other.output;
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sums of counts are not negative, and the cast saturates"
    )]
    pub(super) fn tokens(self) -> Tokens {
        Tokens { requests: self.requests, prompt: self.prompt as u64, output: self.output as u64 }
    }
}

/// What finished requests had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Finished {
    pub(super) requests: u64,
    /// Tokens of their prompts.
    pub(super) prompt: u64,
    /// Of those, the ones that no cache held.
    pub(super) uncached: u64,
    /// Tokens of their answers.
    pub(super) output: u64,
}

/// What was learned of one model's requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Learned {
    /// Prompt tokens per request as gateways estimate them.
    estimated: Mean,
    prompt: Mean,
    uncached: Mean,
    output: Mean,
}

impl Learned {
    /// So many requests arrived, with so many prompt tokens by estimate.
    pub(super) fn arrived(&mut self, requests: u64, prompt: u64) {
        self.estimated.add(prompt, requests);
    }

    /// So many requests were finished.
    pub(super) fn finished(&mut self, finished: &Finished) {
        self.prompt.add(finished.prompt, finished.requests);
        self.uncached.add(finished.uncached, finished.requests);
        self.output.add(finished.output, finished.requests);
    }

    /// Tokens of an average prompt that no cache holds.
    pub(super) fn uncached_prompt(&self) -> Option<f64> {
        self.uncached.0
    }

    /// What requests will probably be of which a gateway says so: their number, estimated prompt tokens, and the most
    /// that they may generate.
    pub(super) fn expect(&self, [requests, prompt, output_max]: [u64; 3]) -> Expected {
        let uncached_share = match (self.uncached.0, self.estimated.0) {
            (Some(uncached), Some(estimated)) if estimated > 0.0 => uncached / estimated,
            _ => 1.0,
        };
        let output_max = output_max as f64;
        let output = self.output.0.map_or(output_max, |mean| (mean * requests as f64).min(output_max));
        Expected { requests, prompt: prompt as f64 * uncached_share, output }
    }

    /// The same of requests in a pod's queue, which has counted their prompts' tokens.
    pub(super) fn expect_queued(&self, requests: u64, prompt: u64) -> Expected {
        let uncached_share = match (self.uncached.0, self.prompt.0) {
            (Some(uncached), Some(whole)) if whole > 0.0 => uncached / whole,
            _ => 1.0,
        };
        let output = self.output.0.unwrap_or(OUTPUT_USUAL) * requests as f64;
        Expected { requests, prompt: prompt as f64 * uncached_share, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_anything_is_known_a_gateways_guess_is_taken() {
        let learned = Learned::default();
        assert_eq!(learned.expect([2, 50, 300]).tokens(), Tokens { requests: 2, prompt: 50, output: 300 });
        assert_eq!(learned.expect_queued(2, 50).tokens(), Tokens { requests: 2, prompt: 50, output: 512 });
    }

    #[test]
    fn what_requests_were_is_expected_of_the_next_and_never_more_than_they_may() {
        let mut learned = Learned::default();
        learned.arrived(10, 1_000);
        // Half of each prompt was in a cache, and a token has two bytes here instead of four.
        learned.finished(&Finished { requests: 10, prompt: 2_000, uncached: 1_000, output: 400 });
        assert_eq!(learned.expect([1, 100, 4_096]).tokens(), Tokens { requests: 1, prompt: 100, output: 40 });
        assert_eq!(learned.expect([1, 100, 8]).tokens().output, 8);
        assert_eq!(learned.expect_queued(1, 200).tokens(), Tokens { requests: 1, prompt: 100, output: 40 });
    }

    #[test]
    fn many_requests_at_once_outweigh_what_was_known() {
        let mut learned = Learned::default();
        learned.finished(&Finished { requests: 1, output: 1_000, ..Finished::default() });
        learned.finished(&Finished { requests: 500, output: 5_000, ..Finished::default() });
        assert_eq!(learned.expect([1, 0, 4_096]).tokens().output, 10);
    }
}
