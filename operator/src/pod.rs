//! What a pod of a revision says about itself: how far it is, and why it cannot go on. Pure: a pod and its last
//! report in, a reading out.

use crds::pool::InferencePool;
use crds::report::{Failure, Phase, Report};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::objects::{FETCH_CONTAINER, MODEL_VOLUME, SERVE_CONTAINER};
use crate::problem::{Problem, Reason};

/// One pod, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// How far it is.
    pub stage: Stage,
    /// Why it cannot go on; it keeps trying nevertheless.
    pub problem: Option<Problem>,
    /// Whether a node has been found.
    pub is_scheduled: bool,
    /// Whether the model's file is complete.
    pub has_model: bool,
    /// When the pod was made.
    pub created: Option<Timestamp>,
    /// How often its server has ended.
    pub restarts: i32,
}

/// How far a pod is, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waits for a node.
    Scheduling,
    /// Waits for volumes and image.
    Starting,
    /// Fetches the model.
    Downloading {
        /// Of the whole, if the source said how much that is.
        percent: Option<u8>,
        /// Estimate.
        seconds_left: Option<u64>,
    },
    /// Checks digest and structure.
    Verifying,
    /// Loads the model.
    Loading {
        /// If it has said so.
        percent: Option<u8>,
    },
    /// Generates its first token.
    WarmingUp,
    /// Serves.
    Ready,
}

impl Stage {
    /// For people.
    pub fn summary(self) -> String {
        match self {
            Self::Scheduling => "Scheduling".to_owned(),
            Self::Starting => "Starting".to_owned(),
            Self::Downloading { percent: None, .. } => "Downloading".to_owned(),
            Self::Downloading { percent: Some(percent), seconds_left: None } => {
                format!("Downloading {percent}%")
            }
            Self::Downloading { percent: Some(percent), seconds_left: Some(seconds) } => {
                format!("Downloading {percent}% ({} left)", duration(seconds))
            }
            Self::Verifying => "Verifying".to_owned(),
            Self::Loading { percent: None } => "Loading".to_owned(),
            Self::Loading { percent: Some(percent) } => format!("Loading {percent}%"),
            Self::WarmingUp => "Warming up".to_owned(),
            Self::Ready => "Ready".to_owned(),
        }
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3_600)),
    }
}

/// Whether the pod is on its way out; it says nothing about its revision any more.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether all containers have ended for good: an evicted pod stays as an object and holds nothing any more.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod is ready, as the endpoints see it.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Why a pod of any kind cannot go on, in the scheduler's or the kubelet's words.
pub fn obstacle(pod: &Pod, container_name: &str) -> Option<String> {
    if is_ready(pod) || is_leaving(pod) {
        return None;
    }
    let name = pod.name_any();
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "False");
    if let Some(message) = scheduled.and_then(|scheduled| scheduled.message.as_deref()) {
        return Some(format!("pod {name} has no node: {message}"));
    }
    let container = container(pod, container_name)?;
    if let Some((code, ..)) = last_failure(container) {
        return Some(format!("pod {name} ended with code {code}; kubectl logs {name} --previous says more"));
    }
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| *reason != "ContainerCreating")?;
    Some(format!(
        "pod {name}: {reason}: {}",
        waiting.message.as_deref().unwrap_or("the kubelet gave no reason")
    ))
}

/// Reads a pod. `report` is its last fresh report; `pool` is named in the cures.
pub fn read(pod: &Pod, report: Option<&Report>, pool: &InferencePool) -> Reading {
    let fetch = container(pod, FETCH_CONTAINER);
    let serve = container(pod, SERVE_CONTAINER);
    let scheduled = condition(pod, "PodScheduled");
    let is_scheduled = scheduled.is_some_and(|scheduled| scheduled.status == "True");
    let has_model = fetch.is_some_and(has_succeeded);
    let phase = report.map(|report| &report.phase);
    Reading {
        stage: stage(pod, is_scheduled, has_model, fetch, serve, phase),
        problem: problem(pod, scheduled, has_model, fetch, serve, pool),
        is_scheduled,
        has_model,
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        restarts: serve.map_or(0, |serve| serve.restart_count),
    }
}

