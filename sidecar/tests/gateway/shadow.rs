//! Copies of requests, compared with what clients get.

use crds::report::ShadowCounts;
use serde_json::{Value, json};
use sidecar::gateway::view::Mirror;

use crate::harness::{Asked, Front, Line, Pod, model, until, view, with_canary};

/// A gateway that sends each request to `stable` and a copy to `canary`.
struct Pair {
    stable: Pod,
    canary: Pod,
    front: Front,
}

impl Pair {
    async fn new() -> Self {
        let (stable, canary) = (Pod::new().await, Pod::new().await);
        let mut model = with_canary(model("tiny", &[("tiny-a", &[&stable]), ("tiny-b", &[&canary])]), 0);
        model.traffic.mirror = Some(Mirror { revision: "tiny-b".to_owned(), percent: 100 });
        let front = Front::new(view([model])).await;
        Self { stable, canary, front }
    }

    /// A client's request, as it came to the stable pod and to the canary's.
    async fn ask(&mut self, fields: Value) -> (Line, Asked, Asked) {
        let line = self.front.chat(fields).await;
        (line, self.stable.asked().await, self.canary.asked().await)
    }

    fn counts(&self) -> ShadowCounts {
        self.front.app().board().models[0].arms[1].shadow_counts().unwrap_or_default()
    }

    /// Nothing is under way any more; everything that can be counted is.
    async fn is_idle(&self) {
        let shadows = &self.front.app().shadows;
        until("no copy is under way", || shadows.available_permits() == 64).await;
        self.front.is_idle().await;
    }
}

fn whole(text: &str) -> String {
    json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}).to_string()
}

async fn stream(mut asked: Asked, texts: &[&str]) {
    asked.streams().await;
    for text in texts {
        let event = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
        asked.chunk(&format!("data: {event}\n\n")).await;
    }
    asked.chunk("data: [DONE]\n\n").await;
    asked.done().await;
}

#[tokio::test]
async fn answers_are_compared_by_their_text_however_it_comes() {
    let mut pair = Pair::new().await;
    let (mut line, stable, canary) = pair.ask(json!({"temperature": 0})).await;
    canary.answer(200, &whole("Good morning.")).await;
    stable.answer(200, &whole("Good morning.")).await;
    assert_eq!(line.reply().await.status, 200);
    let (mut line, stable, canary) = pair.ask(json!({"stream": true})).await;
    stream(stable, &["Good ", "day."]).await;
    assert!(line.reply().await.is_whole);
    stream(canary, &["Go", "od d", "ay."]).await;
    let (mut line, stable, canary) = pair.ask(json!({"seed": 3, "stream": true})).await;
    stream(stable, &["Hello"]).await;
    stream(canary, &["Hello", " there"]).await;
    assert!(line.reply().await.is_whole);
    pair.is_idle().await;

    let counts = pair.counts();
    assert_eq!((counts.compared_total, counts.answered_total, counts.same_text_total), (3, 3, 2));
    assert_eq!((counts.deterministic_total, counts.deterministic_same_text_total), (2, 1));
    assert_eq!((counts.stable_characters_total, counts.canary_characters_total), (27, 33));
    assert_eq!(counts.streamed_total, 2);
    let is_before_end = |first: u64, whole: u64| first > 0 && first <= whole;
    assert!(is_before_end(counts.stable_first_micros_total, counts.stable_micros_total), "{counts:?}");
    assert!(is_before_end(counts.canary_first_micros_total, counts.canary_micros_total), "{counts:?}");
    for (labels, count) in [
        ("deterministic=\"true\",model=\"tiny\",outcome=\"same_text\"", 1),
        ("deterministic=\"false\",model=\"tiny\",outcome=\"same_text\"", 1),
        ("deterministic=\"true\",model=\"tiny\",outcome=\"other_text\"", 1),
    ] {
        let line = format!("inferno_gateway_shadow_compared_total{{{labels}}}");
        assert_eq!(pair.front.metric(&line), count, "{labels}");
    }
}

#[tokio::test]
async fn who_gave_no_whole_answer_is_counted() {
    let mut pair = Pair::new().await;
    let (mut line, stable, canary) = pair.ask(json!({})).await;
    canary.answer(500, "{}").await;
    stable.answer(200, &whole("a")).await;
    assert_eq!(line.reply().await.status, 200);
    let (mut line, stable, mut canary) = pair.ask(json!({"stream": true})).await;
    canary.streams().await;
    canary.chunk("data: {\"choices\":[]}\n\n").await;
    drop(canary);
    stream(stable, &["a"]).await;
    assert!(line.reply().await.is_whole);
    let (mut line, mut stable, canary) = pair.ask(json!({"stream": true})).await;
    stable.streams().await;
    stable.chunk("data: {\"choices\":[]}\n\n").await;
    drop(stable);
    stream(canary, &["a"]).await;
    assert!(!line.reply().await.is_whole);
    pair.is_idle().await;
    let counts = pair.counts();
    assert_eq!((counts.compared_total, counts.answered_total), (3, 0));
    assert_eq!((counts.canary_errors_total, counts.stable_errors_total), (2, 1));
}

#[tokio::test]
async fn what_says_nothing_of_the_canary_is_left_out() {
    let mut pair = Pair::new().await;
    let (mut line, stable, canary) = pair.ask(json!({"max_tokens": -1})).await;
    canary.answer(400, "{}").await;
    stable.answer(400, "{}").await;
    assert_eq!(line.reply().await.status, 400);
    let (line, mut stable, canary) = pair.ask(json!({"stream": true})).await;
    stable.streams().await;
    drop(line);
    stable.until_left().await;
    stream(canary, &["a"]).await;
    let (mut line, stable, canary) = pair.ask(json!({})).await;
    stable.answer(200, "<html>").await;
    canary.answer(200, &whole("a")).await;
    assert_eq!(line.reply().await.status, 200);
    pair.is_idle().await;
    assert_eq!(pair.counts(), ShadowCounts::default());
    let answered = "inferno_gateway_mirrored_total{model=\"tiny\",outcome=\"answered\"}";
    assert_eq!(pair.front.metric(answered), 2, "but not overlooked");
}
