//! When a message that could not be sent is sent again, and when it is given up. Pure.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};

/// How patient the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Attempts for one message.
    pub attempts_max: u32,
    /// News that is older is none.
    pub age_max: Duration,
    /// How long a receiver may take to answer.
    pub timeout: Duration,
    /// Pause after the first failure; it doubles with each.
    pub pause_first: Duration,
    /// Longest pause, unless the receiver asks for a longer one.
    pub pause_max: Duration,
}

impl Default for Pace {
    /// 1, 2, 4, … 60 s: twelve attempts in five to six minutes, which outlasts a receiver's restart. After a quarter of an
    /// hour an alarm says more about the past than about the model.
    fn default() -> Self {
        Self {
            attempts_max: 12,
            age_max: Duration::from_secs(15 * 60),
            timeout: Duration::from_secs(10),
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }
}

impl Pace {
    /// The pause after the `attempt`-th failure of a message of this age, if it is to be tried again. `chance` in 0..1
    /// spreads those who failed together.
    pub fn pause(
        &self,
        attempt: u32,
        age: Duration,
        asked_for: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        if attempt >= self.attempts_max {
            return None;
        }
        let doubled = self.pause_first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let spread = doubled.min(self.pause_max).mul_f64(0.5 + chance / 2.0);
        let pause = spread.max(asked_for.unwrap_or_default());
        (age.saturating_add(pause) <= self.age_max).then_some(pause)
    }

    /// Whether a message of this age is still worth sending.
    pub fn is_fresh(&self, age: Duration) -> bool {
        age <= self.age_max
    }
}

/// Whether the same message may be accepted later: the receiver is busy or broken, and did not say no.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// The pause that a `Retry-After` header asks for: seconds, or a date.
pub fn asked_for(header: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(header.trim()).ok()?;
    Some(Duration::from_secs(u64::try_from(date.as_second() - now.as_second()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attempt: u32, age: u64, asked_for: Option<u64>, chance: f64, expected: Option<f64>) {
        let pause = Pace::default().pause(
            attempt,
            Duration::from_secs(age),
            asked_for.map(Duration::from_secs),
            chance,
        );
        assert_eq!(pause.map(|pause| pause.as_secs_f64()), expected, "after attempt {attempt} at {age} s");
    }

    #[test]
    fn pauses_double_and_are_spread() {
        check(1, 0, None, 1.0, Some(1.0));
        check(1, 0, None, 0.0, Some(0.5));
        check(4, 0, None, 1.0, Some(8.0));
        check(11, 0, None, 1.0, Some(60.0));
    }

    #[test]
    fn attempts_and_age_have_an_end() {
        check(12, 0, None, 0.0, None);
        check(5, 890, None, 1.0, None);
        check(5, 880, None, 1.0, Some(16.0));
    }

    #[test]
    fn a_receiver_may_ask_for_more_patience_but_not_for_any() {
        check(1, 0, Some(120), 1.0, Some(120.0));
        check(8, 0, Some(1), 1.0, Some(60.0));
        check(1, 0, Some(u64::MAX), 1.0, None);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(asked_for("30", now), Some(Duration::from_secs(30)));
        assert_eq!(asked_for("Fri, 15 Jan 2027 08:01:00 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(asked_for("soon", now), None);
    }

    #[test]
    fn a_no_is_final() {
        let passing: Vec<u16> = [200, 302, 400, 403, 404, 408, 429, 500, 503]
            .into_iter()
            .filter(|code| is_passing(*code))
            .collect();
        assert_eq!(passing, [408, 429, 500, 503]);
    }
}
