//! One generation in the worker: what it has fed, what it has said, when it ends. Pure; `now_us` is an argument.
//! Must not know slots of other sequences, batches or llama.cpp.

use std::collections::VecDeque;

use crate::{
    batch::Need,
    call::Call,
    request::{Event, FinishReason, Generation, Reuse, Token, TokenOutput, Usage},
    sample::{Choice, Sampler},
    stop::TextStream,
};

/// What a sequence must know about tokens.
pub trait Vocabulary {
    /// How many tokens there are.
    fn size(&self) -> usize;
    /// The bytes that a token stands for; none for control tokens.
    fn bytes(&self, token: Token) -> Vec<u8>;
    /// Whether the model says with this token that it has finished.
    fn is_end(&self, token: Token) -> bool;
}

/// What a sequence met when it was placed into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beginning {
    /// So many tokens of the prompt are in memory already.
    pub reused: usize,
    /// As in `Usage`.
    pub is_unqueued: bool,
    /// As in `Usage`.
    pub reuse: Reuse,
}

/// When a token was chosen: the time, and after how many calls of the model.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    us: u64,
    call: u64,
}

/// A generation under way.
#[derive(Debug)]
pub struct Sequence {
    id: u64,
    generation: Generation,
    context_length: usize,
    /// The prompt and what was generated.
    tokens: Vec<Token>,
    /// How many of them are in the model's memory.
    fed: usize,
    sampler: Sampler,
    text: TextStream,
    pushed_bytes: u64,
    /// Generated tokens whose bytes are held back, each with where its bytes end in the text.
    held: VecDeque<(u64, TokenOutput)>,
    beginning: Beginning,
    prefill_us: u64,
    overlap_us: u64,
    /// The call that fed it last.
    last_call: u64,
    first_token: Option<Moment>,
    last_token: Moment,
    chosen_tokens: u32,
}

impl Sequence {
    /// Checks what would harm the worker; the text says what is wrong.
    pub fn new(
        id: u64,
        generation: Generation,
        context_length: u32,
        vocabulary: &impl Vocabulary,
    ) -> Result<Sequence, String> {
        let context_length = context_length as usize;
        let prompt = &generation.prompt;
        if prompt.is_empty() {
            return Err("the prompt has no tokens".into());
        }
        if prompt.len() >= context_length {
            let count = prompt.len();
            return Err(format!(
                "a prompt of {count} tokens leaves no room in a context of {context_length}"
            ));
        }
        let exists = |token: &Token| usize::try_from(*token).is_ok_and(|token| token < vocabulary.size());
        if let Some(token) = prompt.iter().find(|token| !exists(token)) {
            return Err(format!("the prompt has the token {token}, which is not in the vocabulary"));
        }
        Ok(Sequence {
            id,
            context_length,
            tokens: prompt.clone(),
            fed: 0,
            sampler: Sampler::new(generation.sampling.clone(), prompt),
            text: TextStream::new(&generation.stop),
            pushed_bytes: 0,
            held: VecDeque::new(),
            beginning: Beginning::default(),
            prefill_us: 0,
            overlap_us: 0,
            last_call: 0,
            first_token: None,
            last_token: Moment::default(),
            chosen_tokens: 0,
            generation,
        })
    }

    /// The id that the handle gave it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The prompt.
    pub fn prompt(&self) -> &[Token] {
        &self.generation.prompt
    }

    /// Whose prefixes it may reuse.
    pub fn cache_key(&self) -> u64 {
        self.generation.cache_key
    }

    /// It has a slot.
    pub fn begin(&mut self, beginning: Beginning) {
        self.fed = beginning.reused;
        self.beginning = beginning;
    }

    /// Whether it has prompt tokens left to feed.
    pub fn is_in_prompt(&self) -> bool {
        self.fed < self.generation.prompt.len()
    }

    /// What it has to feed in the next step.
    pub fn need(&self, slot: usize) -> Need {
        let tokens = u32::try_from(self.tokens.len() - self.fed).unwrap_or(u32::MAX);
        Need { slot, tokens, is_prompt: self.is_in_prompt() }
    }

