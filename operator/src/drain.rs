//! Which pods of a shrinking revision leave, and when. Pure.
//!
//! First gateways send them nothing new: they read `status.draining`. Once a pod has nothing in flight, or nothing in
//! flight can be that old, it is marked as the cheapest to delete; and once that mark is seen, the Deployment is told to
//! have one less. Until then a rise takes the pod back within a second, where a new one would take a whole start.

use crds::model::{DrainingPod, InferenceModel};
use crds::pool::InferencePool;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::pod;
use crate::report::LOAD_SECONDS;

/// What a `ReplicaSet` looks at when it chooses among ready pods: the lowest goes first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Below that of any other pod, which is 0.
const CHEAP: &str = "-1";
/// Gateways follow within a second: a load that is still of now after that and one more has seen what they still sent.
const SETTLE: SignedDuration = SignedDuration::from_secs(LOAD_SECONDS + 2);
/// A request may take so long where neither the model nor its pool says it: the sidecar's default.
const TIMEOUT_SECONDS: i32 = 300;

/// One pod of the revision that is to stay or to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub pod: String,
    /// Whether it serves.
    pub is_ready: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Requests in its slots and its queue, if it has said so in the last seconds.
    pub in_flight: Option<u32>,
    /// Whether it carries the mark of the cheapest.
    pub is_marked: bool,
}

impl Member {
    /// Reads a pod of ours.
    pub fn of(pod: &Pod, in_flight: Option<u32>) -> Self {
        Self {
            pod: pod.name_any(),
            is_ready: pod::is_ready(pod),
            created: pod.creation_timestamp().map(|time| time.0),
            in_flight,
            is_marked: pod.annotations().get(DELETION_COST).is_some_and(|cost| cost == CHEAP),
        }
    }
}

/// What follows for a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drain {
    /// Replicas that its Deployment is to have.
    pub replicas: i32,
    /// Pods that gateways are to send nothing new, by name.
    pub draining: Vec<DrainingPod>,
    /// Pods whose cost of deletion has to be another: `None` takes the mark away.
    pub marks: Vec<(String, Option<&'static str>)>,
}

/// How long requests of the model may take.
pub fn deadline(model: &InferenceModel, pool: &InferencePool) -> SignedDuration {
    let own = model.spec.request_policy.as_ref().and_then(|policy| policy.timeout_seconds);
    let of_pool = pool.spec.queue.as_ref().and_then(|queue| queue.default_timeout_seconds);
    SignedDuration::from_secs(i64::from(own.or(of_pool).unwrap_or(TIMEOUT_SECONDS)))
}

