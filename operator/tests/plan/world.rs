//! A cluster in which everything that is planned is carried out at once, turn after turn, while time passes.

use std::collections::BTreeMap;

use crds::model::{CanaryCourse, InferenceModel, PodVariation, RolloutPhase, RolloutStatus};
use judgement::rollout::{Outcome, Reason, Verdict};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use operator::capacity::Claim;
use operator::inventory::Room;
use operator::plan::{Plan, Route, plan};
use operator::trial::tell::Seen;
use serde_json::{Value, json};

use super::scene::*;

/// A model with so many pods and canaries by default steps, whose former pods go at once; `changes` are to `spec.rollout`.
pub(crate) fn driven(replicas: i32, changes: Value) -> InferenceModel {
    let mut rollout = json!({"strategy": "Canary", "warmupSeconds": 10, "rollbackWindowSeconds": 0});
    for (key, value) in changes.as_object().unwrap() {
        rollout[key] = value.clone();
    }
    model(json!({"replicas": replicas, "rollout": rollout}))
}

pub(crate) fn with_alias(mut model: InferenceModel, alias: &str) -> InferenceModel {
    model.spec.aliases = vec![alias.to_owned()];
    model
}

/// A cluster in which everything that is planned is carried out at once.
pub(crate) struct World {
    pub(crate) model: InferenceModel,
    /// Pods that each revision was told to have.
    pub(crate) told: BTreeMap<String, i32>,
    /// The revision whose pods do not start, and what they say.
    pub(crate) failing: Option<(String, &'static str)>,
    pub(crate) verdict: Option<Outcome>,
    /// What the canary's evidence teaches.
    pub(crate) learned: Option<PodVariation>,
    pub(crate) pool: Value,
    /// What other models of the pool ask for.
    pub(crate) others: Vec<Claim>,
    /// What the nodes have room for.
    pub(crate) room: Room,
    /// Pods' worth of work, if that is known.
    pub(crate) demand: Option<f64>,
    /// Pods that the autoscaler wants, if there is one.
    pub(crate) wanted: Option<u32>,
    pub(crate) is_probing: bool,
    pub(crate) now: i64,
    pub(crate) plan: Plan,
}

impl World {
    /// A revision serves, and another is asked for.
    pub(crate) fn new(model: InferenceModel) -> Self {
        let old = revision(&with_alias(model.clone(), "old"));
        let mut before = model.clone();
        before.status = Some(serde_json::from_value(stable_status(&old)).unwrap());
        let plan = scene(before.clone()).plan();
        let told = [(old, model.spec.replicas)].into();
        let mut world = Self {
            model: before,
            told,
            failing: None,
            verdict: None,
            learned: None,
            pool: json!({}),
            others: Vec::new(),
            room: Room::Unknown,
            demand: None,
            wanted: None,
            is_probing: true,
            now: NOW,
            plan,
        };
        world.turn(0);
        world
    }

    /// A revision serves in a pool that has room for so many pods, with so much work; and another is asked for.
    pub(crate) fn in_pool(model: InferenceModel, max_replicas: i32, demand: Option<f64>) -> Self {
        let new = model.spec.aliases.clone();
        let mut world = Self::new(with_alias(model, "old"));
        world.until(RolloutPhase::Stable).turn(2);
        (world.pool, world.demand) = (json!({"limits": {"maxReplicas": max_replicas}}), demand);
        world.model.spec.aliases = new;
        world
    }

    pub(crate) fn old(&self) -> String {
        revision(&with_alias(self.model.clone(), "old"))
    }

    pub(crate) fn target(&self) -> String {
        revision(&self.model)
    }

    pub(crate) fn is_failing(&self, name: &str) -> bool {
        self.failing.as_ref().is_some_and(|(failing, _)| failing == name)
    }

