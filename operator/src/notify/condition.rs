//! Whether the receivers that a model names exist. Pure.

use crds::model::InferenceModel;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::receivers::Known;
use crate::problem::Reason;
use crate::status::Verdict;

/// The receivers that `spec.notifications` names exist and are well described.
pub const RECEIVERS_KNOWN: &str = "ReceiversKnown";

/// The condition of a model that names receivers; none without.
pub fn condition(model: &InferenceModel, known: &Known, now: Timestamp) -> Option<Condition> {
    let notifications = &model.spec.notifications;
    if notifications.is_empty() {
        return None;
    }
    let problem =
        notifications.iter().enumerate().find_map(|(index, to)| problem(index, &to.receiver, known));
    let names: Vec<&str> = notifications.iter().map(|to| to.receiver.as_str()).collect();
    let verdict = problem
        .unwrap_or_else(|| Verdict::yes(Reason::ReceiversKnown, format!("told are {}", names.join(", "))));
    let before = model.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    Some(verdict.condition(RECEIVERS_KNOWN, before, model.metadata.generation, now))
}

fn problem(index: usize, name: &str, known: &Known) -> Option<Verdict> {
    let field = format!("spec.notifications[{index}].receiver is {name}");
    match known.get(name) {
        Some(Ok(())) => None,
        Some(Err(what)) => Some(Verdict::no(
            Reason::ReceiverInvalid,
            format!("{field}, but its description in the installation's Secret is wrong: {what}"),
        )),
        None => Some(Verdict::no(
            Reason::ReceiverNotFound,
            format!(
                "{field}, but the installation has no such receiver; add the key {name} to the Secret that its value \
                 notifications.secretName names, or name another"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(receivers: &[&str], expected: Option<(&str, &str, &str)>) {
        let notifications: Vec<_> = receivers.iter().map(|name| json!({"receiver": name})).collect();
        let model: InferenceModel = serde_json::from_value(json!({
            "metadata": {"name": "tiny"},
            "spec": {"poolRef": {"name": "cpu"}, "source": {}, "notifications": notifications},
        }))
        .unwrap();
        let known = Known::from([
            ("chat".to_owned(), Ok(())),
            ("oncall".to_owned(), Err("routingKey is missing".to_owned())),
        ]);
        let found = condition(&model, &known, Timestamp::UNIX_EPOCH);
        let found =
            found.as_ref().map(|found| (found.status.as_str(), found.reason.as_str(), &found.message));
        assert_eq!(found.map(|(status, reason, _)| (status, reason)), expected.map(|(a, b, _)| (a, b)));
        let (message, part) = (found.map_or("", |found| found.2), expected.map_or("", |expected| expected.2));
        assert!(message.contains(part), "{message}");
    }

    #[test]
    fn the_first_receiver_that_is_missing_or_wrong_is_named() {
        check(&[], None);
        check(&["chat"], Some(("True", "ReceiversKnown", "told are chat")));
        let missing = "spec.notifications[1].receiver is pager, but the installation has no such receiver";
        check(&["chat", "pager"], Some(("False", "ReceiverNotFound", missing)));
        check(&["oncall"], Some(("False", "ReceiverInvalid", "routingKey is missing")));
    }
}