/// Lets as many pods drain as `wanted` does not need. Pods that do not serve go at once: the `ReplicaSet` takes them
/// first anyway.
pub fn drain(
    members: &[Member],
    wanted: i32,
    before: &[DrainingPod],
    deadline: SignedDuration,
    now: Timestamp,
) -> Drain {
    let since =
        |member: &Member| before.iter().find(|known| known.pod == member.pod).map(|known| &known.since);
    let mut ready: Vec<&Member> = members.iter().filter(|member| member.is_ready).collect();
    // Who drains goes on, then whoever has least to finish, then the youngest: its cache has least to lose.
    ready.sort_by_key(|member| {
        let age = std::cmp::Reverse(member.created);
        (since(member).is_none(), member.in_flight.unwrap_or(u32::MAX), age, &member.pod)
    });
    let surplus = ready.len().saturating_sub(usize::try_from(wanted).unwrap_or(0));
    let leaving = &ready[..surplus];
    let is_finished = |member: &Member| {
        since(member).is_some_and(|since| {
            let age = now.duration_since(since.0);
            age >= deadline || (age >= SETTLE && member.in_flight == Some(0))
        })
    };
    let finished: Vec<&Member> = leaving.iter().copied().filter(|member| is_finished(member)).collect();
    let stays = finished.iter().filter(|member| !member.is_marked).count() + leaving.len() - finished.len();
    let mark = |member: &Member| {
        let is_cheap = finished.iter().any(|finished| finished.pod == member.pod);
        (member.is_marked != is_cheap).then(|| (member.pod.clone(), is_cheap.then_some(CHEAP)))
    };
    let mut draining: Vec<DrainingPod> = leaving
        .iter()
        .map(|member| DrainingPod {
            pod: member.pod.clone(),
            since: since(member).cloned().unwrap_or(Time(now)),
        })
        .collect();
    draining.sort_by(|one, other| one.pod.cmp(&other.pod));
    Drain {
        replicas: wanted.saturating_add(i32::try_from(stays).unwrap_or(i32::MAX)),
        draining,
        marks: members.iter().filter_map(mark).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEADLINE: SignedDuration = SignedDuration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A ready pod that was made at `created`.
    fn member(name: &str, created: i64, in_flight: Option<u32>) -> Member {
        Member { pod: name.into(), is_ready: true, created: Some(at(created)), in_flight, is_marked: false }
    }

    fn since(name: &str, second: i64) -> DrainingPod {
        DrainingPod { pod: name.into(), since: Time(at(second)) }
    }

    fn names(drain: &Drain) -> Vec<&str> {
        drain.draining.iter().map(|draining| draining.pod.as_str()).collect()
    }

    #[test]
    fn who_has_least_to_finish_drains_and_the_youngest_of_equals() {
        let fleet = [member("old", 0, Some(1)), member("busy", 1, Some(4)), member("new", 2, Some(1))];
        let drained = drain(&fleet, 2, &[], DEADLINE, at(100));
        assert_eq!((drained.replicas, names(&drained)), (3, vec!["new"]));
        let drained = drain(&fleet, 1, &[], DEADLINE, at(100));
        assert_eq!((drained.replicas, names(&drained)), (3, vec!["new", "old"]));
    }

    #[test]
    fn a_pod_of_which_nothing_is_known_is_not_taken_to_be_idle() {
        let fleet = [member("silent", 0, None), member("busy", 1, Some(4))];
        assert_eq!(names(&drain(&fleet, 1, &[], DEADLINE, at(100))), ["busy"]);
        let silent = [member("silent", 0, None)];
        assert_eq!(drain(&silent, 0, &[since("silent", 0)], DEADLINE, at(299)).replicas, 1);
    }

    #[test]
    fn a_pod_goes_when_it_is_idle_is_marked_and_the_mark_is_seen() {
        let before = [since("a", 100)];
        let mut fleet = [member("a", 0, Some(0)), member("b", 0, Some(2))];
        let early = drain(&fleet, 1, &before, DEADLINE, at(107));
        assert_eq!((early.replicas, early.marks), (2, vec![]), "a gateway may still send to it");
        let idle = drain(&fleet, 1, &before, DEADLINE, at(108));
        assert_eq!((idle.replicas, idle.marks), (2, vec![("a".to_owned(), Some("-1"))]));
        fleet[0].is_marked = true;
        let gone = drain(&fleet, 1, &before, DEADLINE, at(109));
        assert_eq!((gone.replicas, gone.marks), (1, vec![]));
    }

    #[test]
    fn what_outlives_every_request_is_not_waited_for() {
        let fleet = [member("a", 0, Some(3)), member("b", 0, Some(9))];
        let before = [since("a", 100)];
        assert_eq!(drain(&fleet, 1, &before, DEADLINE, at(399)).marks, vec![]);
        assert_eq!(drain(&fleet, 1, &before, DEADLINE, at(400)).marks, vec![("a".to_owned(), Some("-1"))]);
    }

    #[test]
    fn a_rise_takes_back_who_drains_and_their_marks() {
        let mut fleet = [member("a", 0, Some(0)), member("b", 0, Some(2))];
        fleet[0].is_marked = true;
        let back = drain(&fleet, 2, &[since("a", 0)], DEADLINE, at(10));
        assert_eq!(back, Drain { replicas: 2, draining: vec![], marks: vec![("a".to_owned(), None)] });
    }

    #[test]
    fn pods_that_do_not_serve_go_first_and_at_once() {
        let mut fleet = [member("a", 0, Some(0)), member("starting", 5, None)];
        fleet[1].is_ready = false;
        let drained = drain(&fleet, 1, &[], DEADLINE, at(10));
        assert_eq!((drained.replicas, names(&drained)), (1, vec![]));
    }

    fn fleet() -> impl Strategy<Value = (Vec<Member>, Vec<DrainingPod>)> {
        let pod = (any::<bool>(), 0_i64..50, proptest::option::of(0_u32..5), any::<bool>(), any::<bool>());
        proptest::collection::vec(pod, 0..8).prop_map(|pods| {
            let named = || pods.iter().enumerate().map(|(number, pod)| (format!("pod-{number}"), *pod));
            let members = named().map(|(pod, (is_ready, created, in_flight, is_marked, _))| Member {
                pod,
                is_ready,
                created: Some(at(created)),
                in_flight,
                is_marked,
            });
            let before = named().filter(|(_, pod)| pod.4).map(|(name, pod)| since(&name, pod.1));
            (members.collect(), before.collect())
        })
    }

    proptest! {
        #[test]
        fn enough_pods_stay_and_who_drains_stays_chosen((members, before) in fleet(), wanted in 0_i32..10) {
            let ready = i32::try_from(members.iter().filter(|member| member.is_ready).count()).unwrap();
            let now = drain(&members, wanted, &before, DEADLINE, at(60));
            let draining = i32::try_from(now.draining.len()).unwrap();
            prop_assert_eq!(ready - draining, ready.min(wanted), "serving pods");
            prop_assert!(now.replicas >= wanted && now.replicas <= wanted + draining);
            let again = drain(&members, wanted, &now.draining, DEADLINE, at(61));
            prop_assert_eq!(names(&again), names(&now));
        }

        #[test]
        fn only_the_marked_are_let_go((members, before) in fleet(), wanted in 0_i32..10) {
            let now = drain(&members, wanted, &before, DEADLINE, at(60));
            let marked = |draining: &&DrainingPod| {
                members.iter().any(|member| member.pod == draining.pod && member.is_marked)
            };
            let let_go = wanted + i32::try_from(now.draining.len()).unwrap() - now.replicas;
            let marked = i32::try_from(now.draining.iter().filter(marked).count()).unwrap();
            prop_assert!(let_go <= marked);
        }
    }
}
