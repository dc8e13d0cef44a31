//! Asks a pod the prompts of a set and remembers what came of it. When to ask, and what it means, is decided in `plan`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast};

use super::Outcome;
use super::expect::Answer;
use super::set::{LATENCY_MS_MAX, Prompt, Question, Set};
use super::standing::Finding;
use crate::problem::one_line;
use crate::report::Wake;

/// Sets asked at once; each asks one prompt after another, so that what it measures is the prompt and not the queue.
const RUNS_MAX: usize = 4;
/// Findings remembered: one for each revision that is new, step, and set.
const FINDINGS_MAX: usize = 10_000;
/// An answer of the most tokens, many times over; more is not read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How much of an error message is quoted.
const ERROR_CHARS_MAX: usize = 120;

/// Asks golden prompts. A handle: clones share what is remembered.
#[derive(Clone)]
pub struct Runner {
    client: Client,
    permits: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
    wake: broadcast::Sender<Wake>,
}

/// A model's UID, a revision, a step, and the hash of a set.
type Key = (String, String, u32, String);

#[derive(Default)]
struct Memory {
    findings: HashMap<Key, Finding>,
    asking: HashSet<Key>,
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Whose finding it is.
    pub revision: String,
    /// At which step of its rollout.
    pub step: u32,
    /// One of its pods, ending in `/v1`.
    pub base_url: String,
    /// Value of `model` in the requests.
    pub model_name: String,
}

/// Why a prompt has no outcome.
enum Obstacle {
    /// The model is to blame.
    Failure(String),
    /// The way there, or a pod that is busy.
    Passing(String),
}

impl Runner {
    /// A runner that wakes the models it has findings for.
    pub fn new(wake: broadcast::Sender<Wake>) -> reqwest::Result<Self> {
        let timeout = Duration::from_millis(LATENCY_MS_MAX);
        let client = Client::builder().timeout(timeout).no_proxy().pool_max_idle_per_host(0).build()?;
        Ok(Self { client, permits: Arc::new(Semaphore::new(RUNS_MAX)), memory: Arc::default(), wake })
    }

    /// What is remembered about a model.
    pub fn findings(&self, uid: &str) -> Vec<Finding> {
        let memory = self.memory();
        memory.findings.iter().filter(|((of, ..), _)| of == uid).map(|(_, finding)| finding.clone()).collect()
    }

    /// Forgets a revision that is being removed.
    pub fn forget(&self, uid: &str, revision: &str) {
        self.memory().findings.retain(|(of, name, ..), _| of != uid || name != revision);
    }

    /// Asks in the background, unless the same is being asked or too many are. `uid` is the model's.
    pub fn ask(&self, uid: &str, wake: Wake, request: Request, set: Arc<Set>) {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else { return };
        let key = (uid.to_owned(), request.revision.clone(), request.step, set.hash.clone());
        if !self.memory().asking.insert(key.clone()) {
            return;
        }
        let runner = self.clone();
        tokio::spawn(async move {
            let result = run(&runner.client, &request, &set).await;
            match &result {
                Ok(Outcome { passed, total, failures, .. }) => {
                    tracing::info!(
                        request.revision,
                        request.step,
                        passed,
                        total,
                        ?failures,
                        "golden prompts asked"
                    );
                }
                Err(obstacle) => tracing::debug!(request.revision, obstacle, "golden prompts not asked"),
            }
            runner.remember(key, result, Timestamp::now());
            drop(permit);
            // Nobody listens only at the very end.
            let _ = runner.wake.send(wake);
        });
    }

    fn remember(&self, key: Key, result: Result<Outcome, String>, now: Timestamp) {
        let mut memory = self.memory();
        memory.asking.remove(&key);
        let (uid, revision, step, set_hash) = key.clone();
        // An edited set replaces the old one.
        memory.findings.retain(|(of, name, at, _), _| (of, name, *at) != (&uid, &revision, step));
        if memory.findings.len() >= FINDINGS_MAX {
            memory.findings.clear();
        }
        memory.findings.insert(key, Finding { revision, step, set_hash, tried_at: now, result });
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks all prompts; the first that cannot be asked ends it.
async fn run(client: &Client, request: &Request, set: &Set) -> Result<Outcome, String> {
    let mut failures = Vec::new();
    for prompt in &set.prompts {
        match answered(client, request, prompt).await {
            Ok(()) => {}
            Err(Obstacle::Failure(what)) => failures.push(one_line(&format!("{}: {what}", prompt.name))),
            Err(Obstacle::Passing(what)) => {
                return Err(one_line(&format!("golden prompt {} could not be asked: {what}", prompt.name)));
            }
        }
    }
    Ok(Outcome::new(set.prompts.len(), failures))
}

/// Asks one prompt. One that was too slow gets a second chance: a busy moment of the node is no fault of the model.
async fn answered(client: &Client, request: &Request, prompt: &Prompt) -> Result<(), Obstacle> {
    let mut failure = None;
    for _ in 0..2 {
        let Answer { text, took } = ask(client, request, prompt).await?;
        if let Some(what) = prompt.expected.content_failure(&text) {
            return Err(Obstacle::Failure(what));
        }
        failure = prompt.expected.latency_failure(took);
        if failure.is_none() {
            return Ok(());
        }
    }
    Err(Obstacle::Failure(failure.unwrap_or_default()))
}

async fn ask(client: &Client, request: &Request, prompt: &Prompt) -> Result<Answer, Obstacle> {
    let (path, asked) = match &prompt.question {
        Question::Chat(messages) => ("chat/completions", json!({ "messages": messages })),
        Question::Text(text) => ("completions", json!({ "prompt": text })),
    };
    let mut body = json!({"model": request.model_name, "max_tokens": prompt.tokens_max, "temperature": 0});
    if let (Some(body), Value::Object(asked)) = (body.as_object_mut(), asked) {
        body.extend(asked);
    }
    let began = Instant::now();
    let sent = client.post(format!("{}/{path}", request.base_url)).json(&body).send().await;
    let mut response = sent.map_err(obstacle)?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(obstacle)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Obstacle::Failure(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    let text = read(status, &bytes)?;
    Ok(Answer { text, took: began.elapsed() })
}

/// The generated text.
fn read(status: StatusCode, bytes: &[u8]) -> Result<String, Obstacle> {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    if status.is_success() {
        let choice = &body["choices"][0];
        let text = choice["message"]["content"].as_str().or_else(|| choice["text"].as_str());
        return text.map(str::to_owned).ok_or_else(|| Obstacle::Failure("the answer has no text".to_owned()));
    }
    let message: String =
        body["error"]["message"].as_str().unwrap_or("no message").chars().take(ERROR_CHARS_MAX).collect();
    let what = format!("{}: {message}", status.as_u16());
    // A pod that loads, drains or is full says nothing about the model.
    Err(match status.as_u16() {
        408 | 429 | 502..=504 => Obstacle::Passing(what),
        _ => Obstacle::Failure(format!("answered with {what}")),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed over by map_err")]
fn obstacle(error: reqwest::Error) -> Obstacle {
    if error.is_timeout() {
        return Obstacle::Failure(format!("no answer within {} s", LATENCY_MS_MAX / 1_000));
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Obstacle::Passing(one_line(&cause.to_string()))
}
