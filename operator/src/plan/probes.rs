//! Which tokens should be asked for now, and of whom. Pure.

use crds::model::{InferenceModel, KillSwitch};
use k8s_openapi::jiff::Timestamp;

use super::{Observed, ProbeRequest, Route, pods_of, proof};
use crate::autoscale;
use crate::golden::runner::Request;
use crate::golden::standing::step;
use crate::objects::{self, POD_PORT};
use crate::pod;
use crate::status::{Situation, was_ready};

/// A proven revision is asked for a token again after this long: rarely enough to cost nothing, often enough that a
/// dead Service is noticed before people do.
const PROBE_EVERY: i64 = 60;
/// After a failed probe.
const PROBE_RETRY: i64 = 3;

/// The tokens to ask for. What the gateway sends requests to is asked through it, as clients do; a new revision that
/// it sends none to is asked at one of its pods.
pub(super) fn probes(
    model: &InferenceModel,
    observed: &Observed,
    situation: &Situation<'_>,
    now: Timestamp,
) -> Vec<ProbeRequest> {
    if !observed.is_probing || !can_be_asked(situation) {
        return Vec::new();
    }
    let is_open = situation.has_gateway
        && !situation.is_withheld()
        && model.spec.kill_switch != Some(KillSwitch::Model);
    let is_beside = situation.roles.keeper.is_some() && !situation.roles.is_stable;
    let spokesman_serves = !is_beside
        || (situation.roles.is_able && situation.roles.keeper.is_some_and(|keeper| keeper.ready > 0));
    let through_gateway = (is_open && spokesman_serves).then(|| ProbeRequest {
        revision: situation.spokesman().to_owned(),
        route: Route::Gateway,
        base_url: objects::base_url(model),
        model_name: objects::served_name(model),
    });
    let is_unasked = is_beside || (!is_open && !situation.roles.is_stable);
    let at_a_pod = is_unasked.then(|| pod_request(model, observed, situation.target)).flatten();
    let requests = through_gateway.into_iter().chain(at_a_pod);
    requests.filter(|request| is_due(model, observed, request, now)).collect()
}

/// Whether there is somebody to ask. A canary that the operator drives is asked as soon as it has a pod: it may never get
/// all that it should have.
fn can_be_asked(situation: &Situation<'_>) -> bool {
    let is_canary = situation.conducted.is_some() && !situation.roles.is_stable;
    let has_pod =
        is_canary && situation.roles.runs && situation.current.is_some_and(|current| current.ready > 0);
    situation.is_complete || has_pod
}

/// Golden prompts to ask of a revision that has given a token: before its first request, and at each step after that.
pub(super) fn golden(
    model: &InferenceModel,
    observed: &Observed,
    situation: &Situation<'_>,
    now: Timestamp,
) -> Option<Request> {
    let seen = observed.golden.as_ref()?;
    let has_token = super::is_proven(model, observed, situation.target);
    let step = step(model, situation.target);
    if !can_be_asked(situation) || !has_token || !seen.is_due(situation.target, step, now) {
        return None;
    }
    let ProbeRequest { revision, base_url, model_name, .. } = pod_request(model, observed, situation.target)?;
    Some(Request { revision, step, base_url, model_name })
}

fn pod_request(model: &InferenceModel, observed: &Observed, revision: &str) -> Option<ProbeRequest> {
    let pods = pods_of(observed, revision);
    let address =
        pods.iter().filter(|pod| pod::is_ready(pod)).find_map(|pod| pod.status.as_ref()?.pod_ip.clone())?;
    Some(ProbeRequest {
        revision: revision.to_owned(),
        route: Route::Pod,
        base_url: pod_url(&address),
        model_name: objects::served_name(model),
    })
}

/// A model that may go to zero is not asked again once it has given a token: our own requests would keep it awake.
fn is_due(model: &InferenceModel, observed: &Observed, request: &ProbeRequest, now: Timestamp) -> bool {
    let proof = proof(observed, &request.revision, request.route);
    if autoscale::may_rest(&model.spec) && request.route == Route::Gateway {
        let is_served = proof.map_or_else(|| was_ready(model), |proof| proof.error.is_none());
        if is_served {
            return false;
        }
    }
    proof.is_none_or(|proof| {
        let pause = if proof.error.is_none() { PROBE_EVERY } else { PROBE_RETRY };
        now.as_second() - proof.tried_at.as_second() >= pause
    })
}

fn pod_url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]:{POD_PORT}/v1")
    } else {
        format!("http://{address}:{POD_PORT}/v1")
    }
}