    pub(crate) fn scene(&self) -> Scene {
        let mut found = scene(self.model.clone()).in_pool(self.pool.clone());
        found.observed.is_probing = self.is_probing;
        found.observed.room = self.room.clone();
        let replicas = self.model.spec.replicas;
        found.observed.claims = vec![Claim { created: None, model: "tiny".into(), replicas, kept: 0 }];
        found.observed.claims.extend(self.others.clone());
        if let Some(demand) = self.demand {
            found = found.busy(demand);
        }
        if let Some(wanted) = self.wanted {
            let of_stable = self.model.status.as_ref().and_then(|status| status.stable_revision.as_ref());
            let current = of_stable.and_then(|stable| self.told.get(stable)).copied().unwrap_or(0);
            found = found.decided(u32::try_from(current).unwrap(), wanted);
        }
        for (name, told) in &self.told {
            let ready = if self.is_failing(name) { 0 } else { *told };
            found = found.deployment(name, *told, ready);
            for _ in 0..*told {
                found = match &self.failing {
                    Some((failing, reason)) if failing == name => found.failed_pod(name, reason),
                    _ => found.ready_pod(name),
                };
            }
            if ready > 0 {
                found = found.proof(name, Route::Pod, 0, true).proof(name, Route::Gateway, 0, true);
            }
        }
        let canary = self.model.status.as_ref().and_then(|status| status.canary_revision.clone());
        let verdict = self.verdict.map(verdict);
        found.observed.trial = canary.zip(verdict).map(|(canary, verdict)| Seen {
            canary,
            verdict,
            clients: vec![],
            learned: self.learned.clone(),
            age_ms: 0,
        });
        found
    }

    /// So many seconds pass; then the operator looks, and what it plans is done.
    pub(crate) fn turn(&mut self, seconds: i64) -> &mut Self {
        self.now += seconds;
        let found = self.scene();
        let now = Timestamp::from_second(self.now).unwrap();
        let plan = plan(&found.model, &found.observed, &installation(), now);
        if let Some(deployment) = &plan.deployment {
            let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap();
            self.told.insert(deployment.name_any(), replicas);
        }
        for (name, replicas) in &plan.scale {
            self.told.insert(name.clone(), *replicas);
        }
        for name in &plan.prune {
            self.told.remove(name);
        }
        self.model.status = Some(plan.status.clone());
        self.plan = plan;
        self
    }

    /// Turns every two seconds until the phase is `phase`.
    #[track_caller]
    pub(crate) fn until(&mut self, phase: RolloutPhase) -> &mut Self {
        for _ in 0..10_000 {
            if self.phase() == phase {
                return self;
            }
            self.turn(2);
        }
        panic!("{phase:?} never comes: {:#?}", self.plan.status);
    }

    pub(crate) fn rollout(&self) -> &RolloutStatus {
        self.plan.status.rollout.as_ref().unwrap()
    }

    pub(crate) fn course(&self) -> &CanaryCourse {
        self.rollout().course.as_ref().unwrap()
    }

    pub(crate) fn phase(&self) -> RolloutPhase {
        self.rollout().phase
    }

    pub(crate) fn weight(&self) -> i32 {
        self.rollout().weight_basis_points.unwrap_or(0)
    }

    pub(crate) fn stable(&self) -> &str {
        self.plan.status.stable_revision.as_deref().unwrap()
    }

    #[track_caller]
    pub(crate) fn ready(&self) -> (String, String) {
        let ready = condition(&self.plan, "Ready");
        (ready.1, ready.2)
    }

    pub(crate) fn command(&mut self, command: &str, id: &str) -> &mut Self {
        let action = json!({"command": command, "revision": self.target(), "id": id});
        self.model.spec.rollout.as_mut().unwrap().action = serde_json::from_value(action).unwrap();
        self
    }
}

pub(crate) fn verdict(outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        reason: match outcome {
            Outcome::Rollback => Reason::DecodeSlower,
            Outcome::Pass => Reason::WithinTolerance,
            Outcome::Inconclusive => Reason::NoComparableControl,
            _ => Reason::Watching,
        },
        sentence: format!("{outcome:?} by 15 %"),
        metrics: Vec::new(),
        is_error_rate_proven: true,
        budget_used: 0.1,
        pod_sd: None,
        pods_needed: None,
        outliers: Vec::new(),
    }
}
