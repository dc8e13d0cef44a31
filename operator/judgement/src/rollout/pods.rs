//! What each pod has shown, and the comparison of canary pods with control pods. The pod is the unit, not the
//! request: requests of one pod share its node, its neighbours and its bad minutes, and a test that takes them for
//! independent is sure of itself too early.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observation::{Arm, CountTotals, DecodeTotal, FinishedRequest, PodReport};
use super::work::{CostModels, DecodeWork};
use crate::statistics::moments::{Moments, pooled_variance};
use crate::statistics::robust::{mean_of_lower, median, robust_sd};

/// Blocks of a pod are alike for longer than one block (a busy minute, a warm clock): their mean is worth a third of
/// as many independent ones. With AR(1) noise of 60 s and blocks of 30 s the exact figure is (1+ρ)/(1−ρ) = 4.1 for
/// the noise's part, which is about two thirds of the whole.
const AUTOCORRELATION: f64 = 3.0;
/// Weight of what was known about the spread of pods, in degrees of freedom.
const PRIOR_FREEDOM: f64 = 4.0;
/// Pods are never taken to differ by less: ½ % is what identical boards show.
const POD_SD_MIN: f64 = 0.005;
/// A control pod further off than this many robust standard deviations is left out.
const OUTLIER: f64 = 4.0;
/// Control pods from which on outliers can be told at all.
const OUTLIER_PODS_MIN: usize = 4;
/// Decode calls in a block below which it is mostly noise of a few calls; it then runs on into the next.
const CALLS_MIN: u64 = 50;
/// Requests in a block below which their mean is the noise of one; it then runs on into the next. (Dropping such
/// blocks instead leaves slow models without a verdict: a tenth of 2 requests per second over two pods is three in
/// a block, and every other one has fewer.)
const REQUESTS_MIN: u64 = 3;
/// This share of the canary pods, at least one of two or more, may be slow by its nodes: a rollback asks the others. The
/// lower median would ask them too, but it varies by up to a quarter more than the mean, for which the boundary is
/// made: with three, five or seven pods it was crossed by chance up to five times as often. The mean of the others is
/// never above the mean of all, so the boundary holds for it.
const SLOWEST: f64 = 0.25;
/// How much slower a pod may be by its youth in its first block that counts, as ln: fresh pods were seen up to 6 %
/// slow, and what is left of that after a minute is e⁻¹ in the beginning of a block of half a minute and e⁻¹·⁵ at its
/// end. Control pods are old, so that without this allowance every canary begins with a handicap.
const YOUTH: f64 = 0.0174;
/// How much of it is left from block to block: it halves in 42 s.
const YOUTH_KEPT: f64 = 0.607;
/// One request never counts for more than e times its prediction.
const CLIP: f64 = 1.0;

/// What is compared pod by pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Decode,
    Prefill,
    UnqueuedTtft,
    OutputLength,
}

impl Work {
    pub(super) const ALL: [Self; 4] = [Self::Decode, Self::Prefill, Self::UnqueuedTtft, Self::OutputLength];
}

/// Which blocks of a pod count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Series {
    /// Those of pods that are no longer young.
    Settled,
    /// All: a change as large as the early rule wants is larger than the slowness of youth.
    Early,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodEvidence {
    pub(super) arm: Arm,
    pub(super) ready_at_ms: u64,
    pub(super) known_slowness: f64,
    is_of_the_class: bool,
    decode: BTreeMap<u32, DecodeTotal>,
    counts: CountTotals,
    open: OpenBlock,
    settled: [Moments; 4],
    early: [Moments; 4],
}

/// The block that is still filling.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenBlock {
    decode: DecodeWork,
    prefill: Sum,
    ttft: Sum,
    length: Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Sum {
    total: f64,
    count: u64,
}

impl Sum {
    fn push(&mut self, value: f64) {
        self.total += value;
        self.count += 1;
    }

    /// The mean of a full block, which is then empty again.
    fn take(&mut self) -> Option<f64> {
        (self.count >= REQUESTS_MIN).then(|| {
            let Self { total, count } = std::mem::take(self);
            total / count as f64
        })
    }
}

impl PodEvidence {
    /// A pod heard of for the first time: what it counted before was not this rollout's.
    pub(super) fn new(report: &PodReport, is_of_the_class: bool) -> Self {
        Self {
            arm: report.arm,
            ready_at_ms: report.ready_at_ms,
            known_slowness: report.known_slowness,
            is_of_the_class,
            decode: report.decode.iter().map(|total| (total.batch, *total)).collect(),
            counts: report.counts,
            open: OpenBlock::default(),
            settled: Default::default(),
            early: Default::default(),
        }
    }

    /// Whether its work may be compared.
    pub(super) fn is_comparable(&self) -> bool {
        self.is_of_the_class
    }

