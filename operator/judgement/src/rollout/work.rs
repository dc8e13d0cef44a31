//! What work should cost, fitted on stable pods only: seconds per decode call, milliseconds per prompt, and the time
//! to first token of a request that met no queue.
//!
//! Comparing actual with predicted work removes what the judge must not punish: more load per pod, longer prompts,
//! cold caches. Fits change at block ends only, so a block is predicted by data from before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::observation::{DecodeTotal, FinishedRequest};
use crate::statistics::equations::Equations;

/// Calls of a batch size on control that make its cost known: the mean of 300 calls with 20 % noise each is good to
/// about 1 %.
const CALLS_MIN: u64 = 300;
/// Batch sizes beyond are not kept: no engine of ours has as many slots, and the table must not grow.
const BATCH_MAX: u32 = 256;
/// Uncached tokens below which a prompt's time is all overhead.
const UNCACHED_MIN: u32 = 8;
/// No prompt is predicted to take less than this many milliseconds: the logarithm must stay finite.
const FLOOR_MS: f64 = 0.1;

/// Overlap is told apart in this many bins.
const OVERLAP_BINS: usize = 4;
/// Control requests in a bin of overlap from which it is known. A busy control always has others decoding beside a
/// prompt; what a prompt alone costs would then be extrapolated, and was found wrong by a factor of two and more for
/// a canary with little to do. Thirty requests with 5 % noise are good to 1 %.
const BIN_MIN: u64 = 30;

/// Loads that are told apart; fuller pods count as the last.
const LOADS: usize = 33;

/// The three models with their sums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CostModels {
    /// Slots of a stable pod.
    slots: u16,
    decode: BTreeMap<u32, BatchSums>,
    prefill: Equations<6>,
    ttft: Equations<8>,
    /// Control requests by overlap.
    overlaps: [u64; OVERLAP_BINS],
    /// Control requests by the slots in use when they came, up to [`LOADS`] − 1.
    loads: Vec<u64>,
    fitted: Fitted,
}

/// Sums over cells (one pod, one observation) of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchSums {
    calls: u64,
    kv: f64,
    micros: f64,
    /// Σ calls · (kv per call)².
    kv_squares: f64,
    /// Σ calls · (kv per call) · (micros per call).
    products: f64,
}

/// What the sums amounted to at the last block's end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fitted {
    /// Microseconds of a call with nothing in its context, by batch size. Free for each size: a line through them
    /// would be stretched to sizes that only one arm has, and be wrong there.
    base_micros: BTreeMap<u32, f64>,
    /// Microseconds per context token.
    micros_per_kv: f64,
    prefill: Option<[f64; 6]>,
    ttft: Option<[f64; 8]>,
    known_overlaps: [bool; OVERLAP_BINS],
    /// The fewest and the most slots in use that control knows: beyond, a prompt is taken to cost what it costs there.
    /// (A control that is always full cannot tell what load costs; extrapolated to an idle canary, prompts were
    /// predicted to cost nothing, and seven of its first ten requests were "in the tail".)
    known_loads: (u16, u16),
}

/// Decode calls of a pod against their prediction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DecodeWork {
    /// Calls whose cost is known.
    pub(super) calls: u64,
    /// Calls of batch sizes that control hardly has.
    pub(super) skipped: u64,
    /// Time of the known ones.
    pub(super) micros: f64,
    /// What they should have taken.
    pub(super) predicted: f64,
}

impl CostModels {
    /// Nothing is known yet of engines that have `slots` slots where they are stable.
    pub(super) fn new(slots: u16) -> Self {
        Self {
            slots,
            decode: BTreeMap::new(),
            prefill: Equations::default(),
            ttft: Equations::default(),
            overlaps: [0; OVERLAP_BINS],
            loads: vec![0; LOADS],
            fitted: Fitted::default(),
        }
    }

