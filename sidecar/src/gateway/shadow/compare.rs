//! Two answers to one request beside each other: the client's, and the one to its copy. Pure.

use std::time::Duration;

use crds::report::ShadowCounts;
use serde::Deserialize;

use super::reading::Text;

/// How one side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a whole answer.
    Answered(Heard),
    /// With a whole answer that is not in a form that we read.
    Unread,
    /// The request itself is wrong, the pod says.
    Refused,
    /// Without a whole answer.
    Failed,
}

/// A whole answer. Times begin when both were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Until its first text, if it came as a stream and had any.
    pub first: Option<Duration>,
    /// Until its end.
    pub whole: Duration,
    /// What it said.
    pub text: Text,
}

/// Whether a request should get the same text each time: its dice always choose the most likely token, or begin alike.
/// (Pods that decode several sequences at once may still round differently.)
pub fn is_deterministic(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Dice {
        temperature: Option<f64>,
        seed: Option<i64>,
    }
    let dice = serde_json::from_slice::<Dice>(body);
    dice.is_ok_and(|dice| {
        dice.seed.is_some() || dice.temperature.is_some_and(|temperature| temperature <= 0.0)
    })
}

/// What a pair adds to the counts; `None` if it says nothing about the canary.
pub fn compare(original: Ending, copy: Ending, is_deterministic: bool) -> Option<ShadowCounts> {
    let pair = ShadowCounts { compared_total: 1, ..ShadowCounts::default() };
    let (stable, canary) = match (original, copy) {
        (Ending::Answered(stable), Ending::Answered(canary)) => (stable, canary),
        (Ending::Refused | Ending::Unread, _) | (_, Ending::Unread) => return None,
        (original, copy) => {
            let is_answered = |ending| matches!(ending, Ending::Answered(_));
            return Some(ShadowCounts {
                canary_errors_total: u64::from(!is_answered(copy)),
                stable_errors_total: u64::from(!is_answered(original)),
                ..pair
            });
        }
    };
    let is_same = u64::from(stable.text == canary.text);
    let firsts = stable.first.zip(canary.first);
    Some(ShadowCounts {
        answered_total: 1,
        same_text_total: is_same,
        deterministic_total: is_deterministic.into(),
        deterministic_same_text_total: is_same * u64::from(is_deterministic),
        stable_characters_total: stable.text.characters,
        canary_characters_total: canary.text.characters,
        stable_micros_total: micros(stable.whole),
        canary_micros_total: micros(canary.whole),
        streamed_total: firsts.is_some().into(),
        stable_first_micros_total: firsts.map_or(0, |(stable, _)| micros(stable)),
        canary_first_micros_total: firsts.map_or(0, |(_, canary)| micros(canary)),
        ..pair
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(hash: u64, first_ms: Option<u64>, whole_ms: u64) -> Ending {
        let text = Text { hash, characters: 10 * hash };
        let first = first_ms.map(Duration::from_millis);
        Ending::Answered(Heard { first, whole: Duration::from_millis(whole_ms), text })
    }

    #[test]
    fn two_answers_are_compared_by_text_length_and_time() {
        let pair = compare(answered(1, Some(5), 20), answered(1, Some(8), 50), true);
        let expected = ShadowCounts {
            compared_total: 1,
            answered_total: 1,
            same_text_total: 1,
            deterministic_total: 1,
            deterministic_same_text_total: 1,
            stable_characters_total: 10,
            canary_characters_total: 10,
            stable_micros_total: 20_000,
            canary_micros_total: 50_000,
            streamed_total: 1,
            stable_first_micros_total: 5_000,
            canary_first_micros_total: 8_000,
            ..ShadowCounts::default()
        };
        assert_eq!(pair, Some(expected));
        let other = compare(answered(1, None, 20), answered(2, Some(8), 50), true).unwrap();
        assert_eq!((other.same_text_total, other.deterministic_same_text_total), (0, 0));
        assert_eq!(
            (other.streamed_total, other.canary_first_micros_total),
            (0, 0),
            "one of two has no first text"
        );
        let dice = compare(answered(1, None, 20), answered(1, None, 50), false).unwrap();
        assert_eq!((dice.same_text_total, dice.deterministic_total), (1, 0));
    }

    #[test]
    fn who_failed_is_told_and_what_says_nothing_is_left_out() {
        let check = |original, copy| {
            compare(original, copy, true).map(|pair| {
                assert_eq!((pair.compared_total, pair.answered_total, pair.deterministic_total), (1, 0, 0));
                (pair.stable_errors_total, pair.canary_errors_total)
            })
        };
        let fine = answered(1, None, 20);
        assert_eq!(check(fine, Ending::Failed), Some((0, 1)));
        assert_eq!(check(fine, Ending::Refused), Some((0, 1)), "what the one takes the other must take");
        assert_eq!(check(Ending::Failed, fine), Some((1, 0)));
        assert_eq!(check(Ending::Failed, Ending::Failed), Some((1, 1)));
        assert_eq!(check(Ending::Refused, Ending::Refused), None);
        assert_eq!(check(Ending::Refused, fine), None);
        assert_eq!(check(fine, Ending::Unread), None);
        assert_eq!(check(Ending::Unread, Ending::Failed), None);
    }

    #[test]
    fn a_text_can_be_expected_with_temperature_zero_or_a_seed() {
        for body in [r#"{"temperature":0}"#, r#"{"temperature":0.0,"x":[1]}"#, r#"{"seed":7}"#] {
            assert!(is_deterministic(body.as_bytes()), "{body}");
        }
        for body in ["{}", r#"{"temperature":0.1}"#, r#"{"seed":null}"#, "[", r#"{"temperature":"0"}"#] {
            assert!(!is_deterministic(body.as_bytes()), "{body}");
        }
    }
}
