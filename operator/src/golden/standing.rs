//! What golden prompts mean for a revision: whether it may get traffic, what is said of it, and when to ask. Pure.

use std::sync::Arc;

use crds::model::{GoldenPrompts, InferenceModel};
use k8s_openapi::jiff::Timestamp;

use super::Outcome;
use super::set::Set;
use crate::problem::Problem;

/// Prompts that could not be asked are asked again after so long.
const RETRY_SECONDS: i64 = 5;
/// Failures that a message names; the others are counted.
const FAILURES_TOLD: usize = 3;

/// Before the first request of a user.
pub const FIRST_STEP: u32 = 0;

/// What is known of a model's golden prompts.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The set, or why there is none.
    pub set: Result<Arc<Set>, Problem>,
    /// What has come of asking it.
    pub findings: Vec<Finding>,
}

/// What came of asking a revision the prompts of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whom.
    pub revision: String,
    /// At which step of its rollout.
    pub step: u32,
    /// What.
    pub set_hash: String,
    /// When it was last tried.
    pub tried_at: Timestamp,
    /// The outcome, or why not all prompts could be asked.
    pub result: Result<Outcome, String>,
}

/// Where a revision stands with its golden prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Enough were answered as expected.
    Passed,
    /// Too few.
    Failed(String),
    /// Nobody knows yet; the last try may have had an obstacle.
    Asking(Option<String>),
}

impl Seen {
    /// What came of asking `revision` at a step the prompts as they are now.
    pub fn finding(&self, revision: &str, step: u32) -> Option<&Finding> {
        let hash = &self.set.as_ref().ok()?.hash;
        self.findings
            .iter()
            .find(|found| found.revision == revision && found.step == step && found.set_hash == *hash)
    }

    /// Whether `revision` should be asked now.
    pub fn is_due(&self, revision: &str, step: u32, now: Timestamp) -> bool {
        self.finding(revision, step).is_none_or(|found| {
            found.result.is_err() && now.as_second() - found.tried_at.as_second() >= RETRY_SECONDS
        })
    }
}

/// `spec.rollout.goldenPrompts`.
pub fn declared(model: &InferenceModel) -> Option<&GoldenPrompts> {
    model.spec.rollout.as_ref()?.golden_prompts.as_ref()
}

/// The step of its rollout at which `revision` has to pass them now: a driven canary's present one, and of any other
/// revision the one before its first request.
pub fn step(model: &InferenceModel, revision: &str) -> u32 {
    let status = model.status.as_ref();
    let driven = status.filter(|status| status.canary_revision.as_deref() == Some(revision));
    let step = driven.and_then(|status| status.rollout.as_ref()?.step);
    // The status counts from 1; the first request comes at that step.
    step.and_then(|step| u32::try_from(step).ok()).map_or(FIRST_STEP, |step| step.saturating_sub(1))
}

/// Where `revision` stands at its present step; nothing if no prompts are declared, or if they do not matter to it.
pub fn standing(model: &InferenceModel, seen: Option<&Seen>, revision: &str) -> Option<Standing> {
    let (declared, seen) = (declared(model)?, seen?);
    let found = seen.finding(revision, step(model, revision));
    Some(match found.map(|found| &found.result) {
        Some(Ok(outcome)) => judge(declared, outcome),
        Some(Err(obstacle)) => Standing::Asking(Some(obstacle.clone())),
        None => Standing::Asking(None),
    })
}

fn judge(declared: &GoldenPrompts, outcome: &Outcome) -> Standing {
    let minimum = declared.minimum_pass_percent.unwrap_or(100);
    if i64::from(outcome.pass_percent) >= i64::from(minimum) {
        return Standing::Passed;
    }
    let Outcome { passed, total, pass_percent, failures } = outcome;
    let told = failures.iter().take(FAILURES_TOLD).cloned().collect::<Vec<_>>().join("; ");
    let more = match failures.len().saturating_sub(FAILURES_TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Standing::Failed(format!(
        "{passed} of {total} golden prompts of ConfigMap {} passed: {pass_percent}%, and \
         spec.rollout.goldenPrompts.minimumPassPercent is {minimum}: {told}{more}",
        declared.config_map_ref.name,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::set::parse;
    use super::*;

    fn model(minimum: Option<i32>) -> InferenceModel {
        let golden = json!({"configMapRef": {"name": "smoke"}, "minimumPassPercent": minimum});
        serde_json::from_value(json!({
            "metadata": {"name": "tiny"},
            "spec": {"poolRef": {"name": "cpu"}, "source": {}, "rollout": {"goldenPrompts": golden}},
        }))
        .unwrap()
    }

    fn seen(result: Option<Result<Outcome, String>>) -> Seen {
        let set =
            parse(&[("a".to_owned(), "{prompt: a, expect: {contains: [a]}}".to_owned())].into()).unwrap();
        let finding = |result| Finding {
            revision: "tiny-a".into(),
            step: FIRST_STEP,
            set_hash: set.hash.clone(),
            tried_at: Timestamp::from_second(100).unwrap(),
            result,
        };
        Seen { findings: result.map(finding).into_iter().collect(), set: Ok(Arc::new(set)) }
    }

    fn failures(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("p{number}: wrong")).collect()
    }

    #[test]
    fn the_minimum_decides_and_the_message_names_it() {
        let of = |minimum, failed| {
            standing(&model(minimum), Some(&seen(Some(Ok(Outcome::new(10, failures(failed)))))), "tiny-a")
                .unwrap()
        };
        assert_eq!(of(None, 0), Standing::Passed);
        assert_eq!(of(Some(60), 4), Standing::Passed);
        let message = "5 of 10 golden prompts of ConfigMap smoke passed: 50%, and \
                       spec.rollout.goldenPrompts.minimumPassPercent is 60: p0: wrong; p1: wrong; p2: wrong; and 2 more";
        assert_eq!(of(Some(60), 5), Standing::Failed(message.into()));
        assert!(matches!(of(None, 1), Standing::Failed(_)));
    }

    #[test]
    fn what_could_not_be_asked_is_asked_again_and_an_outcome_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let unreached = seen(Some(Err("no answer".into())));
        assert_eq!(
            standing(&model(None), Some(&unreached), "tiny-a"),
            Some(Standing::Asking(Some("no answer".into())))
        );
        assert_eq!([at(104), at(105)].map(|now| unreached.is_due("tiny-a", FIRST_STEP, now)), [false, true]);
        let failed = seen(Some(Ok(Outcome::new(1, failures(1)))));
        assert!(!failed.is_due("tiny-a", FIRST_STEP, at(9_999)));
        assert!(failed.is_due("tiny-a", 1, at(100)), "another step");
        assert!(failed.is_due("tiny-b", FIRST_STEP, at(100)), "another revision");
        assert!(seen(None).is_due("tiny-a", FIRST_STEP, at(100)));
    }

    #[test]
    fn nothing_declared_is_nothing_to_wait_for() {
        let model: InferenceModel = serde_json::from_value(
            json!({"metadata": {}, "spec": {"poolRef": {"name": "cpu"}, "source": {}}}),
        )
        .unwrap();
        assert_eq!(standing(&model, None, "tiny-a"), None);
    }
}
