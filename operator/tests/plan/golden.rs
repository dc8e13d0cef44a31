//! Revisions that have golden prompts to pass before they get traffic.

use std::sync::Arc;

use crds::model::CanaryPhase;
use operator::golden::Outcome;
use operator::golden::set::{parse, read};
use operator::golden::standing::{FIRST_STEP, Finding, Seen};
use operator::plan::{Plan, Route};
use serde_json::{Value, json};

use super::canary::{both, old_revision, split_status};
use super::scene::*;

fn golden_model(strategy: Value) -> crds::model::InferenceModel {
    let mut rollout = json!({"goldenPrompts": {"configMapRef": {"name": "smoke"}, "minimumPassPercent": 50}});
    for (key, value) in strategy.as_object().unwrap() {
        rollout[key] = value.clone();
    }
    model(json!({"rollout": rollout}))
}

fn canary_model() -> crds::model::InferenceModel {
    golden_model(json!({"strategy": "Canary", "traffic": {"canaryPercent": 25}}))
}

/// A set of three prompts, and what came of asking `revision` before its first request, if it was asked.
fn seen(revision: &str, result: Option<Result<Outcome, String>>) -> Seen {
    let results: Vec<_> = result.into_iter().map(|result| (FIRST_STEP, result)).collect();
    seen_at(revision, &results)
}

/// The same with what came of it at some steps.
fn seen_at(revision: &str, results: &[(u32, Result<Outcome, String>)]) -> Seen {
    let entry = |name: &str| (name.to_owned(), "{prompt: a, expect: {contains: [a]}}".to_owned());
    let set = parse(&["a", "b", "c"].map(entry).into()).unwrap();
    let finding = |(step, result): &(u32, Result<Outcome, String>)| Finding {
        revision: revision.to_owned(),
        step: *step,
        set_hash: set.hash.clone(),
        tried_at: now(),
        result: result.clone(),
    };
    Seen { findings: results.iter().map(finding).collect(), set: Ok(Arc::new(set)) }
}

fn failed(count: usize) -> Outcome {
    let failures = ["a: the answer does not contain \"a\"", "b: wrong", "c: wrong"];
    Outcome::new(3, failures[..count].iter().map(|what| (*what).to_owned()).collect())
}

fn weight(plan: &Plan) -> Option<i32> {
    plan.status.rollout.as_ref().and_then(|rollout| rollout.weight_basis_points)
}

#[test]
fn a_canary_gets_traffic_when_enough_prompts_passed() {
    let (model, old) = (canary_model(), old_revision());
    let target = revision(&model);
    let planned = |result| {
        let mut scene = both(model.clone(), stable_status(&old));
        scene.observed.golden = Some(seen(&target, result));
        scene.plan()
    };

    let asking = planned(None);
    assert_eq!(weight(&asking), Some(0));
    let request = asking.golden.as_ref().unwrap();
    assert_eq!(
        (request.revision.as_str(), request.base_url.as_str()),
        (target.as_str(), "http://10.0.0.7:8080/v1")
    );
    let (_, reason, message) = condition(&asking, "Ready");
    assert_eq!(
        (reason.as_str(), message.contains("golden prompts are asked")),
        ("Proving", true),
        "{message}"
    );

    let passed = planned(Some(Ok(failed(1))));
    assert_eq!((weight(&passed), &passed.golden), (Some(2_500), &None));

    let refused = planned(Some(Ok(failed(2))));
    assert_eq!((weight(&refused), &refused.golden), (Some(0), &None));
    let (status, reason, message) = condition(&refused, "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GoldenPromptsFailed"));
    for part in
        ["1 of 3 golden prompts of ConfigMap smoke", "a: the answer does not contain", "keeps serving"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert!(
        refused.notices.iter().any(|notice| notice.reason == "GoldenPromptsFailed"),
        "{:?}",
        refused.notices
    );
}

#[test]
fn a_replacing_revision_waits_for_them_too() {
    let (model, old) = (golden_model(json!({})), old_revision());
    let target = revision(&model);
    let stable = |result| {
        let mut scene = both(model.clone(), stable_status(&old));
        scene.observed.golden = Some(seen(&target, result));
        scene.plan().status.stable_revision.unwrap()
    };
    assert_eq!(
        [stable(None), stable(Some(Ok(failed(2)))), stable(Some(Ok(failed(0))))],
        [old.clone(), old.clone(), target.clone()]
    );
}

#[test]
fn a_revision_without_a_token_is_not_asked() {
    let (model, old) = (canary_model(), old_revision());
    let target = revision(&model);
    let mut scene = both(model, stable_status(&old));
    scene.observed.proofs.pop();
    scene.observed.golden = Some(seen(&target, None));
    let plan = scene.plan();
    assert_eq!((plan.golden, plan.probes.len()), (None, 1));
}

