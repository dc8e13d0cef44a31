//! How long pods take to start: measured on those that have, remembered in the status, and expected of those that
//! are on their way. Pure.

use crds::model::{ColdStart, StartSeconds, StartsOfKind};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::objects::{FETCH_CONTAINER, REVISION_LABEL, SERVE_CONTAINER};
use crate::pod::{self, Reading, Stage};

/// Starts that are remembered: enough for a percentile, few enough that an old cluster's habits are forgotten.
const RECENT_MAX: usize = 10;

/// Revisions and kinds of nodes of which they are remembered: the serving one, the next, and those one may go back to.
const KINDS_MAX: usize = 8;

/// A finished start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Name of the pod.
    pub pod: String,
    /// Its revision.
    pub revision: String,
    /// Its kind of node.
    pub node_class: String,
    /// When it became ready.
    pub ready_at: Timestamp,
    /// Its parts; none when the pod's containers have restarted, since the times then are not those of its start.
    pub seconds: Option<StartSeconds>,
}

/// The start of a ready pod.
pub fn measure(pod: &Pod) -> Option<Start> {
    let ready = pod::condition(pod, "Ready").filter(|_| pod::is_ready(pod))?;
    let ready_at = ready.last_transition_time.as_ref()?.0;
    Some(Start {
        pod: pod.name_any(),
        revision: pod.labels().get(REVISION_LABEL).cloned().unwrap_or_default(),
        node_class: pod::node_class(pod),
        ready_at,
        seconds: parts(pod, ready_at),
    })
}

fn parts(pod: &Pod, ready_at: Timestamp) -> Option<StartSeconds> {
    let serve = pod::container(pod, SERVE_CONTAINER)?;
    let fetch = pod::container(pod, FETCH_CONTAINER)?;
    if serve.restart_count > 0 || fetch.restart_count > 0 {
        return None;
    }
    let fetched = fetch.state.as_ref()?.terminated.as_ref()?;
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    let scheduled = pod::condition(pod, "PodScheduled")?.last_transition_time.as_ref()?.0;
    let fetch_began = fetched.started_at.as_ref()?.0;
    let fetch_ended = fetched.finished_at.as_ref()?.0;
    Some(StartSeconds {
        schedule: seconds(created, scheduled),
        image: seconds(scheduled, fetch_began),
        download: seconds(fetch_began, fetch_ended),
        load: seconds(fetch_ended, ready_at),
        total: seconds(created, ready_at),
    })
}

fn seconds(from: Timestamp, to: Timestamp) -> i32 {
    i32::try_from(to.as_second() - from.as_second()).unwrap_or_default().max(0)
}

/// The history with the starts that are not in it yet. A pod counts once, when it is ready for the first time: its
/// readiness may flap later. `starts` are those of all ready pods, `pods` the names of all pods.
pub fn remember(before: Option<ColdStart>, starts: &[Start], pods: &[String]) -> Option<ColdStart> {
    let mut history = before.clone().unwrap_or_default();
    let mut in_order: Vec<&Start> =
        starts.iter().filter(|start| !history.counted_pods.contains(&start.pod)).collect();
    in_order.sort_by(|a, b| (a.ready_at, &a.pod).cmp(&(b.ready_at, &b.pod)));
    for start in in_order {
        history.counted_pods.push(start.pod.clone());
        if let Some(seconds) = start.seconds {
            history.last_seconds = seconds;
            push(&mut history.recent_total_seconds, seconds.total);
            remember_kind(&mut history.kinds, start, seconds.total);
        }
    }
    history.p50_total_seconds = percentile(&history.recent_total_seconds, 50);
    history.p95_total_seconds = percentile(&history.recent_total_seconds, 95);
    if history.recent_total_seconds.is_empty() {
        return before;
    }
    history.counted_pods.retain(|name| pods.contains(name));
    Some(history)
}

fn push(recent: &mut Vec<i32>, seconds: i32) {
    recent.push(seconds);
    recent.drain(..recent.len().saturating_sub(RECENT_MAX));
}

