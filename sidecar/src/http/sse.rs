//! The frames of a stream. It ends with a finish chunk for every choice and `[DONE]`, or with an error frame and a cut
//! connection; never cleanly without a finish, because most clients take that for success.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{Account, Totals};
use super::app::App;
use super::error::ApiError;
use crate::generate::{Answering, Step};
use crate::metrics::Outcome;
use crate::openai::answer::Envelope;

/// Proxies cut a silent connection after 60 s, some after 30.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// Between an error frame and the cut, so that the frame is on its way when the socket goes.
const CUT_AFTER: Duration = Duration::from_millis(50);

/// The pure part: steps in, frames out.
pub struct EventStream {
    envelope: Envelope,
    choices: Vec<Progress>,
    totals: Totals,
    pending: VecDeque<Bytes>,
    end: Option<End>,
}

/// Where one choice stands.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    is_open: bool,
    is_closed: bool,
    /// Characters said, for the old form of log-probabilities.
    offset: usize,
}

/// How the stream ends once all pending frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Cut,
}

// === impl EventStream ===

impl EventStream {
    /// For so many choices.
    pub fn new(envelope: Envelope, choices: usize, choices_per_prompt: usize) -> Self {
        Self {
            envelope,
            choices: vec![Progress::default(); choices],
            totals: Totals::new(choices_per_prompt),
            pending: VecDeque::new(),
            end: None,
        }
    }

    /// The body of the response. What is given travels with it and is dropped with it, also when the client leaves.
    pub fn frames<G: Send + 'static>(
        mut self,
        app: App,
        answering: Answering,
        first: Option<(usize, Step)>,
        account: Account,
        in_flight: G,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        match first {
            Some((index, step)) => self.take(index, step),
            None => self.comment(&format!("queued, {} ahead", answering.ahead())),
        }
        let comment_at = Instant::now() + COMMENT_EVERY;
        let live = Live { stream: self, app, answering, account, comment_at, _in_flight: in_flight };
        futures::stream::unfold(live, async |mut live| live.next().await.map(|frame| (frame, live)))
    }

    /// One step of one choice.
    fn take(&mut self, index: usize, step: Step) {
        match step {
            Step::Admitted { .. } | Step::Restarted => {}
            Step::Text { text, tokens } => {
                self.open(index);
                if !text.is_empty() || self.envelope.has_logprobs {
                    let offset = &mut self.choices[index].offset;
                    let chunks = self.envelope.more(index, &text, &tokens, offset);
                    self.pending.extend(chunks.iter().map(|chunk| data(chunk)));
                }
            }
            Step::Finished { reason, usage } => {
                self.open(index);
                self.choices[index].is_closed = true;
                self.pending.push_back(data(&self.envelope.closing(index, reason)));
                self.totals.add(index, &usage);
                if self.choices.iter().all(|choice| choice.is_closed) {
                    self.finish();
                }
            }
        }
    }

    /// An error frame, and then the cut.
    fn fail(&mut self, error: &ApiError) {
        self.pending.push_back(data(error.body().to_string().as_bytes()));
        self.end = Some(End::Cut);
    }

    fn comment(&mut self, text: &str) {
        self.pending.push_back(Bytes::from(format!(": {text}\n\n")));
    }

    fn open(&mut self, index: usize) {
        let choice = &mut self.choices[index];
        if !std::mem::replace(&mut choice.is_open, true) {
            self.pending.extend(self.envelope.opening(index).map(|chunk| data(&chunk)));
        }
    }

    fn finish(&mut self) {
        self.pending.extend(self.envelope.figures(&self.totals.usage).map(|chunk| data(&chunk)));
        if self.envelope.is_measured {
            self.comment(&format!("{} tokens", self.totals.usage.completion_tokens));
        }
        self.pending.push_back(data(b"[DONE]"));
        self.end = Some(End::Done);
    }
}

/// One event, written in one piece: some readers take a TCP segment for an event.
fn data(payload: &[u8]) -> Bytes {
    Bytes::from([b"data: ", payload, b"\n\n"].concat())
}

/// A stream with what it is fed from.
struct Live<G> {
    stream: EventStream,
    app: App,
    answering: Answering,
    account: Account,
    comment_at: Instant,
    _in_flight: G,
}

impl<G> Live<G> {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(frame) = self.stream.pending.pop_front() {
                return Some(Ok(frame));
            }
            match self.stream.end {
                Some(End::Done) => return None,
                Some(End::Cut) => {
                    sleep(CUT_AFTER).await;
                    return Some(Err(io::Error::other("the stream ended with an error frame")));
                }
                None => self.listen().await,
            }
        }
    }

    async fn listen(&mut self) {
        tokio::select! {
            step = self.answering.next() => match step {
                Some((index, Ok(step))) => {
                    self.comment_at = Instant::now() + COMMENT_EVERY;
                    self.stream.take(index, step);
                    if self.stream.end.is_some() {
                        self.account.close(Outcome::Completed);
                    }
                }
                Some((_, Err(interrupted))) => self.fail(&interrupted.into()),
                None => self.fail(&ApiError::EngineLost),
            },
            () = sleep_until(self.comment_at) => {
                self.comment_at = Instant::now() + COMMENT_EVERY;
                let is_waiting = self.stream.choices.iter().all(|choice| !choice.is_open);
                let comment = match self.answering.ahead() {
                    ahead if is_waiting && ahead > 0 => format!("queued, {ahead} ahead"),
                    _ => "working".to_owned(),
                };
                self.stream.comment(&comment);
            }
            () = self.app.lifecycle.is_cut() => self.fail(&ApiError::Draining),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        tracing::warn!(error = %error.body(), "stream cut");
        self.account.close(error.outcome());
        self.stream.fail(error);
    }
}
