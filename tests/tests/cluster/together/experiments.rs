//! Feature flags and experiments while traffic runs: nothing restarts, and what is counted is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::client::{chat, http};
use tests::kubectl::patch;
use tests::release::base_url;

use crate::scene::{READY_LIMIT, Scene, block_on, demo_spec};

/// With 200 conversations at 40 %, fewer than 50 or more than 110 in one variant happen in three of 100,000 runs.
const ASKED: usize = 200;
const SHARE: std::ops::RangeInclusive<usize> = 50..=110;
/// Gateways follow a change within a second; answers that were under way and a busy machine take the rest.
const OBEYED_WITHIN: Duration = Duration::from_secs(5);
/// Gateways tell every 10 s, and the operator looks every 30 s.
const TOLD_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn an_experiment_and_a_flag_begin_and_end_while_people_ask() {
    let scene = Scene::beside_others("compared", &demo_spec());
    let before = scene.ready();
    let pods = scene.pods();
    let traffic = scene.traffic();

    // Two variants, and one whose model is not there, which costs nobody an answer.
    let experiment = json!([{"name": "length", "variants": [
        {"name": "short", "weightPercent": 40, "parameters": {"maxTokens": 1}},
        {"name": "long", "weightPercent": 40, "parameters": {"maxTokens": 8}},
        {"name": "elsewhere", "weightPercent": 10, "model": "nobody"},
    ]}]);
    change(&scene, &json!({"experiments": experiment}));
    block_on(until(&scene, "takes part", |answer| answer.experiment.is_some()));
    let seen = block_on(variants(&scene));
    println!("{seen:?}");
    for (variant, tokens) in [("length=short", 1), ("length=long", 8)] {
        let found = &seen[variant];
        assert!(SHARE.contains(&found.len()), "{variant}: {} of {ASKED}", found.len());
        assert!(found.iter().all(|count| (1..=tokens).contains(count)), "{variant}: {found:?}");
    }
    assert!(seen["length=elsewhere;fallback"].len() + seen[""].len() < ASKED / 2, "{seen:?}");

    // The traffic says itself how long its answers may be, so the difference is smaller than it was above.
    let told = scene.wait("told that one variant says more", TOLD_WITHIN, |model| {
        let experiment = &model["status"]["experiments"][0];
        tokens(experiment).is_some_and(|found| count(&found["lowerBasisPoints"]) > 0)
    });
    check_told(&told["status"]["experiments"][0]);

    // A flag for everybody: every request carries it from when the gateways know it.
    change(&scene, &json!({"featureFlags": [{"name": "kind", "enabledPercent": 100}]}));
    block_on(until(&scene, "has the flag", |answer| answer.flags.as_deref() == Some("kind")));
    let answers = block_on(ask(&scene, 50));
    assert!(answers.iter().all(|answer| answer.flags.as_deref() == Some("kind")), "{answers:?}");

    // The kill switch ends all of them.
    change(&scene, &json!({"killSwitch": "Rollout"}));
    block_on(until(&scene, "has no flag", |answer| answer.flags.is_none() && answer.experiment.is_none()));

    traffic.stop().assert_all_answered("an experiment, a flag and the kill switch");
    let after = scene.wait("observed", READY_LIMIT, |model| {
        model["status"]["observedGeneration"] == model["metadata"]["generation"]
    });
    assert_eq!(after["status"]["stableRevision"], before["status"]["stableRevision"]);
    assert_eq!(scene.pods(), pods, "no pod was replaced, and no container");
}

fn change(scene: &Scene, spec: &Value) {
    patch("imodel", &scene.model, &json!({"spec": spec}).to_string()).unwrap();
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// What was found of the tokens of `long` against those of `short`.
fn tokens(experiment: &Value) -> Option<&Value> {
    let mut comparisons = experiment["comparisons"].as_array()?.iter();
    comparisons.find(|found| found["metric"] == "OutputTokens" && found["variant"] == "long")
}

fn check_told(experiment: &Value) {
    println!("{experiment:#}");
    let [short, long, elsewhere] = [0, 1, 2].map(|variant| &experiment["variants"][variant]);
    assert_eq!((&short["name"], &long["name"]), (&json!("short"), &json!("long")));
    assert_eq!(elsewhere["fallbacks"], elsewhere["requests"]);
    assert!(count(&short["outputTokens"]["mean"]) < count(&long["outputTokens"]["mean"]), "{experiment:#}");
    for variant in [short, long] {
        assert!(count(&variant["durationMicroseconds"]["p50"]) > 0, "{variant:#}");
        assert!(count(&variant["firstTokenMicroseconds"]["samples"]) > 0, "every other request is a stream");
        assert_eq!((count(&variant["errors"]), count(&variant["fallbacks"])), (0, 0), "{variant:#}");
    }
    let tokens = tokens(experiment).unwrap();
    assert!(count(&tokens["pMillionths"]) < 50_000 && count(&tokens["recommendedSamples"]) > 0, "{tokens:#}");
}

/// What a client sees of one answer.
#[derive(Debug)]
struct Answer {
    flags: Option<String>,
    experiment: Option<String>,
    tokens: usize,
}

/// Answers to so many conversations, one after the other.
async fn ask(scene: &Scene, conversations: usize) -> Vec<Answer> {
    let (http, url) = (http().unwrap(), format!("{}/chat/completions", base_url().unwrap()));
    let mut answers = Vec::new();
    for number in 0..conversations {
        let mut body = chat(&scene.model, &format!("who is number {number}?"));
        // What a client says itself no variant changes.
        body.as_object_mut().unwrap().remove("max_tokens");
        let response = http.post(&url).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (flags, experiment) = (header("x-inferno-flags"), header("x-inferno-experiment"));
        let body: Value = response.json().await.unwrap();
        let tokens = usize::try_from(count(&body["usage"]["completion_tokens"])).unwrap();
        answers.push(Answer { flags, experiment, tokens });
    }
    answers
}

/// Tokens of the answers by variant.
async fn variants(scene: &Scene) -> BTreeMap<String, Vec<usize>> {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::from([(String::new(), Vec::new())]);
    for answer in ask(scene, ASKED).await {
        seen.entry(answer.experiment.unwrap_or_default()).or_default().push(answer.tokens);
    }
    seen
}

/// Waits until 16 of 20 conversations are as they should be: more than one of two gateways has alone, and a tenth of them
/// may take no part.
async fn until(scene: &Scene, what: &str, is_so: impl Fn(&Answer) -> bool) {
    let began = Instant::now();
    loop {
        let answers = ask(scene, 20).await;
        if answers.iter().filter(|answer| is_so(answer)).count() >= 16 {
            println!("{what}: after {:?}", began.elapsed());
            return;
        }
        assert!(began.elapsed() < OBEYED_WITHIN, "{what} too late: {answers:?}");
    }
}
