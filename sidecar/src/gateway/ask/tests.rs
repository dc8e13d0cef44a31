use std::time::Duration;

use axum::http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn ask(body: &Value) -> Ask {
    Ask::read(&HeaderMap::new(), "/v1/chat/completions", body.to_string().as_bytes())
}

fn chat(messages: &Value) -> Ask {
    ask(&json!({"model": "m", "messages": messages}))
}

fn with_headers(headers: &[(&'static str, &str)]) -> Ask {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    Ask::read(&map, "/v1/chat/completions", b"{}")
}

#[test]
fn the_facts_of_a_chat_are_read() {
    let body = json!({
        "messages": [{"role": "user", "content": "hello"}],
        "model": "chat", "stream": true, "user": "ann", "priority": "high", "deadline_ms": 2_500,
        "max_tokens": 9, "max_completion_tokens": 40, "temperature": 0.5, "tools": [{"a": [1, null]}],
    });
    let ask = ask(&body);
    assert_eq!(ask.model.as_deref(), Some("chat"));
    assert!(ask.is_stream && ask.is_generation && ask.is_new_conversation);
    assert_eq!(ask.user.as_deref(), Some("ann"));
    assert_eq!(ask.tier, Some(Tier::High));
    assert_eq!(ask.deadline, Some(Duration::from_millis(2_500)));
    assert_eq!(ask.output_tokens, 40, "the newer name counts");
    assert_eq!(ask.prompt_tokens as usize, body.to_string().len() / 4);
    assert_eq!(ask.work(), u64::from(ask.prompt_tokens) + 80);
}

#[test]
fn wrong_types_are_as_absent_and_hide_nothing_else() {
    let ask = ask(&json!({
        "stream": "yes", "user": 7, "priority": "first", "deadline_ms": -1, "max_tokens": 1.5,
        "messages": [5, "x", null, ["y"], {"role": {}, "content": 1.5}, {}], "prompt": {"a": {}}, "model": "m",
    }));
    assert_eq!(ask.model.as_deref(), Some("m"));
    assert!(!ask.is_stream);
    assert_eq!((ask.user, ask.tier, ask.deadline), (None, None, None));
    assert_eq!(ask.output_tokens, 256);
    for messages in [json!("hello"), json!({"role": "user"}), json!(null), json!([])] {
        assert_eq!(chat(&messages).model.as_deref(), Some("m"), "{messages}");
    }
}

#[test]
fn what_is_not_one_json_object_gives_nothing() {
    for body in ["", "{", "[]", "\"x\"", "{\"model\": \"m\"} {}", "{\"model\": \"m\\ud800\"}", "--boundary"] {
        let ask = Ask::read(&HeaderMap::new(), "/v1/completions", body.as_bytes());
        assert_eq!(ask.model, None, "{body}");
        assert_eq!(ask.deep, None, "{body}");
    }
    let deep = format!("{{\"model\": \"m\", \"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Ask::read(&HeaderMap::new(), "/", deep.as_bytes()).model.as_deref(), Some("m"));
}

#[test]
fn the_last_of_two_equal_names_counts_as_in_the_pod() {
    let ask = Ask::read(&HeaderMap::new(), "/", br#"{"model": "a", "model": "b"}"#);
    assert_eq!(ask.model.as_deref(), Some("b"));
}

#[test]
fn a_conversation_keeps_its_keys_as_it_goes_on() {
    let system = json!({"role": "system", "content": "You help.\nShortly."});
    let first = json!({"role": "user", "content": "Why is the sky \"blue\"?"});
    let start = chat(&json!([system, first]));
    let later = chat(&json!([system, first, {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "Of what?"}]));
    assert_eq!((start.deep, start.shallow), (later.deep, later.shallow));
    assert!(start.is_new_conversation && !later.is_new_conversation);

    let other = chat(&json!([system, {"role": "user", "content": "Another thing."}]));
    assert_eq!(start.shallow, other.shallow, "the same system prompt");
    assert_ne!(start.deep, other.deep);
    let elsewhere = chat(&json!([{"role": "system", "content": "You refuse."}, first]));
    assert_ne!(start.shallow, elsewhere.shallow);
    assert_ne!(start.deep, elsewhere.deep);
}

#[test]
fn marks_on_parts_and_the_order_of_fields_change_no_key() {
    let plain = chat(&json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}]));
    let marked = br#"{"model": "m", "messages": [{"content":
        [{"cache_control": {"type": "ephemeral"}, "text": "a", "type": "text"}], "role": "user"}]}"#;
    let marked = Ask::read(&HeaderMap::new(), "/v1/chat/completions", marked);
    assert_eq!(plain.deep, marked.deep);
    let image = |url: &str| {
        chat(&json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])).deep
    };
    assert_ne!(image("data:a"), image("data:b"));
}

