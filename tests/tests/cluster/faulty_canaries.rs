//! A canary whose engine dies under its requests: it gets no further than its first step, and the status says why.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::kubectl::{condition, get, wait_gone};
use tests::pods::{can_signal, pods, signal_engines};
use tests::release::RECEIVER;
use tests::traffic::Served;

use crate::demand::Crowd;
use crate::receiver::Receiver;
use crate::rollouts::{changed, kill_operator, looked_at_again, patient, phase, stable, weight};
use crate::scene::{READY_LIMIT, Scene};

/// Requests between two deaths of the canary's engines: two seconds of the traffic.
const BETWEEN_DEATHS: usize = 20;
/// A verdict needs some five errors, and a round with both engines gives two; after each death one stays away for longer.
const ROUNDS_MAX: usize = 40;

#[test]
fn a_canary_that_answers_with_errors_goes_back_at_its_first_step() {
    if !can_signal() {
        println!("left out: the processes of this cluster's nodes are out of reach");
        return;
    }
    let receiver = Receiver::listen();
    let mut spec = patient();
    spec["notifications"] = json!([{"receiver": RECEIVER, "minSeverity": "Info"}]);
    let scene = Scene::start("erring", &spec);
    let before = scene.ready();
    let traffic = scene.traffic();
    // Eight people who always have a long answer on its way, so that an engine never dies for nothing.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let crowd = runtime.block_on(async { Crowd::start("erring") });
    scene.apply(&changed(spec.clone()));
    let served = scene.wait("at its first step", READY_LIMIT, |model| weight(model) == 2_500);
    let canary = served["status"]["canaryRevision"].as_str().unwrap().to_owned();
    let canary_pods = pods(&format!("inferno.ai/revision={canary}")).unwrap();

    let mut deaths = 0;
    for _ in 0..ROUNDS_MAX {
        traffic.after(BETWEEN_DEATHS);
        deaths += signal_engines(&canary_pods, "KILL").unwrap();
        let model = get("imodel", "erring").unwrap().unwrap();
        assert!(weight(&model) <= 2_500, "it gets no more than its first step: {model:#}");
        if phase(&model) != "Analysing" {
            break;
        }
    }
    let ended = scene.wait("rolled back", READY_LIMIT, |model| {
        assert!(weight(model) <= 2_500, "it gets no more than its first step");
        phase(model) == "RolledBack"
    });
    println!("after {deaths} deaths: {:#}", ended["status"]["rollout"]["analysis"]);
    // Whoever leads after it tells nothing twice.
    receiver.messages_until("CanaryVerdictChanged");
    kill_operator();
    assert_given_up(&scene, changed(spec), &before, &ended, "RolledBack", &["errors of first attempts"]);
    traffic.after(20).assert_all_answered("after the rollback");
    assert_told_once(&receiver.messages_until("CanaryVerdictChanged"), &canary);

    let (answered, failures) = runtime.block_on(crowd.stop());
    println!("{answered} long answers, failed: {failures:?}");
    assert!(failures.is_empty(), "what has said nothing is begun anew elsewhere: {failures:?}");
    assert_only_begun_streams_failed(&traffic.stop(), deaths);
}

/// A stream that has begun cannot be begun anew, and its client is told so. All else is answered by somebody.
fn assert_only_begun_streams_failed(served: &Served, deaths: usize) {
    let failed: Vec<_> = served.requests.iter().filter(|request| request.end.is_err()).collect();
    println!("{} requests, failed: {failed:?}", served.requests.len());
    for request in &failed {
        let told = request.end.as_ref().unwrap_err();
        assert!(request.number.is_multiple_of(2), "only every other one is a stream: {request:?}");
        assert!(told.starts_with("ErrorFrame") && told.contains("engine_lost"), "{request:?}");
    }
    assert!(failed.len() <= deaths, "{failed:?}");
}

/// Whoever is told of everything was told of each change once, signed and in order.
fn assert_told_once(messages: &[Value], canary: &str) {
    let told: Vec<String> = messages
        .iter()
        .map(|message| format!("{} {}: {}", message["event"], message["reason"], message["message"]))
        .collect();
    println!("told:\n{}", told.join("\n"));
    let ids: BTreeSet<_> = messages.iter().map(|message| message["id"].to_string()).collect();
    assert_eq!(ids.len(), messages.len(), "none came twice");
    let of_canary = messages.iter().filter(|message| message["revision"] == canary);
    let (verdicts, others): (Vec<_>, Vec<_>) = of_canary.partition(|message| message["event"] == "Verdict");
    let reasons: Vec<_> = others.iter().map(|message| message["reason"].as_str().unwrap()).collect();
    let expected = ["RolloutStarted", "CanaryWeightChanged", "CanaryWeightChanged", "RolledBack"];
    assert_eq!(reasons, expected, "{}", told.join("\n"));
    let is_rollback =
        |message: &&&Value| message["message"].as_str().unwrap().contains("Rollback (MoreErrors)");
    assert_eq!(verdicts.iter().filter(is_rollback).count(), 1, "{}", told.join("\n"));
}

/// The stable revision serves on, the status says the cause in all its places, and the canary is not tried again.
pub(crate) fn assert_given_up(
    scene: &Scene,
    spec: Value,
    before: &Value,
    ended: &Value,
    expected_reason: &str,
    causes: &[&str],
) {
    let (_, reason, message) = condition(ended, "Ready");
    println!("{reason}: {message}");
    assert_eq!(reason, expected_reason);
    let failed = &ended["status"]["rollout"]["failedRevisions"][0];
    let course = &ended["status"]["rollout"]["course"];
    for cause in causes {
        for told in
            [message.as_str(), failed["message"].as_str().unwrap(), course["message"].as_str().unwrap()]
        {
            assert!(told.contains(cause), "{cause:?} is not told: {told}");
        }
    }
    assert_eq!(stable(ended), stable(before));
    let canary = failed["revision"].as_str().unwrap();
    wait_gone("pods", &format!("inferno.ai/revision={canary}"), READY_LIMIT).unwrap();
    let again = looked_at_again(scene, spec);
    assert_eq!(
        (phase(&again), get("deployment", canary).unwrap()),
        (phase(ended), None),
        "it is not tried again"
    );
}
