//! The parameters that chat and text completions share: which are honoured, which are accepted and ignored, which are
//! refused by name. Unknown fields are accepted, as other servers do.

use std::time::Duration;

use engine::{Sampling, Token};
use serde_json::Value;

use super::fields::{Complaint, Fields, Refusal, wrong_type};
use crate::queue::Tier;

/// Choices per prompt. The SDKs' examples use up to 5; each choice is a generation of its own in the queue.
pub const CHOICES_MAX: u32 = 8;

/// Stop strings, and the bytes of each: the engine's limits.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 256;

/// Entries of `logit_bias`: the engine's limit.
const LOGIT_BIAS_MAX: usize = 1_024;

/// The longest deadline that makes sense to the queue, a day.
const DEADLINE_MS_MAX: i64 = 86_400_000;

/// What is asked for, valid whatever the model; only token ids and lengths are still to be held against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// The model's name or an alias.
    pub model: String,
    /// Upper bound of generated tokens; what fits if absent.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen. `seed` is replaced by a random one when [`Self::seed`] is absent.
    pub sampling: Sampling,
    /// The client's seed.
    pub seed: Option<u32>,
    /// Cut before any of these.
    pub stop: Vec<String>,
    /// Go on past the end-of-generation token.
    pub ignore_end: bool,
    /// Report log-probabilities and so many alternatives.
    pub logprobs: Option<u8>,
    /// Answers per prompt.
    pub choices: u32,
    /// Stream the answer, and how.
    pub stream: Option<StreamOptions>,
    /// Urgency, if the client says.
    pub priority: Option<Tier>,
    /// When waiting is no longer worth it, if the client says.
    pub deadline: Option<Duration>,
    /// Whose request it is, if the client says.
    pub user: Option<String>,
}

/// How an answer is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// One more chunk with the usage before the end.
    pub include_usage: bool,
}

/// Parameters whose presence would change the answer in a way that this server cannot deliver.
const REFUSED: [(&str, &str); 6] = [
    ("audio", "audio output is not supported"),
    ("web_search_options", "web search is not supported"),
    ("functions", "function calling is not supported by this server"),
    ("function_call", "function calling is not supported by this server"),
    ("tools", "tool calling is not supported by this server"),
    ("grammar", "grammars are not supported by this server"),
];

impl Parameters {
    /// Reads and checks everything but the prompt and `logprobs`, which the endpoints spell differently.
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        refuse_unsupported(fields)?;
        let seed = fields.integer("seed", i64::MIN, i64::MAX)?;
        Ok(Self {
            model: fields.required_string("model")?.to_owned(),
            max_tokens: max_tokens(fields)?,
            sampling: sampling(fields)?,
            // Any integer is a seed; the engine's dice take 32 bits of it.
            seed: seed.map(|seed| u32::try_from(seed & 0xffff_ffff).unwrap_or(0)),
            stop: stop(fields)?,
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            logprobs: None,
            choices: fields.integer("n", 1, i64::from(CHOICES_MAX))?.map_or(1, as_u32),
            stream: stream(fields)?,
            priority: fields.string("priority")?.map(|name| tier(fields, name)).transpose()?,
            deadline: deadline(fields)?,
            user: fields.string("user")?.map(str::to_owned),
        })
    }
}

fn as_u32(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), Refusal> {
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        // `function_call: "none"` asks for nothing.
        Value::String(text) => text == "none" || text.is_empty(),
        _ => false,
    };
    for (name, why) in REFUSED {
        if fields.value(name).is_some_and(|value| !is_empty(value)) {
            return Err(Refusal::unsupported(name, why));
        }
    }
    if fields.value("tool_choice").is_some_and(|value| value != "none" && value != "auto") {
        return Err(Refusal::unsupported("tool_choice", "tool calling is not supported by this server"));
    }
    if let Some(modalities) = fields.array("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(Refusal::unsupported("modalities", "only the modality 'text' is supported"));
    }
    if let Some(format) = fields.object("response_format")? {
        let kind = format.required_string("type")?;
        if kind != "text" {
            let message = format!("response_format '{kind}' is not supported by this server, only 'text'");
            return Err(Refusal::unsupported("response_format", message));
        }
    }
    Ok(())
}

/// `max_completion_tokens` is the newer name and wins.
fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, Refusal> {
    let older = fields.integer("max_tokens", 1, i64::from(u32::MAX))?;
    let newer = fields.integer("max_completion_tokens", 1, i64::from(u32::MAX))?;
    Ok(newer.or(older).map(as_u32))
}