    /// The position of the next token, and `count` tokens from there.
    pub fn next_tokens(&self, count: usize) -> (usize, &[Token]) {
        (self.fed, &self.tokens[self.fed..self.fed + count])
    }

    /// Whether feeding so many tokens brings it to where a new token is to be chosen.
    pub fn completes(&self, count: usize) -> bool {
        self.fed + count == self.tokens.len()
    }

    /// `count` of its tokens were fed by this call.
    pub fn advance(&mut self, count: usize, call: &Call) {
        if self.is_in_prompt() {
            let us = call.prompt_us(u32::try_from(count).unwrap_or(u32::MAX));
            self.prefill_us += us;
            self.overlap_us += if call.is_mixed() { us } else { 0 };
        }
        self.fed += count;
        self.last_call = call.number;
    }

    /// Tokens in the model's memory.
    pub fn fed(&self) -> usize {
        self.fed
    }

    /// What the model's memory holds, for the next prompt with this beginning.
    pub fn into_memory(mut self) -> Vec<Token> {
        self.tokens.truncate(self.fed);
        self.tokens
    }

    /// Chooses the next token and says what follows from it. The last event is `Finished` if this was the end.
    /// `Err` if the model's scores are no numbers.
    pub fn choose(
        &mut self,
        logits: &[f32],
        vocabulary: &impl Vocabulary,
        now_us: u64,
    ) -> Result<Vec<Event>, String> {
        let choice = self
            .sampler
            .choose(logits, self.generation.logprobs)
            .ok_or_else(|| "the model's scores are not finite numbers".to_owned())?;
        let mut events = Vec::with_capacity(3);
        self.last_token = Moment { us: now_us, call: self.last_call };
        self.chosen_tokens += 1;
        if self.first_token.is_none() {
            self.first_token = Some(self.last_token);
            events.push(Event::Started { usage: self.usage() });
        }
        if vocabulary.is_end(choice.token) && !self.generation.ignore_end {
            self.finish(FinishReason::Stop, String::new(), &mut events);
            return Ok(events);
        }
        let text = self.append(choice, vocabulary);
        if self.text.is_stopped() {
            self.finish(FinishReason::Stop, text, &mut events);
        } else if self.generated() >= self.generation.max_tokens || self.tokens.len() >= self.context_length {
            self.finish(FinishReason::Length, text, &mut events);
        } else {
            self.say(text, &mut events);
        }
        Ok(events)
    }

    fn cached_tokens(&self) -> u32 {
        u32::try_from(self.beginning.reused).unwrap_or(u32::MAX)
    }

    fn generated(&self) -> u32 {
        u32::try_from(self.tokens.len() - self.generation.prompt.len()).unwrap_or(u32::MAX)
    }

    fn append(&mut self, choice: Choice, vocabulary: &impl Vocabulary) -> String {
        let bytes = vocabulary.bytes(choice.token);
        self.tokens.push(choice.token);
        let text = self.text.push(&bytes);
        self.pushed_bytes += bytes.len() as u64;
        let top = choice
            .top
            .into_iter()
            .map(|(token, logprob)| (token, vocabulary.bytes(token), logprob))
            .collect();
        let output = TokenOutput { token: choice.token, bytes, logprob: choice.logprob, top };
        self.held.push_back((self.pushed_bytes, output));
        text
    }

    fn say(&mut self, text: String, events: &mut Vec<Event>) {
        let released = self.text.released_bytes();
        let count = self.held.iter().take_while(|(end, _)| *end <= released).count();
        let tokens: Vec<TokenOutput> = self.held.drain(..count).map(|(_, output)| output).collect();
        if !text.is_empty() || !tokens.is_empty() {
            events.push(Event::Delta { text, tokens });
        }
    }

