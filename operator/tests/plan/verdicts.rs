//! What is said of a canary that has been judged, and where its reports belong.

use crds::model::{
    AnalysisOutcome, AnalysisStanding, AnalysisStatus, InferenceModel, PodVariation, RolloutPhase,
    RolloutStatus,
};
use judgement::autoscale::Millis;
use judgement::rollout::{Method, Metric, MetricVerdict, Outcome, Reason, Standing, Tolerances, Verdict};
use operator::plan::Plan;
use operator::trial::tell::{Seen, variations};
use operator::trial::{analysis, standing};
use serde_json::json;

use crate::canary::{both, canary_model, old_revision, split_status};
use crate::scene::{Scene, condition, model, now, revision, stable_status};
use crate::world::{World, driven};

fn verdict(outcome: Outcome, reason: Reason, estimate: f64, samples: u64) -> Verdict {
    let metric = |metric| MetricVerdict {
        metric,
        estimate,
        lower: estimate - 0.03,
        upper: estimate + 0.02,
        e_value: 1.0,
        samples_canary: samples,
        samples_control: 2 * samples,
        standing: Standing::Undecided,
    };
    Verdict {
        outcome,
        reason,
        sentence: "tokens are generated 12 % slower per unit of work; if that is meant, raise \
                   spec.rollout.analysis.tolerance.decodePercent"
            .to_owned(),
        metrics: [Metric::Decode, Metric::ErrorRate, Metric::SloMiss].map(metric).to_vec(),
        is_error_rate_proven: false,
        budget_used: 0.25,
        pod_sd: None,
        pods_needed: Some(7),
        outliers: Vec::new(),
    }
}

/// A canary with half of the traffic, of which `verdict` was found.
fn judged(verdict: Option<Verdict>) -> Scene {
    let model = canary_model(50);
    let canary = revision(&model);
    let mut scene = both(model, split_status(&canary, 5_000));
    scene.observed.trial =
        verdict.map(|verdict| Seen { canary, verdict, clients: vec![], learned: None, age_ms: 0 });
    scene
}

fn told(plan: &Plan) -> Option<&AnalysisStatus> {
    plan.status.rollout.as_ref()?.analysis.as_ref()
}

/// The same scene when `plan` has been carried out.
fn next(mut scene: Scene, plan: &Plan, verdict: Option<Verdict>) -> Scene {
    let canary = plan.status.canary_revision.clone().unwrap();
    scene.model.status = Some(plan.status.clone());
    scene.observed.trial =
        verdict.map(|verdict| Seen { canary, verdict, clients: vec![], learned: None, age_ms: 0 });
    scene
}

fn events(plan: &Plan) -> Vec<(&str, bool)> {
    let found = plan.notices.iter().filter(|notice| notice.reason == "CanaryVerdictChanged");
    found.map(|notice| (notice.reason.as_str(), notice.is_warning)).collect()
}

#[test]
fn a_verdict_is_told_with_its_figures_and_changes_nothing() {
    let plan = judged(Some(verdict(Outcome::Rollback, Reason::DecodeSlower, 0.1234, 10))).plan();
    let found = told(&plan).unwrap();
    assert_eq!((found.outcome, found.reason.as_str()), (AnalysisOutcome::Rollback, "DecodeSlower"));
    assert!(found.message.ends_with("raise spec.rollout.analysis.tolerance.decodePercent"), "{found:?}");
    assert_eq!((found.budget_used_percent, found.pods_needed), (25, Some(7)));
    assert_eq!(found.since.0, now());
    let names: Vec<&str> = found.metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert_eq!(names, ["Decode", "ErrorRate"], "nobody has declared objectives");
    let [decode, errors] = &found.metrics[..] else { panic!("{found:?}") };
    assert_eq!(
        (decode.estimate_basis_points, decode.lower_basis_points, decode.upper_basis_points),
        (Some(1_234), Some(934), Some(1_434))
    );
    assert_eq!((decode.samples_canary, decode.samples_stable), (10, 20));
    assert_eq!(decode.standing, AnalysisStanding::Undecided);
    assert_eq!((errors.estimate_basis_points, errors.lower_basis_points), (Some(1_234), None));
    let conclusive = condition(&plan, "AnalysisConclusive");
    assert_eq!((conclusive.0.as_str(), conclusive.1.as_str()), ("True", "DecodeSlower"));
    assert!(conclusive.2.contains("mode Observe"), "{}", conclusive.2);
    assert_eq!(events(&plan), [("CanaryVerdictChanged", true)]);
    assert_eq!(plan.status.rollout.as_ref().unwrap().weight_basis_points, Some(5_000));
    assert_eq!(plan.prune, Vec::<String>::new());
}

#[test]
fn without_samples_there_are_no_figures() {
    let plan = judged(Some(verdict(Outcome::Continue, Reason::Watching, 0.0, 0))).plan();
    let decode = &told(&plan).unwrap().metrics[0];
    assert_eq!((decode.estimate_basis_points, decode.upper_basis_points), (None, None));
    assert_eq!(condition(&plan, "AnalysisConclusive").0, "False");
    assert_eq!(events(&plan), [], "that watching begins is no news");
}

