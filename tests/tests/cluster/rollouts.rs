//! Canaries that the operator drives, with traffic all the time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tests::kubectl::{command, condition, get, list, wait_gone};
use tests::models::larger_demo_model;
use tests::release::SYSTEM_NAMESPACE;

use crate::autoscale::Reports;
use crate::scene::{READY_LIMIT, Scene, demo_spec, limit_pool};

/// Four pods on two busy cores, three steps of a quarter of a minute, a warm-up and a promotion.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(420);

/// Two pods and quick steps that end by their time: ten requests per second prove nothing in a quarter of a minute.
pub(crate) fn driven() -> Value {
    let step =
        |percent: u32| json!({"weightPercent": percent, "minDurationSeconds": 10, "maxDurationSeconds": 15});
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    spec["rollout"] = json!({
        "strategy": "Canary", "warmupSeconds": 5, "rollbackWindowSeconds": 0,
        "steps": [step(10), step(25), step(50), step(100)],
        "analysis": {"underpoweredPolicy": "Promote"},
    });
    spec
}

pub(crate) fn changed(mut spec: Value) -> Value {
    spec["engine"] = json!({"contextLength": 1024});
    spec
}

pub(crate) fn phase(model: &Value) -> &str {
    model["status"]["rollout"]["course"]["phase"].as_str().unwrap_or_default()
}

pub(crate) fn weight(model: &Value) -> u64 {
    model["status"]["rollout"]["weightBasisPoints"].as_u64().unwrap_or_default()
}

pub(crate) fn stable(model: &Value) -> String {
    model["status"]["stableRevision"].as_str().unwrap_or_default().to_owned()
}

/// A model at a canary's first step.
fn at_first_step(name: &str) -> (Scene, String, String) {
    let scene = Scene::start(name, &driven());
    let before = scene.ready();
    scene.apply(&changed(driven()));
    let analysed = scene.wait("at the first step", READY_LIMIT, |model| weight(model) > 0);
    let canary = analysed["status"]["canaryRevision"].as_str().unwrap().to_owned();
    (scene, stable(&before), canary)
}

/// The model after a change that leaves the revision as it is and makes the operator look again.
pub(crate) fn looked_at_again(scene: &Scene, mut spec: Value) -> Value {
    spec["rollout"]["warmupSeconds"] = json!(6);
    scene.apply(&spec);
    scene.wait("looked at again", READY_LIMIT, |model| {
        model["status"]["observedGeneration"] == model["metadata"]["generation"]
    })
}

/// Names of pods and how often their containers have started again.
fn pods(revision: &str) -> BTreeSet<(String, u64)> {
    let found = list("pods", &format!("inferno.ai/revision={revision}")).unwrap();
    let staying = found.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    staying
        .map(|pod| {
            let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            let restarts = containers.iter().filter_map(|each| each["restartCount"].as_u64()).sum();
            (pod["metadata"]["name"].as_str().unwrap().to_owned(), restarts)
        })
        .collect()
}

#[test]
fn a_healthy_canary_goes_through_its_steps_and_is_promoted_without_a_failed_request() {
    let scene = Scene::start("promoted", &driven());
    let old = stable(&scene.ready());
    let traffic = scene.traffic();
    scene.apply(&changed(driven()));

    let seen = std::cell::RefCell::new((Vec::new(), BTreeSet::new(), String::new(), None));
    let after = scene.wait("promoted", ROLLOUT_LIMIT, |model| {
        let (weights, canary_pods, summary, foreseen) = &mut *seen.borrow_mut();
        if weight(model) == 1_000 {
            foreseen.get_or_insert_with(|| condition(model, "AnalysisUnderpowered"));
        }
        if weights.last() != Some(&weight(model)) {
            weights.push(weight(model));
        }
        let now = model["status"]["rollout"]["summary"].as_str().unwrap_or_default();
        if now != summary {
            println!("{now}");
            now.clone_into(summary);
        }
        if weight(model) == 5_000 && canary_pods.is_empty() {
            *canary_pods = pods(model["status"]["canaryRevision"].as_str().unwrap());
        }
        !old.is_empty() && stable(model) != old && phase(model) == "Completed"
    });
    let (weights, canary_pods, _, foreseen) = seen.into_inner();
    println!("weights {weights:?}, canary pods {canary_pods:?}, foreseen {foreseen:?}");
    let (_, reason, message) = foreseen.unwrap();
    assert!(
        reason == "TooFewPods" && message.starts_with("with 2 canary pods beside 2 it can hardly be proven"),
        "{message}"
    );
    let (status, reason, message) = condition(&after, "AnalysisUnderpowered");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "StepUnproven"), "steps of 15 s prove nothing");
    assert!(message.contains(&stable(&after)), "{message}");
    let rising: Vec<u64> = weights.into_iter().filter(|weight| *weight > 0 && *weight <= 5_000).collect();
    assert_eq!(rising, [1_000, 2_500, 5_000]);
    wait_gone("pods", &format!("inferno.ai/revision={old}"), READY_LIMIT).unwrap();
    traffic.after(20).assert_all_answered("after the promotion");
    traffic.stop().assert_all_answered("a promoted canary");
    assert_eq!(canary_pods.len(), 2);
    assert_eq!(pods(&stable(&after)), canary_pods, "the canary's pods are the stable ones now");
    assert_eq!(condition(&scene.ready(), "Ready").1, "ServedToken");
}

