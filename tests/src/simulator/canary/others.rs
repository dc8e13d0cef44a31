//! Judges that others use, as their documentation describes them and with their defaults, on the same data. They are
//! our readings, not their programs.

use judgement::rollout::{Arm, FinishedRequest, Observation};
use judgement::statistics::boundary::half_width;
use judgement::statistics::counts::{EProcess, ODDS_WORSE};
use judgement::statistics::distribution::normal_quantile_upper;
use judgement::statistics::equations::Equations;
use judgement::statistics::moments::Moments;

/// Their names, in the order of [`all`].
pub const NAMES: [&str; 4] = ["Flagger-like", "Argo-like", "Kayenta-like", "request-level sequential"];

/// A judge that may say "roll back".
pub trait Other {
    /// Takes in what arrived; whether the rollout should be rolled back now.
    fn observe(&mut self, observation: &Observation) -> bool;
}

/// All of them, fresh.
pub fn all() -> Vec<Box<dyn Other>> {
    vec![
        Box::new(Threshold::new(0.05, 5)),
        Box::new(Threshold::new(0.20, 4)),
        Box::new(RankTest::default()),
        Box::new(Sequential::default()),
    ]
}

/// Every minute the canary's mean time to first token, between tokens, and error share are compared with stable's:
/// more than `limit` worse (errors: one point) is a failed check, and `failures` of them end the rollout. Five at 5 %
/// are like Flagger's `threshold: 5`; the fourth at 20 % is like Argo's `failureLimit: 3`.
struct Threshold {
    limit: f64,
    failures_max: u32,
    failures: u32,
    minute: Minute,
}

impl Threshold {
    fn new(limit: f64, failures_max: u32) -> Self {
        Self { limit, failures_max, failures: 0, minute: Minute::default() }
    }
}

impl Other for Threshold {
    fn observe(&mut self, observation: &Observation) -> bool {
        if let Some([control, canary]) = self.minute.observe(observation) {
            let is_worse = |of: fn(&Sums) -> f64| of(&canary) > (1.0 + self.limit) * of(&control);
            let errors = canary.errors / canary.all.max(1.0) - control.errors / control.all.max(1.0);
            let has_both = canary.served > 0.0 && control.served > 0.0;
            let has_failed = has_both
                && (is_worse(|sums| sums.ttft / sums.served)
                    || is_worse(|sums| sums.between / sums.served)
                    || errors > 0.01);
            self.failures += u32::from(has_failed);
        }
        self.failures >= self.failures_max
    }
}

/// Sums of one arm over a minute.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    all: f64,
    served: f64,
    errors: f64,
    ttft: f64,
    between: f64,
}

/// Gathers observations to minutes.
#[derive(Debug, Clone, Default)]
struct Minute {
    ticks: u32,
    sums: [Sums; 2],
}

impl Minute {
    /// The arms' sums, control first, when a minute with canary traffic is full.
    fn observe(&mut self, observation: &Observation) -> Option<[Sums; 2]> {
        if observation.weight_basis_points == 0 {
            return None;
        }
        for (arm, row) in rows(observation) {
            let sums = &mut self.sums[arm as usize];
            sums.all += 1.0;
            sums.errors += f64::from(u8::from(row.has_failed));
            if row.ttft_micros > 0 {
                sums.served += 1.0;
                sums.ttft += row.ttft_micros as f64;
                sums.between += row.inter_token_micros.unwrap_or(0) as f64;
            }
        }
        self.ticks += 1;
        (self.ticks.is_multiple_of(6)).then(|| std::mem::take(&mut self.sums))
    }
}

fn rows(observation: &Observation) -> impl Iterator<Item = (Arm, &FinishedRequest)> {
    observation.pods.iter().flat_map(|report| {
        report.requests.iter().filter(|row| row.has_ended()).map(move |row| (report.arm, row))
    })
}

/// Kayenta's classifier: a Mann-Whitney test at 98 % on the series of one value per minute, a metric is bad when the
/// interval of the shift lies beyond a quarter of the control's mean; judged at the end of each ten minutes over all
/// minutes so far. Any bad metric fails.
#[derive(Default)]
struct RankTest {
    minute: Minute,
    series: [[Vec<f64>; 2]; 3],
}

impl Other for RankTest {
    fn observe(&mut self, observation: &Observation) -> bool {
        let Some([control, canary]) = self.minute.observe(observation) else { return false };
        for (arm, sums) in [(0, control), (1, canary)] {
            let values = [
                sums.ttft / sums.served.max(1.0),
                sums.between / sums.served.max(1.0),
                sums.errors / sums.all.max(1.0),
            ];
            for (series, value) in self.series.iter_mut().zip(values) {
                series[arm].push(value);
            }
        }
        self.series[0][0].len().is_multiple_of(10) && self.series.iter().any(is_high)
    }
}

