//! Requests that wait because no pod is ready.

use std::time::{Duration, Instant};

use serde_json::json;
use sidecar::gateway::forward::now_ms;
use sidecar::gateway::view::{Failure, HoldLimits, KillSwitch, ModelView, View};

use crate::harness::{Front, Line, Pod, model, tiny, until, view};

/// From the view in which a pod is ready to the pod's having the request.
const RELEASED_WITHIN: Duration = Duration::from_millis(100);

/// A refusal does not wait.
const REFUSED_WITHIN: Duration = Duration::from_millis(50);

async fn waits(front: &Front, requests: u32) {
    wait_for("tiny", front, requests).await;
}

async fn wait_for(model: &str, front: &Front, requests: u32) {
    let room = &front.app().room;
    let count = || room.counts(model, Instant::now()).by_tier.iter().sum::<u32>();
    until("the requests wait", || count() == requests).await;
}

#[tokio::test]
async fn a_request_waits_from_zero_and_goes_as_soon_as_a_pod_is_ready() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[])])).await;
    let mut client = front.chat(json!({})).await;
    waits(&front, 1).await;
    let ready_at = Instant::now();
    front.app().take(view([tiny(&[&pod])]));
    let asked = pod.asked().await;
    assert!(ready_at.elapsed() < RELEASED_WITHIN, "{:?}", ready_at.elapsed());
    asked.answer(200, "\"ok\"").await;
    assert_eq!(client.reply().await.body, "\"ok\"");
    front.is_idle().await;
    assert_eq!(front.metric("inferno_gateway_held_total{model=\"tiny\",outcome=\"served\"}"), 1);
}

#[tokio::test]
async fn a_stream_that_waits_is_told_phase_percent_and_time() {
    let mut pod = Pod::new().await;
    let mut model = tiny(&[]);
    model.start.phase = "downloading".to_owned();
    model.start.percent = Some(43);
    model.start.ready_at_ms = Some(now_ms() + 30_500);
    let front = Front::new(view([model.clone()])).await;
    let asked_at = Instant::now();
    let mut client = front.chat(json!({"stream": true})).await;
    let head = client.read_to("\r\n\r\n").await;
    let first = client.read_to("\n\n").await;
    assert!(asked_at.elapsed() < Duration::from_millis(1_200), "the first byte came late");
    assert!(head.contains("200 OK") && head.contains("text/event-stream"), "{head}");
    assert!(first.contains(": starting a replica: downloading 43%, ready in about "), "{first}");

    model.start.phase = "loading".to_owned();
    model.start.percent = Some(7);
    front.app().take(view([model]));
    client.read_to(": starting a replica: loading 7%").await;
    front.app().take(view([tiny(&[&pod])]));
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.chunk("data: {\"n\":1}\n\n").await;
    let before = client.read_to("data: {\"n\":1}\n\n").await;
    assert_eq!(before.matches("data:").count(), 1, "only comments before the first event: {before}");
    asked.done().await;
    client.read_to("0\r\n\r\n").await;
    front.is_idle().await;
}

#[tokio::test]
async fn a_stream_that_waited_and_fails_gets_an_error_frame_and_a_cut() {
    for (status, code) in [(400, "context_length_exceeded"), (429, "queue_full")] {
        let mut pod = Pod::new().await;
        let front = Front::new(view([tiny(&[])])).await;
        let mut client = front.chat(json!({"stream": true})).await;
        client.read_to(": ").await;
        front.app().take(view([tiny(&[&pod])]));
        pod.asked().await.refuses(status, code).await;
        let rest = client.read_all().await;
        assert!(rest.contains("data: {\"error\":{") && rest.contains(code), "{rest}");
        assert!(!rest.contains("0\r\n\r\n"), "{rest}");
        front.is_idle().await;
    }
}

