//! What goes out: whole answers, chunks of streams, the list of models. Shapes only.

use engine::{FinishReason, TokenOutput, Usage};
use serde::Serialize;
use serde_json::{Value, json};

/// Tokens whose log-probabilities go into one chunk: with 20 alternatives each some 35 KB, below the 64 KiB line that
/// every client can read.
const LOGPROB_TOKENS_PER_CHUNK: usize = 16;

/// Which endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// What is the same in every part of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which shape.
    pub endpoint: Endpoint,
    /// `chatcmpl-…`.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The name under which the model was asked for.
    pub model: String,
    /// Log-probabilities were asked for.
    pub has_logprobs: bool,
    /// Chunks carry `usage: null` and a last one has the figures.
    pub includes_usage: bool,
    /// The gateway keeps figures: a comment before the end of a stream says how many tokens it had.
    pub is_measured: bool,
}

/// One choice of a whole answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<TokenOutput>,
    /// Why it ended.
    pub reason: Option<FinishReason>,
}

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Value>,
}

// === impl Envelope ===

impl Envelope {
    /// The answer in one piece.
    pub fn whole(&self, choices: &[Choice], usage: &Usage) -> Vec<u8> {
        let choices =
            choices.iter().enumerate().map(|(index, choice)| self.whole_choice(index, choice)).collect();
        self.body(choices, Some(usage_json(usage)))
    }

    /// The first chunk of a choice: the only one that says who speaks. Text completions have none.
    pub fn opening(&self, index: usize) -> Option<Vec<u8>> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self.endpoint == Endpoint::Chat).then(|| self.chunk(index, &delta, &Value::Null, &Value::Null))
    }

    /// Chunks with more text of a choice; several when there are many tokens to tell about. `offset` is where the
    /// choice's text stood, in characters, and is moved on.
    pub fn more(&self, index: usize, text: &str, tokens: &[TokenOutput], offset: &mut usize) -> Vec<Vec<u8>> {
        let mut groups = tokens.chunks(LOGPROB_TOKENS_PER_CHUNK);
        if !self.has_logprobs {
            groups = [].chunks(LOGPROB_TOKENS_PER_CHUNK);
        }
        let first = groups.next().unwrap_or_default();
        let chunk = |(text, tokens): (&str, &[TokenOutput])| {
            let logprobs = self.logprobs(tokens, offset);
            self.text_chunk(index, text, &logprobs, &Value::Null)
        };
        [(text, first)].into_iter().chain(groups.map(|tokens| ("", tokens))).map(chunk).collect()
    }

    /// The chunk that ends a choice.
    pub fn closing(&self, index: usize, reason: FinishReason) -> Vec<u8> {
        match self.endpoint {
            Endpoint::Chat => self.chunk(index, &json!({}), &Value::Null, &reason_json(reason)),
            Endpoint::Completion => self.text_chunk(index, "", &Value::Null, &reason_json(reason)),
        }
    }

    /// The chunk with the figures, if asked for: the only one without choices.
    pub fn figures(&self, usage: &Usage) -> Option<Vec<u8>> {
        self.includes_usage.then(|| self.body_of_chunk(Vec::new(), Some(usage_json(usage))))
    }

    fn text_chunk(&self, index: usize, text: &str, logprobs: &Value, reason: &Value) -> Vec<u8> {
        match self.endpoint {
            Endpoint::Chat => self.chunk(index, &json!({"content": text}), logprobs, reason),
            Endpoint::Completion => {
                let choice =
                    json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason});
                self.body_of_chunk(vec![choice], None)
            }
        }
    }

    fn chunk(&self, index: usize, delta: &Value, logprobs: &Value, reason: &Value) -> Vec<u8> {
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason});
        self.body_of_chunk(vec![choice], None)
    }

    fn body_of_chunk(&self, choices: Vec<Value>, usage: Option<Value>) -> Vec<u8> {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completion => "text_completion",
        };
        let usage = usage.or_else(|| self.includes_usage.then_some(Value::Null));
        self.write(object, choices, usage)
    }

    fn body(&self, choices: Vec<Value>, usage: Option<Value>) -> Vec<u8> {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completion => "text_completion",
        };
        self.write(object, choices, usage)
    }

    fn write(&self, object: &'static str, choices: Vec<Value>, usage: Option<Value>) -> Vec<u8> {
        let body = Body { id: &self.id, object, created: self.created, model: &self.model, choices, usage };
        serde_json::to_vec(&body).expect("strings and numbers always serialize")
    }

    fn whole_choice(&self, index: usize, choice: &Choice) -> Value {
        let reason = choice.reason.map_or(Value::Null, reason_json);
        let logprobs = if self.has_logprobs { self.logprobs(&choice.tokens, &mut 0) } else { Value::Null };
        match self.endpoint {
            Endpoint::Chat => json!({
                "index": index,
                "message": {
                    "role": "assistant", "content": choice.text, "refusal": null, "annotations": [],
                },
                "logprobs": logprobs,
                "finish_reason": reason,
            }),
            Endpoint::Completion => json!({
                "index": index, "text": choice.text, "logprobs": logprobs, "finish_reason": reason,
            }),
        }
    }

    fn logprobs(&self, tokens: &[TokenOutput], offset: &mut usize) -> Value {
        if !self.has_logprobs || tokens.is_empty() {
            return Value::Null;
        }
        match self.endpoint {
            Endpoint::Chat => {
                let content: Vec<_> = tokens.iter().map(chat_logprob).collect();
                json!({"content": content, "refusal": null})
            }
            Endpoint::Completion => legacy_logprobs(tokens, offset),
        }
    }
}

