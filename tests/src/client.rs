//! A client of the OpenAI endpoints that notes when things happened. It never retries: a failure is a failure.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: String,
    /// When the first piece of text arrived.
    pub first_token: Instant,
    /// The revision that served it, by the response's header.
    pub revision: String,
    /// What was told before the first piece of text, without the colon.
    pub comments: Vec<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// What kind of end it was.
    pub end: End,
    /// In words.
    pub message: String,
}

/// How a request ended that was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// No response: the connection failed.
    NoResponse,
    /// An error instead of an answer.
    Status(u16),
    /// An error frame in a stream. Whether the stream was then broken off, as it must be: a client that knows no error
    /// frames would take a clean end for the whole answer.
    ErrorFrame {
        /// Whether it was.
        is_broken_off: bool,
    },
    /// Broken off without a word.
    BrokenOff,
    /// A clean end of half an answer.
    Truncated,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.end, self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    fn new(end: End, message: impl fmt::Display) -> Self {
        Self { end, message: format!("{message:#}") }
    }

    /// The `code` of the error that was told, or nothing.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.message).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Client of one base URL.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client with its own connections, of a base URL that ends in `/v1`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(base: String) -> Result<Self> {
        Ok(Self { http: http()?, base })
    }

    /// A plain GET below the base URL's host: `/v1/…` paths start at the base.
    ///
    /// # Errors
    /// No response, or an error.
    pub async fn get(&self, path: &str) -> Result<String> {
        let root = self.base.strip_suffix("/v1").context("a base URL ends in /v1")?;
        let response = self.http.get(format!("{root}{path}")).send().await?;
        ensure!(response.status().is_success(), "GET {path}: {}", response.status());
        Ok(response.text().await?)
    }

    /// One chat question, answered in one piece.
    ///
    /// # Errors
    /// Anything but an answer.
    pub async fn ask(&self, body: &Value) -> Result<Answer, Failure> {
        let response = self.post("/chat/completions", body).await?;
        let revision = header(&response, "x-inferno-revision");
        let first_token = Instant::now();
        let answer: Value = response
            .json()
            .await
            .map_err(|error| Failure::new(End::BrokenOff, anyhow::Error::from(error)))?;
        let choice = &answer["choices"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if choice["finish_reason"].is_null() {
            return Err(Failure::new(End::Truncated, answer));
        }
        Ok(Answer {
            text: text(&choice["message"]["content"]),
            finish_reason: text(&choice["finish_reason"]),
            first_token,
            revision,
            comments: Vec::new(),
        })
    }

    /// One chat question, answered as a stream. An error frame, and an end without a finish reason, are failures.
    ///
    /// # Errors
    /// Anything but an answer.
    pub async fn stream(&self, body: &Value) -> Result<Answer, Failure> {
        self.stream_and_tell(body, |_| {}).await
    }

    /// As [`Client::stream`]; `tell` hears of every comment and, once, of the first piece of text.
    ///
    /// # Errors
    /// Anything but an answer.
    pub async fn stream_and_tell(
        &self,
        body: &Value,
        mut tell: impl FnMut(Heard<'_>),
    ) -> Result<Answer, Failure> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let response = self.post("/chat/completions", &body).await?;
        let mut reading = Reading {
            answer: Answer {
                text: String::new(),
                finish_reason: String::new(),
                first_token: Instant::now(),
                revision: header(&response, "x-inferno-revision"),
                comments: Vec::new(),
            },
            error: None,
        };
        let mut bytes = response.bytes_stream();
        let mut pending = Vec::new();
        while let Some(piece) = bytes.next().await {
            let Ok(piece) = piece else { return Err(reading.broken_off()) };
            pending.extend_from_slice(&piece);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                reading.line(String::from_utf8_lossy(&line).trim_end(), &mut tell);
            }
        }
        reading.end()
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response, Failure> {
        let sent = self.http.post(format!("{}{path}", self.base)).json(body).send().await;
        let response = sent.map_err(|error| Failure::new(End::NoResponse, anyhow::Error::from(error)))?;
        let status = response.status();
        if !status.is_success() {
            let end = End::Status(status.as_u16());
            return Err(Failure::new(end, response.text().await.unwrap_or_default()));
        }
        Ok(response)
    }
}

