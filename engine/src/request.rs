//! What the engine is asked and what it answers, in tokens. Values here are already valid: whoever builds them
//! has checked ranges (`Sampling`'s fields say which), and the worker clamps what would harm it all the same.

use serde::{Deserialize, Serialize};

/// A token of the model's vocabulary.
pub type Token = i32;

/// How the worker is started. Sizes are in tokens unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// The program to run as the child process.
    pub binary: std::path::PathBuf,
    /// The GGUF file (the first part of a split model).
    pub model: std::path::PathBuf,
    /// Context length of each slot; 0 means the length that the model was trained with, at most 8,192.
    pub context_length: u32,
    /// How many sequences are decoded side by side.
    pub parallel_slots: u32,
    /// Layers to offload; `u32::MAX` means all.
    pub gpu_layers: u32,
    /// Flash attention.
    pub flash_attention: FlashAttention,
    /// Number format of the key-value cache.
    pub kv_cache_type: KvCacheType,
    /// Threads for decoding; 0 means as many as the process may use.
    pub threads: u32,
}

/// Whether flash attention is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlashAttention {
    /// llama.cpp decides by what the device can do.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Number format of the key-value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvCacheType {
    /// 16-bit floats.
    F16,
    /// 8-bit blocks: half the memory, hardly any loss.
    Q8_0,
    /// 4-bit blocks: a quarter of the memory, some loss.
    Q4_0,
}

/// One generation: a prompt in tokens and how to go on from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The prompt. Never empty; prompt + 1 fits the slot's context.
    pub prompt: Vec<Token>,
    /// Stop after so many tokens (at least 1). The context's end stops earlier.
    pub max_tokens: u32,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Generation ends when any of these is complete, and the text is cut before it; at most 16 of 256 bytes.
    pub stop: Vec<String>,
    /// Go on past the model's end-of-generation token.
    pub ignore_end: bool,
    /// Report the log-probability of each chosen token, and of so many most likely ones beside it.
    pub logprobs: Option<u8>,
    /// Cached prefixes are reused only between generations with the same key (a tenant).
    pub cache_key: u64,
}

/// How the next token is chosen. Defaults are llama-server's, so that answers compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy. 0..=2.
    pub temperature: f32,
    /// 0..=1; 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 0..=1; 0 keeps all.
    pub min_p: f32,
    /// -2..=2, added once per occurrence so far.
    pub frequency_penalty: f32,
    /// -2..=2, added if the token has occurred.
    pub presence_penalty: f32,
    /// 1 is off; above 1 repeats are divided down. 0.1..=10.
    pub repeat_penalty: f32,
    /// Added to the logit of a token; ids inside the vocabulary, values finite; at most 1,024.
    pub logit_bias: Vec<(Token, f32)>,
    /// The seed of this generation's dice. The same seed, prompt and build give the same text when decoded alone.
    pub seed: u32,
}

/// What a generation says while it runs, in order: any number of `Delta`s, then exactly one `Finished`.
/// If the engine is lost instead, the stream yields `Err(EngineError::Lost)` and ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The prompt has been processed and decoding begins.
    Started {
        /// What the prompt cost; nothing is said of an answer yet.
        usage: Usage,
    },
    /// More text. Whole UTF-8 scalars only; may stand for several tokens, or for none of its own.
    Delta {
        /// The text.
        text: String,
        /// The tokens behind it, with log-probabilities when asked for.
        tokens: Vec<TokenOutput>,
    },
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
    },
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenOutput {
    /// The token.
    pub token: Token,
    /// Its bytes (a token may be part of a UTF-8 scalar).
    pub bytes: Vec<u8>,
    /// Its log-probability before sampling modifies the distribution, when asked for.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place, most likely first.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// End-of-generation token or a stop string.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// The caller gave up (dropped the stream).
    Cancelled,
}