fn stage(
    pod: &Pod,
    is_scheduled: bool,
    has_model: bool,
    fetch: Option<&ContainerStatus>,
    serve: Option<&ContainerStatus>,
    phase: Option<&Phase>,
) -> Stage {
    if is_ready(pod) {
        return Stage::Ready;
    }
    if !is_scheduled {
        return Stage::Scheduling;
    }
    if !has_model {
        let has_begun = fetch.is_some_and(has_begun);
        return match phase {
            _ if !has_begun => Stage::Starting,
            Some(Phase::Verifying) => Stage::Verifying,
            Some(Phase::Downloading { bytes_done, bytes_total, seconds_left, .. }) => Stage::Downloading {
                percent: bytes_total.and_then(|total| percent(*bytes_done, total)),
                seconds_left: *seconds_left,
            },
            _ => Stage::Downloading { percent: None, seconds_left: None },
        };
    }
    let has_begun = serve.is_some_and(has_begun);
    match phase {
        _ if !has_begun => Stage::Loading { percent: None },
        Some(Phase::Loading { percent }) => Stage::Loading { percent: Some((*percent).min(100)) },
        // The server calls itself serving a moment before the kubelet asks `/readyz`.
        Some(Phase::WarmingUp | Phase::Serving) => Stage::WarmingUp,
        _ => Stage::Loading { percent: None },
    }
}

fn percent(done: u64, total: u64) -> Option<u8> {
    let percent = u128::from(done) * 100 / u128::from(std::num::NonZeroU64::new(total)?.get());
    u8::try_from(percent.min(100)).ok()
}

fn problem(
    pod: &Pod,
    scheduled: Option<&PodCondition>,
    has_model: bool,
    fetch: Option<&ContainerStatus>,
    serve: Option<&ContainerStatus>,
    pool: &InferencePool,
) -> Option<Problem> {
    if is_ready(pod) {
        return None;
    }
    eviction(pod, pool).or_else(|| unschedulable(scheduled?, pool)).or_else(|| {
        if has_model {
            serve.and_then(|serve| waiting(serve, pool).or_else(|| server_failure(serve, pod, pool)))
        } else {
            fetch.and_then(|fetch| waiting(fetch, pool).or_else(|| fetch_failure(fetch, pod)))
        }
    })
}

/// Of these pods, those that no node can take.
pub fn unplaced(readings: &[Reading]) -> usize {
    let problems = readings.iter().filter_map(|reading| reading.problem.as_ref());
    problems.filter(|problem| problem.reason == Reason::InsufficientCapacity).count()
}

fn eviction(pod: &Pod, pool: &InferencePool) -> Option<Problem> {
    let status = pod.status.as_ref()?;
    let is_evicted = status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("Evicted");
    let message = status.message.as_deref().unwrap_or_default();
    (is_evicted && message.contains(&format!("\"{MODEL_VOLUME}\""))).then(|| {
        Problem::new(
            Reason::StorageFull,
            format!(
                "the model does not fit spec.modelCache.size of pool {}: {message}; raise it",
                pool.name_any()
            ),
        )
    })
}

fn unschedulable(scheduled: &PodCondition, pool: &InferencePool) -> Option<Problem> {
    if scheduled.status != "False" || scheduled.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    let message = scheduled.message.as_deref().unwrap_or("the scheduler gave no reason");
    let pool = pool.name_any();
    if message.contains("persistentvolumeclaim") || message.contains("PersistentVolumeClaim") {
        return Some(Problem::new(
            Reason::ClaimUnavailable,
            format!(
                "spec.modelCache.claimName of pool {pool} cannot be used: {message}; create or bind the claim"
            ),
        ));
    }
    Some(Problem::new(
        Reason::InsufficientCapacity,
        format!(
            "no node can take the pod: {message}; spec.nodeSelector, spec.tolerations, spec.accelerator and \
             spec.runtime.resources of pool {pool} must fit a node that has room"
        ),
    ))
}