#[test]
fn a_status_is_rewritten_for_another_whole_percent_and_not_for_less() {
    let watching = |estimate, samples| Some(verdict(Outcome::Continue, Reason::Watching, estimate, samples));
    let scene = judged(watching(0.012, 10));
    let first = scene.plan();
    let scene = next(scene, &first, watching(0.013, 15));
    let second = scene.plan();
    assert_eq!(told(&second), told(&first));
    assert_eq!(events(&second), []);
    let scene = next(scene, &second, watching(0.013, 16));
    let third = scene.plan();
    assert_eq!(told(&third).unwrap().metrics[0].samples_canary, 16, "samples in twice the order");
    let fourth = next(scene, &third, watching(0.018, 16)).plan();
    assert_eq!(told(&fourth).unwrap().metrics[0].estimate_basis_points, Some(180));
}

#[test]
fn the_moment_of_an_outcome_stays_while_its_figures_change() {
    let mut status = split_status(&revision(&canary_model(50)), 5_000);
    status["rollout"]["analysis"] = json!({
        "outcome": "Pass", "reason": "WithinTolerance", "message": "", "since": "2026-11-21T09:00:00Z",
    });
    let pass = Some(verdict(Outcome::Pass, Reason::WithinTolerance, 0.0, 10));
    let plan = judged(pass).after(status.clone()).plan();
    assert_eq!(told(&plan).unwrap().since.0.to_string(), "2026-11-21T09:00:00Z");
    assert_eq!(events(&plan), []);
    let other = Some(verdict(Outcome::Continue, Reason::Watching, 0.0, 10));
    let plan = judged(other).after(status).plan();
    assert_eq!(told(&plan).unwrap().since.0, now());
    assert_eq!(events(&plan), [("CanaryVerdictChanged", false)]);
}

#[test]
fn the_last_word_stays_while_a_new_operator_knows_nothing_and_ends_with_the_canary() {
    let scene = judged(Some(verdict(Outcome::Pass, Reason::WithinTolerance, 0.0, 10)));
    let first = scene.plan();
    let scene = next(scene, &first, None);
    let second = scene.plan();
    assert_eq!(told(&second), told(&first));
    assert_eq!(condition(&second, "AnalysisConclusive").0, "Unknown");
    assert_eq!(events(&second), []);
    let mut lost = next(judged(None), &first, None);
    lost.observed.pool = None;
    assert_eq!(told(&lost.plan()), told(&first), "nothing is known without a pool");
    // A verdict on an earlier canary is none on this one.
    let mut other = judged(None);
    other.observed.trial = Some(Seen {
        canary: "tiny-other".into(),
        verdict: verdict(Outcome::Pass, Reason::Watching, 0.0, 1),
        clients: vec![],
        learned: None,
        age_ms: 0,
    });
    assert_eq!(told(&other.plan()), None);
    let alone = model(json!({"rollout": {"strategy": "Canary"}}));
    let name = revision(&alone);
    let plan = crate::scene::scene(alone)
        .after(stable_status(&name))
        .deployment(&name, 1, 1)
        .ready_pod(&name)
        .plan();
    assert!(plan.status.conditions.iter().all(|condition| condition.type_ != "AnalysisConclusive"));
}

#[test]
fn where_a_model_stands_is_read_from_its_status_and_pods() {
    let mut scene = judged(None);
    let canary = revision(&scene.model);
    for pod in &mut scene.observed.pods {
        let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[1].last_transition_time = serde_json::from_value(json!("2027-01-15T07:59:50Z")).unwrap();
    }
    let found = standing(&scene.model, scene.observed.pods.iter(), now(), Millis(50_000)).unwrap();
    assert_eq!((found.stable, found.canary), (old_revision(), Some(canary.clone())));
    assert_eq!(found.weight_basis_points, 5_000);
    let pods: Vec<_> =
        found.pods.iter().map(|(uid, pod)| (uid.as_str(), pod.revision.clone(), pod.ready_at)).collect();
    assert_eq!(pods, [("uid-0", old_revision(), Millis(40_000)), ("uid-1", canary, Millis(40_000))]);
    scene.model.spec.suspend = Some(true);
    assert_eq!(standing(&scene.model, scene.observed.pods.iter(), now(), Millis(50_000)), None);
    scene.model.spec.suspend = None;
    scene.model.spec.rollout = None;
    assert_eq!(
        standing(&scene.model, scene.observed.pods.iter(), now(), Millis(50_000)),
        None,
        "BlueGreen has no canary"
    );
}

