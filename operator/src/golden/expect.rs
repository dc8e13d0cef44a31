//! Whether an answer is as expected. What is said of it quotes the expectation and never the answer. Pure.

use std::time::Duration;

use jsonschema::Validator;
use regex::Regex;
use serde_json::Value;

/// So much of an expectation is quoted.
const QUOTE_CHARS_MAX: usize = 60;

/// What is expected of an answer; all of it.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    /// Each is part of the text.
    pub contains: Vec<String>,
    /// Matches somewhere in the text.
    pub regex: Option<Regex>,
    /// The whole text is JSON that it accepts.
    pub schema: Option<Validator>,
    /// From the request to the last byte of the answer.
    pub latency_max: Option<Duration>,
}

/// What a prompt was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was generated.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

impl Expectations {
    /// What is wrong with the text, if anything is.
    pub fn content_failure(&self, text: &str) -> Option<String> {
        let missing = self.contains.iter().find(|part| !text.contains(part.as_str()));
        if let Some(part) = missing {
            return Some(format!("the answer does not contain \"{}\"", quoted(part)));
        }
        if let Some(regex) = self.regex.as_ref().filter(|regex| !regex.is_match(text)) {
            return Some(format!("the answer does not match {}", quoted(regex.as_str())));
        }
        self.schema.as_ref().and_then(|schema| schema_failure(schema, text))
    }

    /// What is wrong with the time that it took.
    pub fn latency_failure(&self, took: Duration) -> Option<String> {
        let limit = self.latency_max.filter(|limit| took > *limit)?;
        Some(format!("the answer took {} ms of {} ms", took.as_millis(), limit.as_millis()))
    }
}

fn schema_failure(schema: &Validator, text: &str) -> Option<String> {
    let Ok(value) = serde_json::from_str::<Value>(text.trim()) else {
        return Some("the answer is not JSON".to_owned());
    };
    let error = schema.iter_errors(&value).next()?;
    let path = error.instance_path().to_string();
    let place = if path.is_empty() { "the answer".to_owned() } else { quoted(&path) };
    // Masked: without the value, which is part of the answer.
    Some(format!("{place} does not meet jsonSchema: {}", quoted(&error.masked().to_string())))
}

fn quoted(text: &str) -> String {
    let mut quote: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quote.push('…');
    }
    quote
}

#[cfg(test)]
mod tests {
    use super::super::set::parse;

    fn check(expect: &str, text: &str, expected: Option<&str>) {
        let entry = format!("{{prompt: a, expect: {expect}}}");
        let set = parse(&[("a".to_owned(), entry)].into()).unwrap();
        let found = set.prompts[0].expected.content_failure(text);
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(part)) => {
                assert!(found.contains(part) && !found.contains("secret"), "{found}");
            }
            _ => panic!("{expect} of {text}: {found:?}"),
        }
    }

    #[test]
    fn texts_and_patterns() {
        check("{contains: [Paris, France]}", "Paris is in France.", None);
        check("{contains: [Paris, France]}", "secret Paris", Some("does not contain \"France\""));
        check("{regex: '(?i)\\bparis\\b'}", "It is PARIS.", None);
        check("{regex: '^paris$'}", "secret", Some("does not match ^paris$"));
    }

    #[test]
    fn schemas() {
        let schema = "{jsonSchema: {type: object, required: [city], properties: {city: {type: string, pattern: '^P'}}}}";
        check(schema, " {\"city\": \"Paris\"}\n", None);
        check(schema, "{\"city\": \"secret\"}", Some("/city does not meet jsonSchema"));
        check(schema, "{\"secret\": 1}", Some("does not meet jsonSchema"));
        check(schema, "secret", Some("not JSON"));
        check("{jsonSchema: {type: array, maxItems: 1}}", "[1, 2]", Some("does not meet jsonSchema"));
    }

    #[test]
    fn a_schema_that_only_names_itself_ends() {
        check("{jsonSchema: {$ref: '#/$defs/a', $defs: {a: {items: {$ref: '#/$defs/a'}}}}}", "[[[]]]", None);
    }

    #[test]
    fn latency() {
        let set =
            parse(&[("a".to_owned(), "{prompt: a, expect: {maxLatencyMs: 50}}".to_owned())].into()).unwrap();
        let failure = |ms| set.prompts[0].expected.latency_failure(std::time::Duration::from_millis(ms));
        assert_eq!((failure(50), failure(51)), (None, Some("the answer took 51 ms of 50 ms".to_owned())));
    }
}