    /// Takes in a report; decode calls of control also teach the models. Returns the new outcomes.
    pub(super) fn observe(&mut self, report: &PodReport, models: &mut CostModels) -> CountTotals {
        self.ready_at_ms = report.ready_at_ms;
        self.arm = report.arm;
        for total in &report.decode {
            let before = self.decode.insert(total.batch, *total).unwrap_or_default();
            // A sum that fell belongs to a new process, which began at zero.
            let is_restarted = total.calls < before.calls || total.micros < before.micros;
            let before = if is_restarted { DecodeTotal::default() } else { before };
            let calls = DecodeTotal {
                batch: total.batch,
                calls: total.calls - before.calls,
                micros: total.micros - before.micros,
                kv_tokens: total.kv_tokens.saturating_sub(before.kv_tokens),
            };
            if !self.is_of_the_class || calls.calls == 0 {
                continue;
            }
            models.weigh_decode(&mut self.open.decode, &calls);
            if self.arm == Arm::Control {
                models.learn_decode(&calls);
            }
        }
        let before = std::mem::replace(&mut self.counts, report.counts);
        let is_restarted = report.counts.first_attempts < before.first_attempts
            || report.counts.reuse_eligible < before.reuse_eligible;
        report.counts.since(if is_restarted { CountTotals::default() } else { before })
    }

    /// Takes in a finished request.
    pub(super) fn observe_request(&mut self, request: &FinishedRequest, models: &mut CostModels) {
        if !self.is_of_the_class {
            return;
        }
        if let Some(excess) = models.prefill_excess(request) {
            self.open.prefill.push(excess.clamp(-CLIP, CLIP));
        }
        if let Some(excess) = models.ttft_excess(request) {
            self.open.ttft.push(excess.clamp(-CLIP, CLIP));
        }
        if request.has_ended() && request.output_tokens > 0 && !request.was_cancelled && !request.has_failed {
            self.open.length.push(f64::from(request.output_tokens).ln());
        }
        if self.arm == Arm::Control {
            models.learn_request(request);
        }
    }

    /// The excess of the blocks that end, by [`Work::ALL`]; one with too little in it runs on.
    fn close(&mut self) -> [Option<f64>; 4] {
        let slower = |excess: f64| excess - self.known_slowness;
        let work = self.open.decode;
        let decode = (work.calls + work.skipped >= CALLS_MIN).then(|| std::mem::take(&mut self.open.decode));
        let is_known =
            |work: &DecodeWork| work.calls >= work.skipped && work.predicted > 0.0 && work.micros > 0.0;
        [
            decode.filter(is_known).map(|work| slower((work.micros / work.predicted).ln())),
            self.open.prefill.take().map(slower),
            self.open.ttft.take().map(slower),
            self.open.length.take(),
        ]
    }

    /// Drops what is in the open block.
    fn restart(&mut self) {
        self.open = OpenBlock::default();
    }

    pub(super) fn moments(&self, series: Series, work: Work) -> &Moments {
        match series {
            Series::Settled => &self.settled[work as usize],
            Series::Early => &self.early[work as usize],
        }
    }
}

impl CountTotals {
    fn since(self, before: Self) -> Self {
        Self {
            first_attempts: self.first_attempts.saturating_sub(before.first_attempts),
            first_attempt_errors: self.first_attempt_errors.saturating_sub(before.first_attempt_errors),
            reuse_eligible: self.reuse_eligible.saturating_sub(before.reuse_eligible),
            reuse_hits: self.reuse_hits.saturating_sub(before.reuse_hits),
        }
    }
}

/// Ends the open block of every pod. `counts` is whether it may be judged; pods ready since before `settled_before_ms`
/// are settled. What all control pods share in a block (a busy moment, a drifting model) is taken out of everyone.
pub(super) fn close_block(pods: &mut BTreeMap<String, PodEvidence>, counts: bool, settled_before_ms: u64) {
    if !counts {
        pods.values_mut().for_each(PodEvidence::restart);
        return;
    }
    let blocks: Vec<[Option<f64>; 4]> = pods.values_mut().map(PodEvidence::close).collect();
    for work in Work::ALL {
        let mut center = Moments::default();
        for (pod, block) in pods.values().zip(&blocks) {
            if pod.arm == Arm::Control && pod.ready_at_ms <= settled_before_ms {
                block[work as usize].into_iter().for_each(|excess| center.push(excess));
            }
        }
        if center.count == 0 {
            continue;
        }
        for (pod, block) in pods.values_mut().zip(&blocks) {
            let Some(excess) = block[work as usize] else { continue };
            pod.early[work as usize].push(excess - center.mean);
            if pod.ready_at_ms <= settled_before_ms {
                pod.settled[work as usize].push(excess - center.mean);
            }
        }
    }
}