/// Problems before a container's first instruction.
fn waiting(container: &ContainerStatus, pool: &InferencePool) -> Option<Problem> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let message = waiting.message.as_deref().unwrap_or("the kubelet gave no reason");
    let pool_name = pool.name_any();
    match waiting.reason.as_deref()? {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => {
            let is_the_pools = pool.spec.runtime.as_ref().is_some_and(|runtime| runtime.image.is_some());
            let field = if is_the_pools {
                format!("spec.runtime.image of pool {pool_name}")
            } else {
                "image.sidecar of the installation".to_owned()
            };
            Some(Problem::new(
                Reason::ImagePullFailed,
                format!(
                    "{field} is {} and cannot be pulled: {message}; correct it or its pull policy",
                    container.image
                ),
            ))
        }
        "CreateContainerConfigError" => Some(Problem::new(
            Reason::ContainerConfigInvalid,
            format!("{message}; spec.source.secretRef must name an existing Secret and one of its keys"),
        )),
        "CreateContainerError" | "RunContainerError" => Some(Problem::new(
            Reason::ContainerConfigInvalid,
            format!("the container cannot be started: {message}; see spec.runtime of pool {pool_name}"),
        )),
        _ => None,
    }
}

fn fetch_failure(fetch: &ContainerStatus, pod: &Pod) -> Option<Problem> {
    let (code, message, _) = last_failure(fetch)?;
    Some(said(message).unwrap_or_else(|| {
        Problem::new(
            Reason::SourceUnreachable,
            format!(
                "the download of spec.source ended with code {code} and left no message; kubectl logs {} -c {} says \
                 more",
                pod.name_any(),
                FETCH_CONTAINER
            ),
        )
    }))
}

fn server_failure(serve: &ContainerStatus, pod: &Pod, pool: &InferencePool) -> Option<Problem> {
    let (code, message, reason) = last_failure(serve)?;
    if reason == Some("OOMKilled") {
        return Some(Problem::new(
            Reason::DoesNotFit,
            format!(
                "the server was killed for using more memory than its limit; raise \
                 spec.runtime.resources.limits.memory of pool {}, or lower spec.engine.contextLength or \
                 spec.engine.parallelSlots",
                pool.name_any()
            ),
        ));
    }
    Some(said(message).unwrap_or_else(|| {
        Problem::new(
            Reason::EngineLost,
            format!(
                "the server ended with code {code} and left no message; kubectl logs {} -c {} --previous says more",
                pod.name_any(),
                SERVE_CONTAINER
            ),
        )
    }))
}

/// The failure that a process of ours has left as its termination message.
fn said(message: Option<&str>) -> Option<Problem> {
    let failure: Failure = serde_json::from_str(message?).ok()?;
    Some(Problem::new(failure.reason.into(), failure.message))
}

/// Exit code, message and reason of the container's last end, if that was a failure. It holds until the pod has gone
/// past it: a second try that has just begun does not make the first one undone.
fn last_failure(container: &ContainerStatus) -> Option<(i32, Option<&str>, Option<&str>)> {
    let ended =
        |state: &Option<ContainerState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    let state = if ended(&container.state) { &container.state } else { &container.last_state };
    let terminated = state.as_ref()?.terminated.as_ref()?;
    (terminated.exit_code != 0).then_some((
        terminated.exit_code,
        terminated.message.as_deref(),
        terminated.reason.as_deref(),
    ))
}

fn has_succeeded(container: &ContainerStatus) -> bool {
    container
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref())
        .is_some_and(|terminated| terminated.exit_code == 0)
}

/// Whether the container runs or has run. (An empty `lastState` is written as `{}`.)
fn has_begun(container: &ContainerStatus) -> bool {
    let is_running = container.state.as_ref().is_some_and(|state| state.running.is_some());
    let has_ended =
        |state: &Option<ContainerState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    is_running || has_ended(&container.state) || has_ended(&container.last_state)
}

