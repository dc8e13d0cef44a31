//! Asks a model for one token and remembers what came of it. When to ask, and what it means, is decided in `plan`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast};

use crate::metrics::Metrics;
use crate::plan::{ProbeRequest, Proof, Route};
use crate::problem::one_line;
use crate::report::Wake;

/// A token from an idle model takes milliseconds, behind a full queue of long prompts some seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Probes on their way at once.
const PROBES_MAX: usize = 16;
/// An answer is a few hundred bytes; more is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Names the revision that should answer.
const REVISION_HEADER: &str = "x-inferno-revision";
/// A proof that nobody has renewed for so long belongs to a revision that is gone.
const PROOF_SECONDS_MAX: i64 = 600;

/// Asks for tokens. A handle: clones share what is remembered.
#[derive(Clone)]
pub struct Prober {
    client: Option<reqwest::Client>,
    permits: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
    wake: broadcast::Sender<Wake>,
    metrics: Metrics,
}

type Key = (String, String, Route);

#[derive(Default)]
struct Memory {
    proofs: HashMap<Key, Proof>,
    asking: std::collections::HashSet<Key>,
}

/// Whom a probe is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The model's UID.
    pub uid: String,
    /// Who is woken when the answer is there.
    pub wake: Wake,
}

impl Prober {
    /// A prober that asks through `client`; without one, ready pods count as serving.
    pub fn new(client: Option<reqwest::Client>, wake: broadcast::Sender<Wake>, metrics: Metrics) -> Self {
        let permits = Arc::new(Semaphore::new(PROBES_MAX));
        Self { client, permits, memory: Arc::default(), wake, metrics }
    }

    /// The HTTP client for probes.
    pub fn client() -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder().timeout(TIMEOUT).no_proxy().pool_max_idle_per_host(0).build()
    }

    /// Whether tokens are asked for.
    pub fn is_on(&self) -> bool {
        self.client.is_some()
    }

    /// What is remembered about a model.
    pub fn proofs(&self, uid: &str) -> Vec<Proof> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.proofs.iter().filter(|((of, ..), _)| of == uid).map(|(_, proof)| proof.clone()).collect()
    }

    /// Forgets a revision that is being removed: should it come back, it has to prove itself again.
    pub fn forget(&self, uid: &str, revision: &str) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.proofs.retain(|(of, name, _), _| of != uid || name != revision);
    }

    /// Asks in the background, unless the same question is on its way or too many are.
    pub fn ask(&self, subject: Subject, request: ProbeRequest) {
        let (Some(client), Ok(permit)) = (self.client.clone(), self.permits.clone().try_acquire_owned())
        else {
            return;
        };
        let key = (subject.uid.clone(), request.revision.clone(), request.route);
        let is_new = self.memory.lock().unwrap_or_else(PoisonError::into_inner).asking.insert(key.clone());
        if !is_new {
            return;
        }
        let prober = self.clone();
        tokio::spawn(async move {
            let outcome = one_token(&client, &request).await;
            prober.remember(key, &request, outcome, Timestamp::now());
            drop(permit);
            let _ = prober.wake.send(subject.wake);
        });
    }

    fn remember(&self, key: Key, request: &ProbeRequest, outcome: Result<(), Silence>, now: Timestamp) {
        let label = if outcome.is_ok() { "served" } else { "failed" };
        self.metrics.probes_total.with_label_values(&[label]).inc();
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.asking.remove(&key);
        memory.proofs.retain(|_, proof| now.as_second() - proof.tried_at.as_second() < PROOF_SECONDS_MAX);
        let before = memory.proofs.get(&key);
        let proof = Proof {
            revision: request.revision.clone(),
            route: request.route,
            tried_at: now,
            failures: if outcome.is_ok() { 0 } else { before.map_or(0, |before| before.failures) + 1 },
            has_succeeded: outcome.is_ok() || before.is_some_and(|before| before.has_succeeded),
            is_unreached: outcome.as_ref().is_err_and(|silence| silence.is_unreached),
            error: outcome.err().map(|silence| silence.what),
        };
        memory.proofs.insert(key, proof);
    }
}