#[test]
fn shallow_is_the_first_256_bytes_and_deep_the_first_kib_of_a_prompt() {
    let prompt = |text: String| ask(&json!({"model": "m", "prompt": text}));
    let (a, b) = (prompt("x".repeat(256) + "a"), prompt("x".repeat(256) + "b"));
    assert_eq!(a.shallow, b.shallow);
    assert_ne!(a.deep, b.deep);
    let (a, b) = (prompt("x".repeat(1_024) + "a"), prompt("x".repeat(1_024) + "b"));
    assert_eq!(a.deep, b.deep);
    assert_ne!(ask(&json!({"prompt": [1, 2, 3]})).deep, ask(&json!({"prompt": [[1, 2, 4]]})).deep);
    assert_eq!(ask(&json!({"prompt": ""})).deep, None);
}

#[test]
fn the_limits_of_the_keys_count_over_all_texts_of_a_prompt() {
    let prompt = |last: &str| ask(&json!({"prompt": ["x".repeat(200), "x".repeat(56), last]}));
    let (a, b) = (prompt("a"), prompt("b"));
    assert_eq!(a.shallow, b.shallow);
    assert_ne!(a.deep, b.deep);
}

#[test]
fn a_conversation_that_the_assistant_opened_is_not_new() {
    let greeting = json!({"role": "assistant", "content": "Hello!"});
    assert!(!chat(&json!([greeting, {"role": "user", "content": "Hi."}])).is_new_conversation);
}

#[test]
fn deadlines_that_no_pod_accepts_are_none() {
    let deadline = |ms: u64| ask(&json!({"deadline_ms": ms})).deadline;
    assert_eq!((deadline(0), deadline(86_400_001), deadline(u64::MAX)), (None, None, None));
    assert_eq!(deadline(86_400_000), Some(Duration::from_secs(86_400)));
}

#[test]
fn headers_say_who_asks_and_how_urgently() {
    let ask = with_headers(&[
        ("x-inferno-session", " s1 "),
        ("x-inferno-priority", "VIP"),
        ("x-stainless-read-timeout", "30"),
        ("x-request-id", "r"),
        ("x-inferno-revision", "chat-1"),
    ]);
    assert_eq!(ask.session.as_deref(), Some("s1"));
    assert_eq!(ask.tier, Some(Tier::Vip));
    assert_eq!(ask.patience, Some(Duration::from_secs(30)));
    assert_eq!((ask.request_id.as_deref(), ask.revision.as_deref()), (Some("r"), Some("chat-1")));
    let (bearer, bare) =
        (with_headers(&[("authorization", "bearer key")]), with_headers(&[("x-api-key", "key")]));
    assert_eq!(bearer.api_key, bare.api_key);
    assert!(bare.api_key.is_some());
    assert_eq!(with_headers(&[("authorization", "Bearer "), ("x-inferno-session", "")]), with_headers(&[]));
}

#[test]
fn the_time_limit_is_the_named_one_else_the_model_s_at_most_the_client_s_patience() {
    let hold = HoldLimits { timeout_ms: 60_000, ..HoldLimits::default() };
    let check = |deadline: Option<u64>, patience: Option<u64>, timeout_ms: u64, expected_s: u64| {
        let [deadline, patience] = [deadline, patience].map(|seconds| seconds.map(Duration::from_secs));
        let ask = Ask { deadline, patience, ..Ask::default() };
        let model = ModelView { timeout_ms, ..ModelView::default() };
        assert_eq!(ask.time_limit(&model, &hold), Duration::from_secs(expected_s));
    };
    check(None, None, 0, 60);
    check(None, None, 90_000, 90);
    check(None, Some(600), 90_000, 90);
    check(None, Some(10), 90_000, 10);
    check(Some(120), Some(10), 90_000, 120);
    check(None, None, u64::MAX, 86_400);
}

#[test]
fn a_tier_that_nobody_names_is_the_model_s() {
    let model = ModelView { default_priority: "low".into(), ..ModelView::default() };
    assert_eq!(Ask::default().tier_at(&model), Tier::Low);
    assert_eq!(Ask { tier: Some(Tier::Vip), ..Ask::default() }.tier_at(&model), Tier::Vip);
    assert_eq!(Ask::default().tier_at(&ModelView::default()), Tier::Normal);
}

/// Any JSON, up to a modest depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("(role|content|text|type|[a-z]{1,4})", inner, 0..6)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn any_valid_object_shows_its_model(messages in any_json(), prompt in any_json(), other in any_json()) {
        let read = ask(&json!({"messages": messages, "prompt": prompt, "model": "m", "stream": other}));
        prop_assert_eq!(read.model.as_deref(), Some("m"));
    }

    #[test]
    fn no_bytes_make_it_fail(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Ask::read(&HeaderMap::new(), "/v1/completions", &body);
    }

    #[test]
    fn escapes_change_no_key(text in "\\PC{1,400}") {
        let plain = serde_json::to_string(&json!({"model": "m", "prompt": text})).unwrap();
        let escaped: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let escaped = escaped.concat();
        let escaped = format!(r#"{{"model": "m", "prompt": "{escaped}"}}"#);
        let read = |body: &str| Ask::read(&HeaderMap::new(), "/v1/completions", body.as_bytes());
        prop_assert_eq!(read(&plain).deep, read(&escaped).deep);
        prop_assert_eq!(read(&plain).shallow, read(&escaped).shallow);
    }
}
