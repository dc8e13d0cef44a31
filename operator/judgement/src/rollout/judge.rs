//! Is the canary well? A pure function of the evidence: the same evidence gives the same verdict, bit for bit.

use super::budget::Budget;
use super::evidence::Evidence;
use super::foresight::pods_to_pass;
use super::gates::CountGate;
use super::observation::Arm;
use super::pods::{Comparison, Series, Work, compare};
use super::policy::Method;
use super::verdict::{Metric, MetricVerdict, Outcome, Reason, Standing, Verdict};
use super::wording;
use crate::statistics::boundary::{e_value, half_width, student_factor};
use crate::statistics::counts::log_non_inferiority;
use crate::statistics::distribution::student_quantile_upper;
use crate::statistics::moments::Moments;
use crate::statistics::spending;
use crate::statistics::welch::welch;

/// The estimate must reach this share of the tolerance before a rollback. An unbiased estimate of a change exactly at
/// the tolerance lies below it half of the time: asking for 95 % of it found +5 % in 86 % of rollouts, for 85 % in
/// 91 to 95 %, while false alarms depend on the boundary and hardly on this.
const NEAR: f64 = 0.8;
/// The same while canary pods have been seen for fewer than [`YOUNG_BLOCKS`] blocks in the mean: what is that far beyond
/// the tolerance so early is no leftover of youth.
const CLEAR: f64 = 1.15;
/// Two minutes, after which a hundredth of a pod's youth is left.
const YOUNG_BLOCKS: u64 = 4;
/// A slowdown beyond this is acted upon without waiting for pods to grow old.
const EARLY: f64 = 0.2;
/// Level at which "slower than tolerated" is ruled out before a step may pass. It bounds another error than the budget
/// does: a change exactly at the tolerance, which is where neither answer is wrong, passes a step in at most one of eight
/// rollouts, and is promoted in one or two of a thousand; one of +10 % in none of a thousand at any of these levels. At
/// the budget's 1 % one of fifty healthy rollouts of 14 pods takes more than a quarter of an hour to pass, and at 5 % one
/// of six with four pods is not promoted in half an hour.
pub(super) const PASS_ALPHA: f64 = 0.125;
/// The share of the tolerance for which the boundary of a pass is tightest. To pass, an estimate must lie *below* the
/// tolerance by the half width, so that it decides with about twice the information that an estimate beyond the tolerance
/// needs: with two canary pods it is then 3 % narrower.
pub(super) const PASS_EFFECT: f64 = 0.7;
/// Spread of young pods: fresh ones were seen up to 6 % slow, so their prior is 5 %.
const EARLY_POD_SD: f64 = 0.05;
/// With a single canary pod, this share of the way to proof makes it suspect.
const SUSPECT: f64 = 0.6;
/// Answers longer or shorter by this much are another behaviour.
const LENGTH_EFFECT: f64 = 0.05;
/// Level of the length gate, each way: it only calls somebody.
const LENGTH_ALPHA: f64 = 0.005;
/// Level of the hold gate: it costs a pod, not a revision.
const SLO_ALPHA: f64 = 1.0 / 200.0;
/// More misses than this in the last minutes are worth holding for.
const SLO_GAP: f64 = 0.05;
/// Level of the check of the split: false alarms here stop healthy rollouts.
const SPLIT_ALPHA: f64 = 1.0 / 1_000.0;
/// Likelihood ratio that rules a higher error rate out.
const NON_INFERIORITY: f64 = 20.0;
/// Error rates are never taken to be lower: 1 in 500 happens to everybody.
const ERROR_RATE_MIN: f64 = 0.002;
/// What is known of error rates before the first request: 2 in 400. With few requests control's own rate is mostly
/// chance, and a lucky control kept every other small fleet from being promoted.
const ERROR_PRIOR: (f64, f64) = (2.0, 400.0);
/// With no comparable control pod for this long after the first traffic there will be none.
const CONTROL_WITHIN_MS: u64 = 120_000;

/// What a finished rollout teaches the next one.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// Standard deviation of ln speed between pods of this node class: the next rollout's `pod_sd`.
    pub pod_sd: f64,
    /// ln slowness of each pod's node against the mean of its arm, by pod, from decode.
    pub slowness: Vec<(String, f64)>,
}