#[tokio::test]
async fn a_request_that_waits_survives_pods_that_come_and_go() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[])])).await;
    let mut stream = front.chat(json!({"stream": true})).await;
    let mut plain = front.chat(json!({})).await;
    waits(&front, 2).await;
    // Ready and gone before anybody could be asked; then one that dies over its requests.
    let mut gone = Pod::new().await;
    gone.closes().await;
    front.app().take(view([tiny(&[&gone])]));
    front.app().take(view([tiny(&[])]));
    waits(&front, 2).await;
    front.app().take(view([tiny(&[&pods[0]])]));
    pods[0].asked().await.refuses(503, "model_loading").await;
    pods[0].asked().await.refuses(503, "draining").await;
    front.app().take(view([tiny(&[])]));
    waits(&front, 2).await;
    front.app().take(view([tiny(&[&pods[1]])]));
    for _ in 0..2 {
        let mut asked = pods[1].asked().await;
        if asked.body.contains("stream") {
            asked.streams().await;
            asked.done().await;
        } else {
            asked.answer(200, "\"ok\"").await;
        }
    }
    assert_eq!(plain.reply().await.status, 200);
    stream.read_to("data: [DONE]").await;
    front.is_idle().await;
}

#[tokio::test]
async fn the_most_urgent_goes_first_and_places_bound_the_crowd() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[])])).await;
    let mut clients = Vec::new();
    for (index, priority) in ["low", "normal", "vip"].into_iter().enumerate() {
        clients.push(front.chat(json!({"priority": priority})).await);
        waits(&front, u32::try_from(index).unwrap() + 1).await;
    }
    let mut model = tiny(&[&pod]);
    model.revisions[0].slots = 1;
    front.app().take(view([model]));
    for expected in ["vip", "normal", "low"] {
        let asked = pod.asked().await;
        assert!(asked.body.contains(expected), "{expected} before {}", asked.body);
        assert!(pod.asked_before().is_none(), "one place, one request");
        asked.answer(200, "\"ok\"").await;
    }
    for client in &mut clients {
        assert_eq!(client.reply().await.status, 200);
    }
}

#[tokio::test]
async fn beyond_the_limits_requests_are_refused_at_once() {
    let hold = HoldLimits { requests_max: 2, bytes_max: 2_000, ..HoldLimits::default() };
    let front = Front::new(View { hold, ..view([tiny(&[])]) }).await;
    let _first = front.chat(json!({})).await;
    waits(&front, 1).await;
    let check = async |fields| {
        let began = Instant::now();
        let reply = front.reply(fields).await;
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        assert_eq!((reply.status, reply.code().as_str()), (429, "queue_full"));
        assert!(reply.header("retry-after").is_some());
        reply.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(check(json!({"padding": "x".repeat(2_000)})).await.contains("maxHeldBytes"));
    let _second = front.chat(json!({})).await;
    waits(&front, 2).await;
    assert!(check(json!({})).await.contains("maxHeldRequests"));
}

#[tokio::test]
async fn a_model_with_limits_of_its_own_refuses_at_those_while_others_still_hold() {
    let with = |hold| view([tiny(&[]), ModelView { hold, ..model("small", &[("small-a", &[])]) }]);
    let own = HoldLimits { requests_max: 1, ..HoldLimits::default() };
    let front = Front::new(with(Some(own))).await;
    let _first = front.chat(json!({"model": "small"})).await;
    wait_for("small", &front, 1).await;
    let refused = front.reply(json!({"model": "small"})).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "queue_full"));
    assert!(refused.body.contains("spec.autoscaling.scaleToZero.maxHeldRequests"), "{}", refused.body);
    let _others = [front.chat(json!({})).await, front.chat(json!({})).await];
    waits(&front, 2).await;

    // Another limit counts from the next request on, without a restart.
    front.app().take(with(None));
    let _second = front.chat(json!({"model": "small"})).await;
    wait_for("small", &front, 2).await;
    front.app().take(with(Some(HoldLimits { timeout_ms: 20, ..HoldLimits::default() })));
    let expired = front.reply(json!({"model": "small"})).await;
    assert_eq!((expired.status, expired.code().as_str()), (504, "deadline_exceeded"));
    waits(&front, 2).await;
}