/// The state of one of the pod's containers.
pub fn container<'pod>(pod: &'pod Pod, name: &str) -> Option<&'pod ContainerStatus> {
    let status = pod.status.as_ref()?;
    let of = |statuses: &'pod Option<Vec<ContainerStatus>>| {
        statuses.iter().flatten().find(|container| container.name == name)
    };
    of(&status.init_container_statuses).or_else(|| of(&status.container_statuses))
}

/// One of the pod's conditions.
pub fn condition<'pod>(pod: &'pod Pod, type_: &str) -> Option<&'pod PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// A kind of nodes with a longer name is not remembered: names are kept in the status.
pub const NODE_CLASS_MAX: usize = 256;

/// Its kind of node, as far as its spec says it: the node selector of a pod and the devices that it asks for.
pub fn node_class(pod: &Pod) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let selector = spec.node_selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let limits = spec.containers.iter().filter_map(|container| container.resources.as_ref()?.limits.as_ref());
    let devices = limits.flatten().filter(|(name, _)| name.contains('/'));
    let devices = devices.map(|(name, count)| format!("{name}:{}", count.0));
    selector.chain(devices).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "samples are written where they are used")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "tiny-1", "uid": "u1", "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {"containers": []},
            "status": status,
        }))
        .unwrap()
    }

    fn pool() -> InferencePool {
        serde_json::from_value(json!({"metadata": {"name": "cpu"}, "spec": {}})).unwrap()
    }

    fn report(phase: Value) -> Report {
        serde_json::from_value(json!({
            "namespace": "default", "pod": "tiny-1", "podUid": "u1", "model": "tiny", "revision": "tiny-1",
            "sequence": 1, "uptimeMs": 1, "phase": phase,
        }))
        .unwrap()
    }

    const SCHEDULED: &str = r#"[{"type": "PodScheduled", "status": "True"}]"#;

    fn scheduled(mut status: Value) -> Value {
        status["conditions"] = serde_json::from_str(SCHEDULED).unwrap();
        status
    }

    fn fetching(state: Value, last_state: Value) -> Value {
        scheduled(json!({"initContainerStatuses": [status_of("fetch", state, last_state)]}))
    }

    fn serving(state: Value, last_state: Value) -> Value {
        scheduled(json!({
            "initContainerStatuses": [status_of("fetch", json!({"terminated": {"exitCode": 0}}), json!(null))],
            "containerStatuses": [status_of("server", state, last_state)],
        }))
    }

    fn status_of(name: &str, state: Value, last_state: Value) -> Value {
        json!({"name": name, "image": "sidecar:dev", "imageID": "", "ready": false, "restartCount": 0,
               "state": state, "lastState": last_state})
    }

    fn check(
        status: Value,
        phase: Option<Value>,
        expected_stage: &str,
        expected_problem: Option<(Reason, &str)>,
    ) {
        let reading = read(&pod(status), phase.map(report).as_ref(), &pool());
        assert_eq!(reading.stage.summary(), expected_stage);
        match (&reading.problem, expected_problem) {
            (None, None) => {}
            (Some(found), Some((reason, part))) => {
                assert_eq!(found.reason, reason, "{}", found.message);
                assert!(found.message.contains(part), "{} lacks {part}", found.message);
            }
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_start_is_told_step_by_step() {
        check(json!({}), None, "Scheduling", None);
        check(scheduled(json!({})), None, "Starting", None);
        check(fetching(json!({"waiting": {"reason": "PodInitializing"}}), json!({})), None, "Starting", None);
        let running = json!({"running": {}});
        check(fetching(running.clone(), json!(null)), None, "Downloading", None);
        let downloading =
            json!({"name": "downloading", "bytesDone": 43, "bytesTotal": 100, "secondsLeft": 12});
        check(fetching(running.clone(), json!(null)), Some(downloading), "Downloading 43% (12 s left)", None);
        let of_unknown_size = json!({"name": "downloading", "bytesDone": 43, "bytesTotal": 0});
        check(fetching(running.clone(), json!(null)), Some(of_unknown_size), "Downloading", None);
        check(fetching(running.clone(), json!(null)), Some(json!({"name": "verifying"})), "Verifying", None);
        check(serving(json!({"waiting": {"reason": "PodInitializing"}}), json!(null)), None, "Loading", None);
        check(
            serving(running.clone(), json!(null)),
            Some(json!({"name": "loading", "percent": 80})),
            "Loading 80%",
            None,
        );
        check(serving(running, json!(null)), Some(json!({"name": "warmingUp"})), "Warming up", None);
        check(json!({"conditions": [{"type": "Ready", "status": "True"}]}), None, "Ready", None);
    }

    #[test]
    fn a_report_from_the_download_does_not_speak_for_the_server() {
        let stale = json!({"name": "downloading", "bytesDone": 99, "bytesTotal": 100});
        check(serving(json!({"running": {}}), json!(null)), Some(stale), "Loading", None);
    }

    #[test]
    fn what_a_pod_left_as_its_last_words_is_the_reason() {
        let words =
            r#"{"reason": "DigestMismatch", "message": "spec.source.sha256 is 9f but the file has 41"}"#;
        let ended = json!({"terminated": {"exitCode": 1, "message": words}});
        let expected = Some((Reason::DigestMismatch, "spec.source.sha256"));
        check(fetching(ended.clone(), json!({})), None, "Downloading", expected);
        let backing_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        check(fetching(backing_off, ended.clone()), None, "Downloading", expected);
        check(fetching(json!({"running": {}}), ended), None, "Downloading", expected);
    }

    #[test]
    fn a_failure_of_an_earlier_try_is_forgotten_when_a_later_one_succeeds() {
        let failed = json!({"terminated": {"exitCode": 1, "message": ""}});
        let mut status = serving(json!({"running": {}}), json!(null));
        status["initContainerStatuses"][0]["lastState"] = failed;
        check(status, None, "Loading", None);
    }

    #[test]
    fn a_server_that_dies_without_a_word_is_an_engine_lost() {
        let backing_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        check(
            serving(backing_off.clone(), json!({"terminated": {"exitCode": 139, "message": "llama said"}})),
            None,
            "Loading",
            Some((Reason::EngineLost, "139")),
        );
        check(
            serving(backing_off, json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})),
            None,
            "Loading",
            Some((Reason::DoesNotFit, "limits.memory of pool cpu")),
        );
    }

    #[test]
    fn what_hinders_a_container_from_starting_is_told() {
        for (reason, expected) in [
            ("ErrImagePull", Reason::ImagePullFailed),
            ("ImagePullBackOff", Reason::ImagePullFailed),
            ("InvalidImageName", Reason::ImagePullFailed),
            ("CreateContainerConfigError", Reason::ContainerConfigInvalid),
        ] {
            let state = json!({"waiting": {"reason": reason, "message": "because of this"}});
            check(
                fetching(state.clone(), json!(null)),
                None,
                "Starting",
                Some((expected, "because of this")),
            );
            check(serving(state, json!(null)), None, "Loading", Some((expected, "because of this")));
        }
    }

    #[test]
    fn the_scheduler_is_quoted() {
        let refused = |message: &str| {
            json!({"conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message},
            ]})
        };
        check(
            refused("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
            None,
            "Scheduling",
            Some((Reason::InsufficientCapacity, "Insufficient nvidia.com/gpu")),
        );
        check(
            refused("persistentvolumeclaim \"weights\" not found"),
            None,
            "Scheduling",
            Some((Reason::ClaimUnavailable, "spec.modelCache.claimName of pool cpu")),
        );
    }

    #[test]
    fn an_eviction_from_a_full_model_volume_is_storage_full() {
        let message = "Usage of EmptyDir volume \"models\" exceeds the limit \"1Gi\".";
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": message});
        check(status, None, "Scheduling", Some((Reason::StorageFull, "spec.modelCache.size of pool cpu")));
    }
}
