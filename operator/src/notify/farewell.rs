//! What is told when a model is deleted: nothing is wrong with it any more. The object is gone by then, so whom it had
//! named is remembered from the last look at it. Pure.

use std::collections::HashMap;

use crds::model::InferenceModel;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::message::{Subject, endings};
use super::routing::Letter;

/// Models that are remembered; more than one operator can look after.
const MODELS_MAX: usize = 10_000;

/// Whom each model has named, and its UID, by namespace and name.
#[derive(Debug, Default)]
pub struct Known(HashMap<(String, String), (String, Vec<String>)>);

impl Known {
    /// Remembers whom the model names now.
    pub fn meet(&mut self, model: &InferenceModel) {
        let key = (model.namespace().unwrap_or_default(), model.name_any());
        let receivers: Vec<String> =
            model.spec.notifications.iter().map(|notification| notification.receiver.clone()).collect();
        if receivers.is_empty() {
            self.0.remove(&key);
        } else if self.0.len() < MODELS_MAX || self.0.contains_key(&key) {
            self.0.insert(key, (model.uid().unwrap_or_default(), receivers));
        }
    }

    /// What closes everything that the deleted model may have open, at whoever keeps incidents. Once.
    pub fn part(
        &mut self,
        (namespace, name): (&str, &str),
        cluster: Option<&str>,
        now: Timestamp,
    ) -> Vec<(String, Letter)> {
        let Some((uid, receivers)) = self.0.remove(&(namespace.to_owned(), name.to_owned())) else {
            return Vec::new();
        };
        let messages = endings(Subject { namespace, name, uid: &uid, cluster }, now);
        let letter = |message: &_| Letter { message: Clone::clone(message), is_closing_only: true };
        let to = |receiver: &String| messages.each_ref().map(|message| (receiver.clone(), letter(message)));
        receivers.iter().flat_map(to).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn model(receivers: &[&str]) -> InferenceModel {
        let named: Vec<_> = receivers.iter().map(|receiver| json!({"receiver": receiver})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "tiny", "namespace": "default", "uid": "u"},
            "spec": {"poolRef": {"name": "cpu"}, "source": {}, "notifications": named},
        }))
        .unwrap()
    }

    #[test]
    fn the_incidents_of_a_deleted_model_are_closed_once_where_it_had_them_last() {
        let (mut known, now) = (Known::default(), Timestamp::from_second(1_800_000_000).unwrap());
        known.meet(&model(&["pager", "chat"]));
        known.meet(&model(&["pager"]));
        let mut parted = |name: &str| {
            let letters = known.part(("default", name), Some("north"), now).into_iter();
            let told = letters.map(|(receiver, letter)| {
                assert!(letter.is_closing_only);
                (receiver, letter.message.incident_key())
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(parted("other"), []);
        let at = |topic: &str| ("pager".to_owned(), format!("inferno/north/default/tiny/{topic}"));
        assert_eq!(parted("tiny"), [at("serving"), at("rollout")]);
        assert_eq!(parted("tiny"), []);
        known.meet(&model(&["pager"]));
        known.meet(&model(&[]));
        assert_eq!(known.part(("default", "tiny"), None, now), []);
    }
}
