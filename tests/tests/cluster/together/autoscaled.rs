//! Models that follow their load and leave the machine to others meanwhile: to zero and back, and driven from outside.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tests::client::{Answer, Failure, chat};
use tests::kubectl::{condition, kubectl};

use crate::autoscale::{DOWN_LIMIT, decisions, scaled};
use crate::scene::{READY_LIMIT, Scene, block_on, client};

/// Requests at a model at zero; half of them are streams.
const HELD: usize = 20;

#[test]
fn a_model_goes_to_zero_and_comes_back_for_twenty_requests_and_none_is_lost() {
    let spec = scaled(&json!({"minReplicas": 0, "maxReplicas": 2, "scaleToZero": {"idleSeconds": 60}}));
    let scene = Scene::beside_others("resting", &spec);
    scene.ready();
    let at_zero =
        |object: &Value| object["status"]["replicas"] == 0 && condition(object, "Ready").1 == "ScaledToZero";
    let idle = scene.wait("at zero", DOWN_LIMIT, at_zero);
    assert_eq!(condition(&idle, "Ready").0, "True");
    println!("at zero: {}", decisions(&idle).0.join("\n"));

    let began = Instant::now();
    let ordered = std::thread::spawn(move || {
        tests::kubectl::wait_until("imodel", "resting", READY_LIMIT, "with a pod ordered", |object| {
            object["status"]["autoscaling"]["desiredReplicas"].as_i64() > Some(0)
        })
        .unwrap();
        began.elapsed()
    });
    let answers: Vec<Result<Answer, Failure>> =
        block_on(async { join_all((0..HELD).map(|number| ask("resting", number))).await });
    let failures: Vec<&Failure> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failures.is_empty(), "{failures:?}");
    let ordered = ordered.join().unwrap();
    println!(
        "pods were ordered {ordered:?} after the first request; all answered after {:?}",
        began.elapsed()
    );
    assert!(ordered < Duration::from_secs(2), "{ordered:?}");

    let idle = scene.wait("at zero again", DOWN_LIMIT, at_zero);
    let (told, changes) = decisions(&idle);
    println!("{}", told.join("\n"));
    assert!(changes <= 3, "up to prove itself, down, up for the requests, down");
}

/// Even numbers are streams.
async fn ask(model: &str, number: usize) -> Result<Answer, Failure> {
    let mut body = chat(model, &format!("hello number {number}"));
    body["max_tokens"] = json!(16);
    if number.is_multiple_of(2) { client().stream(&body).await } else { client().ask(&body).await }
}

#[test]
fn from_outside_the_scale_subresource_drives_it_within_the_bounds() {
    let spec = scaled(&json!({"mode": "External", "minReplicas": 1, "maxReplicas": 2}));
    let scene = Scene::beside_others("driven", &spec);
    scene.ready();
    let told = |replicas: &str, expected: i64| {
        kubectl(&["scale", "imodel", "driven", "--replicas", replicas]).unwrap();
        let object = scene.wait("scaled", READY_LIMIT, |object| {
            object["status"]["readyReplicas"] == expected && object["status"]["replicas"] == expected
        });
        (condition(&object, "ScalingActive").1, object["status"]["autoscaling"]["desiredReplicas"].clone())
    };
    assert_eq!(told("2", 2), ("External".to_owned(), json!(2)));
    assert_eq!(told("7", 2), ("External".to_owned(), json!(2)));
    assert_eq!(told("1", 1), ("External".to_owned(), json!(1)));
    // What a HorizontalPodAutoscaler reads: the number, and whose pods they are.
    let scale = kubectl(&[
        "get",
        "--raw",
        "/apis/inferno.ai/v1alpha1/namespaces/default/inferencemodels/driven/scale",
    ]);
    let scale: Value = serde_json::from_str(&scale.unwrap()).unwrap();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(scale["status"]["selector"], "inferno.ai/model=driven");
}
