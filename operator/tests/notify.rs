//! Notifications on their way to real receivers on loopback: what arrives, what is tried again, and who waits for whom.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use crds::model::InferenceModel;
use crds::pool::ImagePullPolicy;
use hmac::{Hmac, Mac};
use k8s_openapi::jiff::Timestamp;
use operator::metrics::Metrics;
use operator::notify::pace::Pace;
use operator::notify::receivers::Receivers;
use operator::notify::sender::Notifier;
use operator::objects::Installation;
use operator::plan::{Observed, Plan, plan};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::sync::mpsc;

const KEY: &str = "a-key-that-nobody-may-see";
/// Long enough for any machine; a test that is right never waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What arrived.
struct Arrival {
    path: String,
    headers: HeaderMap,
    text: String,
}

impl Arrival {
    fn body(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// What a receiver does with each path that is not simply accepted.
type Answers = Arc<dyn Fn(&str, usize) -> Option<Response> + Send + Sync>;

/// A receiver on loopback. Requests to `/hang` get no answer.
struct Receiver {
    address: String,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Receiver {
    async fn start(answers: impl Fn(&str, usize) -> Option<Response> + Send + Sync + 'static) -> Self {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answers: Answers = Arc::new(answers);
        let router =
            Router::new().fallback(answer).with_state((sender, answers, Arc::<Mutex<usize>>::default()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, arrivals }
    }

    async fn next(&mut self) -> Arrival {
        tokio::time::timeout(PATIENCE, self.arrivals.recv()).await.unwrap().unwrap()
    }
}

type Desk = (mpsc::UnboundedSender<Arrival>, Answers, Arc<Mutex<usize>>);

async fn answer(
    State((arrivals, answers, count)): State<Desk>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let number = {
        let mut count = count.lock().unwrap();
        *count += 1;
        *count
    };
    let path = uri.path().to_owned();
    let text = String::from_utf8(body.to_vec()).unwrap();
    arrivals.send(Arrival { path: path.clone(), headers, text }).unwrap();
    if path == "/hang" {
        std::future::pending::<()>().await;
    }
    answers(&path, number).unwrap_or_else(|| StatusCode::ACCEPTED.into_response())
}

/// An installation with receivers.
struct Scene {
    directory: TempDir,
    metrics: Metrics,
    notifier: Notifier,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let pace = Pace {
        attempts_max: 4,
        age_max: PATIENCE,
        timeout: PATIENCE,
        pause_first: Duration::from_millis(1),
        pause_max: Duration::from_millis(2),
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let receivers = Receivers::in_directory(Some(directory.path().to_owned()));
    let notifier = Notifier::new(receivers, Some("north".into()), pace, metrics.clone()).unwrap();
    Scene { directory, metrics, notifier }
}

impl Scene {
    fn describe(&self, name: &str, description: &Value) {
        std::fs::write(self.directory.path().join(name), description.to_string()).unwrap();
    }

    fn webhook(&self, name: &str, url: &str) {
        self.describe(name, &json!({"type": "Webhook", "url": url, "signingKey": KEY}));
    }

    fn tell(&self, model: &InferenceModel) {
        self.notifier.tell(model, &planned(model), Timestamp::now());
    }

    async fn finish(&self) {
        self.notifier.finish(PATIENCE).await;
    }

    fn counted(&self, receiver: &str, outcome: &str) -> u64 {
        self.metrics.notifications_total.with_label_values(&[receiver, outcome]).get()
    }
}

/// A model at one version of itself; each version is another change.
fn model(version: u32, receivers: &[&str]) -> InferenceModel {
    let notifications: Vec<Value> = receivers.iter().map(|name| json!({"receiver": name})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "tiny", "namespace": "default", "uid": "u", "resourceVersion": version.to_string()},
        "spec": {
            "poolRef": {"name": "cpu"},
            "source": {"http": {"url": "http://a/b.gguf"}},
            "notifications": notifications,
        },
    }))
    .unwrap()
}

/// Its pool does not exist, which is worth a warning.
fn planned(model: &InferenceModel) -> Plan {
    let installation = Installation {
        sidecar_image: "sidecar:dev".into(),
        sidecar_pull_policy: ImagePullPolicy::Never,
        report_url: None,
    };
    let plan = plan(model, &Observed::default(), &installation, Timestamp::now());
    assert!(plan.notices.iter().any(|notice| notice.reason == "PoolNotFound"), "{:?}", plan.notices);
    plan
}

/// As docs/notifications.md tells receivers to verify it.
fn signature(arrival: &Arrival) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{}.{}", arrival.header("x-inferno-timestamp"), arrival.text).as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

#[tokio::test]
async fn each_kind_of_receiver_gets_one_message_for_a_change() {
    let (scene, mut receiver) = (scene(), Receiver::start(|_, _| None).await);
    let at = |path: &str| format!("{}{path}", receiver.address);
    scene.describe("chat", &json!({"type": "Slack", "url": at("/slack")}));
    scene.describe("pager", &json!({"type": "PagerDuty", "url": at("/pagerduty"), "routingKey": KEY}));
    scene.webhook("own", &at("/own"));
    let model = model(1, &["chat", "pager", "own"]);
    scene.tell(&model);
    scene.tell(&model);
    scene.finish().await;

    let mut arrivals = [receiver.next().await, receiver.next().await, receiver.next().await];
    assert!(receiver.arrivals.try_recv().is_err(), "the same view was told twice");
    arrivals.sort_by(|a, b| a.path.cmp(&b.path));
    let [own, pagerduty, slack] = &arrivals;
    assert_eq!(own.header("x-inferno-signature"), signature(own));
    assert_eq!(own.header("x-inferno-delivery"), own.body()["id"]);
    assert_eq!(own.body()["dedupKey"], "default/tiny/-/Pending/PoolNotFound");
    let trigger = pagerduty.body();
    assert_eq!((&trigger["routing_key"], &trigger["event_action"]), (&json!(KEY), &json!("trigger")));
    assert_eq!(trigger["dedup_key"], "inferno/north/default/tiny/serving");
    let text = slack.body()["text"].as_str().unwrap().to_owned();
    assert!(
        text.starts_with("*Warning* · `north: default/tiny` · *PoolNotFound*\nspec.poolRef.name"),
        "{text}"
    );
    for name in ["chat", "pager", "own"] {
        assert_eq!(scene.counted(name, "sent"), 1, "{name}");
    }
}

#[tokio::test]
async fn the_incidents_of_a_deleted_model_end_with_it_and_nobody_else_is_told() {
    let (scene, mut receiver) = (scene(), Receiver::start(|_, _| None).await);
    let at = |path: &str| format!("{}{path}", receiver.address);
    scene.describe("pager", &json!({"type": "PagerDuty", "url": at("/pagerduty"), "routingKey": KEY}));
    scene.webhook("own", &at("/own"));
    let model = model(1, &["pager", "own"]);
    let calm = Plan { notices: vec![], ..planned(&model) };
    scene.notifier.tell(&model, &calm, Timestamp::now());
    scene.notifier.part("default", "tiny", Timestamp::now());
    scene.notifier.part("default", "tiny", Timestamp::now());
    scene.finish().await;
    let arrivals = [receiver.next().await, receiver.next().await];
    assert!(receiver.arrivals.try_recv().is_err(), "more than an end for each incident");
    let ends =
        arrivals.each_ref().map(|end| (end.body()["event_action"].clone(), end.body()["dedup_key"].clone()));
    let expected = ["serving", "rollout"].map(|topic| format!("inferno/north/default/tiny/{topic}"));
    assert_eq!(ends, expected.map(|key| (json!("resolve"), json!(key))));
}

#[tokio::test]
async fn a_failed_sending_is_tried_again_with_the_key_that_counts_then() {
    let scene = scene();
    let mut receiver = Receiver::start(|_, number| {
        (number < 3).then(|| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response())
    })
    .await;
    scene.webhook("own", &format!("{}/first", receiver.address));
    scene.tell(&model(1, &["own"]));
    let first = receiver.next().await;
    scene.webhook("own", &format!("{}/second", receiver.address));
    scene.finish().await;
    let mut last = receiver.next().await;
    while let Ok(arrival) = receiver.arrivals.try_recv() {
        last = arrival;
    }
    assert_eq!((first.path.as_str(), last.path.as_str()), ("/first", "/second"));
    assert_eq!(first.header("x-inferno-delivery"), last.header("x-inferno-delivery"));
    assert_eq!((scene.counted("own", "sent"), scene.counted("own", "failed")), (1, 0));
}

/// How often a receiver is asked that always answers the same, and what is counted.
async fn check_refusal(status: StatusCode, attempts: usize) {
    let scene = scene();
    let mut receiver = Receiver::start(move |path, _| {
        (path == "/a").then(|| (status, [("location", "/elsewhere")]).into_response())
    })
    .await;
    scene.webhook("own", &format!("{}/a", receiver.address));
    scene.tell(&model(1, &["own"]));
    scene.finish().await;
    let mut paths = vec![];
    while let Ok(arrival) = receiver.arrivals.try_recv() {
        paths.push(arrival.path);
    }
    assert_eq!(paths, vec!["/a"; attempts], "{status}");
    assert_eq!((scene.counted("own", "sent"), scene.counted("own", "failed")), (0, 1), "{status}");
}

#[tokio::test]
async fn a_no_is_final_a_redirect_is_not_followed_and_a_broken_receiver_is_given_up() {
    check_refusal(StatusCode::FORBIDDEN, 1).await;
    check_refusal(StatusCode::TEMPORARY_REDIRECT, 1).await;
    check_refusal(StatusCode::INTERNAL_SERVER_ERROR, 4).await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_nobody_and_its_queue_has_an_end() {
    let (scene, mut receiver) = (scene(), Receiver::start(|_, _| None).await);
    scene.webhook("slow", &format!("{}/hang", receiver.address));
    scene.webhook("quick", &format!("{}/quick", receiver.address));
    // The first is on its way, a hundred wait, and two have to go.
    scene.tell(&model(0, &["slow"]));
    assert_eq!(receiver.next().await.path, "/hang");
    for version in 1..=102 {
        scene.tell(&model(version, &["slow"]));
    }
    assert_eq!(scene.counted("slow", "dropped"), 2);
    scene.tell(&model(200, &["slow", "quick"]));
    assert_eq!(receiver.next().await.path, "/quick");
    scene.notifier.finish(Duration::ZERO).await;
    assert_eq!((scene.counted("quick", "sent"), scene.counted("slow", "sent")), (1, 0));
}

#[tokio::test]
async fn nothing_secret_is_logged() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    // For all threads: a line that another test reaches first would else be off for good.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let scene = scene();
    // Nobody listens there any more.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    scene.webhook("own", &format!("http://{closed}/{KEY}"));
    scene.describe("chat", &json!({"type": KEY}));
    scene.describe(
        "pager",
        &json!({"type": "PagerDuty", "url": format!("http://{closed}/"), "routingKey": KEY}),
    );
    scene.tell(&model(1, &["own", "chat", "pager"]));
    scene.finish().await;
    for name in ["own", "chat", "pager"] {
        assert_eq!(scene.counted(name, "failed"), 1, "{name}");
    }
    let ours = log.text().lines().filter(|line| line.contains("operator::")).collect::<Vec<_>>().join("\n");
    assert!(ours.contains("notification not sent"), "{ours}");
    assert!(!ours.contains(KEY), "{ours}");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'writer> tracing_subscriber::fmt::MakeWriter<'writer> for Log {
    type Writer = Self;

    fn make_writer(&'writer self) -> Self {
        self.clone()
    }
}
