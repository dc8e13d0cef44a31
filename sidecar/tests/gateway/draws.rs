//! Feature flags and experiments: what clients and pods see of them, and what is counted.

use std::sync::atomic::Ordering;

use crds::report::{DrawKind, LotSums};
use serde_json::{Value, json};
use sidecar::gateway::view::{DrawView, LotView, ModelView, View};

use crate::harness::{Asked, Front, Pod, Reply, chat, model, tiny, until, view};

const FLAGS: &str = "x-inferno-flags";
const EXPERIMENT: &str = "x-inferno-experiment";

fn lot(name: &str, weight_percent: u16, parameters: Value) -> LotView {
    let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
    LotView { name: name.into(), weight_basis_points: weight_percent * 100, parameters, ..LotView::default() }
}

fn draw(kind: DrawKind, name: &str, lots: Vec<LotView>) -> DrawView {
    DrawView { kind, name: name.into(), salt: format!("uid/{name}"), lots, ..DrawView::default() }
}

fn flag(name: &str, enabled_percent: u16, parameters: Value) -> DrawView {
    let lots = vec![lot("on", enabled_percent, parameters), lot("off", 100 - enabled_percent, json!({}))];
    draw(DrawKind::Flag, name, lots)
}

/// An experiment in which everybody has one variant, which another model is to answer.
fn elsewhere(model: &str) -> DrawView {
    let big = lot("big", 0, json!({}));
    let small = LotView {
        model: Some(model.into()),
        ..lot("small", 100, json!({"max_tokens": 3, "temperature": 0.5}))
    };
    draw(DrawKind::Experiment, "size", vec![big, small])
}

fn with(draws: Vec<DrawView>, model: ModelView) -> ModelView {
    ModelView { draws, ..model }
}

/// The figures of a lot of the first model's first draw, once nothing is in flight.
async fn figures(front: &Front, lot: usize) -> LotSums {
    front.is_idle().await;
    let sums = front.app().board().models[0].tallies[0].sums();
    sums.map(|sums| sums.lots[lot].clone()).unwrap_or_default()
}

fn counts(lot: &LotSums) -> [u64; 4] {
    [lot.requests_total, lot.errors_total, lot.cancelled_total, lot.fallbacks_total]
}