/// Whether the canary's values lie above control's by more than a quarter, as a rank interval at 98 % has it.
fn is_high([control, canary]: &[Vec<f64>; 2]) -> bool {
    let mean = control.iter().sum::<f64>() / control.len() as f64;
    let mut shifts: Vec<f64> =
        canary.iter().flat_map(|one| control.iter().map(move |other| one - other)).collect();
    shifts.sort_by(f64::total_cmp);
    let (n, m) = (canary.len() as f64, control.len() as f64);
    let reach = normal_quantile_upper(0.01) * (n * m * (n + m + 1.0) / 12.0).sqrt();
    let rank = 0.5 * n * m - reach;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    let low = shifts.get(rank.max(0.0) as usize).copied().unwrap_or(f64::NEG_INFINITY);
    // An error series of zeros has no quarter to be beyond; Kayenta calls it no data.
    mean > 0.0 && low > 0.25 * mean
}

/// What an earlier draft of ours did: users' ln TTFT and ln time between tokens, adjusted for prompt, context and
/// concurrency by a model fitted on stable before the rollout, in blocks of 30 s, with the same boundary as ours, and
/// an e-process on all errors. Requests are its unit, as if they were independent.
#[derive(Default)]
struct Sequential {
    fits: [Equations<5>; 2],
    models: Option<[[f64; 5]; 2]>,
    block: [[Moments; 2]; 2],
    ticks: u32,
    /// Σ weight, Σ weight·difference per metric, weight = 1/variance.
    sums: [(f64, f64); 2],
    canary_seen: u64,
    errors: Option<EProcess>,
}

impl Other for Sequential {
    fn observe(&mut self, observation: &Observation) -> bool {
        if observation.weight_basis_points == 0 {
            for (_, row) in rows(observation).filter(|(_, row)| is_served(row)) {
                for (fit, value) in self.fits.iter_mut().zip(values(row)) {
                    fit.push(&terms(row), value);
                }
            }
            return false;
        }
        if self.models.is_none() {
            self.models =
                self.fits[0].solve().zip(self.fits[1].solve()).map(|(ttft, between)| [ttft, between]);
        }
        let Some(models) = self.models else { return false };
        let mut counts = [(0_u64, 0_u64); 2];
        for (arm, row) in rows(observation) {
            let count = &mut counts[arm as usize];
            count.0 += 1;
            count.1 += u64::from(row.has_failed);
            if is_served(row) {
                self.canary_seen += u64::from(arm == Arm::Canary);
                for ((metric, model), value) in self.block.iter_mut().zip(models).zip(values(row)) {
                    let predicted: f64 = model.iter().zip(terms(row)).map(|(one, other)| one * other).sum();
                    metric[arm as usize].push(value - predicted);
                }
            }
        }
        let share = counts[1].0 as f64 / (counts[0].0 + counts[1].0).max(1) as f64;
        let errors = self.errors.get_or_insert_with(|| EProcess::new(&ODDS_WORSE));
        errors.observe(counts[1].1, counts[0].1, share);
        self.ticks += 1;
        if self.ticks.is_multiple_of(3) {
            self.close();
        }
        errors_fire(self.errors.as_ref())
            || self.canary_seen >= 50
                && [(0, 0.02), (1, 0.01)].iter().any(|&(at, alpha)| self.is_slower(at, alpha))
    }
}

impl Sequential {
    fn close(&mut self) {
        for (metric, (weights, weighted)) in std::mem::take(&mut self.block).iter().zip(&mut self.sums) {
            let [control, canary] = metric;
            let error = |arm: &Moments| arm.variance().map(|variance| variance / arm.count as f64);
            if let Some((one, other)) = error(canary).zip(error(control)) {
                let weight = 1.0 / (one + other).max(1e-9);
                *weights += weight;
                *weighted += weight * (canary.mean - control.mean);
            }
        }
    }

    fn is_slower(&self, metric: usize, alpha: f64) -> bool {
        let (weights, weighted) = self.sums[metric];
        let effect = 0.05_f64.ln_1p();
        let difference = weighted / weights.max(1e-12);
        weights > 0.0 && difference >= effect && difference > half_width(1.0 / weights, alpha, effect)
    }
}

fn errors_fire(errors: Option<&EProcess>) -> bool {
    errors.is_some_and(|errors| errors.e() >= 200.0)
}

fn is_served(row: &FinishedRequest) -> bool {
    row.ttft_micros > 0 && row.inter_token_micros > Some(0)
}

fn values(row: &FinishedRequest) -> [f64; 2] {
    [(row.ttft_micros as f64).ln(), (row.inter_token_micros.unwrap_or(0) as f64).ln()]
}

fn terms(row: &FinishedRequest) -> [f64; 5] {
    let log = f64::from(row.uncached_tokens).ln_1p();
    let busy = f64::from(row.in_flight_before);
    [1.0, log, log * log, f64::from(row.prompt_tokens) / 1_000.0, busy]
}
