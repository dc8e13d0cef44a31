//! Golden prompts asked of a pod on loopback: what is asked, what counts against the model, and what is asked again.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use operator::golden::runner::{Request, Runner};
use operator::golden::set::{Set, parse};
use operator::golden::standing::{FIRST_STEP, Finding};
use operator::report::Wake;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Long enough for any machine; a test that is right never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

type Asked = Arc<Mutex<Vec<(String, Value)>>>;
type Answers = Arc<dyn Fn(&Value) -> Response + Send + Sync>;

/// The address of a pod that answers so, and what it is asked.
async fn pod(answers: impl Fn(&Value) -> Response + Send + Sync + 'static) -> (String, Asked) {
    async fn answer(
        State((asked, answers)): State<(Asked, Answers)>,
        uri: Uri,
        Json(body): Json<Value>,
    ) -> Response {
        asked.lock().unwrap().push((uri.path().to_owned(), body.clone()));
        answers(&body)
    }
    let asked = Asked::default();
    let answers: Answers = Arc::new(answers);
    let router = Router::new().fallback(answer).with_state((asked.clone(), answers));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

fn set(entries: &[(&str, &str)]) -> Arc<Set> {
    let entries = entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Arc::new(parse(&entries.collect()).unwrap())
}

fn chat_answer(text: &str) -> Response {
    Json(json!({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})).into_response()
}

async fn finding(base_url: &str, set: &Arc<Set>) -> Finding {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (wake, mut woken) = broadcast::channel(8);
    let runner = Runner::new(wake).unwrap();
    let request = Request {
        revision: "tiny-a".into(),
        step: FIRST_STEP,
        base_url: base_url.to_owned(),
        model_name: "tiny".into(),
    };
    let subject = Wake { namespace: "default".into(), model: "tiny".into() };
    // What is being asked is not asked again.
    for _ in 0..2 {
        runner.ask("u", subject.clone(), request.clone(), set.clone());
    }
    let whom = tokio::time::timeout(PATIENCE, woken.recv()).await.unwrap().unwrap();
    assert_eq!((whom.namespace.as_str(), whom.model.as_str()), ("default", "tiny"));
    let found = runner.findings("u").remove(0);
    runner.forget("u", "tiny-a");
    assert!(runner.findings("u").is_empty());
    found
}

#[tokio::test]
async fn prompts_are_asked_one_by_one_and_failures_are_named() {
    let (url, asked) = pod(|body| match body["prompt"].as_str() {
        Some("wrong") => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": {"message": "too long"}}))).into_response()
        }
        Some(_) => Json(json!({"choices": [{"text": "once upon a time", "finish_reason": "length"}]}))
            .into_response(),
        None => chat_answer("I will not say Paris? Paris!"),
    })
    .await;
    let set = set(&[
        (
            "capital",
            "{messages: [{role: user, content: Capital?}], maxTokens: 9, expect: {contains: [Paris]}}",
        ),
        ("json", "{messages: [{role: user, content: JSON!}], expect: {jsonSchema: {type: object}}}"),
        ("tale", "{prompt: Once, expect: {regex: upon, maxLatencyMs: 60000}}"),
        ("wrong", "{prompt: wrong, expect: {contains: [a]}}"),
    ]);
    let outcome = finding(&url, &set).await.result.unwrap();
    assert_eq!((outcome.passed, outcome.total, outcome.pass_percent), (2, 4, 50));
    assert_eq!(outcome.failures, ["json: the answer is not JSON", "wrong: answered with 400: too long"]);
    let asked = asked.lock().unwrap();
    let paths: Vec<&str> = asked.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/completions"]);
    let first = json!({"model": "tiny", "max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": "Capital?"}]});
    assert_eq!(asked[0].1, first);
}

#[tokio::test]
async fn a_slow_answer_gets_a_second_chance() {
    let number = Mutex::new(0);
    let (url, asked) = pod(move |_| {
        let mut number = number.lock().unwrap();
        *number += 1;
        if *number == 1 {
            // Slow is what is tested; a loopback answer is far below the limit on any machine.
            std::thread::sleep(Duration::from_millis(1_100));
        }
        chat_answer("Paris")
    })
    .await;
    let quick = "{messages: [{role: user, content: a}], expect: {maxLatencyMs: 1000}}";
    let outcome = finding(&url, &set(&[("quick", quick)])).await.result.unwrap();
    assert_eq!((outcome.passed, asked.lock().unwrap().len()), (1, 2), "{outcome:?}");
}

#[tokio::test]
async fn a_pod_that_cannot_be_asked_says_nothing_about_the_model() {
    let (url, asked) = pod(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    let two =
        set(&[("a", "{prompt: a, expect: {contains: [a]}}"), ("b", "{prompt: b, expect: {contains: [a]}}")]);
    let obstacle = finding(&url, &two).await.result.unwrap_err();
    assert_eq!(obstacle, "golden prompt a could not be asked: 503: no message");
    assert_eq!(asked.lock().unwrap().len(), 1, "the rest is not asked");

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let obstacle = finding(&format!("http://{closed}/v1"), &two).await.result.unwrap_err();
    assert!(obstacle.starts_with("golden prompt a could not be asked: "), "{obstacle}");
}