/// Absent values are llama-server's, but for temperature and `top_p`, which are OpenAI's.
fn sampling(fields: &Fields<'_>) -> Result<Sampling, Refusal> {
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0),
        // vLLM's clients write -1 for "all".
        top_k: fields.integer("top_k", -1, i64::from(i32::MAX))?.map_or(40, |k| as_u32(k.max(0))),
        min_p: fields.number("min_p", 0.0, 1.0)?.unwrap_or(0.05),
        frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0),
        repeat_penalty: match fields.number("repeat_penalty", 0.1, 10.0)? {
            Some(penalty) => penalty,
            // The name in vLLM and in the hub's libraries.
            None => fields.number("repetition_penalty", 0.1, 10.0)?.unwrap_or(1.0),
        },
        logit_bias: logit_bias(fields)?,
        seed: 0,
    })
}

fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(Token, f32)>, Refusal> {
    let Some(value) = fields.value("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(biases) = value else {
        return Err(wrong_type(fields.path("logit_bias"), "an object", value));
    };
    if biases.len() > LOGIT_BIAS_MAX {
        return Err(fields.invalid("logit_bias", format!("has more than {LOGIT_BIAS_MAX} entries")));
    }
    let entries = Fields::of_value(fields.path("logit_bias"), value)?;
    let read = |token: &String| {
        let id = token.parse::<Token>().ok().filter(|id| *id >= 0);
        let id = id.ok_or_else(|| {
            fields.invalid("logit_bias", format!("has the key '{token}', which is not a token id"))
        })?;
        Ok((id, entries.number(token, -100.0, 100.0)?.unwrap_or(0.0)))
    };
    biases.keys().map(read).collect()
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Refusal> {
    let stops = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop.clone()],
        Some(Value::Array(stops)) => {
            let read = |(index, stop): (usize, &Value)| match stop.as_str() {
                Some(stop) => Ok(stop.to_owned()),
                None => Err(wrong_type(format!("{}[{index}]", fields.path("stop")), "a string", stop)),
            };
            stops.iter().take(STOPS_MAX + 1).enumerate().map(read).collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_type(fields.path("stop"), "a string or an array of strings", other)),
    };
    if stops.len() > STOPS_MAX {
        return Err(fields.invalid("stop", format!("has more than {STOPS_MAX} entries")));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > STOP_BYTES_MAX) {
        let message =
            format!("has an entry of {} bytes, and at most {STOP_BYTES_MAX} are allowed", long.len());
        return Err(fields.invalid("stop", message));
    }
    // An empty stop string would match before the first token; the SDKs' users write it for "none".
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}

