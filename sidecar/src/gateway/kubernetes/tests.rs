use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Bytes;
use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

fn model(name: &str, replicas: &Value) -> DeserializeGuard<InferenceModel> {
    let object = json!({
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name},
        "spec": {"poolRef": {"name": "cpu"}, "source": {}, "replicas": replicas},
    });
    serde_json::from_value(object).unwrap()
}

fn names(kept: &Kept<InferenceModel>) -> Vec<(String, i32)> {
    kept.objects.iter().map(|(name, model)| (name.clone(), model.spec.replicas)).collect()
}

fn told(kept: &mut Kept<InferenceModel>, events: Vec<Event<DeserializeGuard<InferenceModel>>>) -> Vec<bool> {
    events.into_iter().map(|event| kept.take(Ok(event), &|| {})).collect()
}

#[test]
fn an_object_that_cannot_be_read_stays_as_it_was() {
    let mut kept = Kept::default();
    told(&mut kept, vec![Event::Init, Event::InitApply(model("a", &json!(2))), Event::InitDone]);
    let changed = told(
        &mut kept,
        vec![
            Event::Apply(model("a", &json!("two"))),
            Event::Init,
            Event::InitApply(model("a", &json!("two"))),
            Event::InitApply(model("b", &json!("two"))),
            Event::InitDone,
        ],
    );
    assert_eq!(changed, [true, false, false, false, true]);
    assert_eq!(names(&kept), [("a".to_owned(), 2)]);
}

#[test]
fn a_list_replaces_the_objects_only_when_it_is_whole() {
    let mut kept = Kept::default();
    told(&mut kept, vec![Event::Init, Event::InitApply(model("a", &json!(1)))]);
    assert!(!kept.is_whole && kept.objects.is_empty());
    told(&mut kept, vec![Event::InitDone, Event::Init, Event::InitApply(model("b", &json!(1)))]);
    assert_eq!(names(&kept), [("a".to_owned(), 1)]);
    told(&mut kept, vec![Event::InitDone, Event::Delete(model("b", &json!(1)))]);
    assert_eq!(names(&kept), []);
}

#[test]
fn pauses_stay_below_five_seconds() {
    let mut pauses = Pauses::default();
    let longest = pauses.by_ref().take(40).max().unwrap();
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    pauses.reset();
    assert!(pauses.next().unwrap() <= Duration::from_millis(300));
}

/// An API server in memory. Its watches stay open until they are broken.
#[derive(Clone, Default)]
struct ApiServer {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Objects by plural; a kind that is not here is not answered.
    lists: HashMap<String, Vec<Value>>,
    watches: HashMap<String, mpsc::UnboundedSender<Bytes>>,
    is_down: bool,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl ApiServer {
    fn set(&self, plural: &str, objects: Vec<Value>) {
        self.state.lock().unwrap().lists.insert(plural.to_owned(), objects);
    }

    /// Tells the watch of this kind, once there is one.
    async fn tell(&self, plural: &str, kind: &str, object: &Value) {
        let watch = || self.state.lock().unwrap().watches.get(plural).cloned();
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        soon("a watch", || watch().is_some()).await;
        watch().unwrap().send(line.into()).unwrap();
    }

    fn goes_down(&self, is_down: bool) {
        let mut state = self.state.lock().unwrap();
        state.is_down = is_down;
        state.watches.clear();
    }

    async fn answer(self, request: Request<Body>) -> Result<Answer, Infallible> {
        let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let found = {
            let mut state = self.state.lock().unwrap();
            if state.is_down {
                return Ok(refused());
            }
            if is_watch {
                let (sender, events) = mpsc::unbounded_channel();
                state.watches.insert(plural.clone(), sender);
                return Ok(Response::new(streamed(events)));
            }
            state.lists.get(&plural).cloned()
        };
        let Some(items) = found else { return std::future::pending().await };
        let list =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        Ok(Response::new(Full::new(Bytes::from(list.to_string())).boxed()))
    }
}

fn streamed(events: mpsc::UnboundedReceiver<Bytes>) -> BoxBody<Bytes, Infallible> {
    let frames = UnboundedReceiverStream::new(events).map(|line| Ok(Frame::data(line)));
    BodyExt::boxed(StreamBody::new(frames))
}

fn refused() -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(b"down")).boxed());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn object(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "inferno.ai/v1alpha1",
        "kind": "InferenceModel",
        "metadata": {"name": name, "resourceVersion": "2"},
        "spec": {"poolRef": {"name": "cpu"}, "source": {}, "replicas": replicas},
    })
}