#[test]
fn a_spec_taken_back_in_mid_canary_returns_to_stable_without_a_failed_request() {
    let (scene, old, canary) = at_first_step("returned");
    let stable_pods = pods(&old);
    let traffic = scene.traffic();
    traffic.after(50);
    scene.apply(&driven());
    wait_gone("pods", &format!("inferno.ai/revision={canary}"), READY_LIMIT).unwrap();
    scene.ready();
    let alone = scene.wait("alone", READY_LIMIT, |model| model["status"]["canaryRevision"].is_null());
    assert_eq!(stable(&alone), old);
    traffic.after(20).assert_all_answered("after the return");
    let served = traffic.stop();
    assert!(served.revisions().contains_key(canary.as_str()), "the canary had traffic");
    served.assert_all_answered("a canary and its return");
    assert_eq!(pods(&old), stable_pods);
}

#[test]
fn operators_killed_in_every_phase_lose_nothing() {
    let scene = Scene::start("orphaned", &driven());
    let old = stable(&scene.ready());
    let traffic = scene.traffic();
    scene.apply(&changed(driven()));

    let seen = std::cell::RefCell::new((BTreeSet::new(), 0, BTreeSet::new()));
    let after = scene.wait("promoted", ROLLOUT_LIMIT, |model| {
        let (killed, last, canary_pods) = &mut *seen.borrow_mut();
        let step = model["status"]["rollout"]["step"].as_u64().unwrap_or(*last);
        let is_promoted = !stable(model).is_empty() && stable(model) != old;
        assert!(step >= *last || is_promoted, "it does not begin anew: step {step} after {last}");
        *last = step;
        if weight(model) == 5_000 && canary_pods.is_empty() {
            *canary_pods = pods(model["status"]["canaryRevision"].as_str().unwrap());
        }
        if KILLED_IN.contains(&phase(model)) && killed.insert(phase(model).to_owned()) {
            kill_operator();
        }
        is_promoted
    });
    let (killed, _, canary_pods) = seen.into_inner();
    assert_eq!(killed.iter().map(String::as_str).collect::<Vec<_>>(), KILLED_IN);
    wait_gone("pods", &format!("inferno.ai/revision={old}"), READY_LIMIT).unwrap();
    assert_eq!(pods(&stable(&after)), canary_pods, "the canary's pods are the stable ones now");

    // And on the way back.
    let now = stable(&scene.ready());
    scene.apply(&driven());
    scene.wait("at the first step", READY_LIMIT, |model| weight(model) > 0);
    scene.apply(&changed(driven()));
    let leaving = scene.wait("on the way back", READY_LIMIT, |model| phase(model) == "RollingBack");
    let canary = leaving["status"]["canaryRevision"].as_str().unwrap().to_owned();
    kill_operator();
    wait_gone("pods", &format!("inferno.ai/revision={canary}"), READY_LIMIT).unwrap();
    assert_eq!(stable(&scene.ready()), now);
    traffic.after(20).assert_all_answered("afterwards");
    traffic.stop().assert_all_answered("operators killed in every phase");
}

/// The phases that last long enough to be seen, in the order of the alphabet.
const KILLED_IN: [&str; 4] = ["Analysing", "Loading", "Promoting", "Warmup"];

pub(crate) fn kill_operator() {
    let selector = "app.kubernetes.io/name=inferno-operator";
    let arguments = ["--namespace", SYSTEM_NAMESPACE, "delete", "pod", "--selector", selector];
    command("kubectl", &[&arguments[..], &["--grace-period", "0", "--force"]].concat()).unwrap();
}