/// What is heard of a stream while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A comment, without the colon.
    Comment(&'a str),
    /// The first piece of text.
    Text,
}

/// A stream as far as it has been read.
struct Reading {
    answer: Answer,
    error: Option<Value>,
}

impl Reading {
    fn line(&mut self, line: &str, tell: &mut impl FnMut(Heard<'_>)) {
        if let Some(comment) = line.strip_prefix(':') {
            tell(Heard::Comment(comment.trim_start()));
            if self.answer.text.is_empty() {
                self.answer.comments.push(comment.trim_start().to_owned());
            }
        }
        let Some(data) = line.strip_prefix("data: ") else { return };
        // What is no JSON leaves the answer without an end, which is a failure; `[DONE]` comes after the end.
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        if chunk.get("error").is_some() {
            self.error = Some(chunk);
            return;
        }
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
            if self.answer.text.is_empty() {
                self.answer.first_token = Instant::now();
                tell(Heard::Text);
            }
            self.answer.text.push_str(text);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            reason.clone_into(&mut self.answer.finish_reason);
        }
    }

    fn broken_off(self) -> Failure {
        match self.error {
            Some(error) => Failure::new(End::ErrorFrame { is_broken_off: true }, error),
            None => Failure::new(End::BrokenOff, format!("after {:?}", self.answer.text)),
        }
    }

    fn end(self) -> Result<Answer, Failure> {
        match self.error {
            Some(error) => Err(Failure::new(End::ErrorFrame { is_broken_off: false }, error)),
            None if self.answer.finish_reason.is_empty() => {
                Err(Failure::new(End::Truncated, format!("after {:?}", self.answer.text)))
            }
            None => Ok(self.answer),
        }
    }
}

/// A client without a proxy and without patience beyond two minutes.
///
/// # Errors
/// TLS cannot be set up.
pub fn http() -> Result<reqwest::Client> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(120)).no_proxy().build()?)
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// A chat request of one user message.
pub fn chat(model: &str, question: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 120})
}

/// A chat request that goes on for exactly so many tokens.
pub fn long_chat(model: &str, question: &str, tokens: usize) -> Value {
    let mut body = chat(model, question);
    body["max_tokens"] = json!(tokens);
    body["ignore_eos"] = json!(true);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Reading {
        let answer = Answer {
            text: String::new(),
            finish_reason: String::new(),
            first_token: Instant::now(),
            revision: String::new(),
            comments: Vec::new(),
        };
        let mut reading = Reading { answer, error: None };
        for line in lines {
            reading.line(line, &mut |_| {});
        }
        reading
    }

    const TEXT: &str = r#"data: {"choices":[{"delta":{"content":"a"}}]}"#;
    const FINISH: &str = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const ERROR: &str = r#"data: {"error":{"code":"pod_lost"}}"#;

    #[test]
    fn only_a_finished_stream_is_an_answer() {
        let answer = read(&[": wait", TEXT, ": late", FINISH, "data: [DONE]"]).end().unwrap();
        assert_eq!((answer.text.as_str(), answer.finish_reason.as_str()), ("a", "stop"));
        assert_eq!(answer.comments, ["wait"]);
        assert_eq!(read(&[TEXT]).end().unwrap_err().end, End::Truncated);
        assert_eq!(read(&[TEXT]).broken_off().end, End::BrokenOff);
    }

    #[test]
    fn an_error_frame_is_one_however_the_stream_ends() {
        let failure = read(&[TEXT, ERROR]).broken_off();
        assert_eq!(failure.end, End::ErrorFrame { is_broken_off: true });
        assert_eq!(failure.code(), "pod_lost");
        let ended = read(&[TEXT, ERROR, FINISH]).end().unwrap_err();
        assert_eq!(ended.end, End::ErrorFrame { is_broken_off: false });
    }
}