/// What can be learned from `evidence`; `None` before two control pods were compared.
pub fn learned(evidence: &Evidence) -> Option<Learned> {
    let blocks_min = evidence.analysis.min_pod_blocks;
    let found = compare(&evidence.pods, Work::Decode, Series::Settled, blocks_min, evidence.analysis.pod_sd)?;
    if found.control_pods < 2 {
        return None;
    }
    let mean = |means: &[f64]| means.iter().sum::<f64>() / means.len() as f64;
    let (canary, control) = (mean(&found.canary_means), mean(&found.control_means));
    let slowness = evidence.pods.iter().filter(|(_, pod)| pod.is_comparable()).filter_map(|(name, pod)| {
        let moments = pod.moments(Series::Settled, Work::Decode);
        let center = if pod.arm == Arm::Canary { canary } else { control };
        (moments.count >= blocks_min).then(|| (name.clone(), moments.mean - center + pod.known_slowness))
    });
    Some(Learned { pod_sd: found.pod_sd, slowness: slowness.collect() })
}

/// Is the canary well?
pub fn judge(evidence: &Evidence) -> Verdict {
    let case = Case::new(evidence);
    let (outcome, reason) = case.answer();
    let metrics = case.metrics();
    Verdict {
        outcome,
        reason,
        sentence: wording::sentence(evidence, outcome, reason, &metrics),
        is_error_rate_proven: case.is_error_rate_proven(),
        budget_used: case.budget_used(),
        pod_sd: case.decode.as_ref().map(|gate| gate.comparison.pod_sd),
        pods_needed: case.pods_needed(),
        outliers: case.decode.as_ref().map(|gate| gate.comparison.outliers.clone()).unwrap_or_default(),
        metrics,
    }
}

/// One comparison with its tolerance and boundary.
struct WorkGate {
    metric: Metric,
    reason: Reason,
    comparison: Comparison,
    alpha: f64,
    /// ln(1 + tolerance).
    effect: f64,
    /// Half width of the interval downwards, as the method has it.
    half: f64,
    /// The same upwards, at [`PASS_ALPHA`].
    half_up: f64,
    /// Whether the method may decide now.
    may_decide: bool,
}

impl WorkGate {
    /// Slower for sure, by as much as is not tolerated, and not only because its pods are young: the estimate is taken
    /// less what youth may explain, and while they are young only a clear change counts. (With that taken from the bound
    /// too, one in ten rollouts needed three minutes to find +10 % on prompts; with none of it, an engine with slow young
    /// pods was rolled back in 0.7 % of rollouts.)
    fn is_slower(&self) -> bool {
        let Comparison { difference, lower, youth, canary_blocks, canary_pods, .. } = self.comparison;
        let is_young = canary_blocks < YOUNG_BLOCKS * canary_pods as u64;
        let share = if is_young { CLEAR } else { NEAR };
        self.may_decide && lower > self.half && difference - youth >= share * self.effect
    }

    fn is_within(&self) -> bool {
        self.may_decide && self.comparison.difference + self.half_up < self.effect
    }

    fn exceeds(&self, slowdown: f64) -> bool {
        self.may_decide && self.comparison.lower - self.half > slowdown.ln_1p()
    }

    /// Looks slow, though not for sure.
    fn is_suspect(&self) -> bool {
        self.is_slower()
            || self.comparison.difference > self.effect && self.comparison.lower > SUSPECT * self.half
    }

    fn e_value(&self) -> f64 {
        let factor = student_factor(self.alpha, self.comparison.freedom);
        e_value(self.comparison.lower / factor, self.comparison.variance, self.alpha, self.effect)
    }

    /// `is_judged`: there are enough canary pods to say that it is not slower.
    fn verdict(&self, is_failing: bool, is_judged: bool) -> MetricVerdict {
        let standing = match (is_failing, is_judged && self.is_within()) {
            (true, _) => Standing::Failing,
            (_, true) => Standing::Passing,
            _ => Standing::Undecided,
        };
        MetricVerdict {
            metric: self.metric,
            estimate: self.comparison.difference.exp_m1(),
            lower: (self.comparison.lower - self.half).exp_m1(),
            upper: (self.comparison.difference + self.half_up).exp_m1(),
            e_value: self.e_value(),
            samples_canary: self.comparison.canary_blocks,
            samples_control: self.comparison.control_blocks,
            standing,
        }
    }
}

/// The gates of one look at the evidence.
struct Case<'evidence> {
    evidence: &'evidence Evidence,
    budget: Budget,
    decode: Option<WorkGate>,
    prefill: Option<WorkGate>,
    ttft: Option<WorkGate>,
    early: [Option<WorkGate>; 2],
    length: Option<WorkGate>,
    canary_pods: usize,
}