#[test]
fn gateways_know_nothing_of_a_first_revision_before_it_has_passed() {
    let model = golden_model(json!({}));
    let target = revision(&model);
    let planned = |result, route| {
        let mut scene =
            scene(model.clone()).deployment(&target, 1, 1).ready_pod(&target).proof(&target, route, 0, true);
        scene.observed.golden = Some(seen(&target, result));
        scene.plan()
    };
    let asking = planned(None, Route::Pod);
    assert_eq!((&asking.status.stable_revision, &asking.status.target_revision), (&None, &None));
    assert!(asking.golden.is_some());
    assert_eq!(planned(Some(Ok(failed(3))), Route::Pod).status.target_revision, None);
    let passed = planned(Some(Ok(failed(0))), Route::Pod);
    assert_eq!(passed.status.stable_revision, Some(target.clone()));
    // What was asked of it before it had any traffic was asked at a pod.
    let unasked = {
        let mut scene = scene(model.clone()).deployment(&target, 1, 1).ready_pod(&target);
        scene.observed.golden = Some(seen(&target, None));
        scene.plan()
    };
    assert_eq!(asked(&unasked), [(Route::Pod, "http://10.0.0.7:8080/v1")]);
}

#[test]
fn a_restarted_operator_takes_nothing_away_but_a_failed_set_does() {
    let model = canary_model();
    let target = revision(&model);
    let planned = |result| {
        let mut scene = both(model.clone(), split_status(&target, 2_500));
        scene.observed.golden = Some(seen(&target, result));
        scene.plan()
    };
    let unknown = planned(None);
    assert_eq!((weight(&unknown), unknown.golden.is_some()), (Some(2_500), true));
    assert_eq!(weight(&planned(Some(Ok(failed(3))))), Some(0));
}

#[test]
fn a_driven_canary_is_asked_again_at_each_step_and_goes_back_when_it_fails_there() {
    let model = golden_model(json!({"strategy": "Canary"}));
    let (target, old) = (revision(&model), old_revision());
    // At its second step, whose weight is in place.
    let at_second_step = |results: &[(u32, Result<Outcome, String>)]| {
        let mut status = split_status(&target, 2_500);
        status["stableRevision"] = json!(old);
        status["rollout"]["step"] = json!(2);
        status["rollout"]["course"] = json!({
            "phase": "Analysing", "since": "2027-01-15T07:59:00Z", "message": "", "stepSince": "2027-01-15T07:59:00Z",
            "capacityStrategy": "Surge", "extraPods": 0, "stepsBack": 0, "ending": "Stable", "isUnderpowered": false,
        });
        let mut scene = both(model.clone(), status);
        scene.observed.golden = Some(seen_at(&target, results));
        scene.plan()
    };
    let phase = |plan: &Plan| plan.status.rollout.as_ref().unwrap().course.as_ref().unwrap().phase;
    let passed = (FIRST_STEP, Ok(failed(0)));

    let entered = at_second_step(std::slice::from_ref(&passed));
    let request = entered.golden.as_ref().unwrap();
    assert_eq!((request.revision.as_str(), request.step), (target.as_str(), 1));
    assert_eq!((weight(&entered), phase(&entered)), (Some(2_500), CanaryPhase::Analysing));

    let answered = at_second_step(&[passed.clone(), (1, Ok(failed(0)))]);
    assert_eq!((&answered.golden, weight(&answered)), (&None, Some(2_500)));

    let wrong = at_second_step(&[passed, (1, Ok(failed(2)))]);
    assert_eq!((weight(&wrong), phase(&wrong)), (Some(0), CanaryPhase::RollingBack));
    let course = wrong.status.rollout.as_ref().unwrap().course.as_ref().unwrap();
    assert!(course.message.contains("1 of 3 golden prompts of ConfigMap smoke"), "{}", course.message);
}

#[test]
fn without_probes_golden_prompts_are_asked_all_the_same() {
    let model = golden_model(json!({}));
    let target = revision(&model);
    let planned = |result| {
        let mut scene = scene(model.clone()).deployment(&target, 1, 1).ready_pod(&target);
        scene.observed.is_probing = false;
        scene.observed.golden = Some(seen(&target, result));
        scene.plan()
    };
    let asking = planned(None);
    assert!(asking.golden.is_some() && asking.probes.is_empty());
    assert!(condition(&asking, "Ready").2.contains("golden prompts are asked"), "{:?}", asking.status);
    let passed = planned(Some(Ok(failed(0))));
    assert_eq!(passed.status.stable_revision, Some(target.clone()));
    let (status, reason, _) = condition(&passed, "Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "PodsReady"));
}

#[test]
fn a_set_that_cannot_be_read_is_a_problem_of_the_spec() {
    let (model, old) = (canary_model(), old_revision());
    let mut scene = both(model, stable_status(&old));
    scene.observed.golden =
        Some(Seen { set: read("smoke", "default", None).map(Arc::new), findings: vec![] });
    let plan = scene.plan();
    let (status, reason, message) = condition(&plan, "Accepted");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "GoldenPromptsNotFound"));
    assert!(message.contains("spec.rollout.goldenPrompts.configMapRef.name is smoke"), "{message}");
    assert_eq!((plan.deployment, plan.status.stable_revision), (None, Some(old)));
}
