//! Event streams: each event at once, and an end only when it was announced.

use serde_json::json;

use crate::harness::{Front, Pod, tiny, view};

#[tokio::test]
async fn each_event_passes_as_it_comes() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    let head = client.read_to("\r\n\r\n").await;
    assert!(head.contains("text/event-stream") && head.contains("x-inferno-revision: tiny-a"), "{head}");
    for number in 0..5 {
        asked.chunk(&format!("data: {{\"n\":{number}}}\n\n")).await;
        client.read_to(&format!("data: {{\"n\":{number}}}\n\n")).await;
    }
    asked.done().await;
    assert!(client.read_to("0\r\n\r\n").await.contains("data: [DONE]\n\n"));
    front.is_idle().await;
    let ended = "inferno_gateway_requests_total{code=\"200\",model=\"tiny\",revision=\"tiny-a\"}";
    assert_eq!(front.metric(ended), 1);
}

#[tokio::test]
async fn a_pod_lost_mid_stream_is_an_error_frame_and_a_cut() {
    let mut pods = [Pod::new().await, Pod::new().await];
    for is_ended_cleanly in [false, true] {
        let front = Front::new(view([tiny(&[&pods[0]])])).await;
        let mut client = front.chat(json!({"stream": true})).await;
        let mut asked = pods[0].asked().await;
        asked.streams().await;
        asked.chunk("data: {\"n\":1}\n\n").await;
        client.read_to("data: {\"n\":1}\n\n").await;
        front.app().take(view([tiny(&[&pods[0], &pods[1]])]));
        if is_ended_cleanly {
            asked.say("0\r\n\r\n").await;
        }
        drop(asked);
        let rest = client.read_all().await;
        assert!(rest.contains("data: {\"error\":{") && rest.contains("\"code\":\"pod_lost\""), "{rest}");
        assert!(!rest.contains("0\r\n\r\n"), "it ended cleanly: {rest}");
        assert!(pods[1].asked_before().is_none(), "no second pod after content");
        front.is_idle().await;
    }
}

#[tokio::test]
async fn a_cut_in_the_middle_of_an_event_does_not_spoil_the_error_frame() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.chunk("data: {\"n\":1}\n\ndata: {\"half").await;
    client.read_to("half").await;
    drop(asked);
    let rest = client.read_all().await;
    assert!(rest.contains("\n\ndata: {\"error\""), "{rest}");
}

#[tokio::test]
async fn a_pods_own_error_frame_is_the_only_one() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.chunk("data: {\"n\":1}\n\n").await;
    asked.chunk("data: {\"error\":{\"code\":\"engine_lost\"}}\n\n").await;
    drop(asked);
    let all = client.read_all().await;
    assert!(all.contains("engine_lost") && !all.contains("pod_lost") && !all.contains("0\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn a_stream_in_which_only_comments_came_goes_on_with_another_pod() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0]])])).await;
    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pods[0].asked().await;
    asked.streams().await;
    asked.chunk(": queued, 3 ahead\n\n").await;
    asked.chunk(": half a comm").await;
    client.read_to("half a comm").await;
    front.app().take(view([tiny(&[&pods[0], &pods[1]])]));
    drop(asked);

    let mut again = pods[1].asked().await;
    assert_eq!(again.header("x-inferno-attempt"), Some("2"));
    again.streams().await;
    again.chunk("data: {\"n\":1}\n\n").await;
    let between = client.read_to("data: {\"n\":1}\n\n").await;
    assert!(!between.contains("error"), "{between}");
    again.done().await;
    client.read_to("0\r\n\r\n").await;
    front.is_idle().await;
}

#[tokio::test]
async fn a_draining_pods_error_frame_before_content_is_asked_elsewhere_and_not_shown() {
    let mut pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0]])])).await;
    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pods[0].asked().await;
    asked.streams().await;
    asked.chunk(": queued\n\n").await;
    client.read_to("queued").await;
    front.app().take(view([tiny(&[&pods[0], &pods[1]])]));
    asked.chunk("data: {\"error\":{\"message\":\"\",\"code\":\"draining\"}}\n\n").await;
    let mut again = pods[1].asked().await;
    again.streams().await;
    again.done().await;
    let all = client.read_to("0\r\n\r\n").await;
    assert!(all.contains("[DONE]") && !all.contains("draining"), "{all}");
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_pod_at_once() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    // Before the head, and in the middle of a stream.
    let client = front.chat(json!({})).await;
    let asked = pod.asked().await;
    drop(client);
    asked.until_left().await;

    let mut client = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.chunk("data: {}\n\n").await;
    client.read_to("data: {}").await;
    drop(client);
    asked.until_left().await;
    front.is_idle().await;
    let left = "inferno_gateway_requests_total{code=\"499\",model=\"tiny\",revision=\"tiny-a\"}";
    assert_eq!(front.metric(left), 1);
}