impl<'evidence> Case<'evidence> {
    fn new(evidence: &'evidence Evidence) -> Self {
        let budget = Budget::of(evidence.analysis.false_rollback);
        let tolerances = evidence.analysis.tolerances;
        let settled = |work, metric, reason, alpha, tolerance: f64| {
            Self::gate(evidence, Series::Settled, work, (metric, reason), alpha, tolerance.ln_1p())
        };
        let early = |work, metric, reason| {
            Self::gate(evidence, Series::Early, work, (metric, reason), budget.early, EARLY.ln_1p())
        };
        Self {
            evidence,
            budget,
            decode: settled(
                Work::Decode,
                Metric::Decode,
                Reason::DecodeSlower,
                budget.decode,
                tolerances.decode,
            ),
            prefill: settled(
                Work::Prefill,
                Metric::Prefill,
                Reason::PrefillSlower,
                budget.prefill,
                tolerances.prefill,
            ),
            ttft: settled(
                Work::UnqueuedTtft,
                Metric::UnqueuedTtft,
                Reason::UnqueuedTtftSlower,
                budget.unqueued_ttft,
                tolerances.unqueued_ttft,
            ),
            early: [
                early(Work::Decode, Metric::Decode, Reason::DecodeSlower),
                early(Work::Prefill, Metric::Prefill, Reason::PrefillSlower),
            ],
            length: settled(
                Work::OutputLength,
                Metric::OutputLength,
                Reason::OutputLengthChanged,
                LENGTH_ALPHA,
                LENGTH_EFFECT,
            ),
            canary_pods: evidence.pods.values().filter(|pod| pod.arm == Arm::Canary).count(),
        }
    }

    fn gate(
        evidence: &Evidence,
        series: Series,
        work: Work,
        (metric, reason): (Metric, Reason),
        alpha: f64,
        effect: f64,
    ) -> Option<WorkGate> {
        let analysis = &evidence.analysis;
        let (blocks_min, prior) = match series {
            Series::Settled => (analysis.min_pod_blocks, analysis.pod_sd),
            Series::Early => (1, EARLY_POD_SD.max(analysis.pod_sd)),
        };
        let comparison = compare(&evidence.pods, work, series, blocks_min, prior)?;
        // The early rule, the length gate and the unqueued time stay as they are under every method.
        let is_planned = matches!(metric, Metric::Decode | Metric::Prefill) && series == Series::Settled;
        let half = |alpha, effect| half_width_by(evidence, &comparison, alpha, effect, is_planned);
        let may_decide =
            evidence.analysis.method == Method::WorkNormalised || !is_planned || evidence.is_look;
        let (half, half_up) = (half(alpha, effect), half(PASS_ALPHA, PASS_EFFECT * effect));
        Some(WorkGate { metric, reason, comparison, alpha, effect, half, half_up, may_decide })
    }

    fn answer(&self) -> (Outcome, Reason) {
        if let Some(reason) = self.rollback() {
            return (Outcome::Rollback, reason);
        }
        if self.evidence.split.process.e() >= 1.0 / SPLIT_ALPHA {
            return (Outcome::Inconclusive, Reason::TrafficSkew);
        }
        if self.has_no_control() {
            return (Outcome::Inconclusive, Reason::NoComparableControl);
        }
        if self.speed_gates().any(|gate| !self.is_judged(gate) && gate.is_suspect()) {
            return (Outcome::Suspect, Reason::ConfirmingPod);
        }
        if self.length.as_ref().is_some_and(|gate| self.decides(gate.metric) && has_changed(gate)) {
            return (Outcome::Pause, Reason::OutputLengthChanged);
        }
        if self.decides(Metric::SloMiss)
            && self.evidence.slo_miss.process.e() >= 1.0 / SLO_ALPHA
            && self.evidence.recent_misses.gap().is_some_and(|gap| gap >= SLO_GAP)
        {
            return (Outcome::Hold, Reason::UnequalExperience);
        }
        if self.is_proven(Metric::Decode, self.decode.as_ref())
            && self.is_proven(Metric::Prefill, self.prefill.as_ref())
        {
            return (Outcome::Pass, Reason::WithinTolerance);
        }
        (Outcome::Continue, Reason::Watching)
    }

