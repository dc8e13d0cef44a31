//! The set of prompts as a ConfigMap holds it: each entry is one YAML document with one prompt. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jsonschema::{PatternOptions, Validator};
use k8s_openapi::api::core::v1::ConfigMap;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::expect::Expectations;
use crate::problem::{Problem, Reason};

/// Asked one after another, a set takes minutes; more would delay every rollout.
const PROMPTS_MAX: usize = 50;
/// A page of text and a schema.
const ENTRY_BYTES_MAX: usize = 16 * 1024;
/// Turns of a conversation.
const MESSAGES_MAX: usize = 32;
/// Texts that one answer must contain.
const TEXTS_MAX: usize = 16;
/// Longest pattern.
const REGEX_CHARS_MAX: usize = 1_000;
/// Memory of a compiled pattern; a hundred times what sensible ones need.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// What an answer may have when its prompt does not say.
const OUTPUT_TOKENS: u32 = 256;
/// What it may have at most.
const OUTPUT_TOKENS_MAX: u32 = 4_096;
/// Longest time to wait for an answer.
pub const LATENCY_MS_MAX: u64 = 120_000;

/// Prompts with what is expected of their answers.
#[derive(Debug, Clone)]
pub struct Set {
    /// Over everything in it.
    pub hash: String,
    /// In the order of their names.
    pub prompts: Vec<Prompt>,
}

/// One prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The ConfigMap's entry.
    pub name: String,
    /// What is asked.
    pub question: Question,
    /// Tokens that the answer may have.
    pub tokens_max: u32,
    /// What is expected of it.
    pub expected: Expectations,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The chat endpoint.
    Chat(Vec<Message>),
    /// The completions endpoint.
    Text(String),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    role: Role,
    content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    User,
    Assistant,
}

/// One entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    max_tokens: Option<u32>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expect {
    #[serde(default)]
    contains: Vec<String>,
    regex: Option<String>,
    json_schema: Option<Value>,
    max_latency_ms: Option<u64>,
}

/// Reads the set that `spec.rollout.goldenPrompts` names; the problem names the entry, its field, and the cure.
pub fn read(name: &str, namespace: &str, found: Option<&ConfigMap>) -> Result<Set, Problem> {
    let field = format!("spec.rollout.goldenPrompts.configMapRef.name is {name}");
    let config_map = found.ok_or_else(|| {
        let message =
            format!("{field}, but namespace {namespace} has no such ConfigMap; create it or name another");
        Problem::new(Reason::GoldenPromptsNotFound, message)
    })?;
    parse(config_map.data.as_ref().unwrap_or(&BTreeMap::new())).map_err(|what| {
        Problem::new(Reason::GoldenPromptsInvalid, format!("{field}, but {what}; correct the ConfigMap"))
    })
}

/// Reads all entries.
pub fn parse(data: &BTreeMap<String, String>) -> Result<Set, String> {
    if data.is_empty() {
        return Err("it has no entry; each entry of data is a prompt".to_owned());
    }
    if data.len() > PROMPTS_MAX {
        return Err(format!("it has {} entries; there may be {PROMPTS_MAX}", data.len()));
    }
    let prompts = data
        .iter()
        .map(|(name, text)| prompt(name, text).map_err(|what| format!("entry {name}: {what}")))
        .collect::<Result<_, _>>()?;
    let mut digest = Sha256::new();
    for part in data.iter().flat_map(|(name, text)| [name, text]) {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    Ok(Set { hash: hex::encode(&digest.finalize()[..8]), prompts })
}

fn prompt(name: &str, text: &str) -> Result<Prompt, String> {
    if text.len() > ENTRY_BYTES_MAX {
        return Err(format!("it has {} bytes; there may be {ENTRY_BYTES_MAX}", text.len()));
    }
    let document: Document = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let tokens_max = document.max_tokens.unwrap_or(OUTPUT_TOKENS);
    if !(1..=OUTPUT_TOKENS_MAX).contains(&tokens_max) {
        return Err(format!("maxTokens must be between 1 and {OUTPUT_TOKENS_MAX}"));
    }
    let question = match (document.messages, document.prompt) {
        (Some(messages), None) if (1..=MESSAGES_MAX).contains(&messages.len()) => Question::Chat(messages),
        (Some(_), None) => return Err(format!("messages must have 1 to {MESSAGES_MAX} messages")),
        (None, Some(prompt)) if !prompt.is_empty() => Question::Text(prompt),
        (None, Some(_)) => return Err("prompt must not be empty".to_owned()),
        _ => return Err("there must be either messages or prompt".to_owned()),
    };
    Ok(Prompt { name: name.to_owned(), question, tokens_max, expected: expectations(document.expect)? })
}

fn expectations(expect: Expect) -> Result<Expectations, String> {
    let Expect { contains, regex, json_schema, max_latency_ms } = expect;
    if contains.is_empty() && regex.is_none() && json_schema.is_none() && max_latency_ms.is_none() {
        return Err("expect must have contains, regex, jsonSchema or maxLatencyMs".to_owned());
    }
    if contains.len() > TEXTS_MAX || contains.iter().any(String::is_empty) {
        return Err(format!("expect.contains may have {TEXTS_MAX} texts, none of them empty"));
    }
    if max_latency_ms.is_some_and(|limit| !(1..=LATENCY_MS_MAX).contains(&limit)) {
        return Err(format!("expect.maxLatencyMs must be between 1 and {LATENCY_MS_MAX}"));
    }
    Ok(Expectations {
        contains,
        regex: regex.as_deref().map(pattern).transpose()?,
        schema: json_schema.as_ref().map(schema).transpose()?,
        latency_max: max_latency_ms.map(Duration::from_millis),
    })
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.chars().count() > REGEX_CHARS_MAX {
        return Err(format!("expect.regex may have {REGEX_CHARS_MAX} characters"));
    }
    let built = RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| format!("expect.regex cannot be read: {error}"))
}