async fn answer(asked: Asked) {
    asked.answer(200, r#"{"choices":[]}"#).await;
}

#[tokio::test]
async fn clients_and_pods_are_told_and_only_what_is_not_said_is_filled_in() {
    let mut pod = Pod::new().await;
    let draws = vec![
        flag("warm", 100, json!({"temperature": 0.7, "top_k": 5})),
        flag("never", 0, json!({"top_k": 9})),
        flag("second", 100, json!({"top_k": 6})),
        draw(
            DrawKind::Experiment,
            "tone",
            vec![lot("dry", 0, json!({})), lot("kind", 100, json!({"top_p": 0.5}))],
        ),
    ];
    let front = Front::new(view([with(draws, tiny(&[&pod]))])).await;
    let mut line = front.connect().await;
    let body = chat(json!({"temperature": 0.1}));
    let spoofed = "x-inferno-flags: mine\r\nx-inferno-experiment: tone=mine\r\n";
    line.post("/v1/chat/completions", spoofed, &body).await;
    let asked = pod.asked().await;
    assert_eq!((asked.header(FLAGS), asked.header(EXPERIMENT)), (Some("warm, second"), Some("tone=kind")));
    let sent: Value = serde_json::from_str(&asked.body).unwrap();
    let mut expected: Value = serde_json::from_str(&body).unwrap();
    expected["top_k"] = json!(5);
    expected["top_p"] = json!(0.5);
    assert_eq!(sent, expected);
    answer(asked).await;
    let reply = line.reply().await;
    assert_eq!((reply.header(FLAGS), reply.header(EXPERIMENT)), (Some("warm, second"), Some("tone=kind")));
}

#[tokio::test]
async fn who_takes_no_part_is_passed_on_byte_for_byte() {
    let mut pod = Pod::new().await;
    let none = draw(
        DrawKind::Experiment,
        "tone",
        vec![lot("dry", 0, json!({})), lot("kind", 0, json!({"top_p": 0.5}))],
    );
    let front = Front::new(view([with(vec![none, flag("off", 0, json!({"n": 2}))], tiny(&[&pod]))])).await;
    let body = "{ \"model\":\"tiny\",\r\n \"messages\" : [{\"role\":\"user\",\"content\":\"\\u0048i\"}], \"x\": 1.50 }";
    let mut line = front.connect().await;
    line.post("/v1/chat/completions", "x-inferno-flags: mine\r\n", body).await;
    let asked = pod.asked().await;
    assert_eq!((asked.body.as_str(), asked.header(FLAGS), asked.header(EXPERIMENT)), (body, None, None));
    answer(asked).await;
    let reply = line.reply().await;
    assert_eq!((reply.header(FLAGS), reply.header(EXPERIMENT)), (None, None));
}

#[tokio::test]
async fn a_change_is_obeyed_by_the_next_request_and_the_kill_switch_ends_it() {
    let (pod, _) = Pod::echo().await;
    let model = tiny(&[&pod]);
    let front = Front::new(view([model.clone()])).await;
    let flags = async || front.reply(json!({})).await.header(FLAGS).map(str::to_owned);
    assert_eq!(flags().await, None);
    let on = with(vec![flag("warm", 100, json!({}))], model);
    front.app().take(view([on.clone()]));
    assert_eq!(flags().await.as_deref(), Some("warm"));
    let kill_switch = sidecar::gateway::view::KillSwitch::Rollout;
    front.app().take(view([ModelView { kill_switch, ..on }]));
    assert_eq!(flags().await, None);
}

/// A gateway whose model `tiny` sends everybody to the model `small`.
struct Two {
    base: Pod,
    other: Pod,
    front: Front,
}

impl Two {
    async fn new() -> Self {
        let (base, other) = (Pod::new().await, Pod::new().await);
        let front = Front::new(Self::view(&base, &[&other])).await;
        Self { base, other, front }
    }

    fn view(base: &Pod, others: &[&Pod]) -> View {
        let mut small = model("small", &[("small-a", others)]);
        small.served_name = "org/small".into();
        view([with(vec![elsewhere("small")], tiny(&[base])), small])
    }

    /// The client's own model answers although a variant's should have.
    async fn falls_back(&mut self, line: &mut crate::harness::Line) -> Reply {
        let asked = self.base.asked().await;
        assert_eq!(asked.header(EXPERIMENT), Some("size=small;fallback"));
        let sent: Value = serde_json::from_str(&asked.body).unwrap();
        assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("tiny"), &Value::Null));
        answer(asked).await;
        let reply = line.reply().await;
        assert_eq!((reply.status, reply.header(EXPERIMENT)), (200, Some("size=small;fallback")), "{reply:?}");
        assert_eq!(reply.header("x-inferno-revision"), Some("tiny-a"));
        reply
    }

    fn arrivals(&self) -> [u64; 2] {
        let board = self.front.app().board();
        [0, 1].map(|model| board.models[model].arrivals.sums()[0])
    }

    /// Requests that count for the revision of each model.
    fn sent(&self) -> [u64; 2] {
        let board = self.front.app().board();
        [("tiny-a", 0), ("small-a", 1)].map(|(revision, model)| {
            board.models[model].arm(revision).unwrap().requests.load(Ordering::Relaxed)
        })
    }
}

#[tokio::test]
async fn a_variant_may_name_another_model_which_answers_under_its_own_name() {
    let mut two = Two::new().await;
    let mut line = two.front.chat(json!({})).await;
    let asked = two.other.asked().await;
    assert_eq!(asked.header(EXPERIMENT), Some("size=small"));
    let sent: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("org/small"), &json!(3)));
    answer(asked).await;
    let reply = line.reply().await;
    assert_eq!((reply.status, reply.header(EXPERIMENT)), (200, Some("size=small")));
    assert_eq!(reply.header("x-inferno-revision"), Some("small-a"));
    assert_eq!(counts(&figures(&two.front, 1).await), [1, 0, 0, 0]);
    assert_eq!(two.arrivals(), [0, 1], "work counts where it is done");
    let line = "inferno_gateway_requests_total{code=\"200\",model=\"small\",revision=\"small-a\"}";
    assert_eq!(two.front.metric(line), 1);
    let of = |family: &str, variant: &str| {
        let labels = format!("kind=\"experiment\",model=\"tiny\",name=\"size\",variant=\"{variant}\"");
        two.front.metric(&format!("inferno_gateway_variant_{family}{{{labels}}}"))
    };
    assert_eq!(
        [of("requests_total", "small"), of("requests_total", "big"), of("errors_total", "small")],
        [1, 0, 0]
    );
    // Who declares the experiment no more sees nothing of it.
    two.front.app().take(view([tiny(&[&two.base])]));
    assert_eq!(of("requests_total", "small"), 0);
}

