//! Which of several operators acts: the holder of a Lease. `decide` is pure; `Election` reads and writes the Lease.
//!
//! Whoever loses the Lease ends its process. So there is no half-stopped controller to reason about.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::time::{Instant, sleep};

use crate::endpoints::Health;

/// A holder that has not renewed for this long has gone.
pub const LEASE_SECONDS: i32 = 15;
/// A holder that could not renew for this long stops acting, well before another may begin.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at the Lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// What to do about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// There is none: make it.
    Create,
    /// It is ours: say that we live.
    Renew,
    /// Its holder has gone: take it.
    Take,
    /// Its holder lives.
    Wait,
}

/// The Lease as this process has seen it, with the time since it last changed. Times written by others are not
/// compared with our clock.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    seen: Option<(LeaseSpec, Duration)>,
}

impl Sight {
    /// Takes a look at `now`, a monotonic time.
    pub fn look(&mut self, lease: Option<&LeaseSpec>, now: Duration) {
        match (lease, &self.seen) {
            (Some(lease), Some((seen, _))) if lease == seen => {}
            (Some(lease), _) => self.seen = Some((lease.clone(), now)),
            (None, _) => self.seen = None,
        }
    }

    /// What `me` should do at `now`.
    pub fn decide(&self, me: &str, now: Duration) -> Act {
        let Some((lease, changed_at)) = &self.seen else { return Act::Create };
        match lease.holder_identity.as_deref() {
            Some(holder) if holder == me => Act::Renew,
            None | Some("") => Act::Take,
            Some(_) if now.saturating_sub(*changed_at) >= valid_for(lease) => Act::Take,
            Some(_) => Act::Wait,
        }
    }
}

fn valid_for(lease: &LeaseSpec) -> Duration {
    let seconds = lease.lease_duration_seconds.unwrap_or(LEASE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// The content of the Lease after `act`.
pub fn held(before: Option<&LeaseSpec>, me: &str, act: Act, now: Timestamp) -> LeaseSpec {
    let transitions = before.and_then(|lease| lease.lease_transitions).unwrap_or(0);
    let is_taken = act != Act::Renew;
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(now)),
        acquire_time: if is_taken {
            Some(MicroTime(now))
        } else {
            before.and_then(|lease| lease.acquire_time.clone())
        },
        lease_transitions: Some(if act == Act::Take { transitions + 1 } else { transitions }),
        ..Default::default()
    }
}

/// Returns when this process holds the lease.
pub async fn win(election: &mut Election, health: &Health) {
    while !turn(election, health).await {
        sleep(RETRY_PERIOD).await;
    }
}

/// Returns when this process may have lost the lease.
pub async fn lead(election: &mut Election, health: &Health) {
    let mut renewed = Instant::now();
    while renewed.elapsed() < RENEW_DEADLINE {
        sleep(RETRY_PERIOD).await;
        if turn(election, health).await {
            renewed = Instant::now();
        }
    }
}

async fn turn(election: &mut Election, health: &Health) -> bool {
    health.turned(Timestamp::now());
    let turn = tokio::time::timeout(RETRY_PERIOD, election.turn()).await;
    match turn {
        Ok(Ok(is_leader)) => {
            health.saw_api_server();
            is_leader
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "lease not read or written");
            false
        }
        Err(_) => false,
    }
}

/// Takes part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    sight: Sight,
    began: Instant,
}

impl Election {
    /// A candidate called `me` for the Lease `name`.
    pub fn new(api: Api<Lease>, name: impl Into<String>, me: impl Into<String>) -> Self {
        Self { api, name: name.into(), me: me.into(), sight: Sight::default(), began: Instant::now() }
    }

    /// One look and what follows from it; true if this process holds the Lease now.
    pub async fn turn(&mut self) -> kube::Result<bool> {
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let now = self.began.elapsed();
        self.sight.look(spec, now);
        let act = self.sight.decide(&self.me, now);
        let next = held(spec, &self.me, act, Timestamp::now());
        match (act, lease) {
            (Act::Wait, _) => Ok(false),
            (_, None) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..Default::default() };
                let lease = Lease { metadata, spec: Some(next) };
                won(self.api.create(&PostParams::default(), &lease).await)
            }
            (_, Some(mut lease)) => {
                // The resource version that was read travels along, so only one of two candidates succeeds.
                lease.spec = Some(next);
                won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait for it to expire.
    pub async fn resign(&mut self) -> kube::Result<()> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(self.me.as_str()) {
            return Ok(());
        }
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = None;
        }
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await).map(|_| ())
    }
}

/// A conflict means that somebody else was faster.
fn won<T>(written: kube::Result<T>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed_second: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed_second).unwrap())),
            ..Default::default()
        }
    }

    /// Looks at each lease at its second and compares what `me` decides then.
    fn check(story: &[(u64, Option<LeaseSpec>, Act)]) {
        let mut sight = Sight::default();
        for (second, lease, expected) in story {
            let now = Duration::from_secs(*second);
            sight.look(lease.as_ref(), now);
            assert_eq!(sight.decide("me", now), *expected, "at {second} s");
        }
    }

    #[test]
    fn the_first_makes_the_lease_and_renews_it() {
        check(&[
            (0, None, Act::Create),
            (2, Some(lease("me", 0)), Act::Renew),
            (4, Some(lease("me", 2)), Act::Renew),
        ]);
    }

    #[test]
    fn a_living_holder_is_left_alone_however_wrong_its_clock_is() {
        check(&[
            (0, Some(lease("other", -500_000)), Act::Wait),
            (14, Some(lease("other", -499_990)), Act::Wait),
            (28, Some(lease("other", -499_980)), Act::Wait),
        ]);
    }

    #[test]
    fn a_silent_holder_is_replaced_after_the_leases_duration() {
        let silent = Some(lease("other", 0));
        check(&[(0, silent.clone(), Act::Wait), (14, silent.clone(), Act::Wait), (15, silent, Act::Take)]);
    }

    #[test]
    fn a_resigned_lease_is_taken_at_once() {
        let mut resigned = lease("other", 0);
        resigned.holder_identity = None;
        check(&[(0, Some(resigned), Act::Take)]);
    }

    #[test]
    fn taking_counts_a_transition_and_renewing_does_not() {
        let before = LeaseSpec { lease_transitions: Some(4), ..lease("other", 0) };
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(held(Some(&before), "me", Act::Take, now).lease_transitions, Some(5));
        let mine = held(Some(&before), "me", Act::Take, now);
        let renewed = held(Some(&mine), "me", Act::Renew, Timestamp::from_second(102).unwrap());
        assert_eq!(renewed.lease_transitions, Some(5));
        assert_eq!(renewed.acquire_time, mine.acquire_time);
    }
}
