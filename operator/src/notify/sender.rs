//! Sends letters in the background: one queue and one worker per receiver, so that a slow one delays nobody else.
//! Decides nothing, and shows nothing of what is secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::model::InferenceModel;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Response};
use tokio::task::JoinSet;

use super::farewell::Known;
use super::format::{Posting, posting};
use super::message::{Message, messages};
use super::pace::{Pace, asked_for, is_passing};
use super::queue::Queue;
use super::receivers::Receivers;
use super::routing::{Letter, Told, letters};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::problem::one_line;

/// Tells people. A handle: clones share the queues.
#[derive(Clone)]
pub struct Notifier(Arc<Office>);

struct Office {
    receivers: Receivers,
    cluster: Option<String>,
    client: Client,
    pace: Pace,
    metrics: Metrics,
    told: Mutex<Told>,
    known: Mutex<Known>,
    queues: Mutex<HashMap<String, Queue<Queued>>>,
    workers: Mutex<JoinSet<()>>,
}

struct Queued {
    letter: Letter,
    since: Instant,
}

/// Why a letter could not be delivered.
struct Failure {
    what: String,
    /// It may go better later.
    is_passing: bool,
    /// The pause that the receiver asks for.
    asked_for: Option<Duration>,
}

impl Notifier {
    /// A notifier for the receivers of an installation; `cluster` is its name in messages.
    pub fn new(
        receivers: Receivers,
        cluster: Option<String>,
        pace: Pace,
        metrics: Metrics,
    ) -> reqwest::Result<Self> {
        let office = Office {
            receivers,
            cluster,
            client: client(pace.timeout)?,
            pace,
            metrics,
            told: Mutex::default(),
            known: Mutex::default(),
            queues: Mutex::default(),
            workers: Mutex::default(),
        };
        Ok(Self(Arc::new(office)))
    }

    /// Where receivers are described.
    pub fn receivers(&self) -> &Receivers {
        &self.0.receivers
    }

    /// Queues what a plan's notices say to whom `model` names, unless it is queued already. Never waits.
    pub fn tell(&self, model: &InferenceModel, plan: &Plan, now: Timestamp) {
        lock(&self.0.known).meet(model);
        if model.spec.notifications.is_empty() || plan.notices.is_empty() {
            return;
        }
        let messages = messages(model, &plan.status, &plan.notices, self.0.cluster.as_deref(), now);
        let (uid, version) = (model.uid().unwrap_or_default(), model.resource_version().unwrap_or_default());
        let messages: Vec<Message> = lock(&self.0.told).only_new(&uid, &version, messages);
        for (receiver, letter) in letters(&model.spec.notifications, &messages) {
            self.post(&receiver, letter);
        }
    }

    /// Closes what a model that is gone may have open.
    pub fn part(&self, namespace: &str, name: &str, now: Timestamp) {
        let letters = lock(&self.0.known).part((namespace, name), self.0.cluster.as_deref(), now);
        for (receiver, letter) in letters {
            self.post(&receiver, letter);
        }
    }

    /// Queues one letter. A receiver that does not exist is told of in the model's condition.
    pub fn post(&self, receiver: &str, letter: Letter) {
        if !self.0.receivers.has(receiver) {
            return;
        }
        let queued = Queued { letter, since: Instant::now() };
        let pushed = lock(&self.0.queues).entry(receiver.to_owned()).or_default().push(queued);
        if pushed.has_dropped {
            self.0.count(receiver, "dropped", 1);
            tracing::warn!(receiver, "too many notifications wait; the oldest is dropped");
        }
        if pushed.needs_worker {
            let mut workers = lock(&self.0.workers);
            while workers.try_join_next().is_some() {}
            workers.spawn(work(self.0.clone(), receiver.to_owned()));
        }
    }

    /// Gives what is queued so long to be sent; the rest is dropped.
    pub async fn finish(&self, grace: Duration) {
        let mut workers = std::mem::take(&mut *lock(&self.0.workers));
        let all = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return;
        }
        let cut_off = workers.len();
        workers.shutdown().await;
        let waiting: usize = lock(&self.0.queues).values_mut().map(Queue::clear).sum();
        tracing::warn!(count = cut_off + waiting, "notifications are dropped at the end");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Redirects are not followed: keys go to the address that was written down, and nowhere else.
fn client(timeout: Duration) -> reqwest::Result<Client> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    Client::builder()
        .user_agent(concat!("inferno-operator/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout)
        .pool_max_idle_per_host(1)
        .tls_certs_merge(roots.iter().filter_map(|root| Certificate::from_der(root).ok()))
        .build()
}

/// Sends what waits for a receiver, one after another and in order, until nothing waits.
async fn work(office: Arc<Office>, receiver: String) {
    loop {
        let next = {
            let mut queues = lock(&office.queues);
            let next = queues.get_mut(&receiver).and_then(Queue::next);
            if next.is_none() {
                queues.remove(&receiver);
            }
            next
        };
        let Some(queued) = next else { return };
        office.deliver(&receiver, &queued).await;
    }
}

impl Office {
    async fn deliver(&self, receiver: &str, queued: &Queued) {
        let message = &queued.letter.message;
        let mut attempt = 0;
        while self.pace.is_fresh(queued.since.elapsed()) {
            attempt += 1;
            let failure = match self.try_once(receiver, &queued.letter).await {
                Ok(true) => return self.count(receiver, "sent", 1),
                Ok(false) => return,
                Err(failure) => failure,
            };
            let age = queued.since.elapsed();
            let pause = self.pace.pause(attempt, age, failure.asked_for, fastrand::f64());
            let Some(pause) = pause.filter(|_| failure.is_passing) else {
                self.count(receiver, "failed", 1);
                let (reason, error) = (&message.reason, failure.what);
                tracing::warn!(receiver, id = message.id, reason, attempt, error, "notification not sent");
                return;
            };
            tracing::debug!(receiver, id = message.id, attempt, error = failure.what, "notification waits");
            tokio::time::sleep(pause).await;
        }
        self.count(receiver, "dropped", 1);
        tracing::warn!(receiver, id = message.id, reason = message.reason, "notification is too old by now");
    }

    /// Whether there was something to send.
    async fn try_once(&self, receiver: &str, letter: &Letter) -> Result<bool, Failure> {
        let described = self.receivers.read(receiver).map_err(|what| Failure {
            what,
            is_passing: false,
            asked_for: None,
        })?;
        let Some(Posting { url, headers, body }) = posting(&described, letter, Timestamp::now()) else {
            return Ok(false);
        };
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        match request.send().await {
            Ok(response) if response.status().is_success() => Ok(true),
            Ok(response) => Err(refused(&response, Timestamp::now())),
            Err(error) => Err(Failure { what: describe(error), is_passing: true, asked_for: None }),
        }
    }

    fn count(&self, receiver: &str, outcome: &str, count: u64) {
        self.metrics.notifications_total.with_label_values(&[receiver, outcome]).inc_by(count);
    }
}

fn refused(response: &Response, now: Timestamp) -> Failure {
    let status = response.status();
    let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let what = if status.is_redirection() {
        format!("it answers {status}; redirects are not followed, so name the last address")
    } else {
        format!("it answers {status}")
    };
    Failure {
        what,
        is_passing: is_passing(status.as_u16()),
        asked_for: header.and_then(|header| asked_for(header, now)),
    }
}

/// The innermost cause, without the address, which may be a key.
fn describe(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    one_line(&cause.to_string())
}
