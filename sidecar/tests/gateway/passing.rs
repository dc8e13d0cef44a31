//! What passes through: bytes and headers, both ways; and what does not.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use sidecar::gateway::view::View;

use crate::harness::{Front, Pod, chat, model, tiny, view};

#[tokio::test]
async fn a_request_reaches_the_pod_byte_for_byte() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let body = "{ \"model\":\"tiny\",\n\"unknown\" : [1, {\"deep\":null}],  \"messages\":[] }";
    let headers = "AUTHORIZATION: Bearer k\r\nX-Custom: a\r\nx-custom: b\r\nconnection: X-Hop\r\nX-Hop: 1\r\n\
                   te: trailers\r\nx-forwarded-for: 1.2.3.4\r\n";
    let mut client = front.connect().await;
    client.post("/v1/chat/completions?a=%20b", headers, body).await;

    let asked = pod.asked().await;
    assert_eq!(asked.body, body);
    assert!(asked.head.starts_with("POST /v1/chat/completions?a=%20b HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("authorization"), Some("Bearer k"));
    assert_eq!(asked.head.to_lowercase().matches("x-custom: ").count(), 2);
    assert_eq!((asked.header("x-hop"), asked.header("te"), asked.header("connection")), (None, None, None));
    assert_eq!(asked.header("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(asked.header("x-inferno-attempt"), None);
    let id = asked.header("x-request-id").unwrap().to_owned();
    assert!(id.starts_with("req-"));

    asked.answer(200, "{}").await;
    assert_eq!(client.reply().await.header("x-request-id"), Some(id.as_str()));
}

#[tokio::test]
async fn a_chunked_request_is_sent_with_its_length() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let body = chat(json!({}));
    let (first, second) = body.split_at(10);
    let mut client = front.connect().await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write(head.as_bytes()).await;
    for part in [first, second] {
        client.write(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await;
    }
    client.write(b"0\r\n\r\n").await;
    let asked = pod.asked().await;
    assert_eq!((asked.body.as_str(), asked.header("transfer-encoding")), (body.as_str(), None));
}

#[tokio::test]
async fn an_answer_reaches_the_client_byte_for_byte() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.chat(json!({})).await;
    let mut asked = pod.asked().await;
    let head = "HTTP/1.1 418 Teapot\r\ncontent-type: text/odd\r\nX-Odd: 1\r\nx-inferno-revision: said\r\n\
                connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=1\r\ncontent-length: 4\r\n\r\n{\r\n}";
    asked.say(head).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.body.as_str(), reply.is_whole), (418, "{\r\n}", true));
    assert_eq!((reply.header("content-type"), reply.header("x-odd")), (Some("text/odd"), Some("1")));
    assert_eq!((reply.header("x-hop"), reply.header("keep-alive")), (None, None));
    assert_eq!(reply.header("x-inferno-revision"), Some("said"));
    assert_eq!(reply.header("content-length"), Some("4"));
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.connect().await;
    for number in 0..3 {
        client.post("/v1/chat/completions", "", &chat(json!({"n": number}))).await;
        let asked = pod.asked().await;
        asked.answer(200, &number.to_string()).await;
        let reply = client.reply().await;
        assert_eq!((reply.body.as_str(), reply.header("connection")), (number.to_string().as_str(), None));
    }
    let mut stream = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    asked.streams().await;
    asked.done().await;
    stream.read_to("0\r\n\r\n").await;
    client.post("/v1/chat/completions", "", &chat(json!({}))).await;
    pod.asked().await.answer(200, "\"again\"").await;
    assert_eq!(client.reply().await.body, "\"again\"");
    // Each of the gateway's threads has connections of its own.
    assert!(pod.connections.load(Ordering::Relaxed) <= 2, "connections are not kept");
}

