//! What is known of nodes and pods, kept up to date by two watches. Of an object only its figures stay: below 1 KiB for
//! a pod, so that ten thousand of them take less than 10 MiB.
//!
//! Watches that are refused or broken are tried again for ever, with pauses of up to half a minute. What they have told
//! holds on for [`LOST_AFTER`]; after that nobody knows, until they have been well for [`WELL_AFTER`] or tell something
//! new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::{Bound, Need, Node, Place, Room, Usage, room, usage};

/// Pods that hold something on a node.
const BOUND: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
/// Failures for so long are no hiccup: what was seen before may be wrong by now.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Longer than the pause between two tries and the time until one is given up: without a failure meanwhile a watch is
/// well.
const WELL_AFTER: Duration = Duration::from_secs(90);

/// What the nodes have room for. A handle: clones share it. While nobody [watches](Self::watch), everything is unknown.
#[derive(Clone, Default)]
pub struct Inventory(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    nodes: Feed<Node>,
    pods: Feed<Bound>,
}

/// What one watch has told, by name or UID.
struct Feed<V> {
    known: BTreeMap<String, V>,
    /// What a list in progress has told so far; it replaces all that is known when it is whole.
    listed: BTreeMap<String, V>,
    is_whole: bool,
    failing: Option<Failing>,
}

/// Failures in a row.
#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    last: Instant,
}

impl<V> Default for Feed<V> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), listed: BTreeMap::new(), is_whole: false, failing: None }
    }
}

impl<V> Feed<V> {
    /// Takes in what has come; an object without a value is as good as gone.
    fn hear<K>(&mut self, event: Event<K>, read: impl Fn(&K) -> (String, Option<V>)) {
        self.failing = None;
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => put(&mut self.listed, read(&object)),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                self.is_whole = true;
            }
            Event::Apply(object) => put(&mut self.known, read(&object)),
            Event::Delete(object) => drop(self.known.remove(&read(&object).0)),
        }
    }

    /// The watch has failed. Whether that is new.
    fn fail(&mut self, now: Instant) -> bool {
        let row = self.failing.filter(|failing| now.duration_since(failing.last) < WELL_AFTER);
        self.failing = Some(Failing { since: row.map_or(now, |failing| failing.since), last: now });
        row.is_none()
    }

    /// All that is known, unless nobody can rely on it.
    fn known(&self, now: Instant) -> Option<&BTreeMap<String, V>> {
        let is_lost = self.failing.is_some_and(|Failing { since, last }| {
            last.duration_since(since) >= LOST_AFTER && now.duration_since(last) < WELL_AFTER
        });
        (self.is_whole && !is_lost).then_some(&self.known)
    }
}

fn put<V>(map: &mut BTreeMap<String, V>, (key, value): (String, Option<V>)) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn read_node(node: &v1::Node) -> (String, Option<Node>) {
    (node.name_any(), Some(Node::of(node)))
}

fn read_pod(pod: &v1::Pod) -> (String, Option<Bound>) {
    (pod.uid().unwrap_or_default(), Bound::of(pod))
}

impl Inventory {
    /// Watches the nodes and the pods of all namespaces until it is dropped.
    pub async fn watch(self, client: Client) {
        let nodes = watcher(Api::<v1::Node>::all(client.clone()), Config::default());
        let pods = watcher(Api::<v1::Pod>::all(client), Config::default().fields(BOUND));
        let nodes = nodes.default_backoff().for_each(|event| {
            self.hear("nodes", |seen| &mut seen.nodes, event, read_node);
            std::future::ready(())
        });
        let pods = pods.default_backoff().for_each(|event| {
            self.hear("pods", |seen| &mut seen.pods, event, read_pod);
            std::future::ready(())
        });
        futures::join!(nodes, pods);
    }

    /// How many more pods with this need the nodes take.
    pub fn room(&self, need: &Need) -> Room {
        let room = |nodes: &_, pods: &BTreeMap<_, _>| room(nodes, pods.values(), need);
        self.look(room).unwrap_or_default()
    }