fn remember_kind(kinds: &mut Vec<StartsOfKind>, start: &Start, seconds: i32) {
    let Start { revision, node_class, .. } = start;
    if revision.is_empty() || node_class.len() > pod::NODE_CLASS_MAX {
        return;
    }
    let known = kinds.iter().position(|kind| (&kind.revision, &kind.node_class) == (revision, node_class));
    let new = || StartsOfKind {
        revision: revision.clone(),
        node_class: node_class.clone(),
        recent_total_seconds: Vec::new(),
    };
    let mut kind = known.map_or_else(new, |known| kinds.remove(known));
    push(&mut kind.recent_total_seconds, seconds);
    kinds.push(kind);
    kinds.drain(..kinds.len().saturating_sub(KINDS_MAX));
}

/// What is known of starts of this revision: its own, where it started last, or else all that the model has had.
pub fn of(history: &ColdStart, revision: &str) -> ColdStart {
    let Some(own) = history.kinds.iter().rev().find(|kind| kind.revision == revision) else {
        return history.clone();
    };
    let recent_total_seconds = own.recent_total_seconds.clone();
    ColdStart {
        p50_total_seconds: percentile(&recent_total_seconds, 50),
        p95_total_seconds: percentile(&recent_total_seconds, 95),
        recent_total_seconds,
        ..history.clone()
    }
}

/// Nearest rank: the smallest value that `percent` of all do not exceed. 0 of none.
pub fn percentile(values: &[i32], percent: usize) -> i32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// When the first of the pods that are not ready yet is expected to be, in whole seconds: after what its download
/// needs, and otherwise after what earlier starts took. None when nothing is known, or when a pod is later than
/// nearly all before it.
pub fn expected_at(readings: &[Reading], history: Option<&ColdStart>, now: Timestamp) -> Option<Timestamp> {
    let on_their_way =
        readings.iter().filter(|reading| reading.stage != Stage::Ready && reading.problem.is_none());
    on_their_way.filter_map(|reading| pod_expected_at(reading, history, now)).min()
}

/// The same of one pod.
pub fn pod_expected_at(reading: &Reading, history: Option<&ColdStart>, now: Timestamp) -> Option<Timestamp> {
    if let Stage::Downloading { seconds_left: Some(left), .. } = reading.stage {
        let load = history.map_or(0, |history| history.last_seconds.load);
        return later(now, i64::try_from(left).ok()?.checked_add(i64::from(load))?);
    }
    let (history, created) = (history?, reading.created?);
    [history.p50_total_seconds, history.p95_total_seconds]
        .into_iter()
        .filter_map(|seconds| later(created, i64::from(seconds)))
        .find(|at| *at > now)
}