#[tokio::test]
async fn a_variants_model_that_cannot_answer_costs_nobody_an_answer() {
    let mut two = Two::new().await;
    // It refuses, for whatever reason.
    for (status, code) in
        [(400, "context_length_exceeded"), (429, "queue_full"), (503, "draining"), (500, "x")]
    {
        let mut line = two.front.chat(json!({})).await;
        two.other.asked().await.refuses(status, code).await;
        two.falls_back(&mut line).await;
    }
    // Its pod is lost over the request.
    let mut line = two.front.chat(json!({"stream": true})).await;
    drop(two.other.asked().await);
    two.falls_back(&mut line).await;
    assert_eq!(two.sent(), [5, 5], "who falls back counts for both");
    // It has no pod, and then nobody knows it.
    for others in [Two::view(&two.base, &[]), view([with(vec![elsewhere("small")], tiny(&[&two.base]))])] {
        two.front.app().take(others);
        let mut line = two.front.chat(json!({})).await;
        two.falls_back(&mut line).await;
    }
    let figures = figures(&two.front, 1).await;
    assert_eq!((counts(&figures), figures.duration.count), ([7, 0, 0, 7], 0), "times are not the variant's");
}

#[tokio::test]
async fn a_stream_that_a_variants_model_breaks_before_its_content_goes_on_elsewhere() {
    let mut two = Two::new().await;
    let mut line = two.front.chat(json!({"stream": true})).await;
    let mut asked = two.other.asked().await;
    asked.streams().await;
    asked.chunk(": queued\n\n").await;
    drop(asked);
    let mut asked = two.base.asked().await;
    asked.streams().await;
    asked.chunk("data: {\"choices\":[]}\n\n").await;
    asked.done().await;
    assert!(line.reply().await.is_whole);
    assert_eq!(counts(&figures(&two.front, 1).await), [1, 0, 0, 1]);
}

#[tokio::test]
async fn what_clients_see_is_counted_once() {
    let mut pod = Pod::new().await;
    let model = with(vec![flag("warm", 100, json!({}))], tiny(&[&pod]));
    let front = Front::new(view([model.clone()])).await;

    let mut line = front.chat(json!({"stream": true})).await;
    let mut asked = pod.asked().await;
    assert_eq!(asked.header("x-inferno-measured"), Some("1"));
    asked.streams().await;
    asked.chunk("data: {\"choices\":[]}\n\n").await;
    line.read_to("choices").await;
    asked.chunk(": 5 tokens\n\n").await;
    asked.done().await;
    line.read_to("[DONE]").await;

    let mut line = front.chat(json!({})).await;
    let mut asked = pod.asked().await;
    asked.say("HTTP/1.1 200 OK\r\nx-inferno-output-tokens: 7\r\ncontent-length: 2\r\n\r\n{}").await;
    assert_eq!(line.reply().await.status, 200);
    asked.keep();

    for status in [500, 400] {
        let mut line = front.chat(json!({})).await;
        pod.asked().await.refuses(status, "x").await;
        assert_eq!(line.reply().await.status, status);
    }
    let line = front.chat(json!({})).await;
    let asked = pod.asked().await;
    drop(line);
    asked.until_left().await;
    // The official clients say when they ask again.
    let mut line = front.connect().await;
    line.post("/v1/chat/completions", "x-stainless-retry-count: 1\r\n", &chat(json!({}))).await;
    answer(pod.asked().await).await;
    assert_eq!(line.reply().await.status, 200);

    let found = figures(&front, 0).await;
    assert_eq!(counts(&found), [5, 1, 1, 0]);
    let measured = [&found.first_token, &found.inter_token, &found.duration, &found.output_tokens];
    assert_eq!(measured.map(|sample| sample.count), [1, 1, 2, 2]);
    assert!((found.output_tokens.sum - 12.0).abs() < 1e-9);
    assert!(found.first_token.sum <= found.duration.sum);

    // Another view of the same flag goes on; another definition begins anew.
    front.app().take(view([model.clone()]));
    assert_eq!(figures(&front, 0).await.requests_total, 5);
    front.app().take(view([with(vec![flag("warm", 99, json!({}))], model)]));
    assert_eq!(figures(&front, 0).await.requests_total, 0);
}

#[tokio::test]
async fn a_stream_that_waits_for_a_pod_says_at_once_what_it_drew() {
    let front = Front::new(view([with(vec![flag("warm", 100, json!({}))], tiny(&[]))])).await;
    let mut line = front.chat(json!({"stream": true})).await;
    let head = line.read_to("\r\n\r\n").await;
    assert!(head.contains("x-inferno-flags: warm\r\n"), "{head}");
    drop(line);
    until("the client's leaving is counted", || {
        let sums = front.app().board().models[0].tallies[0].sums();
        sums.is_some_and(|sums| counts(&sums.lots[0]) == [1, 0, 1, 0])
    })
    .await;
}
