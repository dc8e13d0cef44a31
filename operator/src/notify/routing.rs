//! Who gets a message, and whether it has been told already. Pure.

use std::collections::{BTreeSet, HashMap};

use crds::notification::{Notification, Severity};

use super::message::{Effect, Message, topic};

/// Models whose last messages are remembered; more than one operator can look after.
const MODELS_MAX: usize = 10_000;

/// A message on its way to one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// What is told.
    pub message: Message,
    /// Not asked for: it only closes what may be open at a receiver that keeps incidents.
    pub is_closing_only: bool,
}

/// What goes to whom.
pub fn letters(notifications: &[Notification], messages: &[Message]) -> Vec<(String, Letter)> {
    let pairs = notifications.iter().flat_map(|to| messages.iter().map(move |message| (to, message)));
    pairs.filter_map(|(to, message)| Some((to.receiver.clone(), letter(to, message)?))).collect()
}

fn letter(to: &Notification, message: &Message) -> Option<Letter> {
    let is_severe = message.severity >= to.min_severity.unwrap_or(Severity::Warning);
    let is_wanted = is_severe && (to.events.is_empty() || to.events.contains(&message.event));
    let may_be_open =
        to.events.is_empty() || to.events.iter().any(|event| topic(*event) == topic(message.event));
    let is_closing = message.effect == Effect::Closes && may_be_open;
    (is_wanted || is_closing).then(|| Letter { message: message.clone(), is_closing_only: !is_wanted })
}

/// What was told of each model at the version of it that was looked at last. A reconcile may see a model as it was
/// before the status was written that the last reconcile wrote, and then finds the same changes once more.
#[derive(Debug, Default)]
pub struct Told(HashMap<String, (String, BTreeSet<String>)>);

impl Told {
    /// Leaves out what was told at this `version` of the object with this `uid`.
    pub fn only_new(&mut self, uid: &str, version: &str, messages: Vec<Message>) -> Vec<Message> {
        if messages.is_empty() {
            return messages;
        }
        if self.0.len() >= MODELS_MAX && !self.0.contains_key(uid) {
            self.0.clear();
        }
        let (seen, told) = self.0.entry(uid.to_owned()).or_default();
        if seen != version {
            version.clone_into(seen);
            told.clear();
        }
        messages.into_iter().filter(|message| told.insert(message.dedup_key())).collect()
    }
}

#[cfg(test)]
mod tests {
    use crds::notification::NotificationEvent;
    use serde_json::json;

    use super::super::message::tests::sample;
    use super::*;

    fn check(notification: &serde_json::Value, message: &Message, expected: Option<bool>) {
        let to: Notification = serde_json::from_value(notification.clone()).unwrap();
        let found = letters(&[to], std::slice::from_ref(message));
        let found = found.first().map(|(_, letter)| letter.is_closing_only);
        assert_eq!(found, expected, "{notification} {message:?}");
    }

    #[test]
    fn who_asked_for_it_gets_it() {
        let info = sample(Severity::Info, Effect::Tells);
        let critical = sample(Severity::Critical, Effect::Opens);
        check(&json!({"receiver": "a"}), &info, None);
        check(&json!({"receiver": "a", "minSeverity": "Info"}), &info, Some(false));
        check(&json!({"receiver": "a"}), &critical, Some(false));
        check(&json!({"receiver": "a", "events": ["Rollout"]}), &critical, None);
        check(&json!({"receiver": "a", "events": ["Rollout", "Serving"]}), &critical, Some(false));
    }

    #[test]
    fn the_end_of_an_incident_goes_to_whoever_may_have_it_open() {
        let end = sample(Severity::Info, Effect::Closes);
        check(&json!({"receiver": "a", "minSeverity": "Critical"}), &end, Some(true));
        check(&json!({"receiver": "a", "minSeverity": "Info"}), &end, Some(false));
        check(&json!({"receiver": "a", "events": ["Rollout"]}), &end, None);
        let promoted = Message { event: NotificationEvent::Rollout, ..end };
        check(&json!({"receiver": "a", "minSeverity": "Info", "events": ["Verdict"]}), &promoted, Some(true));
    }

    #[test]
    fn a_stale_view_tells_nothing_twice_and_a_fresh_one_may() {
        let mut told = Told::default();
        let message = sample(Severity::Critical, Effect::Opens);
        let mut at = |version: &str| told.only_new("u", version, vec![message.clone()]).len();
        assert_eq!([at("7"), at("7"), at("8"), at("8")], [1, 0, 1, 0]);
    }
}
