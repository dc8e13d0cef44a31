//! Figures for people: what users of the two arms saw in a step. No verdict is made from them.

use serde::{Deserialize, Serialize};

use super::observation::{Arm, FinishedRequest};
use crate::statistics::digest::Digest;
use crate::statistics::moments::Moments;
use crate::statistics::sizes;
use crate::statistics::welch::{Welch, welch};

/// Level of the recommended sample size: it is asked whether the canary is slower, not whether it differs.
const ALPHA: f64 = 0.05;

/// What a user notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserMetric {
    /// Time to the first token.
    Ttft,
    /// Mean time between tokens.
    InterToken,
}

/// One step, as its users saw it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// When it began.
    pub began_ms: u64,
    /// When it ended, or was last added to.
    pub until_ms: u64,
    control: [Sample; 2],
    canary: [Sample; 2],
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Sample {
    /// Of ln milliseconds: latencies are skewed, their logarithms hardly.
    logs: Moments,
    /// Of milliseconds.
    digest: Digest,
}

/// One metric of one step, in figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmFigures {
    /// Welch's test of ln latency, when both arms have enough.
    pub welch: Option<Welch>,
    /// P50, P95, P99 of the canary in milliseconds.
    pub canary_ms: Option<[f64; 3]>,
    /// The same of stable.
    pub control_ms: Option<[f64; 3]>,
    /// Means of canary and stable in milliseconds.
    pub means_ms: [Option<f64>; 2],
    /// Requests of the canary.
    pub achieved: u64,
    /// Requests of stable.
    pub control: u64,
    /// Requests of the canary with which a single look would see `tolerance`, if requests were independent.
    pub recommended: Option<u64>,
    /// Seconds until there will be as many, at the step's rate.
    pub seconds_to_go: Option<f64>,
}

impl StepReport {
    /// A step that begins.
    pub(super) fn new(began_ms: u64) -> Self {
        Self { began_ms, until_ms: began_ms, ..Self::default() }
    }

    pub(super) fn observe(&mut self, arm: Arm, request: &FinishedRequest) {
        let samples = match arm {
            Arm::Control => &mut self.control,
            Arm::Canary => &mut self.canary,
        };
        for (sample, micros) in
            samples.iter_mut().zip([request.ttft_micros, request.inter_token_micros.unwrap_or(0)])
        {
            if micros > 0 {
                let milliseconds = micros as f64 / 1_000.0;
                sample.logs.push(milliseconds.ln());
                sample.digest.push(milliseconds);
            }
        }
    }

    /// The figures of one metric, for a tolerated slowdown of `tolerance` (0.05 is 5 %).
    pub fn figures(&self, metric: UserMetric, tolerance: f64) -> ArmFigures {
        let (canary, control) = (&self.canary[metric as usize], &self.control[metric as usize]);
        let recommended = sizes::recommended(&canary.logs, &control.logs, tolerance.ln_1p(), ALPHA);
        let seconds = self.until_ms.saturating_sub(self.began_ms) as f64 / 1_000.0;
        let rate = canary.logs.count as f64 / seconds.max(1.0);
        let missing = recommended.map(|size| size.saturating_sub(canary.logs.count) as f64);
        ArmFigures {
            welch: welch(&canary.logs, &control.logs),
            canary_ms: percentiles(&canary.digest),
            control_ms: percentiles(&control.digest),
            means_ms: [canary, control].map(|sample| sample.digest.mean()),
            achieved: canary.logs.count,
            control: control.logs.count,
            recommended,
            seconds_to_go: missing.filter(|_| rate > 0.0).map(|missing| missing / rate),
        }
    }
}

fn percentiles(digest: &Digest) -> Option<[f64; 3]> {
    Some([digest.quantile(0.5)?, digest.quantile(0.95)?, digest.quantile(0.99)?])
}