fn later(from: Timestamp, seconds: i64) -> Option<Timestamp> {
    from.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn start(pod: &str, ready_at: i64, total: i32) -> Start {
        let seconds = StartSeconds { total, load: 7, ..StartSeconds::default() };
        Start {
            pod: pod.to_owned(),
            revision: "tiny-a".to_owned(),
            node_class: String::new(),
            ready_at: at(ready_at),
            seconds: Some(seconds),
        }
    }

    fn names(starts: &[Start]) -> Vec<String> {
        starts.iter().map(|start| start.pod.clone()).collect()
    }

    fn remembered(before: Option<ColdStart>, starts: &[Start]) -> Option<ColdStart> {
        remember(before, starts, &names(starts))
    }

    fn reading(stage: Stage) -> Reading {
        Reading {
            stage,
            problem: None,
            is_scheduled: true,
            has_model: false,
            created: Some(at(0)),
            restarts: 0,
        }
    }

    fn container(name: &str, state: &Value, restarts: i32) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": true, "restartCount": restarts, "state": state})
    }

    fn ready_pod(restarts: i32) -> Pod {
        let fetched = json!({"terminated": {"exitCode": 0,
            "startedAt": "2026-11-21T10:00:04Z", "finishedAt": "2026-11-21T10:00:44Z"}});
        serde_json::from_value(json!({
            "metadata": {"name": "tiny-1", "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {"containers": []},
            "status": {
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-21T10:00:03Z"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:51Z"},
                ],
                "initContainerStatuses": [container("fetch", &fetched, 0)],
                "containerStatuses": [container("server", &json!({"running": {}}), restarts)],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_start_is_measured_in_parts() {
        let seconds = measure(&ready_pod(0)).unwrap().seconds.unwrap();
        assert_eq!(
            (seconds.schedule, seconds.image, seconds.download, seconds.load, seconds.total),
            (3, 1, 40, 7, 51)
        );
        assert_eq!(measure(&ready_pod(1)).unwrap().seconds, None);
    }

    #[test]
    fn each_pod_is_counted_once_however_often_it_becomes_ready() {
        let first = remembered(None, &[start("a", 0, 50)]).unwrap();
        let flapped = remembered(Some(first.clone()), &[start("a", 900, 950)]).unwrap();
        assert_eq!(flapped, first);
        let second = remembered(Some(flapped), &[start("a", 900, 950), start("b", 901, 60)]).unwrap();
        assert_eq!(second.recent_total_seconds, [50, 60]);
        assert_eq!((second.p50_total_seconds, second.p95_total_seconds), (50, 60));
        assert_eq!(second.last_seconds.total, 60);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let starts: Vec<Start> =
            (0..14).map(|n| start(&format!("p{n:02}"), n, i32::try_from(n).unwrap())).collect();
        let history = remembered(None, &starts).unwrap();
        assert_eq!(history.recent_total_seconds, (4..14).collect::<Vec<i32>>());
        assert_eq!((history.p50_total_seconds, history.p95_total_seconds), (8, 13));
        let later = remember(Some(history), &[], &[]).unwrap();
        assert!(later.counted_pods.is_empty(), "pods that are gone are forgotten");
        assert_eq!(later.recent_total_seconds.len(), 10);
    }

    #[test]
    fn each_revision_and_kind_of_node_has_starts_of_its_own() {
        let on = |start: Start, revision: &str, node_class: &str| Start {
            revision: revision.to_owned(),
            node_class: node_class.to_owned(),
            ..start
        };
        let starts = [
            on(start("a", 0, 50), "tiny-a", "gpu=l4"),
            on(start("b", 1, 200), "tiny-b", "gpu=l4"),
            on(start("c", 2, 20), "tiny-a", "gpu=h100"),
            on(start("d", 3, 22), "tiny-a", "gpu=h100"),
        ];
        let history = remembered(None, &starts).unwrap();
        let expected = |revision: &str| {
            let known = of(&history, revision);
            (known.recent_total_seconds, known.p50_total_seconds, known.p95_total_seconds)
        };
        assert_eq!(expected("tiny-a"), (vec![20, 22], 20, 22), "where it started last");
        assert_eq!(expected("tiny-b"), (vec![200], 200, 200));
        assert_eq!(expected("tiny-c"), (vec![50, 200, 20, 22], 22, 200), "all there is");
        let many: Vec<Start> =
            (0..20).map(|n| on(start(&format!("p{n}"), n, 9), &format!("tiny-{n}"), "")).collect();
        let bounded = remembered(Some(history), &many).unwrap().kinds;
        assert_eq!((bounded.len(), bounded[7].revision.as_str()), (8, "tiny-19"));
    }

    #[test]
    fn a_pod_that_restarted_teaches_nothing_and_is_not_asked_again() {
        let restarted = Start { seconds: None, ..start("a", 0, 0) };
        let known = remembered(None, &[start("b", 0, 9), restarted.clone()]).unwrap();
        assert_eq!(known.recent_total_seconds, [9]);
        assert_eq!(known.counted_pods.len(), 2);
        assert_eq!(remembered(None, &[restarted]), None);
    }

    #[test]
    fn a_start_is_expected_from_its_download_or_from_history() {
        let history = remembered(None, &[start("a", 0, 50), start("b", 1, 60), start("c", 2, 90)]);
        let downloading = Stage::Downloading { percent: Some(43), seconds_left: Some(12) };
        let expected =
            |stage, history: Option<&ColdStart>, now| expected_at(&[reading(stage)], history, at(now));
        assert_eq!(expected(downloading, None, 5), Some(at(17)));
        assert_eq!(expected(downloading, history.as_ref(), 5), Some(at(24)));
        assert_eq!(expected(Stage::Scheduling, history.as_ref(), 5), Some(at(60)));
        assert_eq!(expected(Stage::WarmingUp, history.as_ref(), 70), Some(at(90)));
        assert_eq!(expected(Stage::WarmingUp, history.as_ref(), 95), None, "later than all before it");
        assert_eq!(expected(Stage::Scheduling, None, 5), None);
        assert_eq!(expected(Stage::Ready, history.as_ref(), 5), None);
    }
}
