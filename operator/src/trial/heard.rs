//! What pods and gateways have said of a model since the last observation: rows that were not seen before, the latest
//! sums, and conversations that began. Lost reports only delay, doubled and late ones count once. Pure.

use std::collections::BTreeMap;

use crds::report::{self, GatewayModel, GatewayReport, Report, RequestWork};
use judgement::autoscale::Millis;
use judgement::rollout::{CountTotals, DecodeTotal, FinishedRequest, Part};

/// Reports come every 2 s; one that was under way for longer than three of those is dropped.
const LATE_MS: u64 = 6_000;
/// Who was silent for longer is gone. Rows of a pod speak of its last 10 s, so none is taken twice when it comes back.
const GONE_MS: u64 = 60_000;
/// Pods of one model that are listened to.
const PODS_MAX: usize = 512;
/// Gateways of one pool that are listened to.
const GATEWAYS_MAX: usize = 64;
/// Revisions that a gateway may count.
const ARMS_MAX: usize = 16;
/// Batch sizes that an engine can have.
const BATCHES_MAX: usize = 256;
/// Rows kept of one pod between observations: 200 per second, two for each request. Later ones are dropped.
const ROWS_MAX: usize = 2_048;

/// One pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pod {
    last: Millis,
    uptime_ms: u64,
    /// The last row that was seen of the process that runs.
    ordinal: u64,
    /// Whether it has said something since the last observation.
    is_fresh: bool,
    pub(super) revision: String,
    pub(super) slots: u32,
    pub(super) decode: Vec<DecodeTotal>,
    pub(super) counts: CountTotals,
    pub(super) rows: Vec<FinishedRequest>,
}

/// All pods of one model, by UID.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Pods(BTreeMap<String, Pod>);

impl Pods {
    /// Takes in a report; one of a pod that does not serve yet says nothing here.
    pub(super) fn hear(&mut self, report: &Report, now: Millis) {
        let Some(load) = &report.load else { return };
        self.0.retain(|_, pod| now.since(pod.last) <= GONE_MS);
        let before = self.0.remove(&report.pod_uid);
        if before.is_none() && self.0.len() >= PODS_MAX {
            return;
        }
        let process =
            before.as_ref().map(|before| process(report.uptime_ms, before.uptime_ms, before.last, now));
        let (seen, mut rows) = match (before, process) {
            (Some(before), Some(Process::Former)) => {
                self.0.insert(report.pod_uid.clone(), before);
                return;
            }
            (Some(before), Some(Process::Same)) => (before.ordinal, before.rows),
            (Some(before), _) => (0, before.rows),
            (None, _) => (0, Vec::new()),
        };
        let new = load.work.recent.iter().filter(|row| row.ordinal > seen);
        rows.extend(new.map(finished).take(ROWS_MAX.saturating_sub(rows.len())));
        let newest = load.work.recent.iter().map(|row| row.ordinal).max().unwrap_or(0);
        let work = &load.work;
        let pod = Pod {
            last: now,
            uptime_ms: report.uptime_ms,
            ordinal: newest.max(seen),
            is_fresh: true,
            revision: report.revision.clone(),
            slots: load.slots,
            decode: work.decode.iter().take(BATCHES_MAX).map(decoded).collect(),
            counts: CountTotals {
                first_attempts: work.first_attempts,
                first_attempt_errors: work.first_attempt_errors,
                reuse_eligible: work.reuse_eligible,
                reuse_hits: work.reuse_hits,
            },
            rows,
        };
        self.0.insert(report.pod_uid.clone(), pod);
    }

    /// Pods that have said something since the last time, by UID; their rows are handed over.
    pub(super) fn take(&mut self, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, Pod)> {
        let heard = self.0.iter_mut().filter(|(uid, pod)| pod.is_fresh && is_wanted(uid));
        heard
            .map(|(uid, pod)| {
                pod.is_fresh = false;
                let rows = std::mem::take(&mut pod.rows);
                (uid.clone(), Pod { rows, ..pod.clone() })
            })
            .collect()
    }

