//! From generations to a response: in one piece, or as a stream whose status line is sent when the first choice has a
//! slot or after a second of waiting, whichever comes first.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use engine::Usage;
use http_body_util::BodyExt;

use super::BODY_BYTES_MAX;
use super::app::App;
use super::discard::{BODY_WITHIN, discard};
use super::error::ApiError;
use super::headers::{OUTPUT_TOKENS, QUEUE_POSITION, QUEUE_TIER, QUEUE_WAIT_MS};
use super::prepare::{Prepared, prepare};
use super::sse::EventStream;
use crate::generate::{Answering, Interrupted, Restart, Step, begin};
use crate::metrics::{Metrics, Outcome};
use crate::openai::answer::{Choice, Endpoint};
use crate::queue::Tier;

/// A stream's first byte comes within a second, also while the request waits; until then an error can still be a
/// status.
const FIRST_BYTE_AFTER: Duration = Duration::from_millis(900);

/// `POST /v1/chat/completions`.
pub async fn chat(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    answer(app, Endpoint::Chat, &headers, body).await
}

/// `POST /v1/completions`.
pub async fn completion(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answer(app, Endpoint::Completion, &headers, body).await
}

async fn answer(app: App, endpoint: Endpoint, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let mut account = Account::open(&app.source.metrics);
    let in_flight = app.lifecycle.enter();
    let result = async {
        let arriving = match app.arrive(announced_bytes(headers)) {
            Ok(arriving) => arriving,
            Err(error) => {
                discard(body).await;
                return Err(error);
            }
        };
        let body = read(body).await?;
        let mut prepared = prepare(&app, endpoint, headers, &body, arrived).await?;
        drop((body, arriving));
        let restart = if prepared.stream.is_some() { Restart::Silent } else { Restart::Anything };
        let choices = std::mem::take(&mut prepared.choices);
        let count = choices.len();
        let answering = begin(&app.source, choices, arrived, restart);
        Ok::<_, ApiError>((prepared, answering, count))
    };
    let (prepared, answering, count) = result.await.inspect_err(|error| account.close(error.outcome()))?;
    let result = match prepared.stream {
        None => whole(&app, &prepared, answering, count).await.inspect(|_| account.close(Outcome::Completed)),
        Some(_) => match first_step(&app, answering).await {
            Err(error) => Err(error),
            // The account goes with the stream, which knows how it ends.
            Ok(opened) => {
                let stream = EventStream::new(prepared.envelope, count, prepared.choices_per_prompt);
                return Ok(streamed(stream, opened, prepared.tier, (app, account, in_flight)));
            }
        },
    };
    result.inspect_err(|error| account.close(error.outcome()))
}

/// How long the body says it is; as long as may be if it does not say.
fn announced_bytes(headers: &HeaderMap) -> u64 {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    announced.and_then(|length| length.parse().ok()).unwrap_or(BODY_BYTES_MAX as u64)
}

async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::BodyUnreadable)?;
            let data = frame.into_data().unwrap_or_default();
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(ApiError::BodyTooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_WITHIN, reading).await {
        Ok(Ok(())) => Ok(bytes),
        Ok(Err(error)) => {
            discard(body).await;
            Err(error)
        }
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}

/// Counts a request's end once. A request that is dropped before it was closed was left by its client.
pub struct Account {
    metrics: Metrics,
    outcome: Outcome,
}

impl Account {
    fn open(metrics: &Metrics) -> Self {
        metrics.arrivals.inc();
        Self { metrics: metrics.clone(), outcome: Outcome::Cancelled }
    }

    /// Says how it ended.
    pub fn close(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.requests.with_label_values(&[self.outcome.name()]).inc();
    }
}

/// The next step, or the end of the process.
async fn next_step(app: &App, answering: &mut Answering) -> Result<(usize, Step), ApiError> {
    tokio::select! {
        step = answering.next() => match step {
            Some((index, Ok(step))) => Ok((index, step)),
            Some((_, Err(interrupted))) => Err(interrupted.into()),
            None => Err(Interrupted::EngineLost.into()),
        },
        () = app.lifecycle.is_cut() => Err(ApiError::Draining),
    }
}

async fn whole(
    app: &App,
    prepared: &Prepared,
    mut answering: Answering,
    count: usize,
) -> Result<Response, ApiError> {
    let mut choices = vec![Choice::default(); count];
    let mut totals = Totals::new(prepared.choices_per_prompt);
    let mut admitted = None;
    while totals.finished < count {
        let (index, step) = next_step(app, &mut answering).await?;
        let choice = &mut choices[index];
        match step {
            Step::Admitted { tier, waited } => admitted = admitted.or(Some((tier, waited))),
            Step::Restarted => *choice = Choice::default(),
            Step::Text { text, tokens } => {
                choice.text.push_str(&text);
                if prepared.envelope.has_logprobs {
                    choice.tokens.extend(tokens);
                }
            }
            Step::Finished { reason, usage } => {
                choice.reason = Some(reason);
                totals.add(index, &usage);
            }
        }
    }
    let body = prepared.envelope.whole(&choices, &totals.usage);
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    let (tier, waited) = admitted.unwrap_or((prepared.tier, Duration::ZERO));
    say_admitted(response.headers_mut(), tier, waited);
    response.headers_mut().insert(OUTPUT_TOKENS, HeaderValue::from(totals.usage.completion_tokens));
    Ok(response)
}

/// Sums over a request's choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// The sum so far.
    pub usage: Usage,
    /// Choices that ended.
    pub finished: usize,
    choices_per_prompt: usize,
}

impl Totals {
    /// Nothing yet.
    pub fn new(choices_per_prompt: usize) -> Self {
        Self { usage: Usage::default(), finished: 0, choices_per_prompt: choices_per_prompt.max(1) }
    }

    /// One choice has ended. A prompt counts once, however many choices it has.
    pub fn add(&mut self, index: usize, usage: &Usage) {
        self.finished += 1;
        self.usage.completion_tokens += usage.completion_tokens;
        if index.is_multiple_of(self.choices_per_prompt) {
            self.usage.prompt_tokens += usage.prompt_tokens;
            self.usage.cached_tokens += usage.cached_tokens;
        }
    }
}

/// What is known when a stream's status line is sent.
struct Opened {
    answering: Answering,
    first: Option<(usize, Step)>,
}

async fn first_step(app: &App, mut answering: Answering) -> Result<Opened, ApiError> {
    let first = tokio::time::timeout(FIRST_BYTE_AFTER, next_step(app, &mut answering)).await;
    Ok(Opened { answering, first: first.ok().transpose()? })
}

fn streamed<G: Send + 'static>(
    stream: EventStream,
    opened: Opened,
    tier: Tier,
    (app, account, in_flight): (App, Account, G),
) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Some((_, Step::Admitted { tier, waited })) = &opened.first {
        say_admitted(&mut headers, *tier, *waited);
    } else {
        headers.insert(QUEUE_TIER, HeaderValue::from_static(tier.name()));
        headers.insert(QUEUE_POSITION, HeaderValue::from(opened.answering.ahead()));
    }
    let Opened { answering, first } = opened;
    let frames = stream.frames(app, answering, first, account, in_flight);
    (headers, Body::from_stream(frames)).into_response()
}

fn say_admitted(headers: &mut HeaderMap, tier: Tier, waited: Duration) {
    headers.insert(QUEUE_TIER, HeaderValue::from_static(tier.name()));
    let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    headers.insert(QUEUE_WAIT_MS, HeaderValue::from(waited_ms));
}