    fn rollback(&self) -> Option<Reason> {
        let slow = self.speed_gates().find(|gate| self.is_failing(gate)).map(|gate| gate.reason);
        let early = || self.early_gates().find(|gate| self.is_failing_early(gate)).map(|gate| gate.reason);
        let counted = || {
            let mut gates = self.count_gates().into_iter().filter(|gate| self.decides(gate.metric));
            gates.find(|gate| self.is_firing(gate)).map(|gate| gate.reason)
        };
        slow.or_else(early).or_else(counted)
    }

    /// Whether anything may follow from how the canary is in this respect.
    fn decides(&self, metric: Metric) -> bool {
        self.evidence.analysis.decides(metric)
    }

    /// Whether it is known not to be slower in this respect, or nobody asks for that.
    fn is_proven(&self, metric: Metric, gate: Option<&WorkGate>) -> bool {
        !self.decides(metric) || gate.is_some_and(|gate| self.is_judged(gate) && gate.is_within())
    }

    /// Whether there are enough canary pods for a judgement of the revision and not of a node.
    fn is_judged(&self, gate: &WorkGate) -> bool {
        gate.comparison.canary_pods >= self.evidence.analysis.min_canary_pods
    }

    fn speed_gates(&self) -> impl Iterator<Item = &WorkGate> {
        let gates = [&self.decode, &self.prefill, &self.ttft].into_iter().flatten();
        gates.filter(|gate| self.decides(gate.metric))
    }

    fn early_gates(&self) -> impl Iterator<Item = &WorkGate> {
        self.early.iter().flatten().filter(|gate| self.decides(gate.metric))
    }

    /// With enough pods, slower beyond tolerance; with fewer, only what no node explains.
    fn is_failing(&self, gate: &WorkGate) -> bool {
        if self.is_judged(gate) { gate.is_slower() } else { gate.exceeds(self.evidence.analysis.critical) }
    }

    fn is_failing_early(&self, gate: &WorkGate) -> bool {
        // A change that is heavier by intent must not meet the early rule either.
        let tolerances = self.evidence.analysis.tolerances;
        let tolerated = if gate.metric == Metric::Decode { tolerances.decode } else { tolerances.prefill };
        let is_judged = self.is_judged(gate);
        let limit = if is_judged { EARLY } else { self.evidence.analysis.critical };
        let blocks_min = if is_judged { 1 } else { self.evidence.analysis.min_pod_blocks };
        gate.comparison.canary_blocks >= blocks_min && gate.exceeds(limit.max(tolerated))
    }

    fn count_gates(&self) -> [Counted<'_>; 4] {
        let counted = |gate, metric, reason, alpha| Counted { gate, metric, reason, alpha };
        let evidence = self.evidence;
        [
            counted(&evidence.errors, Metric::ErrorRate, Reason::MoreErrors, self.budget.errors),
            counted(&evidence.engine_tail, Metric::EngineTail, Reason::EngineTail, self.budget.engine_tail),
            counted(
                &evidence.cache_reuse,
                Metric::CacheReuse,
                Reason::CacheReuseLost,
                self.budget.cache_reuse,
            ),
            counted(&evidence.slot_wait, Metric::SlotWait, Reason::FewerSlots, self.budget.slot_wait),
        ]
    }

    fn is_firing(&self, counted: &Counted<'_>) -> bool {
        // One of two pods may well have a bad node or a bad disk and fail; what it does to work, it hardly ever does.
        let few = if counted.metric == Metric::ErrorRate { 1 } else { 2 };
        counted.gate.process.e() >= 1.0 / counted.alpha && counted.gate.is_spread(self.canary_pods, few)
    }

    fn has_no_control(&self) -> bool {
        let evidence = self.evidence;
        evidence.exposed_ms.is_some_and(|exposed| evidence.seen_ms >= exposed + CONTROL_WITHIN_MS)
            && !evidence.pods.values().any(|pod| pod.arm == Arm::Control && pod.is_comparable())
    }

    fn is_error_rate_proven(&self) -> bool {
        if !self.decides(Metric::ErrorRate) {
            return true;
        }
        let errors = &self.evidence.errors;
        // Control's minutes before count as well: what is wanted is its rate, and the more is known of it the fewer
        // healthy canaries have to wait.
        let events = (errors.control.events + errors.before.events) as f64;
        let trials = (errors.control.trials + errors.before.trials) as f64;
        let base = ((events + ERROR_PRIOR.0) / (trials + ERROR_PRIOR.1)).clamp(ERROR_RATE_MIN, 0.9);
        let margin = self.evidence.analysis.tolerances.errors;
        log_non_inferiority(errors.canary.events, errors.canary.trials, base, margin) >= NON_INFERIORITY.ln()
    }

