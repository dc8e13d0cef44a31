//! The figures of one draw: what became of the requests with each of its lots. Only grows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crds::report::{CENTROIDS_MAX, DrawSums, LotSums, Sample};
use judgement::statistics::digest::Digest;

use crate::gateway::view::DrawView;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its client left.
    Left,
    /// With an error that is not the client's, or broken off.
    Failed,
    /// With an error that is the client's.
    Refused,
    /// With a whole answer.
    Answered {
        /// Until its first token, if it came as a stream.
        first: Option<Duration>,
        /// Mean time between its tokens, if it came as a stream and had some.
        between: Option<Duration>,
        /// Until its end.
        whole: Duration,
        /// Its tokens, if its pod says them.
        tokens: Option<u32>,
    },
}

/// One draw under one definition; lives from view to view.
#[derive(Debug)]
pub struct Tally {
    draw: DrawView,
    lots: Vec<Mutex<Lot>>,
}

#[derive(Debug, Default)]
struct Lot {
    requests: u64,
    errors: u64,
    cancelled: u64,
    fallbacks: u64,
    first_token: Measure,
    inter_token: Measure,
    duration: Measure,
    output_tokens: Measure,
}

#[derive(Debug, Default)]
struct Measure {
    count: u64,
    sum: f64,
    log_sum: f64,
    log_square_sum: f64,
    digest: Digest,
}

// === impl Tally ===

impl Tally {
    /// Nothing yet.
    pub fn new(draw: &DrawView) -> Self {
        Self { draw: draw.clone(), lots: draw.lots.iter().map(|_| Mutex::default()).collect() }
    }

    /// Whether the figures are of this draw as it is defined now.
    pub fn is_of(&self, draw: &DrawView) -> bool {
        self.draw == *draw
    }

    /// A request with this lot has ended.
    pub fn note(&self, lot: usize, ended: Ended, is_fallback: bool) {
        self.lots[lot].lock().unwrap_or_else(PoisonError::into_inner).note(ended, is_fallback);
    }

    /// All of it; `None` before the first request.
    pub fn sums(&self) -> Option<DrawSums> {
        let sums = self
            .draw
            .lots
            .iter()
            .zip(&self.lots)
            .map(|(lot, found)| found.lock().unwrap_or_else(PoisonError::into_inner).sums(&lot.name));
        let lots: Vec<LotSums> = sums.collect();
        let has_any = lots.iter().any(|lot| lot.requests_total > 0);
        has_any.then(|| DrawSums {
            kind: self.draw.kind,
            name: self.draw.name.clone(),
            definition: self.draw.definition.clone(),
            lots,
        })
    }
}

// === impl Lot ===

impl Lot {
    fn note(&mut self, ended: Ended, is_fallback: bool) {
        self.requests += 1;
        self.fallbacks += u64::from(is_fallback);
        match ended {
            Ended::Left => self.cancelled += 1,
            Ended::Failed => self.errors += 1,
            Ended::Answered { first, between, whole, tokens } if !is_fallback => {
                self.first_token.push(first.map(milliseconds));
                self.inter_token.push(between.map(milliseconds));
                self.duration.push(Some(milliseconds(whole)));
                self.output_tokens.push(tokens.map(f64::from));
            }
            Ended::Refused | Ended::Answered { .. } => {}
        }
    }

    fn sums(&self, name: &str) -> LotSums {
        LotSums {
            name: name.to_owned(),
            requests_total: self.requests,
            errors_total: self.errors,
            cancelled_total: self.cancelled,
            fallbacks_total: self.fallbacks,
            first_token: self.first_token.sample(),
            inter_token: self.inter_token.sample(),
            duration: self.duration.sample(),
            output_tokens: self.output_tokens.sample(),
        }
    }
}

// === impl Measure ===

impl Measure {
    /// Adds a positive value, if there is one; others have no logarithm, and mean that there was nothing to measure.
    fn push(&mut self, value: Option<f64>) {
        if let Some(value) = value.filter(|value| *value > 0.0) {
            let log = value.ln();
            self.count += 1;
            self.sum += value;
            self.log_sum += log;
            self.log_square_sum += log * log;
            self.digest.push(value);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven digits are more than a sketch has")]
    fn sample(&self) -> Sample {
        let centroids = self.digest.centroids();
        let centroids = centroids.take(CENTROIDS_MAX).map(|(mean, count)| (mean as f32, count as f32));
        Sample {
            count: self.count,
            sum: self.sum,
            log_sum: self.log_sum,
            log_square_sum: self.log_square_sum,
            centroids: centroids.collect(),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::view::LotView;

    fn tally() -> Tally {
        let lot =
            |name: &str| LotView { name: name.into(), weight_basis_points: 5_000, ..LotView::default() };
        Tally::new(&DrawView { name: "size".into(), lots: vec![lot("a"), lot("b")], ..DrawView::default() })
    }

    fn answered(ms: u64) -> Ended {
        let whole = Duration::from_millis(ms);
        Ended::Answered { first: Some(whole / 2), between: None, whole, tokens: Some(10) }
    }

    #[test]
    fn each_lot_has_its_counts_and_only_its_own_answers_are_measured() {
        let tally = tally();
        assert_eq!(tally.sums(), None);
        for (ended, is_fallback) in [
            (answered(100), false),
            (answered(400), false),
            (answered(9_000), true),
            (Ended::Left, false),
            (Ended::Failed, true),
            (Ended::Refused, false),
        ] {
            tally.note(1, ended, is_fallback);
        }
        let sums = tally.sums().unwrap();
        assert_eq!((sums.lots[0].name.as_str(), sums.lots[0].requests_total), ("a", 0));
        let lot = &sums.lots[1];
        assert_eq!(
            (lot.requests_total, lot.errors_total, lot.cancelled_total, lot.fallbacks_total),
            (6, 1, 1, 2)
        );
        assert_eq!((lot.duration.count, lot.first_token.count, lot.inter_token.count), (2, 2, 0));
        assert!((lot.duration.sum - 500.0).abs() < 1e-9 && (lot.output_tokens.sum - 20.0).abs() < 1e-9);
        assert!((lot.duration.log_sum - (100.0_f64.ln() + 400.0_f64.ln())).abs() < 1e-9);
    }

    #[test]
    fn a_sketch_stays_small() {
        let tally = tally();
        for number in 1..=20_000 {
            tally.note(0, answered(number), false);
        }
        let duration = &tally.sums().unwrap().lots[0].duration;
        assert!((20..CENTROIDS_MAX).contains(&duration.centroids.len()), "{}", duration.centroids.len());
        let total: f32 = duration.centroids.iter().map(|(_, count)| count).sum();
        assert!((total - 20_000.0).abs() < 1.0, "{total}");
    }
}