/// Why no token came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Silence {
    what: String,
    /// Nobody listened.
    is_unreached: bool,
}

impl From<String> for Silence {
    fn from(what: String) -> Self {
        Self { what, is_unreached: false }
    }
}

impl From<reqwest::Error> for Silence {
    fn from(error: reqwest::Error) -> Self {
        Self { what: describe(&error), is_unreached: error.is_connect() }
    }
}

async fn one_token(client: &reqwest::Client, request: &ProbeRequest) -> Result<(), Silence> {
    let url = format!("{}/completions", request.base_url);
    let body = json!({
        "model": request.model_name,
        "prompt": "Hello",
        "max_tokens": 1,
        "temperature": 0,
        "priority": "high",
    });
    // The gateway may send a request to any revision unless it is told which.
    let answer = client.post(&url).header(REVISION_HEADER, &request.revision).json(&body).send().await?;
    let status = answer.status();
    if answer.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX as u64) {
        return Err(format!("{url} answers {status} with too much text").into());
    }
    let text = answer.text().await?;
    judge(status.as_u16(), &text).map_err(|what| one_line(&format!("{url} answers {what}")).into())
}

/// Whether an answer proves that a token was generated. A full queue does: requests come through and are served.
fn judge(status: u16, text: &str) -> Result<(), String> {
    if status == 429 {
        return Ok(());
    }
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    if status != 200 {
        let message = body["error"]["message"].as_str().unwrap_or("no message");
        return Err(format!("{status}: {message}"));
    }
    let has_finished = body["choices"][0]["finish_reason"].is_string();
    if has_finished { Ok(()) } else { Err("200, but no finished choice".to_owned()) }
}

/// The innermost cause says what happened; the outer ones only that something did.
fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if error.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    one_line(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, text: &str, expected: Result<(), &str>) {
        assert_eq!(judge(status, text), expected.map_err(str::to_owned));
    }

    #[test]
    fn only_a_finished_choice_proves_a_token() {
        check(200, r#"{"choices": [{"text": "!", "finish_reason": "length"}]}"#, Ok(()));
        check(
            200,
            r#"{"choices": [{"text": "", "finish_reason": null}]}"#,
            Err("200, but no finished choice"),
        );
        check(200, "<html>", Err("200, but no finished choice"));
        check(503, r#"{"error": {"message": "loading"}}"#, Err("503: loading"));
        check(502, "Bad Gateway", Err("502: no message"));
    }

    #[test]
    fn a_full_queue_is_no_outage() {
        check(429, r#"{"error": {"message": "queue full"}}"#, Ok(()));
    }

    #[test]
    fn failures_are_counted_until_a_success() {
        let prober = Prober::new(None, broadcast::channel(1).0, Metrics::new().unwrap());
        let request = ProbeRequest {
            revision: "tiny-a".into(),
            route: Route::Gateway,
            base_url: "http://x/v1".into(),
            model_name: "tiny".into(),
        };
        let key = ("u".to_owned(), "tiny-a".to_owned(), Route::Gateway);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let mut outcomes = vec![];
        for outcome in
            [Err("a".to_owned().into()), Err("b".to_owned().into()), Ok(()), Err("c".to_owned().into())]
        {
            prober.remember(key.clone(), &request, outcome, now);
            let proof = prober.proofs("u").remove(0);
            outcomes.push((proof.failures, proof.has_succeeded, proof.error));
        }
        let expected = [
            (1, false, Some("a".to_owned())),
            (2, false, Some("b".to_owned())),
            (0, true, None),
            (1, true, Some("c".to_owned())),
        ];
        assert_eq!(outcomes, expected);
        prober.forget("u", "tiny-a");
        assert!(prober.proofs("u").is_empty());
    }
}
