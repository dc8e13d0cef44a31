//! What a notice means to people: how much it matters, and whether something begins or ends with it. Pure.

use crds::model::{InferenceModel, InferenceModelStatus};
use crds::notification::{NotificationEvent, Severity};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::plan::Notice;

/// One message, the same for every receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same for every attempt to send it.
    pub id: String,
    /// When it was decided.
    pub at: Timestamp,
    /// Name of the cluster, if the installation has one.
    pub cluster: Option<String>,
    /// `InferenceModel`.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// The revision that the spec asks for.
    pub revision: Option<String>,
    /// How far it is.
    pub phase: Option<String>,
    /// What it is about.
    pub event: NotificationEvent,
    /// How much it matters.
    pub severity: Severity,
    /// What begins or ends with it.
    pub effect: Effect,
    /// One word, as in events.
    pub reason: String,
    /// One sentence, as in events.
    pub text: String,
}

/// What begins or ends with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Something is wrong from now on.
    Opens,
    /// It is over.
    Closes,
    /// Neither.
    Tells,
}

/// What notices mean whose reason begins so.
struct Meaning {
    prefix: &'static str,
    event: NotificationEvent,
    /// What is over when such a notice is no warning. A warning always opens.
    calm: Effect,
}

/// The first that fits; the last fits everything. A new reason belongs here only if its family does not say it all.
const MEANINGS: [Meaning; 10] = [
    meaning("CanaryVerdict", NotificationEvent::Verdict, Effect::Closes),
    // AnalysisUnderpowered.
    meaning("Analysis", NotificationEvent::Verdict, Effect::Tells),
    meaning("CanaryWeight", NotificationEvent::Rollout, Effect::Tells),
    meaning("CanaryStep", NotificationEvent::Rollout, Effect::Tells),
    meaning("CanaryCapacity", NotificationEvent::Rollout, Effect::Tells),
    // CanaryRemoved, CanaryPromoted, and as warnings CanaryPaused and CanaryRolledBack.
    meaning("Canary", NotificationEvent::Rollout, Effect::Closes),
    // RolloutStarted: somebody tries again; RolloutFinished.
    meaning("Rollout", NotificationEvent::Rollout, Effect::Closes),
    meaning("Scal", NotificationEvent::Scaling, Effect::Tells),
    meaning("AlarmCleared", NotificationEvent::Serving, Effect::Closes),
    meaning("", NotificationEvent::Serving, Effect::Tells),
];

const fn meaning(prefix: &'static str, event: NotificationEvent, calm: Effect) -> Meaning {
    Meaning { prefix, event, calm }
}

/// What a plan's notices about `model` say to people; `status` is the one that the plan writes.
pub fn messages(
    model: &InferenceModel,
    status: &InferenceModelStatus,
    notices: &[Notice],
    cluster: Option<&str>,
    now: Timestamp,
) -> Vec<Message> {
    notices.iter().map(|notice| message(model, status, notice, cluster, now)).collect()
}

fn message(
    model: &InferenceModel,
    status: &InferenceModelStatus,
    notice: &Notice,
    cluster: Option<&str>,
    now: Timestamp,
) -> Message {
    let meaning = MEANINGS
        .iter()
        .find(|meaning| notice.reason.starts_with(meaning.prefix))
        .expect("the last one fits everything");
    let message = Message {
        id: String::new(),
        at: now,
        cluster: cluster.map(str::to_owned),
        kind: "InferenceModel",
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        revision: status.target_revision.clone().or_else(|| status.stable_revision.clone()),
        phase: status.rollout.as_ref().map(|rollout| format!("{:?}", rollout.phase)),
        event: meaning.event,
        severity: severity(model, status, notice),
        effect: if notice.is_warning { Effect::Opens } else { meaning.calm },
        reason: notice.reason.clone(),
        text: notice.message.clone(),
    };
    Message { id: identity(&message, &model.uid().unwrap_or_default()), ..message }
}

/// A model that is gone.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Name of the cluster, if the installation has one.
    pub cluster: Option<&'a str>,
}

/// Whatever may be open of a model that was deleted is over.
pub fn endings(subject: Subject<'_>, now: Timestamp) -> [Message; 2] {
    [NotificationEvent::Serving, NotificationEvent::Rollout].map(|event| {
        let message = Message {
            id: String::new(),
            at: now,
            cluster: subject.cluster.map(str::to_owned),
            kind: "InferenceModel",
            namespace: subject.namespace.to_owned(),
            name: subject.name.to_owned(),
            revision: None,
            phase: None,
            event,
            severity: Severity::Info,
            effect: Effect::Closes,
            reason: "ModelDeleted".to_owned(),
            text: "the model was deleted".to_owned(),
        };
        Message { id: identity(&message, subject.uid), ..message }
    })
}

