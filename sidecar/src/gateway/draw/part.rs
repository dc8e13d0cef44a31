//! How one request takes part in the draws of the model that it asks for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::report::DrawKind;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::body::fill;
use super::draw;
use super::tally::Ended;
use crate::gateway::app::ModelBoard;
use crate::gateway::ask::Ask;
use crate::gateway::view::{DrawView, LotView};
use crate::http::BODY_BYTES_MAX;
use crate::http::headers::{MEASURED, OUTPUT_TOKENS};

/// The flags that are on: `a, b`.
pub const FLAGS: HeaderName = HeaderName::from_static("x-inferno-flags");
/// The variants of the experiments: `name=variant`, with `;fallback` if the variant's own model could not answer.
pub const EXPERIMENT: HeaderName = HeaderName::from_static("x-inferno-experiment");

/// Of a flag's two lots the one that has it.
const ON: usize = 0;

/// What the tail of a stream must hold: the comment with the tokens, and `data: [DONE]`.
const TAIL_BYTES: usize = 64;
/// How that comment ends.
const TOKENS: &[u8] = b" tokens\n\n";

/// A request that takes part in some draws.
#[derive(Clone)]
pub struct Part {
    model: Arc<ModelBoard>,
    lots: Vec<Option<usize>>,
}

/// A lot that a request has drawn.
#[derive(Clone, Copy)]
struct Drawn<'board> {
    draw: &'board DrawView,
    number: usize,
}

impl<'board> Drawn<'board> {
    fn lot(self) -> &'board LotView {
        &self.draw.lots[self.number]
    }
}

// === impl Part ===

impl Part {
    /// Of a request to this model; `None` if it takes part in nothing.
    pub fn of(model: &Arc<ModelBoard>, ask: &Ask) -> Option<Self> {
        let lots = draw(&model.view, ask);
        lots.iter().any(Option::is_some).then(|| Self { model: model.clone(), lots })
    }

    fn drawn(&self) -> impl Iterator<Item = Drawn<'_>> + Clone {
        let draws = self.model.view.draws.iter().zip(&self.lots);
        draws.filter_map(|(draw, lot)| Some(Drawn { draw, number: (*lot)? }))
    }

    /// The lots, those of experiments first: what they say comes before what flags say.
    fn in_order(&self) -> impl Iterator<Item = &LotView> + Clone {
        let of = |kind| self.drawn().filter(move |drawn| drawn.draw.kind == kind).map(Drawn::lot);
        of(DrawKind::Experiment).chain(of(DrawKind::Flag))
    }

    /// The model that is to answer instead, if a variant names one.
    pub fn other_model(&self) -> Option<&str> {
        self.drawn().find_map(|drawn| drawn.lot().model.as_deref())
    }

    /// The body as the model itself is asked: without what a variant wants that another model should answer.
    pub fn body(&self, body: &[u8]) -> Option<Vec<u8>> {
        fitting(fill(body, self.in_order().filter(|lot| lot.model.is_none()), None))
    }

    /// The body as the other model is asked, which clients call by this name.
    pub fn body_for(&self, served_name: &str, body: &[u8]) -> Option<Vec<u8>> {
        fitting(fill(body, self.in_order(), Some(served_name)))
    }

    /// Says in a head what was drawn. `answering` is the model that answers, as far as that is known.
    pub fn mark(&self, headers: &mut HeaderMap, answering: Option<&str>) {
        unmark(headers);
        let (mut flags, mut variants) = (Vec::new(), Vec::new());
        for drawn in self.drawn() {
            let (name, lot) = (&drawn.draw.name, drawn.lot());
            match drawn.draw.kind {
                DrawKind::Flag if drawn.number == ON => flags.push(name.clone()),
                DrawKind::Flag => {}
                DrawKind::Experiment if is_fallback(lot, answering) => {
                    variants.push(format!("{name}={};fallback", lot.name));
                }
                DrawKind::Experiment => variants.push(format!("{name}={}", lot.name)),
            }
        }
        insert(headers, FLAGS, &flags);
        insert(headers, EXPERIMENT, &variants);
    }

    /// The same in the head of a request to a pod, which is to say how many tokens it answers with.
    pub fn mark_request(&self, headers: &mut HeaderMap, answering: &str) {
        self.mark(headers, Some(answering));
        headers.insert(MEASURED, HeaderValue::from_static("1"));
    }

    /// Notes how it ended.
    pub fn note(&self, ended: Ended, answering: Option<&str>) {
        for ((draw, tally), lot) in self.model.view.draws.iter().zip(&self.model.tallies).zip(&self.lots) {
            if let Some(lot) = *lot {
                tally.note(lot, ended, is_fallback(&draw.lots[lot], answering));
            }
        }
    }
}