    fn budget_used(&self) -> f64 {
        let speed = self.speed_gates().chain(self.early_gates());
        let speed = speed.map(|gate| (gate.alpha, gate.e_value()));
        let counts = self.count_gates().into_iter().filter(|counted| self.decides(counted.metric));
        let counts = counts.map(|counted| (counted.alpha, counted.gate.process.e()));
        let used: f64 = speed.chain(counts).map(|(alpha, e)| alpha * (alpha * e).min(1.0)).sum();
        used / self.evidence.analysis.false_rollback
    }

    fn pods_needed(&self) -> Option<u32> {
        let gate = self.decode.as_ref()?;
        let control = u32::try_from(gate.comparison.control_pods).ok()?;
        pods_to_pass(&self.evidence.analysis, gate.comparison.pod_sd, control, gate.effect)
    }

    /// One respect of speed in numbers: those of the early rule if it is this that fires.
    fn speed(&self, settled: Option<&WorkGate>, early: Option<&WorkGate>) -> Option<MetricVerdict> {
        let failing = settled.filter(|gate| self.is_failing(gate));
        let failing = failing.or_else(|| early.filter(|gate| self.is_failing_early(gate)));
        let gate = failing.or(settled)?;
        Some(gate.verdict(failing.is_some(), self.is_judged(gate)))
    }

    fn metrics(&self) -> Vec<MetricVerdict> {
        let [early_decode, early_prefill] = &self.early;
        let speed =
            [(&self.decode, early_decode), (&self.prefill, early_prefill), (&self.ttft, &None)].into_iter();
        let speed = speed.filter_map(|(settled, early)| self.speed(settled.as_ref(), early.as_ref()));
        let length = self.length.iter().map(|gate| gate.verdict(has_changed(gate), self.is_judged(gate)));
        let counts = self.count_gates();
        let counts = counts.iter().map(|counted| counted.verdict(self.is_firing(counted)));
        speed.chain(length).chain(counts).collect()
    }
}

/// A count gate with its share of the budget.
struct Counted<'evidence> {
    gate: &'evidence CountGate,
    metric: Metric,
    reason: Reason,
    alpha: f64,
}

impl Counted<'_> {
    fn verdict(&self, is_firing: bool) -> MetricVerdict {
        let (canary, control) = (self.gate.canary, self.gate.control);
        let standing = match (is_firing, canary.trials) {
            (true, _) => Standing::Failing,
            (_, 0) => Standing::TooFewSamples,
            _ => Standing::Undecided,
        };
        MetricVerdict {
            metric: self.metric,
            estimate: canary.share() - control.share(),
            lower: -1.0,
            upper: 1.0,
            e_value: self.gate.process.e(),
            samples_canary: canary.trials,
            samples_control: control.trials,
            standing,
        }
    }
}

/// Whether most canary pods answer longer, or most answer shorter.
fn has_changed(gate: &WorkGate) -> bool {
    let Comparison { difference, lower, upper, .. } = gate.comparison;
    lower - gate.half > 0.0 && difference >= gate.effect
        || upper + gate.half < 0.0 && -difference >= gate.effect
}

/// Half width of a one-sided interval at `alpha`, by the method where it is about a planned gate.
fn half_width_by(
    evidence: &Evidence,
    comparison: &Comparison,
    alpha: f64,
    effect: f64,
    is_planned: bool,
) -> f64 {
    let widen = student_factor(alpha, comparison.freedom);
    match evidence.analysis.method {
        Method::FixedHorizonWelch { steps } if is_planned => {
            welch_half(comparison, alpha / f64::from(steps.max(1))).unwrap_or(f64::INFINITY)
        }
        Method::GroupSequential { .. } if is_planned => {
            let boundary = spending::boundaries(alpha, &evidence.looks).last().copied();
            boundary.map_or(f64::INFINITY, |z| z * widen * comparison.variance.sqrt())
        }
        _ => widen * half_width(comparison.variance, alpha, effect),
    }
}

/// Half width of a one-sided Welch interval over pod means.
fn welch_half(comparison: &Comparison, alpha: f64) -> Option<f64> {
    let canary: Moments = comparison.canary_means.iter().copied().collect();
    let control: Moments = comparison.control_means.iter().copied().collect();
    let found = welch(&canary, &control)?;
    Some(student_quantile_upper(alpha, found.degrees_of_freedom) * found.standard_error)
}
