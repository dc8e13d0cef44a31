//! The evidence of one canary from some minutes before its traffic to its end. Pure.
//!
//! What stable pods' work costs is learned before the canary gets traffic, and from the recent past only: as long as
//! there is none, a younger evidence grows beside the older one and takes its place.

use crds::model::{ClientFigures, PodVariation};
use judgement::autoscale::Millis;
use judgement::rollout::{Analysis, Evidence, Observation, Verdict, judge, learned};

use super::clients::clients;
use super::share_of;
use crate::figures::rounded;
use crate::pod;

/// What is learned from before the canary's traffic: at least so much, and at most twice as much.
const LEARN_MS: u64 = 300_000;

/// Who is compared, and by what. Another subject is another analysis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Subject {
    pub(super) stable: String,
    pub(super) canary: Option<String>,
    pub(super) node_class: String,
    pub(super) analysis: Analysis,
    /// How much pods differ by what earlier rollouts have shown, in hundredths of a percent; instead of what the analysis says.
    pub(super) variation: Option<i64>,
}

/// One analysis.
#[derive(Debug, Clone)]
pub(super) struct Course {
    subject: Subject,
    began: Millis,
    slots: u16,
    evidence: Evidence,
    younger: Option<(Millis, Evidence)>,
}

impl Course {
    /// Nothing is known yet of stable pods with so many slots.
    pub(super) fn new(subject: Subject, slots: u16, now: Millis) -> Self {
        let evidence = evidence(&subject, slots);
        Self { subject, began: now, slots, evidence, younger: None }
    }

    /// Whether it goes on when the subject is this one now. A first canary finds what was learned; the kind of nodes, and
    /// what is known of it, is settled by the first traffic.
    pub(super) fn goes_on(&mut self, now: &Subject) -> bool {
        let has_traffic = self.evidence.exposed_ms().is_some();
        let before = &self.subject;
        let is_first = before.canary.is_none() && !has_traffic;
        let is_same = before.stable == now.stable
            && (before.canary == now.canary || is_first)
            && (has_traffic || (&before.node_class, before.variation) == (&now.node_class, now.variation))
            && before.analysis == now.analysis;
        if is_same {
            self.subject.canary.clone_from(&now.canary);
        }
        is_same
    }

    /// Takes in what arrived since the last call.
    pub(super) fn observe(&mut self, observation: &Observation, now: Millis) {
        if observation.weight_basis_points == 0 && self.evidence.exposed_ms().is_none() {
            self.age(now);
        } else {
            self.younger = None;
        }
        self.evidence.observe(observation);
        if let Some((_, younger)) = &mut self.younger {
            younger.observe(observation);
        }
    }

    /// What the evidence amounts to; nothing before the canary has had traffic.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.evidence.exposed_ms().map(|_| judge(&self.evidence))
    }

    /// What is known.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What clients of both revisions notice in the present step.
    pub(super) fn clients(&self) -> Vec<ClientFigures> {
        let step = self.evidence.steps().last();
        step.map(|step| clients(step, self.subject.analysis.tolerances)).unwrap_or_default()
    }

    /// What it teaches the next one; nothing before two stable pods were compared.
    pub(super) fn learned(&self) -> Option<PodVariation> {
        let found = learned(&self.evidence)?;
        let node_class = self.subject.node_class.clone();
        (node_class.len() <= pod::NODE_CLASS_MAX)
            .then(|| PodVariation { node_class, basis_points: rounded(found.pod_sd * 10_000.0) })
    }

    /// By what the evidence is judged.
    #[cfg(test)]
    pub(super) fn analysis(&self) -> &Analysis {
        self.evidence.analysis()
    }

    /// Since when the present evidence has been gathered.
    #[cfg(test)]
    pub(super) fn age_ms(&self, now: Millis) -> u64 {
        now.since(self.began)
    }

    fn age(&mut self, now: Millis) {
        if now.since(self.began) < LEARN_MS {
            return;
        }
        match self.younger.take() {
            Some((began, younger)) if now.since(began) >= LEARN_MS => {
                (self.began, self.evidence) = (began, younger);
            }
            younger => self.younger = younger,
        }
        self.younger.get_or_insert_with(|| (now, evidence(&self.subject, self.slots)));
    }
}

fn evidence(subject: &Subject, slots: u16) -> Evidence {
    let pod_sd = subject.variation.map_or(subject.analysis.pod_sd, share_of);
    let analysis = Analysis { stable_slots: slots, pod_sd, ..subject.analysis.clone() };
    Evidence::new(analysis, &subject.node_class)
}