/// Takes off what only gateways may say.
pub fn unmark(headers: &mut HeaderMap) {
    for name in [&FLAGS, &EXPERIMENT, &MEASURED] {
        headers.remove(name);
    }
}

fn is_fallback(lot: &LotView, answering: Option<&str>) -> bool {
    lot.model.as_deref().zip(answering).is_some_and(|(wanted, answering)| wanted != answering)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, words: &[String]) {
    if !words.is_empty()
        && let Ok(value) = HeaderValue::from_str(&words.join(", "))
    {
        headers.insert(name, value);
    }
}

/// A body that a pod would refuse for its size alone goes without.
fn fitting(body: Option<Vec<u8>>) -> Option<Vec<u8>> {
    body.filter(|body| body.len() <= BODY_BYTES_MAX)
}

/// What is read of an answer that takes part, beside its head and its times: the tokens that its pod says it has.
#[derive(Debug, Default)]
pub struct Told {
    in_head: Option<u32>,
    tail: Vec<u8>,
}

// === impl Told ===

impl Told {
    /// The head of the answer.
    pub fn head(&mut self, headers: &HeaderMap) {
        let text = headers.get(OUTPUT_TOKENS).and_then(|tokens| tokens.to_str().ok());
        self.in_head = text.and_then(|tokens| tokens.parse().ok());
    }

    /// The next bytes of it.
    pub fn feed(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(&data[data.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
    }

    /// Its tokens.
    pub fn tokens(&self) -> Option<u32> {
        let in_comment = || {
            let end = memchr::memmem::rfind(&self.tail, TOKENS)?;
            let start = memchr::memrchr(b' ', &self.tail[..end])?;
            std::str::from_utf8(&self.tail[start + 1..end]).ok()?.parse().ok()
        };
        self.in_head.or_else(in_comment)
    }
}

/// The times of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the request arrived.
    pub arrived: Instant,
    /// When the content of a stream began.
    pub first: Option<Instant>,
    /// When the answer was whole.
    pub ended: Option<Instant>,
}

impl Times {
    /// How a request with an answer of this status ended.
    pub fn answered(self, status: StatusCode, tokens: Option<u32>) -> Ended {
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Ended::Failed;
        }
        let Some(ended) = self.ended.filter(|_| status.is_success()) else { return Ended::Refused };
        let since = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let between = |first: Instant| {
            let gaps = tokens?.checked_sub(1).filter(|gaps| *gaps > 0)?;
            Some(since(first, ended) / gaps)
        };
        Ended::Answered {
            first: self.first.map(|first| since(self.arrived, first)),
            between: self.first.and_then(between).filter(|between| *between > Duration::ZERO),
            whole: since(self.arrived, ended),
            tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(parts: &[&[u8]]) -> Option<u32> {
        let mut told = Told::default();
        for part in parts {
            told.feed(part);
        }
        told.tokens()
    }

    #[test]
    fn the_tokens_of_a_stream_are_found_however_it_is_cut() {
        let long = format!("data: {{\"content\":\"{}\"}}\n\n", "x".repeat(500));
        let stream = format!("{long}: 4321 tokens\n\ndata: [DONE]\n\n");
        for cut in 0..=stream.len() {
            let (one, other) = stream.as_bytes().split_at(cut);
            assert_eq!(tokens(&[one, other]), Some(4_321), "cut at {cut}");
        }
        assert_eq!(tokens(&[b": working\n\ndata: [DONE]\n\n"]), None);
        assert_eq!(tokens(&[]), None);
    }

    #[test]
    fn the_time_between_tokens_needs_two_of_them() {
        let arrived = Instant::now();
        let at = |ms| Some(arrived + Duration::from_millis(ms));
        let times = Times { arrived, first: at(100), ended: at(500) };
        let between = |tokens| match times.answered(StatusCode::OK, tokens) {
            Ended::Answered { first, between, whole, .. } => {
                assert_eq!((first, whole), (Some(Duration::from_millis(100)), Duration::from_millis(500)));
                between
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(between(Some(5)), Some(Duration::from_millis(100)));
        assert_eq!([between(Some(1)), between(Some(0)), between(None)], [None; 3]);
        let plain = Times { first: None, ..times }.answered(StatusCode::OK, Some(5));
        assert!(matches!(plain, Ended::Answered { first: None, between: None, .. }), "{plain:?}");
        for (status, expected) in [(429, Ended::Failed), (503, Ended::Failed), (400, Ended::Refused)] {
            assert_eq!(times.answered(StatusCode::from_u16(status).unwrap(), None), expected);
        }
    }
}
