//! What the operator is told, and how soon.

use std::time::{Duration, Instant};

use crds::report::GatewayReport;
use serde_json::json;
use sidecar::gateway::report::{Identity, PATH, report};
use sidecar::push::Push;

use crate::harness::{Front, Pod, model, tiny, view};

#[tokio::test]
async fn the_operator_hears_at_once_of_a_first_request_that_waits() {
    sidecar::web::install_tls();
    let mut operator = Pod::new().await;
    let (pod, _) = Pod::echo().await;
    let front = Front::new(view([tiny(&[]), model("other", &[("other-a", &[&pod])])])).await;
    let url = format!("http://{}", operator.address).parse().unwrap();
    let identity = Identity { pod: "gateway-0".to_owned(), ..Identity::from_environment("ns", "cpu") };
    let reporting = tokio::spawn(report(Push::new(&url, PATH).unwrap(), identity, front.app().clone()));
    let mut next = async || -> GatewayReport {
        let asked = operator.asked().await;
        assert!(asked.head.starts_with("POST /v1/gateway-reports "), "{}", asked.head);
        let report = serde_json::from_str(&asked.body).unwrap();
        asked.answer(200, "").await;
        report
    };
    let first = next().await;
    assert_eq!(
        (first.namespace.as_str(), first.pool.as_str(), first.pod.as_str()),
        ("ns", "cpu", "gateway-0")
    );
    assert_eq!((first.sequence, first.models[0].held), (1, [0; 4]));

    front.reply(json!({"model": "other"})).await;
    let _high = front.chat(json!({"priority": "high"})).await;
    let asked_at = Instant::now();
    let second = next().await;
    assert!(asked_at.elapsed() < Duration::from_millis(500), "{:?}", asked_at.elapsed());
    let tiny = &second.models[0];
    assert_eq!((tiny.model.as_str(), tiny.held, tiny.arrivals_total), ("tiny", [0, 1, 0, 0], 1));
    assert!(
        tiny.held_prompt_tokens > 0 && tiny.held_output_tokens > 0 && tiny.arrived_output_tokens_total > 0
    );
    let recent = tiny.recent_arrivals.as_deref().unwrap();
    assert_eq!(
        recent[0][0], 1,
        "whoever decides about a model that is waited for knows its history: {recent:?}"
    );
    assert!(tiny.held_bytes > 0);
    let arm = &second.models[1].arms[0];
    assert_eq!((arm.revision.as_str(), arm.requests_total, arm.new_conversations_total), ("other-a", 1, 1));
    assert!(second.sequence > first.sequence && second.uptime_ms >= first.uptime_ms);
    reporting.abort();
}
