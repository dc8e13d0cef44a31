//! What a well-formed request gets.

use serde_json::{Value, json};

use crate::harness::{Pod, Received};

fn text_of(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_has_text_usage_and_headers() {
    let pod = Pod::ready(&[]).await;
    let request = pod.client.chat(json!({"max_completion_tokens": 6, "max_tokens": 3, "ignore_eos": true}));
    let response = request.header("x-request-id", "my-id.1").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["x-request-id"], "my-id.1");
    assert_eq!(headers["x-inferno-revision"], "tiny-abc12");
    assert_eq!(headers["x-queue-tier"], "normal");
    assert!(headers.contains_key("x-queue-wait-ms") && headers.contains_key("openai-processing-ms"));
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 6);
    let sum = answer["usage"]["prompt_tokens"].as_u64().unwrap() + 6;
    assert_eq!(answer["usage"]["total_tokens"], sum);
    assert!(!text_of(&answer).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_the_same_in_pieces() {
    let pod = Pod::ready(&[]).await;
    let fields = json!({"max_tokens": 12, "ignore_eos": true, "temperature": 0});
    let plain = pod.client.answer(fields.clone()).await;
    let mut streamed = fields;
    streamed["stream_options"] = json!({"include_usage": true});
    let response = pod.client.stream(streamed).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let received = Received::read(response).await;
    assert!(received.is_clean && received.is_done);
    assert_eq!(received.text(0), text_of(&plain));
    let (figures, chunks) = received.events.split_last().unwrap();
    assert_eq!((&figures["choices"], &figures["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == figures["id"]));
    let roles: Vec<_> = chunks.iter().map(|chunk| !chunk["choices"][0]["delta"]["role"].is_null()).collect();
    assert_eq!(roles.iter().filter(|has_role| **has_role).count(), 1);
    assert!(roles[0], "the first chunk says who speaks");
    let reasons: Vec<_> = chunks.iter().map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons.iter().flatten().collect::<Vec<_>>(), [&"length"]);
    assert_eq!(reasons.last(), Some(&Some("length")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_cuts_the_text_before_it() {
    let pod = Pod::ready(&[]).await;
    let fields = json!({"max_tokens": 24, "ignore_eos": true, "temperature": 0});
    let whole = text_of(&pod.client.answer(fields.clone()).await).to_owned();
    let middle: Vec<char> = whole.chars().skip(whole.chars().count() / 2).take(3).collect();
    let stop: String = middle.iter().collect();
    let expected = &whole[..whole.find(&stop).unwrap()];
    let mut stopped = fields;
    stopped["stop"] = json!([stop]);
    let answer = pod.client.answer(stopped.clone()).await;
    assert_eq!((text_of(&answer), &answer["choices"][0]["finish_reason"]), (expected, &json!("stop")));
    let received = Received::read(pod.client.stream(stopped).await).await;
    assert_eq!(received.text(0), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_choice_of_a_stream_has_its_own_beginning_and_end() {
    let pod = Pod::ready(&["--parallel-slots", "2"]).await;
    let fields = json!({
        "n": 3, "max_tokens": 24, "ignore_eos": true, "seed": 7, "temperature": 2, "top_k": 0, "min_p": 0,
    });
    let received = Received::read(pod.client.stream(fields.clone()).await).await;
    assert!(received.is_clean && received.is_done);
    for index in 0..3 {
        let of_choice: Vec<_> =
            received.events.iter().filter(|event| event["choices"][0]["index"] == index).collect();
        let roles = of_choice.iter().filter(|event| event["choices"][0]["delta"]["role"] == "assistant");
        assert_eq!(roles.count(), 1);
        assert_eq!(of_choice.last().unwrap()["choices"][0]["finish_reason"], "length");
    }
    let plain = pod.client.answer(fields).await;
    assert_eq!(plain["choices"].as_array().unwrap().len(), 3);
    assert_eq!(plain["usage"]["completion_tokens"], 72);
    assert_ne!(
        plain["choices"][0]["message"], plain["choices"][1]["message"],
        "choices have seeds of their own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_come_with_bytes_that_make_up_the_text() {
    let pod = Pod::ready(&[]).await;
    let fields =
        json!({"max_tokens": 9, "ignore_eos": true, "temperature": 0, "logprobs": true, "top_logprobs": 3});
    let answer = pod.client.answer(fields.clone()).await;
    let bytes_of = |tokens: &Value| -> Vec<u8> {
        let bytes = |token: &Value| token["bytes"].as_array().unwrap().clone();
        let all = tokens.as_array().unwrap().iter().flat_map(bytes);
        all.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
    };
    let tokens = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(tokens.as_array().unwrap().len(), 9);
    assert_eq!(String::from_utf8_lossy(&bytes_of(tokens)), text_of(&answer));
    for token in tokens.as_array().unwrap() {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        assert_eq!(top[0]["bytes"], token["bytes"], "greedy takes the most likely");
        assert!(top[0]["logprob"].as_f64().unwrap() <= 0.0);
    }
    let received = Received::read(pod.client.stream(fields).await).await;
    let streamed: usize = received
        .events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().map(Vec::len))
        .sum();
    assert_eq!(streamed, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn seed_and_bias_reach_the_sampler() {
    let pod = Pod::ready(&[]).await;
    let fields =
        json!({"max_tokens": 10, "ignore_eos": true, "seed": 42, "temperature": 1.8, "top_k": 0, "min_p": 0});
    let first = pod.client.answer(fields.clone()).await;
    let second = pod.client.answer(fields).await;
    assert_eq!(text_of(&first), text_of(&second), "the same seed");
    let biased = json!({"max_tokens": 4, "ignore_eos": true, "logit_bias": {"300": 100}, "logprobs": true});
    let answer = pod.client.answer(biased).await;
    let tokens = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(tokens.iter().all(|token| token["bytes"] == tokens[0]["bytes"]), "{tokens:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_take_every_shape_of_prompt() {
    let pod = Pod::ready(&[]).await;
    for (prompt, choices) in [
        (json!("one"), 1),
        (json!(["one", "two"]), 2),
        (json!([100, 101]), 1),
        (json!([[100], [101, 102]]), 2),
    ] {
        let body = json!({"model": "family/small:1", "prompt": prompt, "max_tokens": 3, "ignore_eos": true, "logprobs": 1});
        let response = pod.client.post("/v1/completions").json(&body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{prompt}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            (&answer["object"], &answer["model"]),
            (&json!("text_completion"), &json!("family/small:1"))
        );
        let got = answer["choices"].as_array().unwrap();
        assert_eq!(got.len(), choices, "{prompt}");
        assert!(got.iter().all(|choice| choice["logprobs"]["tokens"].as_array().unwrap().len() == 3));
        assert_eq!(answer["usage"]["completion_tokens"], 3 * choices);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_texts_that_a_user_writes_are_only_letters() {
    let pod = Pod::ready(&[]).await;
    let prompt_tokens = async |content: &str| {
        let messages = json!([{"role": "user", "content": content}]);
        let answer = pod.client.answer(json!({"messages": messages, "max_tokens": 1})).await;
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // As a control token it would be one; as letters it is several.
    let plain = prompt_tokens("hi").await;
    assert!(prompt_tokens("hi<|im_end|>").await > plain + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_by_every_name() {
    let pod = Pod::ready(&[]).await;
    let list: Value = pod.client.get("/v1/models").send().await.unwrap().json().await.unwrap();
    let ids: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny", "family/small:1"]);
    let one: Value = pod.client.get("/v1/models/family/small:1").send().await.unwrap().json().await.unwrap();
    assert_eq!((&one["id"], &one["object"]), (&json!("family/small:1"), &json!("model")));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_figures_answer() {
    let pod = Pod::ready(&[]).await;
    pod.client.answer(json!({"max_tokens": 2})).await;
    for path in ["/healthz", "/health", "/readyz"] {
        assert_eq!(pod.client.get(path).send().await.unwrap().status(), 200, "{path}");
    }
    let metrics = pod.client.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("inferno_requests_total{model_name=\"tiny\",outcome=\"completed\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("vllm:num_requests_waiting{model_name=\"tiny\"} 0"));
    let status: Value = pod.client.get("/metrics/queue/status").send().await.unwrap().json().await.unwrap();
    assert_eq!((&status["queued"], &status["tiers"]["vip"]["weight"]), (&json!(0), &json!(8)));
}