#[tokio::test]
async fn a_full_room_turns_nobody_away_whom_a_pod_would_take() {
    let mut pod = Pod::new().await;
    let hold = HoldLimits { requests_max: 2, ..HoldLimits::default() };
    let front = Front::new(View { hold, ..view([tiny(&[])]) }).await;
    let _clients = [front.chat(json!({"user": "a"})).await, front.chat(json!({"user": "a"})).await];
    waits(&front, 2).await;
    let mut model = tiny(&[&pod]);
    model.revisions[0].slots = 1;
    front.app().take(View { hold, ..view([model]) });
    let first = pod.asked().await;
    let _overtaking = front.chat(json!({"user": "b"})).await;
    assert!(pod.asked().await.body.contains("\"b\""), "the pod's own queue takes it");
    waits(&front, 1).await;
    drop(first);
}

#[tokio::test]
async fn who_would_wait_in_vain_is_told_the_cause_at_once() {
    let failing = |reason: &str| {
        let mut model = tiny(&[]);
        model.start.failure = Some(Failure { reason: reason.to_owned(), message: "details".to_owned() });
        model
    };
    let mut late = tiny(&[]);
    late.start.ready_at_ms = Some(now_ms() + 60_000);
    let suspended = ModelView { is_suspended: true, ..tiny(&[]) };
    let disabled = ModelView { kill_switch: KillSwitch::Model, ..tiny(&[]) };
    for (model, code, text) in [
        (failing("ImagePullFailed"), "model_failed", "ImagePullFailed: details"),
        (failing("InsufficientCapacity"), "no_capacity", "InsufficientCapacity: details"),
        (late, "model_starting", "ready in about"),
        (suspended, "model_suspended", "suspend"),
        (disabled, "model_disabled", "killSwitch"),
    ] {
        let front = Front::new(view([model])).await;
        let began = Instant::now();
        let reply = front.reply(json!({"deadline_ms": 5_000})).await;
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        assert_eq!((reply.status, reply.code().as_str()), (503, code));
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(text), "{reply:?}");
        let retry_after: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=120).contains(&retry_after));
    }
}

#[tokio::test]
async fn waiting_ends_when_it_turns_out_to_be_in_vain() {
    let front = Front::new(view([tiny(&[])])).await;
    let mut plain = front.chat(json!({})).await;
    let mut stream = front.chat(json!({"stream": true})).await;
    stream.read_to(": ").await;
    waits(&front, 2).await;
    front.app().take(view([ModelView { kill_switch: KillSwitch::Model, ..tiny(&[]) }]));
    assert_eq!(plain.reply().await.code(), "model_disabled");
    let rest = stream.read_all().await;
    assert!(rest.contains("model_disabled") && !rest.contains("0\r\n\r\n"), "{rest}");
    front.is_idle().await;
}

#[tokio::test]
async fn a_deadline_that_passes_is_a_504_that_is_not_worth_a_retry() {
    let front = Front::new(view([tiny(&[])])).await;
    let reply = front.reply(json!({"deadline_ms": 50})).await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "deadline_exceeded"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert_eq!(front.metric("inferno_gateway_held_total{model=\"tiny\",outcome=\"expired\"}"), 1);
}

#[tokio::test]
async fn who_leaves_while_waiting_leaves_nothing_behind() {
    let front = Front::new(view([tiny(&[])])).await;
    let mut lines: Vec<Line> = Vec::new();
    for number in 0..20 {
        lines.push(front.chat(json!({"stream": number % 2 == 0})).await);
    }
    waits(&front, 20).await;
    drop(lines);
    waits(&front, 0).await;
    front.is_idle().await;
}