/// Canary pods against control pods, in ln units: positive is more work.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// Mean of the canary pods less mean of the control pods.
    pub(super) difference: f64,
    /// Mean of the canary pods without the slowest ([`SLOWEST`]) less mean of the control pods: one bad node cannot
    /// raise it.
    pub(super) lower: f64,
    /// Mean without the fastest likewise, for changes that may go either way.
    pub(super) upper: f64,
    /// How much of the difference may be the youth of canary pods ([`YOUTH`]).
    pub(super) youth: f64,
    /// Variance of the difference.
    pub(super) variance: f64,
    /// Standard deviation between pods.
    pub(super) pod_sd: f64,
    /// Degrees of freedom of the variance.
    pub(super) freedom: f64,
    /// Canary pods.
    pub(super) canary_pods: usize,
    /// Control pods, outliers left out.
    pub(super) control_pods: usize,
    /// Blocks of all canary pods.
    pub(super) canary_blocks: u64,
    /// Blocks of all control pods.
    pub(super) control_blocks: u64,
    /// Control pods that were left out.
    pub(super) outliers: Vec<String>,
    /// The means themselves, for tests at a fixed time.
    pub(super) canary_means: Vec<f64>,
    /// See `canary_means`.
    pub(super) control_means: Vec<f64>,
}

/// Compares; `None` while one side has no pod with `blocks_min` blocks. `prior_sd` is how much pods of this node
/// class were known to differ.
pub(super) fn compare(
    pods: &BTreeMap<String, PodEvidence>,
    work: Work,
    series: Series,
    blocks_min: u64,
    prior_sd: f64,
) -> Option<Comparison> {
    let side = |arm| {
        pods.iter()
            .filter(move |(_, pod)| pod.arm == arm && pod.is_of_the_class)
            .map(move |(name, pod)| (name, pod.moments(series, work)))
            .filter(move |(_, moments)| moments.count >= blocks_min.max(1))
    };
    let canary: Vec<&Moments> = side(Arm::Canary).map(|(_, moments)| moments).collect();
    let all_control: Vec<(&String, &Moments)> = side(Arm::Control).collect();
    let (control, outliers) = without_outliers(&all_control);
    if canary.is_empty() || control.is_empty() {
        return None;
    }
    let canary_means: Vec<f64> = canary.iter().map(|moments| moments.mean).collect();
    let control_means: Vec<f64> = control.iter().map(|moments| moments.mean).collect();
    let base: Moments = control_means.iter().copied().collect();
    let inner = pooled_variance(canary.iter().chain(&control).copied()).unwrap_or(0.0);
    let (inner_canary, inner_control) = (inner * per_block(&canary), inner * per_block(&control));
    // Pods of both arms tell how much pods differ: a bad node under one of few canary pods widens the boundary too.
    let own: Moments = canary_means.iter().copied().collect();
    let degrees = (base.count - 1, own.count - 1);
    let noise = degrees.0 as f64 * inner_control + degrees.1 as f64 * inner_canary;
    let spread = (base.squares + own.squares - noise).max(0.0);
    let freedom = PRIOR_FREEDOM + (degrees.0 + degrees.1) as f64;
    let pod_variance =
        ((PRIOR_FREEDOM * prior_sd * prior_sd + spread) / freedom).max(POD_SD_MIN * POD_SD_MIN);
    let mirrored: Vec<f64> = canary_means.iter().map(|mean| -mean).collect();
    Some(Comparison {
        difference: own.mean - base.mean,
        lower: mean_of_lower(&canary_means, SLOWEST)? - base.mean,
        upper: -mean_of_lower(&mirrored, SLOWEST)? - base.mean,
        youth: canary.iter().map(|moments| youth(moments.count)).sum::<f64>() / canary.len() as f64,
        variance: (pod_variance + inner_canary) / canary.len() as f64
            + (pod_variance + inner_control) / control.len() as f64,
        pod_sd: pod_variance.sqrt(),
        freedom,
        canary_pods: canary.len(),
        control_pods: control.len(),
        canary_blocks: canary.iter().map(|moments| moments.count).sum(),
        control_blocks: control.iter().map(|moments| moments.count).sum(),
        outliers,
        canary_means,
        control_means,
    })
}

/// What is left of youth in the mean of a pod's first `blocks` blocks.
fn youth(blocks: u64) -> f64 {
    let kept = YOUTH_KEPT.powf(blocks as f64);
    YOUTH * (1.0 - kept) / (1.0 - YOUTH_KEPT) / blocks as f64
}

/// Mean over pods of the variance of a running mean, in units of one block's.
fn per_block(side: &[&Moments]) -> f64 {
    side.iter().map(|moments| AUTOCORRELATION / moments.count as f64).sum::<f64>() / side.len() as f64
}

/// Control pods without those that stand apart, and the names of these.
fn without_outliers<'a>(control: &[(&String, &'a Moments)]) -> (Vec<&'a Moments>, Vec<String>) {
    let means: Vec<f64> = control.iter().map(|(_, moments)| moments.mean).collect();
    let (middle, sd) = (median(&means).unwrap_or(0.0), robust_sd(&means).unwrap_or(0.0));
    let reach = OUTLIER * sd.max(POD_SD_MIN);
    let is_apart =
        |moments: &Moments| control.len() >= OUTLIER_PODS_MIN && (moments.mean - middle).abs() > reach;
    let kept =
        control.iter().filter(|(_, moments)| !is_apart(moments)).map(|(_, moments)| *moments).collect();
    let outliers =
        control.iter().filter(|(_, moments)| is_apart(moments)).map(|(name, _)| (*name).clone()).collect();
    (kept, outliers)
}
