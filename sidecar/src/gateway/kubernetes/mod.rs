//! What the cluster says, as it changes: the pool, its models and the endpoints of their pods become a [`View`]. The
//! only place in this crate that knows Kubernetes.
//!
//! A change is a new view after [`TOGETHER`]. While the API server is away nothing is published, so the last good view
//! stays; an object that cannot be read stays as it was last read, so that one bad object blinds nobody.

pub mod read;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use crds::{InferenceModel, InferencePool};
use futures::{Stream, StreamExt};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::view::View;

/// Changes that come this close together are one view: an edit of a rollout touches several objects.
const TOGETHER: Duration = Duration::from_millis(5);

/// A watch is asked for anew after this long, which is also how soon (and five seconds) a connection is given up whose
/// other end has silently gone.
const WATCH_SECONDS: u32 = 60;

/// Connecting to an API server that is there takes milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Pauses before a failed watch is tried again: short, because a kill switch may be waiting behind it; a gateway asks
/// with three watches only.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// The pool that is watched.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    pool: String,
}

impl Cluster {
    /// The cluster that this process is in, or that the kubeconfig names.
    pub async fn find(namespace: Option<String>, pool: String) -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context("the cluster cannot be found")?;
        config.connect_timeout = Some(CONNECT_MAX);
        let client = Client::try_from(config).context("the cluster's client cannot be made")?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { client, namespace, pool })
    }

    /// The pool's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Publishes views for ever, the first when everything has been read once. `lost` hears of every
    /// error of a watch.
    pub async fn follow(self, publish: impl Fn(View), lost: impl Fn()) {
        let of_pool = watcher::Config::default().fields(&format!("metadata.name={}", self.pool));
        let of_slices = watcher::Config::default().labels(&format!("{}={}", read::POOL_LABEL, self.pool));
        let mut pools = self.watch::<InferencePool>(of_pool);
        let mut models = self.watch::<InferenceModel>(watcher::Config::default());
        let mut slices = self.watch::<EndpointSlice>(of_slices);
        let (mut kept_pools, mut kept_models, mut kept_slices) =
            (Kept::default(), Kept::default(), Kept::default());
        let mut publish_at = None;
        loop {
            let has_changed = tokio::select! {
                Some(event) = pools.next() => kept_pools.take(event, &lost),
                Some(event) = models.next() => kept_models.take(event, &lost),
                Some(event) = slices.next() => kept_slices.take(event, &lost),
                () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => {
                    publish_at = None;
                    let pool = kept_pools.objects.values().next().map(AsRef::as_ref);
                    publish(read::view(pool, &self.pool, kept_models.all(), kept_slices.all()));
                    false
                }
                else => return,
            };
            let is_whole = kept_pools.is_whole && kept_models.is_whole && kept_slices.is_whole;
            if has_changed && is_whole {
                publish_at = publish_at.or_else(|| Some(Instant::now() + TOGETHER));
            }
        }
    }

    fn watch<K>(
        &self,
        config: watcher::Config,
    ) -> impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>> + Unpin
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        let api = Api::<DeserializeGuard<K>>::namespaced(self.client.clone(), &self.namespace);
        watch(api, config.timeout(WATCH_SECONDS)).backoff(Pauses::default()).boxed()
    }
}

/// The objects of one kind, by name.
struct Kept<K> {
    objects: BTreeMap<String, Arc<K>>,
    /// A list that is coming in; it replaces the objects when it is whole.
    arriving: BTreeMap<String, Arc<K>>,
    /// Whether a whole list has come.
    is_whole: bool,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), arriving: BTreeMap::new(), is_whole: false }
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Kept<K> {
    /// Takes what the watch says. True if the objects are others now.
    fn take(&mut self, event: watcher::Result<Event<DeserializeGuard<K>>>, lost: &impl Fn()) -> bool {
        match event {
            Ok(Event::Init) => self.arriving.clear(),
            Ok(Event::InitApply(object)) => {
                if let Some((name, object)) = self.readable(object) {
                    self.arriving.insert(name, object);
                }
            }
            Ok(Event::InitDone) => {
                self.objects = std::mem::take(&mut self.arriving);
                self.is_whole = true;
                return true;
            }
            Ok(Event::Apply(object)) => {
                if let Some((name, object)) = self.readable(object) {
                    self.objects.insert(name, object);
                    return true;
                }
            }
            Ok(Event::Delete(object)) => return self.objects.remove(&object.name_any()).is_some(),
            Err(error) => {
                lost();
                let kind = K::kind(&());
                tracing::warn!(%kind, %error, "watch broken; the last good view stays");
            }
        }
        false
    }

    /// The object, or what was last read of it.
    fn readable(&self, object: DeserializeGuard<K>) -> Option<(String, Arc<K>)> {
        let name = object.name_any();
        match object.0 {
            Ok(object) => Some((name, Arc::new(object))),
            Err(error) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, name, %error, "object cannot be read; it stays as it was last read");
                let last = self.objects.get(&name)?.clone();
                Some((name, last))
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &K> {
        self.objects.values().map(AsRef::as_ref)
    }
}

/// Doubling pauses, each up to a half longer so that the gateways of a cluster do not come back together.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        self.failures += 1;
        Some(pause.mul_f64(1.0 + fastrand::f64() / 2.0))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests;
