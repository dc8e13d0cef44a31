//! What the judge gets to see of the fleet: one observation per tick, with what gets lost or comes late.

use std::collections::VecDeque;

use judgement::rollout::{Arm, Observation, PodReport};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use super::super::random::{Random, stream};
use super::fleet::{Fleet, TICK_MS};
use super::world::{Loss, World};

/// Pods report every two seconds: so many reports per tick.
const REPORTS_PER_TICK: i32 = 5;
/// Error of a node's known speed, from an earlier rollout.
const NODE_ERROR: f64 = 0.007;
/// Observations are told in milliseconds from here, so that none is negative.
pub const EPOCH_MS: f64 = 600_000.0;
/// The kind of node of all pods.
pub const NODE_CLASS: &str = "simulated";

/// The way from pods to the judge.
pub struct Telemetry {
    random: Random,
    late: VecDeque<Vec<PodReport>>,
    ticks_late: usize,
    known: Vec<f64>,
}

impl Telemetry {
    /// Nothing was sent yet.
    pub fn new(world: &World, seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few ticks")]
        let ticks_late = (1_000.0 * world.late_s / TICK_MS).round() as usize;
        Self {
            random: stream(seed, "canary telemetry"),
            late: VecDeque::new(),
            ticks_late,
            known: Vec::new(),
        }
    }

    /// Collects what pods did since the last call, under `weight_basis_points`.
    pub fn collect(&mut self, world: &World, fleet: &mut Fleet<'_>, weight_basis_points: u16) -> Observation {
        let mut reports = Vec::new();
        let mut late = Vec::new();
        for at in 0..fleet.pods.len() {
            let pod = &mut fleet.pods[at];
            if !pod.is_up {
                continue;
            }
            let lost = match world.loss {
                Loss::Nothing => 0.0,
                Loss::Share(share) => share,
                Loss::UnderQueueing => {
                    if pod.waiting.is_empty() {
                        0.2
                    } else {
                        0.9
                    }
                }
                Loss::StableOnly => {
                    if pod.arm == Arm::Control {
                        0.6
                    } else {
                        0.0
                    }
                }
            };
            let mut requests = std::mem::take(&mut pod.rows);
            if lost > 0.0 {
                requests.retain(|_| self.random.random::<f64>() >= lost);
                if self.random.random::<f64>() < lost.powi(REPORTS_PER_TICK) {
                    // Not one report of this tick arrived: its rows are gone, its sums come with the next.
                    continue;
                }
            }
            let report = PodReport {
                pod: format!("pod-{at:03}"),
                arm: pod.arm,
                node_class: NODE_CLASS.to_owned(),
                known_slowness: 0.0,
                ready_at_ms: milliseconds(pod.ready_ms),
                decode: pod.decode_totals(),
                counts: pod.counts,
                requests,
            };
            if pod.arm == Arm::Canary && self.ticks_late > 0 {
                late.push(report);
            } else {
                reports.push(report);
            }
        }
        self.late.push_back(late);
        if self.late.len() > self.ticks_late {
            reports.extend(self.late.pop_front().unwrap_or_default());
        }
        Observation {
            at_ms: milliseconds(fleet.now_ms),
            weight_basis_points,
            ends_step: false,
            new_conversations: std::mem::take(&mut fleet.new_conversations),
            pods: reports,
        }
    }

    /// What an earlier rollout found of the node of pod `at`.
    pub fn known_of(&mut self, fleet: &Fleet<'_>, at: usize) -> f64 {
        while self.known.len() <= at {
            let normal: f64 = StandardNormal.sample(&mut self.random);
            self.known.push(fleet.pods[self.known.len()].effect + NODE_ERROR * normal);
        }
        self.known[at]
    }
}

/// A time of the fleet as the judge's.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the epoch lies before everything"
)]
pub fn milliseconds(fleet_ms: f64) -> u64 {
    (fleet_ms + EPOCH_MS).max(0.0) as u64
}