fn stream(fields: &Fields<'_>) -> Result<Option<StreamOptions>, Refusal> {
    let options = fields.object("stream_options")?;
    if !fields.boolean("stream")?.unwrap_or(false) {
        return Ok(None);
    }
    let include_usage = match &options {
        Some(options) => options.boolean("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Some(StreamOptions { include_usage }))
}

fn deadline(fields: &Fields<'_>) -> Result<Option<Duration>, Refusal> {
    let deadline_ms = fields.integer("deadline_ms", 1, DEADLINE_MS_MAX)?;
    Ok(deadline_ms.map(|ms| Duration::from_millis(ms.unsigned_abs())))
}

fn tier(fields: &Fields<'_>, name: &str) -> Result<Tier, Refusal> {
    Tier::named(name).ok_or_else(|| fields.invalid("priority", "must be one of vip, high, normal, low"))
}

/// Lengths of a prompt and its answer against the context.
pub fn fit(
    prompt_tokens: usize,
    wanted: Option<u32>,
    output_max: u32,
    context_length: u32,
    param: &str,
) -> Result<u32, Refusal> {
    let prompt = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
    let room = context_length.saturating_sub(prompt);
    if prompt == 0 {
        return Err(Refusal::new(Complaint::InvalidValue, param, format!("'{param}' must not be empty")));
    }
    if room == 0 {
        let message = format!(
            "this model's context holds {context_length} tokens, and the prompt has {prompt_tokens}; shorten it so \
             that at least one token of answer fits"
        );
        return Err(Refusal::new(Complaint::ContextLengthExceeded, param, message));
    }
    match wanted {
        Some(wanted) if wanted > room => {
            let message = format!(
                "this model's context holds {context_length} tokens, and {} were asked for ({prompt_tokens} in the \
                 prompt, {wanted} for the answer)",
                u64::from(prompt) + u64::from(wanted)
            );
            Err(Refusal::new(Complaint::ContextLengthExceeded, param, message))
        }
        Some(wanted) => Ok(wanted.min(output_max)),
        None => Ok(room.min(output_max)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: Value) -> Result<Parameters, Refusal> {
        let Value::Object(mut values) = body else { panic!("an object") };
        values.entry("model").or_insert(json!("m"));
        Parameters::read(&Fields::of_body(&values))
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        use Complaint::{InvalidType, InvalidValue, UnsupportedParameter};
        for (body, complaint, param) in [
            (json!({"temperature": 2.5}), InvalidValue, "temperature"),
            (json!({"temperature": "hot"}), InvalidType, "temperature"),
            (json!({"top_p": -0.1}), InvalidValue, "top_p"),
            (json!({"n": 0}), InvalidValue, "n"),
            (json!({"n": 9}), InvalidValue, "n"),
            (json!({"max_tokens": 0}), InvalidValue, "max_tokens"),
            (json!({"max_tokens": 1.5}), InvalidType, "max_tokens"),
            (json!({"stop": [1]}), InvalidType, "stop[0]"),
            (json!({"stop": vec!["x"; 17]}), InvalidValue, "stop"),
            (json!({"stop": "x".repeat(257)}), InvalidValue, "stop"),
            (json!({"logit_bias": {"x": 1}}), InvalidValue, "logit_bias"),
            (json!({"logit_bias": {"5": 101}}), InvalidValue, "logit_bias.5"),
            (json!({"stream": "yes"}), InvalidType, "stream"),
            (
                json!({"stream": true, "stream_options": {"include_usage": 1}}),
                InvalidType,
                "stream_options.include_usage",
            ),
            (json!({"priority": "first"}), InvalidValue, "priority"),
            (json!({"deadline_ms": 0}), InvalidValue, "deadline_ms"),
            (json!({"tools": [{"type": "function"}]}), UnsupportedParameter, "tools"),
            (json!({"tool_choice": "required"}), UnsupportedParameter, "tool_choice"),
            (json!({"functions": [{}]}), UnsupportedParameter, "functions"),
            (json!({"audio": {}}), UnsupportedParameter, "audio"),
            (json!({"modalities": ["text", "audio"]}), UnsupportedParameter, "modalities"),
            (json!({"response_format": {"type": "json_object"}}), UnsupportedParameter, "response_format"),
            (json!({"web_search_options": {}}), UnsupportedParameter, "web_search_options"),
        ] {
            let refusal = check(body.clone()).expect_err(&body.to_string());
            assert_eq!((refusal.complaint, refusal.param.as_deref()), (complaint, Some(param)), "{body}");
        }
    }

    #[test]
    fn what_only_labels_a_request_is_ignored_and_nulls_are_absent() {
        let parameters = check(json!({
            "metadata": {"a": "b"}, "store": true, "safety_identifier": "x", "prompt_cache_key": "k",
            "service_tier": "auto", "verbosity": "low", "prediction": null, "parallel_tool_calls": true,
            "tools": [], "temperature": null, "stop": null, "n": null, "an_unknown_field": [1, 2],
            "response_format": {"type": "text"}, "modalities": ["text"], "stream_options": null,
        }))
        .unwrap();
        assert_eq!(parameters, check(json!({})).unwrap());
    }

    #[test]
    fn the_newer_name_of_max_tokens_wins() {
        let parameters = check(json!({"max_tokens": 5, "max_completion_tokens": 7})).unwrap();
        assert_eq!(parameters.max_tokens, Some(7));
    }

    #[test]
    fn the_answer_gets_what_fits() {
        assert_eq!(fit(10, None, 1_000, 64, "prompt"), Ok(54));
        assert_eq!(fit(10, None, 20, 64, "prompt"), Ok(20));
        assert_eq!(fit(10, Some(54), 1_000, 64, "prompt"), Ok(54));
        let refused = |prompt, wanted| fit(prompt, wanted, 1_000, 64, "prompt").unwrap_err().complaint;
        assert_eq!(refused(10, Some(55)), Complaint::ContextLengthExceeded);
        assert_eq!(refused(64, None), Complaint::ContextLengthExceeded);
        assert_eq!(refused(0, None), Complaint::InvalidValue);
    }
}