fn chat_logprob(token: &TokenOutput) -> Value {
    let entry = |bytes: &[u8], logprob: Option<f32>| json!({"token": String::from_utf8_lossy(bytes), "logprob": finite(logprob), "bytes": bytes});
    let top: Vec<_> = token.top.iter().map(|(_, bytes, logprob)| entry(bytes, Some(*logprob))).collect();
    let mut chosen = entry(&token.bytes, token.logprob);
    chosen["top_logprobs"] = Value::Array(top);
    chosen
}

fn legacy_logprobs(tokens: &[TokenOutput], offset: &mut usize) -> Value {
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut offsets = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(*offset);
        // Only the first byte of a scalar counts as a character.
        *offset += token.bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
    }
    let top_of = |token: &TokenOutput| -> Value {
        token.top.iter().map(|(_, bytes, logprob)| (text_of(bytes), finite(Some(*logprob)))).collect()
    };
    json!({
        "tokens": tokens.iter().map(|token| text_of(&token.bytes)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| finite(token.logprob)).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top_of).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

/// JSON has no infinity; OpenAI writes −9999 for "as good as impossible".
fn finite(logprob: Option<f32>) -> f32 {
    logprob.filter(|logprob| logprob.is_finite()).unwrap_or(-9_999.0)
}

fn reason_json(reason: FinishReason) -> Value {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled => json!("stop"),
        FinishReason::Length => json!("length"),
    }
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

/// One entry of the list of models.
pub fn model_json(id: &str, created: i64) -> Value {
    json!({"id": id, "object": "model", "created": created, "owned_by": "inferno"})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(endpoint: Endpoint) -> Envelope {
        Envelope {
            endpoint,
            id: "chatcmpl-1".into(),
            created: 5,
            model: "tiny".into(),
            has_logprobs: true,
            includes_usage: true,
            is_measured: false,
        }
    }

    fn token(text: &[u8]) -> TokenOutput {
        TokenOutput {
            token: 1,
            bytes: text.to_vec(),
            logprob: Some(-0.5),
            top: vec![(1, text.to_vec(), -0.5)],
        }
    }

    fn parse(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_whole_chat_answer_has_every_key_that_strict_clients_want() {
        let choice =
            Choice { text: "hi".into(), tokens: vec![token(b"hi")], reason: Some(FinishReason::Stop) };
        let usage = Usage { prompt_tokens: 3, completion_tokens: 1, ..Usage::default() };
        let body = parse(&envelope(Endpoint::Chat).whole(&[choice], &usage));
        assert_eq!(body["object"], "chat.completion");
        let message = body["choices"][0]["message"].as_object().unwrap();
        assert!(["role", "content", "refusal"].iter().all(|key| message.contains_key(*key)));
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["choices"][0]["logprobs"]["content"][0]["bytes"], json!([104, 105]));
        assert_eq!(body["usage"]["total_tokens"], 4);
    }

    #[test]
    fn only_the_usage_chunk_has_no_choices() {
        let envelope = envelope(Endpoint::Chat);
        let opening = parse(&envelope.opening(1).unwrap());
        assert_eq!(opening["choices"][0]["delta"]["role"], "assistant");
        assert_eq!((&opening["choices"][0]["index"], &opening["usage"]), (&json!(1), &Value::Null));
        let more = parse(&envelope.more(0, "x", &[], &mut 0)[0]);
        assert!(more["choices"][0]["delta"].get("role").is_none());
        let figures = parse(&envelope.figures(&Usage::default()).unwrap());
        assert_eq!((&figures["choices"], &figures["usage"]["total_tokens"]), (&json!([]), &json!(0)));
    }

    #[test]
    fn offsets_count_characters_and_go_on_between_chunks() {
        let envelope = envelope(Endpoint::Completion);
        let mut offset = 0;
        let first = parse(&envelope.more(0, "é", &["é".as_bytes()].map(token), &mut offset)[0]);
        let second = parse(&envelope.more(0, "ab", &[token(b"a"), token(b"b")], &mut offset)[0]);
        assert_eq!(first["choices"][0]["logprobs"]["text_offset"], json!([0]));
        assert_eq!(second["choices"][0]["logprobs"]["text_offset"], json!([1, 2]));
    }

    #[test]
    fn no_line_is_longer_than_every_client_can_read() {
        let alternatives = vec![(1, vec![0xe2; 16], -1.0); 20];
        let token = TokenOutput { token: 1, bytes: vec![b'x'; 16], logprob: Some(-1.0), top: alternatives };
        let chunks = envelope(Endpoint::Chat).more(0, "text", &vec![token; 100], &mut 0);
        assert_eq!(chunks.len(), 7);
        assert!(chunks.iter().all(|chunk| chunk.len() <= 65_536), "{}", chunks[0].len());
        let texts: String = chunks
            .iter()
            .map(|chunk| parse(chunk)["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(texts, "text");
    }
}
