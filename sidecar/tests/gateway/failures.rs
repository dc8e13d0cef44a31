//! Pods that cannot answer: another one is asked, once, as long as the client has seen nothing.

use serde_json::json;

use crate::harness::{Front, Pod, chat, model, tiny, view, with_canary};

/// Two pods that both take requests; which is asked first is the gateway's choice.
async fn first_of(pods: &mut [Pod; 2]) -> (crate::harness::Asked, usize) {
    let [one, two] = pods;
    tokio::select! {
        asked = one.asked() => (asked, 0),
        asked = two.asked() => (asked, 1),
    }
}

#[tokio::test]
async fn a_pod_that_cannot_answer_is_replaced_by_the_other() {
    for (fault, cause) in [
        ("reset", "reset"),
        ("draining", "not_taken"),
        ("model_loading", "not_taken"),
        ("engine_lost", "engine_lost"),
        ("queue_full", "busy"),
    ] {
        let mut pods = [Pod::new().await, Pod::new().await];
        let front = Front::new(view([tiny(&[&pods[0], &pods[1]])])).await;
        let mut client = front.chat(json!({})).await;
        let (asked, which) = first_of(&mut pods).await;
        match fault {
            "reset" => drop(asked),
            "queue_full" => asked.refuses(429, fault).await,
            _ => asked.refuses(503, fault).await,
        }
        let again = pods[1 - which].asked().await;
        assert_eq!(again.header("x-inferno-attempt"), Some("2"), "{fault}");
        again.answer(200, "\"ok\"").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "\"ok\""), "{fault}");
        let retries = format!("inferno_gateway_retries_total{{cause=\"{cause}\",model=\"tiny\"}}");
        assert_eq!(front.metric(&retries), 1, "{fault}");
        front.is_idle().await;
    }
}

#[tokio::test]
async fn what_a_canary_has_failed_goes_to_the_stable_revision_unless_the_canary_was_asked_for() {
    let mut stable = Pod::new().await;
    let mut canary = [Pod::new().await, Pod::new().await];
    let both: &[(&str, &[&Pod])] = &[("tiny-a", &[&stable]), ("tiny-b", &[&canary[0], &canary[1]])];
    let front = Front::new(view([with_canary(model("tiny", both), 10_000)])).await;
    let mut client = front.chat(json!({})).await;
    let (asked, _) = first_of(&mut canary).await;
    asked.refuses(503, "engine_lost").await;
    let again = stable.asked().await;
    assert_eq!(again.header("x-inferno-attempt"), Some("2"));
    again.answer(200, "\"ok\"").await;
    assert_eq!(client.reply().await.status, 200);

    let mut client = front.connect().await;
    client.post("/v1/chat/completions", "x-inferno-revision: tiny-b\r\n", &chat(json!({}))).await;
    let (asked, which) = first_of(&mut canary).await;
    asked.refuses(503, "engine_lost").await;
    canary[1 - which].asked().await.answer(200, "\"ok\"").await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_pod_that_refuses_connections_costs_nobody_a_request() {
    let (pod, address) = Pod::echo().await;
    let mut gone = Pod::new().await;
    gone.closes().await;
    let front = Front::new(view([tiny(&[&gone, &pod])])).await;
    for number in 0..20 {
        let reply = front.reply(json!({"user": number.to_string()})).await;
        assert_eq!(reply.json()["pod"], address.to_string());
    }
}

#[tokio::test]
async fn there_is_one_retry_and_no_more() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0], &pods[1]])])).await;
    let mut client = front.chat(json!({})).await;
    let (first, which) = first_of(&mut pods).await;
    drop(first);
    drop(pods[1 - which].asked().await);
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "pod_lost"));
    assert!(reply.header("retry-after").is_some());
    assert!(pods[0].asked_before().is_none() && pods[1].asked_before().is_none());
    front.is_idle().await;
}

#[tokio::test]
async fn the_only_pod_is_asked_again_after_a_reset_and_not_after_its_own_error() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.chat(json!({})).await;
    drop(pod.asked().await);
    let again = pod.asked().await;
    assert_eq!(again.header("x-inferno-attempt"), Some("2"));
    again.answer(200, "\"ok\"").await;
    assert_eq!(client.reply().await.status, 200);

    for (status, code) in [(429, "queue_full"), (503, "engine_lost"), (503, "odd"), (500, "odd")] {
        let mut client = front.chat(json!({})).await;
        pod.asked().await.refuses(status, code).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code));
        assert!(pod.asked_before().is_none());
    }
}

#[tokio::test]
async fn what_the_only_pod_has_not_taken_waits_for_the_next_view() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0]])])).await;
    let mut client = front.chat(json!({})).await;
    pods[0].asked().await.refuses(503, "draining").await;
    crate::harness::until("the request waits", || front.app().room.has_waiting("tiny")).await;
    front.app().take(view([tiny(&[&pods[1]])]));
    // It had a turn while the draining pod was still listed, so it may be in the pause after it.
    pods[1].asked().await.answer(200, "\"ok\"").await;
    assert_eq!(client.reply().await.status, 200);
    front.is_idle().await;
}

#[tokio::test]
async fn an_error_that_is_no_business_of_ours_passes_as_it_is() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0], &pods[1]])])).await;
    for (status, code) in
        [(400, "invalid_value"), (503, "odd"), (504, "deadline_exceeded"), (500, "engine_lost")]
    {
        let mut client = front.chat(json!({})).await;
        let (asked, which) = first_of(&mut pods).await;
        asked.refuses(status, code).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code));
        assert!(pods[1 - which].asked_before().is_none(), "{code}");
    }
}
