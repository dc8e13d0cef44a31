//! What gateways have said of the copies that a canary got, and what the status says of them. Pure.

use std::collections::BTreeMap;

use crds::model::{InferenceModelStatus, ShadowStatus};
use crds::report::ShadowCounts;

/// Gateways that are summed up, those that have gone included.
const GATEWAYS_MAX: usize = 256;

/// What came of the copies of a model's requests so far, and whose they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The canary.
    pub canary: String,
    /// Over all gateways.
    pub counts: ShadowCounts,
}

/// The copies that one canary got.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Shadows {
    /// The latest sums of each gateway, by its pod's UID.
    by_gateway: BTreeMap<String, ShadowCounts>,
    /// Of gateways' processes that have ended.
    before: ShadowCounts,
}

impl Shadows {
    /// Takes in what a gateway has counted since its process began.
    pub(super) fn hear(&mut self, gateway: &str, counts: ShadowCounts) {
        let last = self.by_gateway.get(gateway);
        if last.is_none() && self.by_gateway.len() >= GATEWAYS_MAX {
            return;
        }
        if let Some(ended) = last.filter(|last| last.compared_total > counts.compared_total) {
            self.before = self.before.plus(ended);
        }
        self.by_gateway.insert(gateway.to_owned(), counts);
    }

    /// All together; `None` before the first.
    pub(super) fn sum(&self) -> Option<ShadowCounts> {
        let sum = self.by_gateway.values().fold(self.before, |sum, counts| sum.plus(counts));
        (sum.compared_total > 0).then_some(sum)
    }
}

/// What `status.rollout.shadow` says of `canary`. It is rewritten when a tenth more has been compared: until then, and
/// while a new operator knows less, it stays.
pub fn status(
    before: Option<&InferenceModelStatus>,
    canary: Option<&str>,
    seen: Option<&Seen>,
) -> Option<ShadowStatus> {
    let canary = canary?;
    let of_it = before.filter(|before| before.canary_revision.as_deref() == Some(canary));
    let told = of_it.and_then(|before| before.rollout.as_ref()?.shadow.as_ref());
    let now = seen.filter(|seen| seen.canary == canary).map(|seen| summary(&seen.counts));
    match (told, now) {
        (Some(told), Some(now)) if now.compared * 10 < told.compared * 11 => Some(told.clone()),
        (told, now) => now.or(told.cloned()),
    }
}

fn summary(counts: &ShadowCounts) -> ShadowStatus {
    ShadowStatus {
        compared: whole(counts.compared_total),
        canary_errors: whole(counts.canary_errors_total),
        stable_errors: whole(counts.stable_errors_total),
        answered: whole(counts.answered_total),
        same_text: whole(counts.same_text_total),
        deterministic: whole(counts.deterministic_total),
        deterministic_same_text: whole(counts.deterministic_same_text_total),
        length_basis_points: change(counts.stable_characters_total, counts.canary_characters_total),
        first_text_basis_points: change(counts.stable_first_micros_total, counts.canary_first_micros_total),
        duration_basis_points: change(counts.stable_micros_total, counts.canary_micros_total),
    }
}

/// How much more the canary has, in hundredths of a percent; `None` without anything to compare with.
fn change(stable: u64, canary: u64) -> Option<i64> {
    let more = i128::from(canary) - i128::from(stable);
    let basis_points = (10_000 * more).checked_div(i128::from(stable))?;
    Some(i64::try_from(basis_points).unwrap_or(i64::MAX))
}

fn whole(count: u64) -> i64 {
    // Far from what an i64 cannot hold, also times eleven.
    i64::try_from(count).unwrap_or(i64::MAX).min(i64::MAX / 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(compared: u64) -> ShadowCounts {
        ShadowCounts {
            compared_total: compared,
            canary_errors_total: compared / 10,
            answered_total: compared - compared / 10,
            stable_micros_total: 1_000 * compared,
            canary_micros_total: 1_500 * compared,
            ..ShadowCounts::default()
        }
    }

    fn seen(compared: u64) -> Seen {
        Seen { canary: "tiny-b".into(), counts: counts(compared) }
    }

    fn told(shadow: Option<&ShadowStatus>) -> InferenceModelStatus {
        let rollout = json!({"phase": "Canary", "summary": "", "shadow": shadow});
        let rollout = serde_json::from_value(rollout).unwrap();
        let canary_revision = Some("tiny-b".to_owned());
        InferenceModelStatus { canary_revision, rollout: Some(rollout), ..InferenceModelStatus::default() }
    }

    #[test]
    fn gateways_are_added_up_and_one_that_begins_anew_goes_on() {
        let mut shadows = Shadows::default();
        assert_eq!(shadows.sum(), None);
        shadows.hear("g1", counts(30));
        shadows.hear("g2", counts(5));
        shadows.hear("g1", counts(40));
        assert_eq!(shadows.sum(), Some(counts(40).plus(&counts(5))));
        shadows.hear("g1", counts(2));
        assert_eq!(shadows.sum().unwrap().compared_total, 47);
        for number in 0..1_000 {
            shadows.hear(&format!("more-{number}"), counts(1));
        }
        assert_eq!(shadows.by_gateway.len(), GATEWAYS_MAX);
    }

    #[test]
    fn the_status_has_counts_and_changes_in_hundredths_of_a_percent() {
        let found = status(None, Some("tiny-b"), Some(&seen(100))).unwrap();
        assert_eq!((found.compared, found.canary_errors, found.answered), (100, 10, 90));
        assert_eq!((found.duration_basis_points, found.first_text_basis_points), (Some(5_000), None));
        assert_eq!(change(200, 150), Some(-2_500));
    }

    #[test]
    fn it_is_rewritten_for_a_tenth_more_and_ends_with_its_canary() {
        let compared = |before: Option<u64>, canary: &str, now: Option<u64>| {
            let before = told(before.map(|compared| summary(&counts(compared))).as_ref());
            status(Some(&before), Some(canary), now.map(seen).as_ref()).map(|shadow| shadow.compared)
        };
        assert_eq!(compared(None, "tiny-b", Some(1)), Some(1));
        assert_eq!(compared(Some(100), "tiny-b", Some(109)), Some(100));
        assert_eq!(compared(Some(100), "tiny-b", Some(110)), Some(110));
        assert_eq!(compared(Some(100), "tiny-b", Some(7)), Some(100), "a new operator knows less");
        assert_eq!(compared(Some(100), "tiny-b", None), Some(100));
        assert_eq!(compared(Some(100), "tiny-c", Some(500)), None, "another canary");
        assert_eq!(status(Some(&told(None)), None, Some(&seen(5))), None);
    }
}