#[test]
fn what_a_rollout_has_shown_of_pods_is_kept_and_read_back() {
    let learned =
        |node_class: &str, basis_points| PodVariation { node_class: node_class.into(), basis_points };
    for (outcome, ending) in
        [(Outcome::Pass, RolloutPhase::Stable), (Outcome::Rollback, RolloutPhase::RolledBack)]
    {
        let mut world = World::new(driven(2, json!({})));
        world.until(RolloutPhase::Analysing);
        (world.verdict, world.learned) = (Some(outcome), Some(learned("gpu=a", 130)));
        world.turn(2);
        assert_eq!(world.rollout().pod_variations, [], "it is not over");
        world.until(ending);
        assert_eq!(world.rollout().pod_variations, [learned("gpu=a", 130)]);
        world.turn(2).turn(600);
        assert_eq!(world.rollout().pod_variations, [learned("gpu=a", 130)], "and stays");
        let at = |world: &World| standing(&world.model, std::iter::empty(), now(), Millis(50_000)).unwrap();
        assert_eq!(
            at(&world).variations,
            [learned("gpu=a", 130)],
            "also to an operator that has just started"
        );
        world.model.spec.rollout.as_mut().unwrap().analysis =
            serde_json::from_value(json!({"podVariationPercent": 1})).unwrap();
        assert_eq!(at(&world).variations, [], "the spec knows better");
    }
}

#[test]
fn the_latest_kinds_of_nodes_are_remembered() {
    let mut model = canary_model(50);
    let learned = |node_class: String, basis_points| PodVariation { node_class, basis_points };
    let known = (0..8).map(|number| learned(format!("gpu={number}"), number)).collect();
    let rollout = json!({"phase": "Canary", "summary": ""});
    let rollout = RolloutStatus { pod_variations: known, ..serde_json::from_value(rollout).unwrap() };
    let status = model.status.get_or_insert_default();
    (status.canary_revision, status.rollout) = (Some("tiny-b".into()), Some(rollout));
    let told = |model: &InferenceModel, node_class: &str| {
        let verdict = verdict(Outcome::Pass, Reason::WithinTolerance, 0.0, 10);
        let learned = Some(learned(node_class.to_owned(), 99));
        let seen = Seen { canary: "tiny-b".into(), verdict, clients: vec![], learned, age_ms: 0 };
        let found = variations(model, None, Some(&seen));
        (found.len(), found[0].node_class.clone(), found.last().unwrap().basis_points)
    };
    assert_eq!(told(&model, "gpu=new"), (8, "gpu=1".to_owned(), 99));
    assert_eq!(told(&model, "gpu=0"), (8, "gpu=1".to_owned(), 99));
    assert_eq!(told(&model, "gpu=3"), (8, "gpu=0".to_owned(), 99));
}

#[test]
fn the_spec_says_by_what_a_canary_is_judged() {
    let strict = model(json!({"rollout": {"strategy": "Canary", "analysis": {
        "mode": "Observe", "regressionTolerancePercent": 3, "minCanaryPods": 4, "podVariationPercent": 1,
    }}}));
    let found = analysis(&strict.spec);
    assert_eq!(
        (found.tolerances.decode, found.tolerances.prefill, found.tolerances.unqueued_ttft),
        (0.03, 0.03, 0.03)
    );
    assert_eq!((found.min_canary_pods, found.pod_sd), (4, 0.01));
    let heavier = model(json!({"rollout": {"strategy": "Canary", "analysis": {
        "regressionTolerancePercent": 3, "tolerance": {"decodePercent": 20, "prefillPercent": 30},
    }}}));
    let found = analysis(&heavier.spec).tolerances;
    assert_eq!((found.decode, found.prefill, found.unqueued_ttft), (0.2, 0.3, 0.3));
    let wary = model(json!({"rollout": {"strategy": "Canary", "analysis": {
        "method": "FixedHorizonWelch", "criticalRegressionPercent": 80, "maxFalseRollbackPercent": 1,
    }}}));
    let found = analysis(&wary.spec);
    assert_eq!(
        (found.method, found.critical, found.false_rollback),
        (Method::FixedHorizonWelch { steps: 3 }, 0.8, 0.01),
        "the usual steps are 10, 25 and 50, and 100 compares nothing"
    );
    let grouped = model(json!({"rollout": {"strategy": "Canary", "analysis": {
        "method": "GroupSequential", "expectedRequests": 6000,
    }}}));
    assert_eq!(analysis(&grouped.spec).method, Method::GroupSequential { expected_requests: 6_000 });
    let default = analysis(&canary_model(50).spec);
    assert_eq!((default.method, default.critical), (Method::WorkNormalised, 0.5));
    assert_eq!((default.tolerances.decode, default.min_canary_pods, default.pod_sd), (0.05, 2, 0.02));
    assert_eq!(default.tolerances, Tolerances::default(), "bit for bit");
    let lenient =
        model(json!({"rollout": {"strategy": "Canary", "analysis": {"tolerance": {"errorPoints": 3}}}}));
    assert_eq!(analysis(&lenient.spec).tolerances, Tolerances { errors: 0.03, ..Tolerances::default() });
}