    /// At a stop string the tokens behind the cut stay unsaid; otherwise what was held back comes out.
    fn finish(&mut self, reason: FinishReason, mut text: String, events: &mut Vec<Event>) {
        if !self.text.is_stopped() {
            text.push_str(&self.text.finish());
        }
        self.say(text, events);
        events.push(Event::Finished { reason, usage: self.usage() });
    }

    fn usage(&self) -> Usage {
        let (first, last) = (self.first_token.unwrap_or(self.last_token), self.last_token);
        Usage {
            prompt_tokens: u32::try_from(self.generation.prompt.len()).unwrap_or(u32::MAX),
            cached_tokens: self.cached_tokens(),
            completion_tokens: self.generated(),
            prefill_us: self.prefill_us,
            overlap_us: self.overlap_us,
            decode_us: last.us - first.us,
            decoded_tokens: self.chosen_tokens.saturating_sub(1),
            decode_steps: u32::try_from(last.call - first.call).unwrap_or(u32::MAX),
            is_unqueued: self.beginning.is_unqueued,
            reuse: self.beginning.reuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Sampling;

    /// Tokens are the bytes of the alphabet; 26 ends.
    struct Alphabet;

    const END: Token = 26;

    impl Vocabulary for Alphabet {
        fn size(&self) -> usize {
            27
        }

        fn bytes(&self, token: Token) -> Vec<u8> {
            u8::try_from(token).ok().filter(|byte| *byte < 26).map(|byte| b'a' + byte).into_iter().collect()
        }

        fn is_end(&self, token: Token) -> bool {
            token == END
        }
    }

    fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }

    fn generation(prompt: usize, max_tokens: u32, stop: &[&str]) -> Generation {
        Generation {
            prompt: vec![0; prompt],
            max_tokens,
            sampling: greedy(),
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            ignore_end: false,
            logprobs: None,
            cache_key: 0,
        }
    }

    /// A call of 5 µs that holds so many prompt tokens and decodes.
    fn call(number: u64, prompt_tokens: u32, decodes: u32) -> Call {
        Call { number, prompt_tokens, decodes, us: 5 }
    }

    /// Lets a model say `says`, one letter per step, `.` for the end; returns the text, the tokens behind it and
    /// how it ended.
    fn check(
        generation: Generation,
        context_length: u32,
        says: &str,
    ) -> (String, Vec<Token>, FinishReason, Usage) {
        let mut sequence = Sequence::new(1, generation, context_length, &Alphabet).unwrap();
        let mut text = String::new();
        let mut tokens = Vec::new();
        for (step, letter) in (0..).zip(says.chars()) {
            let Need { tokens: count, .. } = sequence.need(0);
            assert!(sequence.completes(count as usize));
            sequence.advance(count as usize, &call(step, count, 0));
            let token = if letter == '.' { END } else { Token::from(letter as u8 - b'a') };
            let logits: Vec<f32> = (0..27).map(|index| if index == token { 1.0 } else { 0.0 }).collect();
            for event in sequence.choose(&logits, &Alphabet, step * 10).unwrap() {
                match event {
                    Event::Started { .. } => assert_eq!(step, 0),
                    Event::Delta { text: more, tokens: behind } => {
                        text.push_str(&more);
                        tokens.extend(behind.iter().map(|output| output.token));
                    }
                    Event::Finished { reason, usage } => return (text, tokens, reason, usage),
                }
            }
        }
        panic!("the sequence did not end")
    }

    #[test]
    fn the_models_own_end_is_not_part_of_the_text() {
        let (text, tokens, reason, usage) = check(generation(3, 10, &[]), 100, "abc.");
        assert_eq!((text.as_str(), tokens, reason), ("abc", vec![0, 1, 2], FinishReason::Stop));
        let expected = Usage {
            prompt_tokens: 3,
            completion_tokens: 3,
            prefill_us: 5,
            decode_us: 30,
            decoded_tokens: 3,
            decode_steps: 3,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn its_share_of_shared_calls_and_the_calls_it_was_left_out_of_are_told() {
        let mut sequence = Sequence::new(1, generation(10, 2, &[]), 100, &Alphabet).unwrap();
        let beginning = Beginning { reused: 4, is_unqueued: true, reuse: Reuse::Hit };
        sequence.begin(beginning);
        sequence.advance(1, &call(1, 1, 0));
        sequence.advance(5, &call(2, 5, 3));
        let events = sequence.choose(&[1.0; 27], &Alphabet, 100).unwrap();
        let prompt = Usage {
            prompt_tokens: 10,
            cached_tokens: 4,
            prefill_us: 10,
            overlap_us: 5,
            is_unqueued: true,
            reuse: Reuse::Hit,
            ..Usage::default()
        };
        assert_eq!(events.first(), Some(&Event::Started { usage: prompt }), "known with the first token");
        // Calls 3 to 5 were made without it.
        sequence.advance(1, &call(6, 0, 1));
        let events = sequence.choose(&[1.0; 27], &Alphabet, 180).unwrap();
        let expected =
            Usage { completion_tokens: 2, decode_us: 80, decoded_tokens: 1, decode_steps: 4, ..prompt };
        assert_eq!(events.last(), Some(&Event::Finished { reason: FinishReason::Length, usage: expected }));
    }

    #[test]
    fn a_stop_string_takes_its_tokens_with_it() {
        let (text, tokens, reason, _) = check(generation(3, 10, &["cd"]), 100, "abcd");
        assert_eq!((text.as_str(), tokens, reason), ("ab", vec![0, 1], FinishReason::Stop));
    }

    #[test]
    fn what_was_held_back_comes_out_at_the_models_end_and_at_the_limit() {
        let (text, tokens, reason, _) = check(generation(3, 10, &["cd"]), 100, "abc.");
        assert_eq!((text.as_str(), tokens, reason), ("abc", vec![0, 1, 2], FinishReason::Stop));
        let (text, tokens, reason, _) = check(generation(3, 3, &["cd"]), 100, "abc");
        assert_eq!((text.as_str(), tokens, reason), ("abc", vec![0, 1, 2], FinishReason::Length));
    }

    #[test]
    fn the_contexts_end_is_a_limit_too() {
        let (text, _, reason, _) = check(generation(3, 100, &[]), 5, "abc");
        assert_eq!((text.as_str(), reason), ("ab", FinishReason::Length));
    }

    #[test]
    fn the_end_can_be_ignored() {
        let past = Generation { ignore_end: true, ..generation(3, 3, &[]) };
        let (text, tokens, reason, _) = check(past, 100, "a.b");
        assert_eq!((text.as_str(), tokens, reason), ("ab", vec![0, END, 1], FinishReason::Length));
    }

    #[test]
    fn prompts_that_would_harm_are_refused() {
        let refused = |generation, context| Sequence::new(1, generation, context, &Alphabet).unwrap_err();
        assert!(refused(generation(0, 1, &[]), 10).contains("no tokens"));
        assert!(refused(generation(10, 1, &[]), 10).contains("leaves no room"));
        let foreign = Generation { prompt: vec![27], ..generation(1, 1, &[]) };
        assert!(refused(foreign, 10).contains("not in the vocabulary"));
        let negative = Generation { prompt: vec![-1], ..generation(1, 1, &[]) };
        assert!(refused(negative, 10).contains("not in the vocabulary"));
    }

    #[test]
    fn a_prompt_can_be_fed_in_parts_after_what_was_cached() {
        let mut sequence = Sequence::new(1, generation(10, 1, &[]), 100, &Alphabet).unwrap();
        sequence.begin(Beginning { reused: 4, ..Beginning::default() });
        assert_eq!(sequence.need(2), Need { slot: 2, tokens: 6, is_prompt: true });
        assert!(!sequence.completes(5));
        sequence.advance(5, &call(1, 5, 0));
        assert_eq!(sequence.next_tokens(1), (9, &[0][..]));
        assert!(sequence.completes(1));
        assert_eq!(sequence.into_memory().len(), 9);
    }
}