#[test]
fn operators_killed_while_a_rollout_waits_lose_nothing() {
    let mut spec = patient();
    spec["replicas"] = json!(1);
    let scene = Scene::start("waiting", &spec);
    let old = stable(&scene.ready());
    let traffic = scene.traffic();
    let since = |model: &Value| model["status"]["rollout"]["course"]["since"].clone();

    // The pool has no room for a canary.
    limit_pool(Some(1));
    spec = changed(spec);
    scene.apply(&spec);
    let before = scene.wait("without room", READY_LIMIT, |model| phase(model) == "CapacityCheck");
    let canary = before["status"]["canaryRevision"].as_str().unwrap().to_owned();
    kill_operator();
    let after = looked_at_again(&scene, spec.clone());
    assert_eq!((phase(&after), since(&after)), ("CapacityCheck", since(&before)), "{after:#}");
    assert_eq!(get("deployment", &canary).unwrap(), None);
    limit_pool(None);
    scene.wait("at its first step", READY_LIMIT, |model| weight(model) == 2_500);

    // A person has paused it.
    let told = |command: &str| json!({"command": command, "revision": canary});
    spec["rollout"]["action"] = told("Pause");
    scene.apply(&spec);
    let before = scene.wait("paused", READY_LIMIT, |model| phase(model) == "Paused");
    kill_operator();
    let after = looked_at_again(&scene, spec.clone());
    assert_eq!((phase(&after), since(&after)), ("Paused", since(&before)), "{after:#}");
    assert_eq!(weight(&after), 2_500, "{after:#}");
    let canary_pods = pods(&canary);
    spec["rollout"]["action"] = told("Promote");
    scene.apply(&spec);
    let after = scene.wait("promoted", READY_LIMIT, |model| stable(model) == canary);
    wait_gone("pods", &format!("inferno.ai/revision={old}"), READY_LIMIT).unwrap();
    assert!(pods(&stable(&after)).is_subset(&canary_pods), "a pod of the canary is the stable one now");
    traffic.after(20).assert_all_answered("afterwards");
    traffic.stop().assert_all_answered("operators killed while a rollout waits");
}

#[test]
fn a_minute_without_reports_neither_promotes_a_canary_nor_rolls_it_back() {
    let scene = Scene::start("unheard", &patient());
    scene.ready();
    let traffic = scene.traffic();
    scene.apply(&changed(patient()));
    scene.wait("at its first step", READY_LIMIT, |model| weight(model) == 2_500);
    let reports = Reports::cut();
    // Ten per second.
    traffic.after(600).assert_all_answered("a minute without reports");
    let deaf = get("imodel", "unheard").unwrap().unwrap();
    assert_eq!((phase(&deaf), weight(&deaf)), ("Analysing", 2_500), "{deaf:#}");
    drop(reports);
    let judged = scene.wait("judged", ROLLOUT_LIMIT, |model| {
        let metrics =
            model["status"]["rollout"]["analysis"]["metrics"].as_array().cloned().unwrap_or_default();
        metrics.iter().any(|metric| metric["name"] == "Decode" && metric["samplesCanary"].as_u64() > Some(0))
    });
    println!("{}", judged["status"]["rollout"]["analysis"]["message"]);
    assert_ne!(judged["status"]["rollout"]["analysis"]["outcome"], "Rollback", "{judged:#}");
    traffic.stop().assert_all_answered("a canary that was not heard of");
}

/// A verdict on speed needs half a minute of traffic that does not count, and one that does.
pub(crate) fn patient() -> Value {
    let mut spec = driven();
    spec["rollout"]["steps"] =
        json!([{"weightPercent": 25, "maxDurationSeconds": 900}, {"weightPercent": 100}]);
    spec
}

#[test]
fn a_slower_canary_is_back_at_zero_within_three_seconds_of_the_verdict_and_not_tried_again() {
    let scene = Scene::start("slower", &patient());
    let before = scene.ready();
    let traffic = scene.traffic();
    let mut slower = patient();
    slower["source"] = larger_demo_model();
    scene.apply(&slower);
    let served = scene.wait("at its first step", READY_LIMIT, |model| weight(model) == 2_500);
    let canary = served["status"]["canaryRevision"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let judged = scene.wait("without traffic", ROLLOUT_LIMIT, |model| {
        assert!(weight(model) <= 2_500, "it gets no more than its first step");
        weight(model) == 0
    });
    let seen = Timestamp::now();
    let analysis = &judged["status"]["rollout"]["analysis"];
    println!("{:?} after its first request: {}", began.elapsed(), analysis["message"]);
    assert_eq!(analysis["outcome"], "Rollback", "{judged:#}");
    let found: Timestamp = analysis["since"].as_str().unwrap().parse().unwrap();
    let took = seen.duration_since(found);
    println!("weight 0 was seen {took:#} after the verdict");
    assert!(took <= SignedDuration::from_secs(3), "{took:#}");
    let afterwards = traffic.after(30);
    let ended = scene.wait("rolled back", READY_LIMIT, |model| phase(model) == "RolledBack");
    let served = traffic.stop();
    served.assert_all_answered("a slower canary");
    assert!(served.revisions().contains_key(canary.as_str()), "the canary had traffic");
    assert!(!afterwards.revisions().contains_key(canary.as_str()), "{:?}", afterwards.revisions());

    let (_, reason, message) = condition(&ended, "Ready");
    println!("{reason}: {message}");
    assert_eq!((stable(&ended), reason.as_str()), (stable(&before), "RolledBack"));
    wait_gone("pods", &format!("inferno.ai/revision={canary}"), READY_LIMIT).unwrap();
    let again = looked_at_again(&scene, slower);
    assert_eq!((phase(&again), get("deployment", &canary).unwrap()), ("RolledBack", None));
}