    /// How much of a resource is taken where such pods go.
    pub fn usage(&self, place: &Place, resource: &str) -> Option<Usage> {
        self.look(|nodes, pods| usage(nodes, pods.values(), place, resource))
    }

    fn look<T>(&self, at: impl FnOnce(&BTreeMap<String, Node>, &BTreeMap<String, Bound>) -> T) -> Option<T> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        Some(at(seen.nodes.known(now)?, seen.pods.known(now)?))
    }

    fn hear<K, V>(
        &self,
        kind: &'static str,
        feed: impl FnOnce(&mut Seen) -> &mut Feed<V>,
        event: watcher::Result<Event<K>>,
        read: impl Fn(&K) -> (String, Option<V>),
    ) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) => feed(&mut seen).hear(event, read),
            Err(error) if feed(&mut seen).fail(Instant::now()) => {
                tracing::warn!(kind, %error, "the room on nodes becomes unknown unless this watch comes back");
            }
            Err(error) => tracing::debug!(kind, %error, "a watch is still broken"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> v1::Node {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    }

    fn hear(feed: &mut Feed<Node>, events: Vec<Event<v1::Node>>) {
        for event in events {
            feed.hear(event, read_node);
        }
    }

    fn check(feed: &Feed<Node>, now: Instant, expected: Option<&[&str]>) {
        let names = feed.known(now).map(|known| known.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(names.as_deref(), expected);
    }

    #[test]
    fn nothing_is_known_before_the_first_list_is_whole_and_a_new_list_replaces_the_old_one_at_once() {
        let (mut feed, now) = (Feed::default(), Instant::now());
        hear(&mut feed, vec![Event::Init, Event::InitApply(node("a"))]);
        check(&feed, now, None);
        hear(&mut feed, vec![Event::InitDone, Event::Apply(node("b"))]);
        check(&feed, now, Some(&["a", "b"]));
        hear(&mut feed, vec![Event::Init, Event::InitApply(node("c"))]);
        check(&feed, now, Some(&["a", "b"]));
        hear(&mut feed, vec![Event::InitDone, Event::Apply(node("d")), Event::Delete(node("c"))]);
        check(&feed, now, Some(&["d"]));
    }

    #[test]
    fn a_watch_that_fails_again_and_again_is_lost_until_it_is_well() {
        let (mut feed, began) = (Feed::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        hear(&mut feed, vec![Event::Init, Event::InitApply(node("a")), Event::InitDone]);
        assert!(feed.fail(at(0)), "the first failure is told");
        check(&feed, at(80), Some(&["a"]));
        assert!(!feed.fail(at(29)));
        check(&feed, at(29), Some(&["a"]));
        assert!(!feed.fail(at(59)), "and the others are not");
        check(&feed, at(59), None);
        check(&feed, at(148), None);
        check(&feed, at(149), Some(&["a"]));
        assert!(feed.fail(at(149)), "a new row");
        assert!(!feed.fail(at(200)));
        check(&feed, at(200), None);
        hear(&mut feed, vec![Event::Apply(node("b"))]);
        check(&feed, at(200), Some(&["a", "b"]));
    }

    #[test]
    fn who_may_not_look_knows_nothing() {
        let mut feed: Feed<Node> = Feed::default();
        assert!(feed.fail(Instant::now()));
        check(&feed, Instant::now(), None);
        assert_eq!(Inventory::default().room(&Need::default()), Room::Unknown);
        assert_eq!(Inventory::default().usage(&Place::default(), "nvidia.com/gpu"), None);
    }

    #[test]
    fn a_pod_that_ends_gives_its_node_back() {
        let pod = |phase: &str| -> v1::Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let mut feed: Feed<Bound> = Feed::default();
        for (event, pods) in [
            (Event::Init, 0),
            (Event::InitApply(pod("Running")), 0),
            (Event::InitDone, 1),
            (Event::Apply(pod("Failed")), 0),
        ] {
            feed.hear(event, read_pod);
            assert_eq!(feed.known.len(), pods);
        }
    }
}