    /// Adds decode calls of a control pod.
    pub(super) fn learn_decode(&mut self, calls: &DecodeTotal) {
        if calls.calls == 0 || calls.batch > BATCH_MAX {
            return;
        }
        let (kv, micros, count) = (calls.kv_tokens as f64, calls.micros as f64, calls.calls as f64);
        let sums = self.decode.entry(calls.batch).or_default();
        sums.calls += calls.calls;
        sums.kv += kv;
        sums.micros += micros;
        sums.kv_squares += kv * kv / count;
        sums.products += kv * micros / count;
    }

    /// Adds a request that a control pod finished.
    pub(super) fn learn_request(&mut self, request: &FinishedRequest) {
        if is_prefill_measured(request) {
            self.overlaps[overlap_bin(request)] += 1;
            let load = usize::from(self.load(request)).min(LOADS - 1);
            self.loads[load] += 1;
            let micros = request.prefill_micros as f64;
            // Dividing the row by its time makes the error relative.
            self.prefill
                .push(&self.prefill_terms(request, (0, self.slots)).map(|term| term * 1_000.0 / micros), 1.0);
        }
        if is_ttft_measured(request) {
            self.ttft.push(
                &self.ttft_terms(request, (0, self.slots)),
                (request.ttft_micros as f64 / 1_000.0).ln(),
            );
        }
    }

    /// Makes what was learned count from now on.
    pub(super) fn refit(&mut self) {
        let (mut products, mut squares) = (0.0, 0.0);
        for sums in self.decode.values().filter(|sums| sums.calls >= CALLS_MIN) {
            products += sums.products - sums.kv * sums.micros / sums.calls as f64;
            squares += sums.kv_squares - sums.kv * sums.kv / sums.calls as f64;
        }
        // Attention never makes a call faster; a negative slope is noise of too few cells.
        let micros_per_kv = if squares > 1.0 { (products / squares).max(0.0) } else { 0.0 };
        let base = |sums: &BatchSums| (sums.micros - micros_per_kv * sums.kv) / sums.calls as f64;
        let known = self.decode.iter().filter(|(_, sums)| sums.calls >= CALLS_MIN);
        self.fitted = Fitted {
            base_micros: known.map(|(&batch, sums)| (batch, base(sums))).collect(),
            micros_per_kv,
            prefill: self.prefill.solve(),
            ttft: self.ttft.solve(),
            known_overlaps: self.overlaps.map(|count| count >= BIN_MIN),
            known_loads: self.known_loads(),
        };
    }

    /// The loads that at least [`BIN_MIN`] control requests had or had less, and had or had more.
    fn known_loads(&self) -> (u16, u16) {
        let reach = |order: &mut dyn Iterator<Item = usize>| {
            let mut seen = 0;
            for load in order {
                seen += self.loads[load];
                if seen >= BIN_MIN {
                    return u16::try_from(load).unwrap_or(u16::MAX);
                }
            }
            0
        };
        // With fewer than twice as many requests the two may come in the other order.
        let (one, other) = (reach(&mut (0..LOADS)), reach(&mut (0..LOADS).rev()));
        (one.min(other), one.max(other))
    }

    /// Slots in use when a request came. Who waits for a slot loads nothing.
    fn load(&self, request: &FinishedRequest) -> u16 {
        request.in_flight_before.min(self.slots)
    }

    /// Weighs decode calls against their prediction.
    pub(super) fn weigh_decode(&self, work: &mut DecodeWork, calls: &DecodeTotal) {
        let Some(base) = self.fitted.base_micros.get(&calls.batch) else {
            work.skipped += calls.calls;
            return;
        };
        work.calls += calls.calls;
        work.micros += calls.micros as f64;
        work.predicted += base * calls.calls as f64 + self.fitted.micros_per_kv * calls.kv_tokens as f64;
    }

