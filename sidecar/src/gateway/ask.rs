//! What the gateway must know of a request: facts from its headers and one pass over its body, which itself goes on
//! byte for byte. Reading is tolerant: what is missing, of another type or unreadable is `None`, because the pod, not the
//! gateway, judges requests.

mod body;

use std::hash::Hasher;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use twox_hash::XxHash64;

use self::body::{BodyFacts, DEADLINE_MS_MAX};
use super::view::{HoldLimits, ModelView};
use crate::http::headers::{PRIORITY, READ_TIMEOUT, REQUEST_ID, REVISION};
use crate::queue::Tier;
use crate::queue::waiting::OUTPUT_WEIGHT;

/// The client's own name of a conversation.
pub const SESSION: HeaderName = HeaderName::from_static("x-inferno-session");

/// The other place of API keys, beside `authorization`.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Bytes of a body for each token of its prompt: English text has four, and the JSON around it adds little.
const BYTES_PER_TOKEN: usize = 4;

/// Tokens of an answer whose request sets no limit; chats average between 100 and 300.
const OUTPUT_TOKENS_USUAL: u32 = 256;

/// Many clients set limits that no answer reaches. What exceeds this says nothing about the work to expect.
const OUTPUT_TOKENS_MAX: u32 = 4_096;

/// Facts of a request; what is missing or unreadable is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// The model's name in the body.
    pub model: Option<String>,
    /// Whether the answer is to be streamed.
    pub is_stream: bool,
    /// Whether tokens are generated: chat and text completions. Only these are mirrored.
    pub is_generation: bool,
    /// The header `x-inferno-session`.
    pub session: Option<String>,
    /// The body's `user`, else `safety_identifier`.
    pub user: Option<String>,
    /// Hash of the API key.
    pub api_key: Option<u64>,
    /// The header `x-request-id`; the gateway gives every request one before it reads it.
    pub request_id: Option<String>,
    /// The revision that the header `x-inferno-revision` asks for.
    pub revision: Option<String>,
    /// Hash of what stays the same through a conversation: all messages up to the first of the user; of a text
    /// completion the prompt's first KiB.
    pub deep: Option<u64>,
    /// Hash of the first 256 bytes of the system prompt, or of whatever comes first.
    pub shallow: Option<u64>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens that the answer may have, as far as that is believable.
    pub output_tokens: u32,
    /// The tier that it names, in the body or in `x-inferno-priority`.
    pub tier: Option<Tier>,
    /// The time that it names in the body.
    pub deadline: Option<Duration>,
    /// How long the client waits for a byte, by its SDK's own words.
    pub patience: Option<Duration>,
    /// Whether the conversation has no answer yet.
    pub is_new_conversation: bool,
}

/// Hash of a key, the same in every gateway and version.
pub(super) fn hash(key: &[u8]) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(key);
    hasher.finish()
}

impl Ask {
    /// Reads a request in one pass over its body; time and memory are linear in its size.
    pub fn read(headers: &HeaderMap, path: &str, body: &[u8]) -> Self {
        let text = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::trim).filter(|value| !value.is_empty())
        };
        let facts = BodyFacts::read(body).unwrap_or_default();
        let prompt_tokens = u32::try_from(body.len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX);
        let output_tokens = facts.output_tokens.map_or(OUTPUT_TOKENS_USUAL, |tokens| {
            u32::try_from(tokens).unwrap_or(u32::MAX).min(OUTPUT_TOKENS_MAX)
        });
        Self {
            model: facts.model,
            is_stream: facts.is_stream,
            is_generation: path.ends_with("/completions"),
            session: text(&SESSION).map(str::to_owned),
            user: facts.user,
            api_key: api_key(headers),
            request_id: text(&REQUEST_ID).map(str::to_owned),
            revision: text(&REVISION).map(str::to_owned),
            deep: facts.deep,
            shallow: facts.shallow,
            prompt_tokens,
            output_tokens,
            tier: facts.tier.or_else(|| text(&PRIORITY).and_then(Tier::named)),
            deadline: facts.deadline,
            patience: text(&READ_TIMEOUT)
                .and_then(|seconds| seconds.parse::<u32>().ok())
                .map(|seconds| Duration::from_secs(seconds.into())),
            is_new_conversation: !facts.has_answer,
        }
    }

    /// The work to expect, in tokens; a generated one counts as two of the prompt, as in the pods' queues.
    pub fn work(&self) -> u64 {
        (u64::from(self.prompt_tokens) + u64::from(self.output_tokens) * OUTPUT_WEIGHT).max(1)
    }

    /// Tokens that the answer may have; none unless tokens are generated.
    pub fn answer_tokens(&self) -> u32 {
        if self.is_generation { self.output_tokens } else { 0 }
    }

    /// How urgent it is at this model.
    pub fn tier_at(&self, model: &ModelView) -> Tier {
        self.tier.or_else(|| Tier::named(&model.default_priority)).unwrap_or(Tier::Normal)
    }

    /// How long it may take until its answer begins, at this model: what it names, else the model's time, which a client
    /// that hangs up earlier need not be waited for.
    pub fn time_limit(&self, model: &ModelView, hold: &HoldLimits) -> Duration {
        let undeclared = match model.timeout_ms {
            0 => hold.timeout(),
            timeout_ms => Duration::from_millis(timeout_ms),
        };
        let undeclared = self.patience.map_or(undeclared, |patience| patience.min(undeclared));
        self.deadline.unwrap_or(undeclared).min(Duration::from_millis(DEADLINE_MS_MAX))
    }

    /// Hash of the session's name.
    pub(super) fn session_key(&self) -> Option<u64> {
        self.session.as_ref().map(|session| hash(session.as_bytes()))
    }
}

/// The key itself, however it was sent, so that a client is the same with either header.
fn api_key(headers: &HeaderMap) -> Option<u64> {
    let sent = headers.get(header::AUTHORIZATION).or_else(|| headers.get(API_KEY))?.as_bytes();
    let key = match sent.split_at_checked(7) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key,
        _ => sent,
    };
    let key = key.trim_ascii();
    (!key.is_empty()).then(|| hash(key))
}

#[cfg(test)]
mod tests;
