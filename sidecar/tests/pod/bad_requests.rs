//! What a request gets that cannot be served: a status, and an error object that names the parameter.

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Pod, chat_body};

async fn check(response: Response, status: u16, code: &str, param: Option<&str>) {
    assert_eq!(response.status(), status, "expected {code}");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("an error object: {body}"));
    assert_eq!(error["code"], code, "{body}");
    assert_eq!(error["param"], param.map_or(Value::Null, |param| json!(param)), "{body}");
    assert!(
        error["type"].is_string() && error["message"].as_str().is_some_and(|message| !message.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_by_name() {
    let pod = Pod::ready(&["--context-length", "128"]).await;
    let chat = [
        (json!({"temperature": 3}), 400, "invalid_value", Some("temperature")),
        (json!({"messages": "hello"}), 400, "invalid_type", Some("messages")),
        (json!({"messages": []}), 400, "invalid_value", Some("messages")),
        (json!({"messages": null}), 400, "missing_required_parameter", Some("messages")),
        (json!({"model": null}), 400, "missing_required_parameter", Some("model")),
        (json!({"model": "other"}), 404, "model_not_found", Some("model")),
        (json!({"tools": [{}]}), 400, "unsupported_parameter", Some("tools")),
        (
            json!({"response_format": {"type": "json_object"}}),
            400,
            "unsupported_parameter",
            Some("response_format"),
        ),
        (json!({"max_tokens": 1_000}), 400, "context_length_exceeded", Some("messages")),
        (json!({"max_tokens": 1_000, "stream": true}), 400, "context_length_exceeded", Some("messages")),
        (json!({"logit_bias": {"99999999": 1}}), 400, "invalid_value", Some("logit_bias")),
        (json!({"n": 9}), 400, "invalid_value", Some("n")),
    ];
    for (fields, status, code, param) in chat {
        check(pod.client.chat(fields).send().await.unwrap(), status, code, param).await;
    }
    let completions = [
        (json!({"suffix": "end"}), "unsupported_parameter", Some("suffix")),
        (json!({"echo": true}), "unsupported_parameter", Some("echo")),
        (json!({"best_of": 3}), "unsupported_parameter", Some("best_of")),
        (json!({"prompt": [99_999_999]}), "invalid_value", Some("prompt")),
        (json!({"prompt": "long ".repeat(500)}), "context_length_exceeded", Some("prompt")),
    ];
    for (fields, code, param) in completions {
        let mut body = json!({"model": "tiny", "prompt": "x"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let response = pod.client.post("/v1/completions").json(&body).send().await.unwrap();
        check(response, 400, code, param).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_gets_an_error_object_too() {
    let pod = Pod::ready(&[]).await;
    let chat = || pod.client.post("/v1/chat/completions");
    check(chat().body("{\"model\": ").send().await.unwrap(), 400, "invalid_json", None).await;
    check(chat().body("[1]").send().await.unwrap(), 400, "invalid_json", None).await;
    check(chat().body(vec![b' '; (8 << 20) + 1]).send().await.unwrap(), 413, "body_too_large", None).await;
    check(pod.client.get("/v1/nothing").send().await.unwrap(), 404, "not_found", None).await;
    check(pod.client.get("/v1/chat/completions").send().await.unwrap(), 405, "method_not_allowed", None)
        .await;
    check(pod.client.get("/v1/models/other").send().await.unwrap(), 404, "model_not_found", Some("model"))
        .await;
    let header = chat().json(&chat_body(&json!({}))).header("x-inferno-priority", "first");
    check(header.send().await.unwrap(), 400, "invalid_value", Some("x-inferno-priority")).await;
}
