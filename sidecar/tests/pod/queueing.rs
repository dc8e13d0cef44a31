//! Who goes first, who has to leave, who is not let in. One slot, which a long stream holds while the queue fills.

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Pod, Received};

fn quick(priority: &str) -> Value {
    json!({"max_tokens": 2, "ignore_eos": true, "priority": priority})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_behind_a_hundred_low_is_served_before_95_of_them() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768"]).await;
    let hog = pod.hog().await;
    let (first_token, mut order) = mpsc::unbounded_channel();
    let mut ends = tokio::task::JoinSet::new();
    for number in 0..=100 {
        if number == 100 {
            pod.has_queued(100).await;
        }
        let name = if number == 100 { "vip" } else { "low" };
        let (client, first_token) = (pod.client.clone(), first_token.clone());
        ends.spawn(async move {
            let mut response = client.stream(quick(name)).await;
            let mut text = String::new();
            while let Some(chunk) = response.chunk().await.unwrap() {
                let had_data = text.contains("data: ");
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                if !had_data && text.contains("data: ") {
                    first_token.send(name).unwrap();
                }
            }
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        });
    }
    pod.has_queued(101).await;
    drop(hog);
    ends.join_all().await;
    order.close();
    let mut names = Vec::new();
    while let Some(name) = order.recv().await {
        names.push(name);
    }
    assert_eq!(names.len(), 101, "all had a first token");
    let place = names.iter().position(|name| *name == "vip").unwrap();
    assert!(place <= 5, "at place {place}");
    assert_eq!(pod.queued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_429_with_a_time() {
    let flags = ["--parallel-slots", "1", "--context-length", "32768", "--max-queued-requests", "2"];
    let pod = Pod::ready(&flags).await;
    let hog = pod.hog().await;
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(pod.client.chat(quick("normal")).send())).collect();
    pod.has_queued(2).await;
    let refused = pod.client.chat(quick("vip")).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=120).contains(&seconds));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(
        (&body["error"]["code"], &body["error"]["type"]),
        (&json!("queue_full"), &json!("rate_limit_error"))
    );
    drop(hog);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_tokens_and_bytes_have_their_names() {
    for (flag, name) in [("--max-queued-prompt-tokens", "prompt_tokens"), ("--max-queued-bytes", "bytes")] {
        let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768", flag, "300"]).await;
        let hog = pod.hog().await;
        let long = json!({"messages": [{"role": "user", "content": "word ".repeat(400)}]});
        let refused = pod.client.chat(long).send().await.unwrap();
        assert_eq!(refused.status(), 429, "{name}");
        let body: Value = refused.json().await.unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains(name), "{body}");
        drop(hog);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_deadline_is_504_and_not_worth_a_retry() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768"]).await;
    let _hog = pod.hog().await;
    let response = pod.client.chat(json!({"deadline_ms": 50})).send().await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "deadline_exceeded");
    assert_eq!(pod.queued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_stream_hears_its_place_and_then_its_deadline_and_is_cut() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768"]).await;
    let _hog = pod.hog().await;
    let response = pod.client.stream(json!({"deadline_ms": 1_200})).await;
    assert_eq!(response.headers()["x-queue-position"], "0");
    let received = Received::read(response).await;
    assert_eq!(received.comments, ["queued, 0 ahead"]);
    assert_eq!(received.error()["code"], "deadline_exceeded");
    assert!(!received.is_clean && !received.is_done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_place() {
    let pod = Pod::ready(&["--parallel-slots", "1", "--context-length", "32768"]).await;
    let hog = pod.hog().await;
    let plain = tokio::spawn(pod.client.chat(quick("low")).send());
    let streamed = tokio::spawn(pod.client.chat(json!({"stream": true})).send());
    pod.has_queued(2).await;
    plain.abort();
    streamed.abort();
    pod.has_queued(0).await;
    drop(hog);
    pod.client.answer(quick("normal")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_priority_and_the_header_count_unless_the_body_says_otherwise() {
    let pod = Pod::ready(&["--default-priority", "low"]).await;
    let tier_of = async |fields: Value, header: Option<&str>| {
        let mut request = pod.client.chat(fields);
        if let Some(name) = header {
            request = request.header("x-inferno-priority", name);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-queue-tier"].to_str().unwrap().to_owned()
    };
    assert_eq!(tier_of(json!({"max_tokens": 1}), None).await, "low");
    assert_eq!(tier_of(json!({"max_tokens": 1}), Some("High")).await, "high");
    assert_eq!(tier_of(quick("vip"), Some("high")).await, "vip");
}
