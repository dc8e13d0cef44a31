//! One pod as the simulator has it: prompts one after another, all its other requests generating in one batch whose
//! step takes α+β·batch, and two and a half times as long while a prompt runs. The work formula of the judgement takes
//! twice as long for granted, so it believes a full pod to do a few percent more than it does and has to learn it.

use std::collections::VecDeque;

use judgement::autoscale::PodModel;

use super::super::arrivals::Request;

/// Pace of generation while a prompt is computed: a step takes two and a half times as long.
const PACE_BESIDE_PROMPT: f64 = 0.4;

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// Which, by its place among the arrivals.
    pub index: usize,
    /// When its first token came, seconds.
    pub first_token_s: f64,
    /// When its last token came, seconds.
    pub end_s: f64,
}

/// A pod that serves.
#[derive(Debug, Clone)]
pub struct Pod {
    model: PodModel,
    /// Where all is as of, seconds.
    now_s: f64,
    /// Requests whose prompt is not computed yet, in order; the first is being computed.
    prompts: VecDeque<Waiting>,
    /// Requests that generate.
    batch: Vec<Generating>,
    /// Tokens that each request of the batch would have generated had it been there from the beginning.
    tokens: f64,
    done_prompt: f64,
    done_output: f64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    index: usize,
    prompt: f64,
    left: f64,
    output: f64,
}

#[derive(Debug, Clone, Copy)]
struct Generating {
    index: usize,
    prompt: f64,
    output: f64,
    first_token_s: f64,
    /// The count of [`Pod::tokens`] at which it is finished.
    until: f64,
}

impl Pod {
    /// An empty pod at `now_s`.
    pub fn new(model: PodModel, now_s: f64) -> Self {
        Self {
            model,
            now_s,
            prompts: VecDeque::new(),
            batch: Vec::new(),
            tokens: 0.0,
            done_prompt: 0.0,
            done_output: 0.0,
        }
    }

    /// Requests in its slots.
    pub fn in_flight(&self) -> usize {
        self.prompts.len() + self.batch.len()
    }

    /// Requests whose prompt is not computed yet.
    pub fn prompts(&self) -> usize {
        self.prompts.len()
    }

    /// Whether a slot is free.
    pub fn has_room(&self) -> bool {
        self.in_flight() < self.model.slots as usize
    }

    /// Prompt and output tokens done so far.
    pub fn done(&self) -> (f64, f64) {
        (self.done_prompt, self.done_output)
    }

    /// Tokens in its key-value cache: whole prompts, and answers as far as generated.
    pub fn resident_tokens(&self) -> f64 {
        let prompts: f64 = self.prompts.iter().map(|waiting| waiting.prompt).sum();
        let answers = |request: &Generating| request.prompt + request.output - (request.until - self.tokens);
        prompts + self.batch.iter().map(answers).sum::<f64>()
    }

    /// Takes a request at the time up to which the pod was advanced.
    pub fn take(&mut self, index: usize, request: &Request) {
        self.prompts.push_back(Waiting {
            index,
            prompt: f64::from(request.prompt_tokens.max(1)),
            left: f64::from(request.prompt_tokens.max(1)),
            output: f64::from(request.output_tokens.max(1)),
        });
    }

    fn pace(&self) -> f64 {
        if self.batch.is_empty() {
            return 0.0;
        }
        let step_us = f64::from(self.model.step_base_us)
            + f64::from(self.model.step_per_request_us) * self.batch.len() as f64;
        let beside = if self.prompts.is_empty() { 1.0 } else { PACE_BESIDE_PROMPT };
        beside * 1e6 / step_us
    }

    /// When something changes here next, seconds; infinite if nothing will.
    pub fn next_s(&self) -> f64 {
        let rate = f64::from(self.model.prefill_tokens_per_second);
        let prompt = self.prompts.front().map_or(f64::INFINITY, |waiting| waiting.left / rate);
        let left = self.batch.iter().map(|request| request.until - self.tokens).fold(f64::INFINITY, f64::min);
        let generated = if left.is_finite() { left.max(0.0) / self.pace() } else { f64::INFINITY };
        self.now_s + prompt.min(generated)
    }