    /// The most slots that a pod of `revision` has.
    pub(super) fn slots(&self, revision: &str) -> Option<u32> {
        self.0.values().filter(|pod| pod.revision == revision).map(|pod| pod.slots).max()
    }
}

/// Which process a report speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    /// The one that spoke before.
    Same,
    /// A new one.
    New,
    /// One that spoke earlier, or the same at an earlier moment: it comes late.
    Former,
}

/// Which process says that it has run for `uptime_ms`, when `before_ms` was said at `last`.
fn process(uptime_ms: u64, before_ms: u64, last: Millis, now: Millis) -> Process {
    let silence_ms = now.since(last);
    if uptime_ms >= before_ms {
        let is_ahead = uptime_ms > before_ms.saturating_add(silence_ms).saturating_add(LATE_MS);
        if is_ahead { Process::Former } else { Process::Same }
    } else if uptime_ms > silence_ms.saturating_add(LATE_MS) {
        Process::Former
    } else {
        Process::New
    }
}

fn decoded(work: &report::DecodeWork) -> DecodeTotal {
    DecodeTotal { batch: work.batch, calls: work.calls, micros: work.micros, kv_tokens: work.kv_tokens }
}

fn finished(row: &RequestWork) -> FinishedRequest {
    FinishedRequest {
        part: match row.part {
            report::Part::Whole => Part::Whole,
            report::Part::Prompt => Part::Prompt,
            report::Part::Answer => Part::Answer,
        },
        uncached_tokens: row.uncached_tokens,
        prompt_tokens: row.prompt_tokens,
        prefill_micros: row.prefill_micros,
        overlap_permille: row.overlap_permille,
        ttft_micros: row.ttft_micros,
        inter_token_micros: row.inter_token_micros,
        output_tokens: row.output_tokens,
        decode_steps: row.decode_steps,
        // Not known: as if all slots had been in use. Then no wait for one is held against a revision.
        in_flight_before: row.in_flight_before.unwrap_or(u16::MAX),
        is_unqueued: row.is_unqueued,
        has_waited: row.has_waited,
        has_failed: row.has_failed,
        was_cancelled: row.was_cancelled,
    }
}

// === gateways ===

/// One gateway.
#[derive(Debug, Clone, PartialEq)]
struct Gateway {
    last: Millis,
    uptime_ms: u64,
    /// New conversations by revision, as it has counted them.
    counted: BTreeMap<String, u64>,
}

/// All gateways of one model, by UID, and what they have counted since the last observation.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Gateways {
    by_uid: BTreeMap<String, Gateway>,
    new: BTreeMap<String, u64>,
}

impl Gateways {
    /// Takes in what a gateway says of the model. What it counted before its first report here is not known to be of now.
    /// Returns whether the report is of now.
    pub(super) fn hear(&mut self, report: &GatewayReport, model: &GatewayModel, now: Millis) -> bool {
        self.by_uid.retain(|_, gateway| now.since(gateway.last) <= GONE_MS);
        let before = self.by_uid.get(&report.pod_uid);
        if before.is_none() && self.by_uid.len() >= GATEWAYS_MAX {
            return false;
        }
        let arms = model.arms.iter().take(ARMS_MAX);
        let counted: BTreeMap<String, u64> =
            arms.map(|arm| (arm.revision.clone(), arm.new_conversations_total)).collect();
        if let Some(before) = before {
            let process = process(report.uptime_ms, before.uptime_ms, before.last, now);
            if process == Process::Former {
                return false;
            }
            for (revision, count) in &counted {
                let known =
                    before.counted.get(revision).filter(|_| process == Process::Same).copied().unwrap_or(0);
                let new = count.saturating_sub(known);
                if new > 0 && (self.new.len() < ARMS_MAX || self.new.contains_key(revision)) {
                    *self.new.entry(revision.clone()).or_default() += new;
                }
            }
        }
        let gateway = Gateway { last: now, uptime_ms: report.uptime_ms, counted };
        self.by_uid.insert(report.pod_uid.clone(), gateway);
        true
    }

    /// New conversations by revision since the last time.
    pub(super) fn take(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.new)
    }
}