/// An alarm and its end are as severe as the alarm is.
fn severity(model: &InferenceModel, status: &InferenceModelStatus, notice: &Notice) -> Severity {
    let begun = status.alarm.as_ref().filter(|alarm| alarm.reason == notice.reason);
    let before = || model.status.as_ref()?.alarm.as_ref();
    let ended = before().filter(|_| notice.reason == "AlarmCleared");
    match begun.or(ended) {
        Some(alarm) => alarm.severity,
        None if notice.is_warning => Severity::Warning,
        None => Severity::Info,
    }
}

fn identity(message: &Message, uid: &str) -> String {
    let text = format!("{uid} {} {} {}", message.dedup_key(), message.at, message.text);
    hex::encode(&Sha256::digest(text)[..16])
}

/// What an event's incidents are about. A verdict on a canary is one on its rollout.
pub fn topic(event: NotificationEvent) -> &'static str {
    match event {
        NotificationEvent::Serving => "serving",
        NotificationEvent::Rollout | NotificationEvent::Verdict => "rollout",
        NotificationEvent::Scaling => "scaling",
    }
}

impl Message {
    /// `namespace/name/revision/phase/reason`: the transition.
    pub fn dedup_key(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        let (revision, phase) = (part(&self.revision), part(&self.phase));
        format!("{}/{}/{revision}/{phase}/{}", self.namespace, self.name, self.reason)
    }

    /// What opens and closes together: a model serves or does not, and its rollout goes well or does not.
    pub fn incident_key(&self) -> String {
        let topic = topic(self.event);
        let cluster = self.cluster.as_ref().map(|cluster| format!("{cluster}/")).unwrap_or_default();
        format!("inferno/{cluster}{}/{}/{topic}", self.namespace, self.name)
    }

    /// The object, with its cluster where there is more than one.
    pub fn whereabouts(&self) -> String {
        let cluster = self.cluster.as_ref().map(|cluster| format!("{cluster}: ")).unwrap_or_default();
        format!("{cluster}{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn sample(severity: Severity, effect: Effect) -> Message {
        Message {
            id: "0123456789abcdef0123456789abcdef".into(),
            at: Timestamp::from_second(1_800_000_000).unwrap(),
            cluster: Some("north".into()),
            kind: "InferenceModel",
            namespace: "default".into(),
            name: "tiny".into(),
            revision: Some("tiny-8f2aa".into()),
            phase: Some("Failed".into()),
            event: NotificationEvent::Serving,
            severity,
            effect,
            reason: "EngineLost".into(),
            text: "the engine keeps dying; look at <its> log & raise memory".into(),
        }
    }

    fn check(reason: &str, is_warning: bool, expected: (NotificationEvent, Severity, Effect)) {
        let alarm = json!({"reason": "EngineLost", "severity": "Critical", "since": "2026-11-21T10:00:00Z"});
        let model: InferenceModel = serde_json::from_value(json!({
            "metadata": {"name": "tiny", "namespace": "default", "uid": "u"},
            "spec": {"poolRef": {"name": "cpu"}, "source": {}},
            "status": {"alarm": alarm},
        }))
        .unwrap();
        let status = InferenceModelStatus {
            target_revision: Some("tiny-b".into()),
            ..model.status.clone().unwrap_or_default()
        };
        let notice = Notice { is_warning, reason: reason.to_owned(), message: "because".into() };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let found = messages(&model, &status, &[notice], None, now).remove(0);
        assert_eq!((found.event, found.severity, found.effect), expected, "{reason}");
        assert_eq!(found.dedup_key(), format!("default/tiny/tiny-b/-/{reason}"));
    }

    #[test]
    fn reasons_say_what_a_message_is_about_and_what_it_ends() {
        use Effect::{Closes, Opens, Tells};
        use NotificationEvent::{Rollout, Scaling, Serving, Verdict};
        use Severity::{Critical, Info, Warning};
        check("EngineLost", true, (Serving, Critical, Opens));
        check("AlarmCleared", false, (Serving, Critical, Closes));
        check("DigestMismatch", true, (Serving, Warning, Opens));
        check("RolloutStarted", false, (Rollout, Info, Closes));
        check("RolloutFinished", false, (Rollout, Info, Closes));
        check("CanaryWeightChanged", false, (Rollout, Info, Tells));
        check("CanaryRolledBack", true, (Rollout, Warning, Opens));
        check("CanaryPaused", true, (Rollout, Warning, Opens));
        check("CanaryPromoted", false, (Rollout, Info, Closes));
        check("CanaryVerdictChanged", true, (Verdict, Warning, Opens));
        check("CanaryVerdictChanged", false, (Verdict, Info, Closes));
        check("AnalysisUnderpowered", false, (Verdict, Info, Tells));
        check("ScaledUp", false, (Scaling, Info, Tells));
        check("SomethingNew", false, (Serving, Info, Tells));
    }

    #[test]
    fn the_beginning_and_the_end_are_one_incident() {
        let [began, ended] = [Effect::Opens, Effect::Closes].map(|effect| sample(Severity::Warning, effect));
        assert_eq!(began.incident_key(), ended.incident_key());
        assert_eq!(began.incident_key(), "inferno/north/default/tiny/serving");
    }
}