/// A schema that fetches nothing, and whose patterns are matched in linear time.
fn schema(schema: &Value) -> Result<Validator, String> {
    let patterns = PatternOptions::regex().size_limit(REGEX_BYTES_MAX);
    let built = jsonschema::options().offline().with_pattern_options(patterns).build(schema);
    built.map_err(|error| format!("expect.jsonSchema is no schema: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        let found = parse(&[("a.yaml".to_owned(), text.to_owned())].into()).map(drop);
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(part)) => {
                assert!(found.starts_with("entry a.yaml: ") && found.contains(part), "{found}");
            }
            _ => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn chats_and_plain_prompts_are_read() {
        check("{messages: [{role: user, content: Hello}], expect: {contains: [hello]}}", Ok(()));
        check("{prompt: Hello, maxTokens: 8, expect: {regex: '(?i)hi', maxLatencyMs: 900}}", Ok(()));
        check("{prompt: Hello, expect: {jsonSchema: {type: object, required: [city]}}}", Ok(()));
    }

    #[test]
    fn a_mistake_names_its_field() {
        let expect = "expect: {contains: [a]}";
        check(&format!("{{{expect}}}"), Err("either messages or prompt"));
        check(&format!("{{prompt: a, messages: [], {expect}}}"), Err("either messages or prompt"));
        check(&format!("{{messages: [], {expect}}}"), Err("1 to 32"));
        check(&format!("{{messages: [{{role: robot, content: a}}], {expect}}}"), Err("robot"));
        check(&format!("{{prompt: a, maxTokens: 0, {expect}}}"), Err("maxTokens"));
        check(&format!("{{prompt: a, temperature: 1, {expect}}}"), Err("temperature"));
        check("{prompt: a, expect: {}}", Err("expect must have"));
        check("{prompt: a, expect: {contains: ['']}}", Err("expect.contains"));
        check("{prompt: a, expect: {maxLatencyMs: 0}}", Err("expect.maxLatencyMs"));
        check("{prompt: a, expect: {regex: '('}}", Err("expect.regex"));
        check("{prompt: a, expect: {regex: '(a{1000}){1000}'}}", Err("expect.regex"));
        check("{prompt: a, expect: {jsonSchema: {type: thing}}}", Err("expect.jsonSchema"));
        check(
            "{prompt: a, expect: {jsonSchema: {$ref: 'https://example.com/s.json'}}}",
            Err("expect.jsonSchema"),
        );
        check("{prompt: a, expect: {jsonSchema: {pattern: '(a{1000}){1000}'}}}", Err("expect.jsonSchema"));
        check("prompt: [", Err("line 1"));
        check(&format!("prompt: {}", "x".repeat(20_000)), Err("bytes"));
    }

    #[test]
    fn the_set_has_a_limit_and_a_hash_over_everything() {
        let entry = |number: usize, text: &str| {
            (format!("{number:03}"), format!("{{prompt: {text}, expect: {{contains: [a]}}}}"))
        };
        let many: BTreeMap<_, _> = (0..51).map(|number| entry(number, "a")).collect();
        assert!(parse(&many).unwrap_err().contains("51 entries"));
        assert!(parse(&BTreeMap::new()).unwrap_err().contains("no entry"));
        let hash = |text: &str| parse(&[entry(1, text)].into()).unwrap().hash;
        assert_eq!(hash("a"), hash("a"));
        assert_ne!(hash("a"), hash("b"));
    }

    #[test]
    fn a_set_that_is_missing_or_wrong_is_a_problem_of_its_field() {
        let missing = read("smoke", "ml", None).unwrap_err();
        assert_eq!(missing.reason, Reason::GoldenPromptsNotFound);
        assert!(
            missing
                .message
                .starts_with("spec.rollout.goldenPrompts.configMapRef.name is smoke, but namespace ml")
        );
        let empty = read("smoke", "ml", Some(&ConfigMap::default())).unwrap_err();
        assert_eq!(empty.reason, Reason::GoldenPromptsInvalid);
    }
}