/// Tokens and time of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Those of them that came from the cache.
    pub cached_tokens: u32,
    /// Generated tokens.
    pub completion_tokens: u32,
    /// Time on the prompt, in microseconds: of each call that fed some of it, the part that its tokens had among the
    /// prompt tokens in that call.
    pub prefill_us: u64,
    /// What of `prefill_us` was in calls in which other sequences were decoding.
    pub overlap_us: u64,
    /// Time from the first to the last generated token, in microseconds.
    pub decode_us: u64,
    /// Tokens chosen after the first one. The model's end counts, which `completion_tokens` leaves out.
    pub decoded_tokens: u32,
    /// Calls of the model after the one that gave the first token, up to the one that gave the last. More than
    /// `decoded_tokens` if the sequence was left out of some.
    pub decode_steps: u32,
    /// Whether there was a slot for it when it came, and no other prompt before its own.
    pub is_unqueued: bool,
    /// What became of an earlier prompt's memory.
    pub reuse: Reuse,
}

/// Whether a prompt goes on from one that the same worker served a short while ago, and whether the cache had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reuse {
    /// It does not, or so much has been written since that the memory may well be gone.
    #[default]
    NotDue,
    /// Less than half of the earlier prompt came from the cache.
    Missed,
    /// At least half of it did.
    Hit,
}

/// Facts of the loaded model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// `general.architecture`.
    pub architecture: String,
    /// Of most tensors, for people: `Q8_0`.
    pub quantization: String,
    /// Context length that the model was trained with.
    pub trained_context_length: u32,
    /// Context length of each slot.
    pub context_length: u32,
    /// Slots.
    pub parallel_slots: u32,
    /// Size of the vocabulary.
    pub vocabulary: u32,
    /// Layers of the model, and how many of them are offloaded.
    pub layers: u32,
    /// Layers on an accelerator.
    pub layers_offloaded: u32,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub size_bytes: u64,
    /// The Jinja chat template, if the model has one.
    pub chat_template: Option<String>,
    /// Text of the beginning- and end-of-sequence tokens, for the template.
    pub bos_text: String,
    /// See `bos_text`.
    pub eos_text: String,
    /// Texts that `parse_special` turns into control tokens: what a user writes must not contain them unbroken.
    pub control_texts: Vec<String>,
    /// Whether a prompt in text gets the beginning-of-sequence token in front.
    pub adds_bos: bool,
}

/// Figures of the running engine. Counters only grow while one worker lives; `incarnation` changes when it is
/// replaced, and the client adds what its predecessors had counted, so a reader sees them grow for ever.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EngineStats {
    /// Which worker process this is; 1 for the first.
    pub incarnation: u64,
    /// Slots that run a generation.
    pub busy_slots: u32,
    /// Tokens of context in use, cached prefixes included, and the whole.
    pub kv_tokens_used: u64,
    /// See `kv_tokens_used`.
    pub kv_tokens_total: u64,
    /// Prompt tokens processed, and those found in the cache.
    pub prompt_tokens_total: u64,
    /// See `prompt_tokens_total`.
    pub cached_tokens_total: u64,
    /// Tokens generated.
    pub output_tokens_total: u64,
    /// Time spent in calls that held prompt tokens, in microseconds.
    pub prefill_us_total: u64,
    /// Decode calls without prompt tokens by batch size: index `b - 1` holds (calls, microseconds, sum of KV tokens).
    pub decode_by_batch: Vec<(u64, u64, u64)>,
    /// Microseconds since the last finished decode step while work was pending; `None` when idle.
    pub stalled_us: Option<u64>,
}

/// Why a model can never be served as asked; trying again with the same file and settings is useless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFailure {
    /// What kind of fault.
    pub kind: LoadFailureKind,
    /// One sentence for people, without paths of other files and without llama.cpp's log.
    pub message: String,
}

/// Kinds of `LoadFailure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LoadFailureKind {
    /// There is no readable file at the path.
    Missing,
    /// The file does not begin as a GGUF file does.
    NotGguf,
    /// The file is shorter than its header says.
    Truncated,
    /// The file is a GGUF file that contradicts itself, or that llama.cpp cannot serve.
    Invalid,
    /// Weights or context do not fit into the memory there is.
    DoesNotFit,
    /// The worker program cannot be started, or crashed on every attempt to load the model.
    Program,
}

impl std::fmt::Display for LoadFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}