/// Views as they are published, and how often an error was told.
fn followed(api: &ApiServer) -> (mpsc::UnboundedReceiver<View>, Arc<AtomicUsize>) {
    let service = {
        let api = api.clone();
        tower::service_fn(move |request| api.clone().answer(request))
    };
    let client = Client::new(service, "ns");
    let cluster = Cluster { client, namespace: "ns".to_owned(), pool: "cpu".to_owned() };
    let ((sender, views), errors) = (mpsc::unbounded_channel(), Arc::new(AtomicUsize::new(0)));
    let counted = errors.clone();
    tokio::spawn(cluster.follow(
        move |view| drop(sender.send(view)),
        move || {
            counted.fetch_add(1, Ordering::Relaxed);
        },
    ));
    (views, errors)
}

/// Waits until something holds that nobody announces.
async fn soon(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what} never came"));
}

async fn next(views: &mut mpsc::UnboundedReceiver<View>) -> Vec<(String, u32)> {
    let view = tokio::time::timeout(Duration::from_secs(20), views.recv()).await.expect("a view").unwrap();
    view.models.into_iter().map(|model| (model.name, model.start.wanted)).collect()
}

#[tokio::test]
async fn the_first_view_comes_when_everything_was_read_once_and_each_change_is_a_view() {
    let api = ApiServer::default();
    api.set("inferencemodels", vec![object("a", 1)]);
    api.set("inferencepools", vec![]);
    let (mut views, _) = followed(&api);
    // The slices are not answered, so there is nothing whole to publish, however long one waits.
    let early = tokio::time::timeout(TOGETHER * 20, views.recv()).await;
    assert!(early.is_err(), "a view without endpoints was published");

    let (api, mut views) = {
        let api = ApiServer::default();
        api.set("inferencemodels", vec![object("a", 1)]);
        api.set("inferencepools", vec![]);
        api.set("endpointslices", vec![]);
        let (views, _) = followed(&api);
        (api, views)
    };
    assert_eq!(next(&mut views).await, [("a".to_owned(), 1)]);
    let told = std::time::Instant::now();
    api.tell("inferencemodels", "MODIFIED", &object("a", 5)).await;
    assert_eq!(next(&mut views).await, [("a".to_owned(), 5)]);
    assert!(told.elapsed() < Duration::from_millis(100), "{:?}", told.elapsed());
    api.tell("inferencemodels", "ADDED", &object("b", 2)).await;
    assert_eq!(next(&mut views).await, [("a".to_owned(), 5), ("b".to_owned(), 2)]);
    api.tell("inferencemodels", "DELETED", &object("a", 5)).await;
    assert_eq!(next(&mut views).await, [("b".to_owned(), 2)]);
}

#[tokio::test]
async fn an_outage_publishes_nothing_and_its_end_publishes_what_changed() {
    let api = ApiServer::default();
    for (plural, objects) in
        [("inferencemodels", vec![object("a", 1)]), ("inferencepools", vec![]), ("endpointslices", vec![])]
    {
        api.set(plural, objects);
    }
    let (mut views, errors) = followed(&api);
    assert_eq!(next(&mut views).await, [("a".to_owned(), 1)]);
    api.goes_down(true);
    soon("errors", || errors.load(Ordering::Relaxed) >= 3).await;
    assert!(views.try_recv().is_err(), "an outage is no view");
    api.goes_down(false);
    api.tell("inferencemodels", "MODIFIED", &object("a", 3)).await;
    assert_eq!(next(&mut views).await, [("a".to_owned(), 3)]);
}
