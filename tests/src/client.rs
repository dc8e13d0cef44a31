//! A client of the OpenAI endpoints that notes when things happened. It never retries: a failure is a failure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
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
}

/// Client of one base URL.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client with its own connections.
    pub fn new(base: String) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).no_proxy().build()?;
        Ok(Self { http, base })
    }

    /// A plain GET below the base URL's host: `/v1/…` paths start at the base.
    pub async fn get(&self, path: &str) -> Result<String> {
        let root = self.base.strip_suffix("/v1").context("a base URL ends in /v1")?;
        let response = self.http.get(format!("{root}{path}")).send().await?;
        ensure!(response.status().is_success(), "GET {path}: {}", response.status());
        Ok(response.text().await?)
    }

    /// One chat question, answered in one piece.
    pub async fn ask(&self, body: &Value) -> Result<Answer> {
        let response = self.post("/chat/completions", body).await?;
        let revision = header(&response, "x-inferno-revision");
        let first_token = Instant::now();
        let answer: Value = response.json().await?;
        let choice = &answer["choices"][0];
        Ok(Answer {
            text: choice["message"]["content"].as_str().context("an answer has content")?.to_owned(),
            finish_reason: choice["finish_reason"].as_str().unwrap_or_default().to_owned(),
            first_token,
            revision,
        })
    }

    /// One chat question, answered as a stream. An error frame, and an end without a finish reason, are errors.
    pub async fn stream(&self, body: &Value) -> Result<Answer> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let response = self.post("/chat/completions", &body).await?;
        let mut answer = Answer {
            text: String::new(),
            finish_reason: String::new(),
            first_token: Instant::now(),
            revision: header(&response, "x-inferno-revision"),
        };
        let mut bytes = response.bytes_stream();
        let mut pending = Vec::new();
        while let Some(piece) = bytes.next().await {
            pending.extend_from_slice(&piece.context("the stream broke off")?);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                read_line(&mut answer, std::str::from_utf8(&line)?.trim_end())?;
            }
        }
        ensure!(!answer.finish_reason.is_empty(), "the stream ended without a finish reason");
        Ok(answer)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response> {
        let response = self.http.post(format!("{}{path}", self.base)).json(body).send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!("POST {path}: {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(response)
    }
}

fn read_line(answer: &mut Answer, line: &str) -> Result<()> {
    let Some(data) = line.strip_prefix("data: ") else { return Ok(()) };
    if data == "[DONE]" {
        return Ok(());
    }
    let chunk: Value = serde_json::from_str(data)?;
    ensure!(chunk.get("error").is_none(), "error frame: {}", chunk["error"]);
    let choice = &chunk["choices"][0];
    if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
        if answer.text.is_empty() {
            answer.first_token = Instant::now();
        }
        answer.text.push_str(text);
    }
    if let Some(reason) = choice["finish_reason"].as_str() {
        reason.clone_into(&mut answer.finish_reason);
    }
    Ok(())
}

fn header(response: &reqwest::Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// A chat request of one user message.
pub fn chat(model: &str, question: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 120})
}
