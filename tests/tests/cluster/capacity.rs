//! Rollouts without room beside the stable pods: those make room one by one, or end first while requests wait.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::kubectl::condition;
use tests::traffic::Traffic;

use crate::scene::{READY_LIMIT, Scene, client, demo_spec, limit_pool};

/// Two minutes until an operator that has just started knows the load, three starts one after the other, and three
/// steps of a quarter of a minute.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(540);

/// A request that was held waited for a pod to end and for another to start; none else takes so long.
const HELD_MIN: Duration = Duration::from_secs(2);

/// Two pods, quick steps that end by their time, and an autoscaler that only looks.
fn crowded() -> Value {
    let step =
        |percent: u32| json!({"weightPercent": percent, "minDurationSeconds": 10, "maxDurationSeconds": 15});
    let mut spec = demo_spec();
    spec["replicas"] = json!(2);
    spec["autoscaling"] = json!({"mode": "Observe", "maxReplicas": 2});
    spec["rollout"] = json!({
        "strategy": "Canary", "warmupSeconds": 5, "steps": [step(10), step(50), step(100)],
        "analysis": {"underpoweredPolicy": "Promote"},
    });
    spec
}

fn changed(mut spec: Value) -> Value {
    spec["engine"] = json!({"contextLength": 1024});
    spec
}

fn rollout(model: &Value) -> &Value {
    &model["status"]["rollout"]
}

fn stable(model: &Value) -> String {
    model["status"]["stableRevision"].as_str().unwrap_or_default().to_owned()
}

/// Prints each summary once, and returns whether another revision than `old` serves and is Ready.
fn is_replaced(model: &Value, old: &str, last: &RefCell<String>) -> bool {
    let summary = rollout(model)["summary"].as_str().unwrap_or_default();
    if *last.borrow() != summary {
        println!("{summary}");
        summary.clone_into(&mut last.borrow_mut());
    }
    stable(model) != old && condition(model, "Ready").0 == "True"
}

#[test]
fn in_a_full_pool_a_stable_pod_makes_room_and_no_request_fails() {
    let scene = Scene::start("crowded", &crowded());
    limit_pool(Some(2));
    let old = stable(&scene.ready());
    let traffic = Traffic::start(client(), &scene.model, 5);
    traffic.after(20).assert_all_answered("before");
    scene.apply(&changed(crowded()));

    let (last, seen) = (RefCell::default(), RefCell::new(BTreeSet::new()));
    scene.wait("replaced", ROLLOUT_LIMIT, |model| {
        assert!(model["status"]["replicas"].as_i64() <= Some(2), "{:#}", model["status"]);
        if let Some(strategy) = rollout(model)["capacityStrategy"].as_str() {
            let weight = rollout(model)["weightBasisPoints"].as_u64().unwrap_or_default();
            seen.borrow_mut().insert((strategy.to_owned(), weight));
        }
        is_replaced(model, &old, &last)
    });
    traffic.after(20).assert_all_answered("afterwards");
    traffic.stop().assert_all_answered("a canary in the place of a stable pod");
    println!("{:?}", seen.borrow());
    let weights = [0, 1_000, 5_000, 10_000];
    assert!(weights.iter().all(|weight| seen.borrow().contains(&("InPlace".to_owned(), *weight))));
}

#[test]
fn with_recreate_the_old_pod_ends_first_and_requests_wait_for_the_new_one() {
    let mut spec = demo_spec();
    spec["rollout"] = json!({"strategy": "Recreate"});
    let scene = Scene::start("recreated", &spec);
    limit_pool(Some(1));
    let old = stable(&scene.ready());
    let traffic = Traffic::start(client(), &scene.model, 3);
    traffic.after(10).assert_all_answered("before");
    scene.apply(&changed(spec));

    let (last, has_gap) = (RefCell::default(), RefCell::new(false));
    let after = scene.wait("replaced", READY_LIMIT, |model| {
        assert!(model["status"]["replicas"].as_i64() <= Some(1), "{:#}", model["status"]);
        *has_gap.borrow_mut() |= model["status"]["readyReplicas"] == 0;
        is_replaced(model, &old, &last)
    });
    traffic.after(10).assert_all_answered("afterwards");
    let served = traffic.stop();
    served.assert_all_answered("a gap between two revisions");
    assert!(has_gap.into_inner(), "there was a gap");
    assert!(served.requests.iter().any(|request| request.took > HELD_MIN), "and requests waited in it");
    assert_eq!(rollout(&after)["capacityStrategy"], "Recreate");
}