    /// ln(actual/predicted) of a request's prompt; `None` when it had too few tokens or control has hardly any like it.
    pub(super) fn prefill_excess(&self, request: &FinishedRequest) -> Option<f64> {
        let predicted = self.predicted_prefill_ms(request)?;
        is_prefill_measured(request).then(|| (request.prefill_micros as f64 / 1_000.0 / predicted).ln())
    }

    /// Milliseconds that a request's prompt should take.
    pub(super) fn predicted_prefill_ms(&self, request: &FinishedRequest) -> Option<f64> {
        let coefficients = self.fitted.prefill.filter(|_| self.knows(request))?;
        Some(dot(&coefficients, &self.prefill_terms(request, self.fitted.known_loads)).max(FLOOR_MS))
    }

    /// ln(actual/predicted) of the time to first token; `None` when it queued or control has hardly any like it.
    pub(super) fn ttft_excess(&self, request: &FinishedRequest) -> Option<f64> {
        let coefficients = self.fitted.ttft.filter(|_| self.knows(request))?;
        let predicted = dot(&coefficients, &self.ttft_terms(request, self.fitted.known_loads));
        is_ttft_measured(request).then(|| (request.ttft_micros as f64 / 1_000.0).ln() - predicted)
    }

    fn knows(&self, request: &FinishedRequest) -> bool {
        self.fitted.known_overlaps[overlap_bin(request)]
    }

    /// Milliseconds = θ0 + θ1·u + θ2·u·context + θ3·u·overlap + θ4·overlap + θ5·u·load. Without the fourth the fixed
    /// cost of a short prompt was wrong by a third when others decoded, which doubled the time to find +10 % in a slow
    /// model. Without the fifth an engine whose clock falls under load looked up to 2 % slower in a canary with
    /// fuller pods; where pods differed by 3 % too, that was three of four false rollbacks of a healthy revision.
    fn prefill_terms(&self, request: &FinishedRequest, known: (u16, u16)) -> [f64; 6] {
        let (uncached, context, overlap) = scaled(request);
        let load = self.share_in_use(request, known);
        [1.0, uncached, uncached * context, uncached * overlap, overlap, uncached * load]
    }

    /// ln milliseconds = a cubic of ln(1+u), overlap, context, u·context, load. Without the last one in a hundred healthy
    /// canaries of 50 requests per second was rolled back if its engine's clock falls under load.
    fn ttft_terms(&self, request: &FinishedRequest, known: (u16, u16)) -> [f64; 8] {
        let (uncached, context, overlap) = scaled(request);
        let log = f64::from(request.uncached_tokens).ln_1p();
        let load = self.share_in_use(request, known);
        [1.0, log, log * log, log * log * log, overlap, context, uncached * context, load]
    }

    /// Share of the slots in use when a request came, held within the loads that are known.
    fn share_in_use(&self, request: &FinishedRequest, (least, most): (u16, u16)) -> f64 {
        f64::from(self.load(request).clamp(least, most)) / f64::from(self.slots.max(1))
    }
}

/// Below a tenth, a half, nine tenths, and above: alone, mostly alone, mostly beside others, beside others.
fn overlap_bin(request: &FinishedRequest) -> usize {
    [100, 500, 900].iter().filter(|&&bound| request.overlap_permille >= bound).count()
}

fn is_prefill_measured(request: &FinishedRequest) -> bool {
    request.has_prompt() && request.uncached_tokens >= UNCACHED_MIN && request.prefill_micros > 0
}

fn is_ttft_measured(request: &FinishedRequest) -> bool {
    request.has_prompt() && request.is_unqueued && request.ttft_micros > 0
}

/// Uncached and prompt tokens in thousands, overlap as a share: terms of like size keep the equations well posed.
fn scaled(request: &FinishedRequest) -> (f64, f64, f64) {
    (
        f64::from(request.uncached_tokens) / 1_000.0,
        f64::from(request.prompt_tokens) / 1_000.0,
        f64::from(request.overlap_permille) / 1_000.0,
    )
}

fn dot<const N: usize>(one: &[f64; N], other: &[f64; N]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}
