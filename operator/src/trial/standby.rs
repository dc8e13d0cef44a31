//! Where models stand as a replica sees it that does not lead: from watches of its own, without reading or writing more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crds::model::InferenceModel;
use futures::StreamExt;
use judgement::autoscale::Millis;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::MissedTickBehavior;

use super::{Trials, standing};
use crate::held::ModelKey;
use crate::load::Clock;
use crate::objects::MODEL_LABEL;

type Model = DeserializeGuard<InferenceModel>;

/// Pace of looks: a fifth of that of observations, and far from half a minute, after which a standing is old.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Looks and observes until it is dropped. `namespaces` has a name for each that the operator looks after, or `None` for
/// all of them.
pub async fn stand_by(client: Client, namespaces: Vec<Option<String>>, trials: Trials, clock: Clock) {
    let watches = namespaces.into_iter().map(|namespace| watch(&client, namespace, &trials, clock));
    let turns = async {
        let mut pace = pace();
        loop {
            pace.tick().await;
            // Nobody acts on a verdict here, so nobody is woken.
            drop(trials.turn(clock.now()));
        }
    };
    futures::future::join(futures::future::join_all(watches), turns).await;
}

fn pace() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Looks at the models of one namespace, or of all.
async fn watch(client: &Client, namespace: Option<String>, trials: &Trials, clock: Clock) {
    let (models, model_writer) = reflector::store::<Model>();
    let (pods, pod_writer) = reflector::store::<Pod>();
    let (model_api, pod_api): (Api<Model>, Api<Pod>) = match &namespace {
        Some(namespace) => {
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
        }
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let ours = watcher::Config::default().labels(MODEL_LABEL);
    let model_watch = watcher(model_api, watcher::Config::default()).default_backoff().reflect(model_writer);
    let pod_watch = watcher(pod_api, ours).default_backoff().reflect(pod_writer);
    let looks = async {
        let (mut pace, mut known) = (pace(), HashSet::new());
        loop {
            pace.tick().await;
            known = look(&models, &pods, trials, &known, (Timestamp::now(), clock.now()));
        }
    };
    // What is wrong with a watch, the leader tells.
    let model_watch = model_watch.for_each(|_| std::future::ready(()));
    let pod_watch = pod_watch.for_each(|_| std::future::ready(()));
    futures::join!(model_watch, pod_watch, looks);
}

/// Says of each model where it stands, and forgets those of `before` that are not compared any more. Who is there now?
fn look(
    models: &Store<Model>,
    pods: &Store<Pod>,
    trials: &Trials,
    before: &HashSet<ModelKey>,
    (now, now_ms): (Timestamp, Millis),
) -> HashSet<ModelKey> {
    let pods: Vec<Arc<Pod>> = pods.state();
    let mut known = HashSet::new();
    for model in models.state() {
        let Ok(model) = &model.0 else { continue };
        let key = (model.namespace().unwrap_or_default(), model.name_any());
        let is_of_it = |pod: &&Pod| {
            pod.labels().get(MODEL_LABEL) == Some(&key.1) && pod.namespace().as_ref() == Some(&key.0)
        };
        let of_it = pods.iter().map(AsRef::as_ref).filter(is_of_it);
        if let Some(standing) = standing(model, of_it, now, now_ms) {
            drop(trials.look(key.clone(), standing, now_ms));
            known.insert(key);
        }
    }
    before.difference(&known).for_each(|key| trials.rest(key));
    known
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;

    fn model(strategy: &str) -> Model {
        let object = json!({
            "apiVersion": "inferno.ai/v1alpha1", "kind": "InferenceModel",
            "metadata": {"name": "tiny", "namespace": "default", "uid": "u"},
            "spec": {"poolRef": {"name": "cpu"}, "source": {"http": {"url": "http://a/b.gguf"}}, "replicas": 1,
                     "rollout": {"strategy": strategy}},
            "status": {"stableRevision": "tiny-a", "canaryRevision": "tiny-b",
                       "rollout": {"phase": "Analysing", "summary": "", "weightBasisPoints": 1000}},
        });
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str, namespace: &str, revision: &str) -> Pod {
        let ready: Value =
            json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name,
                         "labels": {"inferno.ai/model": "tiny", "inferno.ai/revision": revision}},
            "status": {"conditions": [ready]},
        }))
        .unwrap()
    }

    #[test]
    fn a_model_with_canaries_is_looked_at_with_its_own_pods_until_it_has_none() {
        let (models, mut model_writer) = reflector::store::<Model>();
        let (pods, mut pod_writer) = reflector::store::<Pod>();
        model_writer.apply_watcher_event(&Event::Apply(model("Canary")));
        for pod in
            [pod("a", "default", "tiny-a"), pod("b", "default", "tiny-b"), pod("c", "elsewhere", "tiny-a")]
        {
            pod_writer.apply_watcher_event(&Event::Apply(pod));
        }
        let (trials, now) = (Trials::default(), (Timestamp::now(), Millis(9_000_000)));
        let known = look(&models, &pods, &trials, &HashSet::new(), now);
        let key = ("default".to_owned(), "tiny".to_owned());
        assert_eq!(known, HashSet::from([key.clone()]));
        let seen = trials.with(|trials| trials.get(&key).map(|trial| trial.standing.clone())).unwrap();
        assert_eq!((seen.canary.as_deref(), seen.weight_basis_points), (Some("tiny-b"), 1_000));
        assert_eq!(seen.pods.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b"]);

        model_writer.apply_watcher_event(&Event::Apply(model("BlueGreen")));
        assert_eq!(look(&models, &pods, &trials, &known, now), HashSet::new());
        assert!(trials.with(|trials| trials.is_empty()), "nobody is compared any more");
    }
}