    /// Lets the time up to `to_s` pass, which must not be beyond [`Self::next_s`]; returns what was finished.
    pub fn advance(&mut self, to_s: f64, served: &mut Vec<Served>) {
        let elapsed = (to_s - self.now_s).max(0.0);
        let made = self.pace() * elapsed;
        self.tokens += made;
        self.done_output += made * self.batch.len() as f64;
        self.now_s = self.now_s.max(to_s);
        if let Some(first) = self.prompts.front_mut() {
            let computed = (f64::from(self.model.prefill_tokens_per_second) * elapsed).min(first.left);
            first.left -= computed;
            self.done_prompt += computed;
        }
        self.finish(served);
    }

    fn finish(&mut self, served: &mut Vec<Served>) {
        // A millionth of a token: times are sums of many steps.
        const NOTHING: f64 = 1e-6;
        let (now_s, tokens) = (self.now_s, self.tokens);
        self.batch.retain(|request| {
            let is_done = request.until - tokens <= NOTHING;
            if is_done {
                served.push(Served {
                    index: request.index,
                    first_token_s: request.first_token_s,
                    end_s: now_s,
                });
            }
            !is_done
        });
        while self.prompts.front().is_some_and(|first| first.left <= NOTHING) {
            let Some(first) = self.prompts.pop_front() else { return };
            // The prompt gives the first token.
            if first.output <= 1.0 {
                served.push(Served { index: first.index, first_token_s: now_s, end_s: now_s });
            } else {
                let until = tokens + first.output - 1.0;
                let Waiting { index, prompt, output, .. } = first;
                self.batch.push(Generating { index, prompt, output, first_token_s: now_s, until });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: PodModel = PodModel {
        slots: 8,
        prefill_tokens_per_second: 3_000,
        step_base_us: 18_000,
        step_per_request_us: 2_000,
        kv_tokens: None,
    };

    fn run(requests: &[Request]) -> Vec<Served> {
        let mut pod = Pod::new(MODEL, 0.0);
        let mut served = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            pod.take(index, request);
        }
        while pod.in_flight() > 0 {
            pod.advance(pod.next_s(), &mut served);
        }
        served
    }

    #[test]
    fn one_request_takes_its_prompt_and_its_steps() {
        let request = Request { at_s: 0.0, prompt_tokens: 3_000, output_tokens: 101 };
        let served = run(&[request]);
        assert!((served[0].first_token_s - 1.0).abs() < 1e-6);
        assert!((served[0].end_s - 3.0).abs() < 1e-4, "100 steps of 20 ms: {}", served[0].end_s);
    }

    #[test]
    fn generation_goes_slower_beside_a_prompt() {
        let request = Request { at_s: 0.0, prompt_tokens: 3_000, output_tokens: 101 };
        let second = Request { output_tokens: 1, ..request };
        let served = run(&[request, second]);
        // 20 of 100 steps beside the second prompt's second, the rest alone.
        assert!((served[1].end_s - 3.6).abs() < 1e-4, "{}", served[1].end_s);
    }

    #[test]
    fn a_full_pod_does_one_pod_second_of_work_per_second() {
        // Four hundred conversations through eight slots: the work formula says how long that takes.
        let request = Request { at_s: 0.0, prompt_tokens: 1_155, output_tokens: 211 };
        let mut pod = Pod::new(MODEL, 0.0);
        let mut served = Vec::new();
        let mut taken = 0;
        while served.len() < 400 {
            while taken < 400 && pod.has_room() {
                pod.take(taken, &request);
                taken += 1;
            }
            pod.advance(pod.next_s(), &mut served);
        }
        let work = 400.0 * MODEL.request(1_155, 211);
        assert!((pod.now_s / work - 1.0).abs() < 0.06, "{} s for {work} pod-seconds", pod.now_s);
    }
}
