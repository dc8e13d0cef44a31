//! Reports of a pod to the operator: every two seconds, and at once when the phase changes. Losing one only delays.

use std::time::{Duration, Instant};

use crds::report::{DecodeWork, Load, OpenedModel, Phase, REPORT_PATH, Report, Work};
use engine::EngineStats;
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::metrics::{Metrics, Outcome, bucket_counts};
use crate::push::Push;
use crate::queue::Snapshot;
use crate::work::Ledger;

/// The pace of reports: a reading older than three of these counts as unknown.
const EVERY: Duration = Duration::from_secs(2);

/// Who reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The `InferenceModel`.
    pub model: String,
    /// The revision.
    pub revision: String,
}

impl Identity {
    /// From the environment that the operator gives to the pod; empty outside a cluster.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).unwrap_or_default();
        Self {
            namespace: read("POD_NAMESPACE"),
            pod: read("POD_NAME"),
            pod_uid: read("POD_UID"),
            model: read("INFERNO_MODEL"),
            revision: read("INFERNO_REVISION"),
        }
    }
}

/// What changes from report to report.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Where the pod stands.
    pub phase: Phase,
    /// The model, once it is loaded.
    pub opened: Option<OpenedModel>,
    /// The load, once it serves.
    pub load: Option<Load>,
}

/// Sends readings for ever. `changed` wakes it before its time; when its sender is gone, only the pace counts.
pub async fn report(
    url: Url,
    identity: Identity,
    mut changed: watch::Receiver<u64>,
    read: impl Fn() -> Reading,
) {
    let began = Instant::now();
    let push = match Push::new(&url, REPORT_PATH) {
        Ok(push) => push,
        Err(error) => return tracing::error!(%error, "no reports are sent"),
    };
    let mut sending = JoinSet::new();
    for sequence in 1.. {
        let reading = read();
        let report = Report {
            namespace: identity.namespace.clone(),
            pod: identity.pod.clone(),
            pod_uid: identity.pod_uid.clone(),
            model: identity.model.clone(),
            revision: identity.revision.clone(),
            sequence,
            uptime_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            phase: reading.phase,
            opened: reading.opened,
            load: reading.load,
        };
        while sending.try_join_next().is_some() {}
        // Behind a slow resolver the next report replaces the one that is not yet sent; it holds the same sums.
        if sending.is_empty() {
            let push = push.clone();
            sending.spawn(async move { push.send(&report).await });
        }
        let next_at = tokio::time::sleep(EVERY);
        tokio::select! {
            () = next_at => {}
            () = has_changed(&mut changed) => {
                // The change must not be lost to a report under way, and may replace it.
                sending.shutdown().await;
            }
        }
    }
}

async fn has_changed(changed: &mut watch::Receiver<u64>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The load as the operator wants it, from the figures of now.
pub fn load(stats: &EngineStats, slots: u32, queue: &Snapshot, metrics: &Metrics, now: Instant) -> Load {
    let errors = metrics.ended(&[Outcome::Failed]);
    Load {
        arrivals_total: metrics.arrivals.get(),
        prompt_tokens_total: stats.prompt_tokens_total,
        cached_tokens_total: stats.cached_tokens_total,
        output_tokens_total: stats.output_tokens_total,
        completed_total: metrics.ended(&[Outcome::Completed]),
        errors_total: errors,
        cancelled_total: metrics.ended(&[Outcome::Cancelled]),
        slots_busy: stats.busy_slots,
        slots,
        queued: queue.by_tier.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        queued_prompt_tokens: queue.prompt_tokens,
        oldest_ms: milliseconds(queue.oldest),
        no_queue_ms_total: milliseconds(queue.empty),
        kv_tokens_used: stats.kv_tokens_used,
        kv_tokens_total: stats.kv_tokens_total,
        ttft_ms_buckets_total: bucket_counts(&metrics.time_to_first_token),
        inter_token_ms_buckets_total: bucket_counts(&metrics.inter_token),
        work: work(decode_work(stats), errors, &metrics.work, now),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn work(decode: Vec<DecodeWork>, errors: u64, ledger: &Ledger, now: Instant) -> Work {
    Work {
        decode,
        requests: ledger.finished.get(),
        prompt_tokens: ledger.prompt_tokens.get(),
        uncached_tokens: ledger.uncached_tokens.get(),
        prefill_us: ledger.prefill_us.get(),
        waited: ledger.waited.get(),
        errors,
        first_attempts: ledger.first_attempts.get(),
        first_attempt_errors: ledger.first_attempt_errors.get(),
        reuse_eligible: ledger.reuse_eligible.get(),
        reuse_hits: ledger.reuse_hits.get(),
        decode_steps: ledger.decode_steps.get(),
        decoded_tokens: ledger.decoded_tokens.get(),
        overlap_micros: ledger.overlap_us.get(),
        recent: ledger.rows(now),
    }
}

fn decode_work(stats: &EngineStats) -> Vec<DecodeWork> {
    let of_batch = |(batch, (calls, micros, kv_tokens)): (u32, &(u64, u64, u64))| DecodeWork {
        batch,
        calls: *calls,
        micros: *micros,
        kv_tokens: *kv_tokens,
    };
    (1..).zip(&stats.decode_by_batch).filter(|(_, (calls, _, _))| *calls > 0).map(of_batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_named_and_empty_ones_left_out() {
        let stats = EngineStats {
            decode_by_batch: vec![(2, 20, 200), (0, 0, 0), (1, 5, 7)],
            ..EngineStats::default()
        };
        let batches: Vec<_> = decode_work(&stats).iter().map(|work| (work.batch, work.calls)).collect();
        assert_eq!(batches, [(1, 2), (3, 1)]);
    }

    #[test]
    fn the_load_carries_the_buckets_that_the_operator_expects() {
        let metrics = Metrics::new("tiny").unwrap();
        metrics.arrivals.inc();
        let load = load(&EngineStats::default(), 4, &Snapshot::default(), &metrics, Instant::now());
        assert_eq!((load.arrivals_total, load.slots), (1, 4));
        assert_eq!(load.ttft_ms_buckets_total.len(), crds::report::LATENCY_BOUNDS_MS.len() + 1);
    }
}