#[tokio::test]
async fn an_idle_connection_that_the_pod_has_closed_costs_nobody_a_request() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.connect().await;
    for number in 1..4 {
        client.post("/v1/chat/completions", "", &chat(json!({"n": number}))).await;
        let asked = pod.asked().await;
        assert_eq!(asked.header("x-inferno-attempt"), None);
        asked.answer_and_close("\"ok\"").await;
        assert_eq!(client.reply().await.body, "\"ok\"");
        assert_eq!(pod.connections.load(Ordering::Relaxed), number);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_and_never_ends_cleanly() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    for head in ["content-length: 10\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut client = front.chat(json!({})).await;
        let mut asked = pod.asked().await;
        asked.say(&format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{head}")).await;
        let begun = client.read_to("{").await;
        assert!(begun.contains("200 OK"));
        drop(asked);
        assert_eq!(client.read_all().await.trim(), "", "nothing follows, and no last chunk");
    }
    front.is_idle().await;
    let broken = "inferno_gateway_requests_total{code=\"broken\",model=\"tiny\",revision=\"tiny-a\"}";
    assert_eq!(front.metric(broken), 2);
}

#[tokio::test]
async fn models_are_listed_also_at_zero() {
    let pod = Pod::new().await;
    let mut asleep = model("org/asleep", &[]);
    asleep.start.wanted = 0;
    let mut suspended = model("suspended", &[]);
    suspended.is_suspended = true;
    let front = Front::new(view([tiny(&[&pod]), asleep, suspended])).await;
    let mut client = front.connect().await;
    let mut get = async |path: &str| {
        client.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        client.reply().await
    };
    let list = get("/v1/models").await.json();
    let state = |model: &Value| (model["id"].clone(), model["state"].clone());
    let states: Vec<_> = list["data"].as_array().unwrap().iter().map(state).collect();
    let expected = [("tiny", "ready"), ("org/asleep", "zero"), ("suspended", "suspended")];
    assert_eq!(states, expected.map(|(id, state)| (json!(id), json!(state))));
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(list["data"][0]["owned_by"], "inferno");
    assert_eq!(list["data"][0]["created"], 1_700_000_000);
    assert_eq!(list["data"][0]["aliases"], json!(["family/small:1"]));

    assert_eq!(get("/v1/models/family/small:1").await.json()["id"], "family/small:1");
    assert_eq!(get("/v1/models/org%2Fasleep").await.json()["state"], "zero");
    assert_eq!(get("/v1/models/nobody").await.code(), "model_not_found");
}

#[tokio::test]
async fn what_cannot_be_sent_on_is_told_so_in_openai_form() {
    let pods = [Pod::new().await, Pod::new().await];
    let front = Front::new(view([tiny(&[&pods[0]]), model("other", &[("other-a", &[&pods[1]])])])).await;
    let mut client = front.connect().await;
    let mut check = async |path: &str, body: &str, status: u16, code: &str| {
        client.post(path, "x-request-id: mine\r\n", body).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path} {body}");
        assert_eq!(reply.header("x-request-id"), Some("mine"));
        let error = &reply.json()["error"];
        assert!(["message", "type", "param", "code"].iter().all(|key| error.get(key).is_some()));
    };
    let route = "/v1/chat/completions";
    check(route, "{\"model\":\"nobody\"}", 404, "model_not_found").await;
    check(route, "{}", 400, "missing_required_parameter").await;
    check(route, "not json", 400, "missing_required_parameter").await;
    check("/v2/chat/completions", "{}", 404, "not_found").await;
    check("/v1/models", "{}", 405, "method_not_allowed").await;
    let mut client = front.connect().await;
    client.write(b"GET /v1/completions HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 405);
}

#[tokio::test]
async fn with_one_model_a_pod_judges_bodies_that_name_none() {
    let mut pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let mut client = front.connect().await;
    client.post("/v1/completions", "", "not json").await;
    let asked = pod.asked().await;
    assert_eq!(asked.body, "not json");
    asked.refuses(400, "invalid_json").await;
    assert_eq!(client.reply().await.code(), "invalid_json");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_however_it_comes() {
    let pod = Pod::new().await;
    let front = Front::new(view([tiny(&[&pod])])).await;
    let limit = sidecar::http::BODY_BYTES_MAX;
    let body = "x".repeat(limit + 1);
    let mut client = front.connect().await;
    client.post("/v1/completions", "", &body).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));

    let mut client = front.connect().await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
    assert_eq!(client.reply().await.status, 413);

    let mut client = front.connect().await;
    let head = format!("content-length: {}\r\nexpect: 100-continue\r\n", limit + 1);
    client.write(format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes()).await;
    assert_eq!(client.reply().await.status, 413, "told before the body is sent");
}

#[tokio::test]
async fn nothing_is_served_before_the_first_view() {
    let front = Front::without_view().await;
    assert_eq!(front.admin("/readyz").await.status, 503);
    let reply = front.reply(json!({})).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "gateway_starting"));
    assert!(reply.header("retry-after").is_some());
    front.app().take(View::default());
    assert_eq!(front.admin("/readyz").await.status, 200);
    assert_eq!(front.reply(json!({})).await.status, 404);
}

#[tokio::test]
async fn the_admin_port_tells_what_the_gateway_knows() {
    let (pod, _) = Pod::echo().await;
    let known = view([tiny(&[&pod])]);
    let front = Front::new(known.clone()).await;
    front.reply(json!({})).await;
    front.is_idle().await;
    assert_eq!(front.admin("/healthz").await.status, 200);
    assert_eq!(serde_json::from_value::<View>(front.admin("/view").await.json()).unwrap(), known);
    let metrics = front.admin("/metrics").await.body;
    for line in [
        "inferno_gateway_requests_total{code=\"200\",model=\"tiny\",revision=\"tiny-a\"} 1",
        "inferno_gateway_added_latency_seconds_count 1",
        "inferno_gateway_ttft_seconds_count{model=\"tiny\",revision=\"tiny-a\"} 1",
        "inferno_gateway_held{model=\"tiny\",tier=\"vip\"} 0",
        "inferno_gateway_in_flight 0",
        "inferno_gateway_view_age_seconds 0",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let breaker = format!("inferno_gateway_breaker_state{{model=\"tiny\",pod=\"pod-{}\"", pod.address.port());
    assert!(metrics.contains(&breaker), "{breaker} in\n{metrics}");
}
