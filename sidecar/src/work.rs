//! What generations cost, for the load report: sums that only grow, and beside them a row for each generation that
//! ended a moment ago, so that whoever compares revisions sees requests and not only their mean. Knows no engine.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::report::{RECENT_MAX, RequestWork};
use engine::{Reuse, Usage};
use prometheus::IntCounter;

use crate::metrics::Families;

/// How long a row is reported: in five reports, so that four in a row may get lost.
const RECENT: Duration = Duration::from_secs(10);

/// A generation that waited less than this for its slot went straight through: the dispatcher's own time.
const WAITED_MIN: Duration = Duration::from_millis(5);

/// Sums over generations, and the rows of the latest.
pub struct Ledger {
    /// Came to their end.
    pub finished: IntCounter,
    /// Their prompt tokens.
    pub prompt_tokens: IntCounter,
    /// Of these, the ones that no cache held.
    pub uncached_tokens: IntCounter,
    /// Microseconds on their prompts.
    pub prefill_us: IntCounter,
    /// Of these, the ones beside other generations' decoding.
    pub overlap_us: IntCounter,
    /// Those that had waited for a slot.
    pub waited: IntCounter,
    /// Those whose earlier prompt the cache should have held.
    pub reuse_eligible: IntCounter,
    /// Those for which it did.
    pub reuse_hits: IntCounter,
    /// The engine's calls from their first tokens to their last.
    pub decode_steps: IntCounter,
    /// Their tokens after the first.
    pub decoded_tokens: IntCounter,
    /// First attempts that gave a token or failed before.
    pub first_attempts: IntCounter,
    /// First attempts that failed.
    pub first_attempt_errors: IntCounter,
    recent: Mutex<Recent>,
}

/// What was measured of one run of a generation on this side of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// 1 is the first.
    pub attempt: u8,
    /// The engine was lost under an earlier run, so the time to the first token holds that too.
    pub has_restarted: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// From its place in the queue to its slot.
    pub slot_wait: Duration,
    /// From arrival to the first token, once there is one.
    pub first_token: Option<Duration>,
    /// Tokens so far.
    pub output_tokens: u32,
}

// === impl Ledger ===

impl Ledger {
    /// Empty, with its counters among these families.
    pub(crate) fn new(new: &Families<'_>) -> Result<Self, prometheus::Error> {
        let of_choices = |name: &str, help| new.counter(&format!("inferno_choices_{name}_total"), help);
        Ok(Self {
            finished: of_choices("finished", "Choices that came to their end.")?,
            prompt_tokens: of_choices("prompt_tokens", "Prompt tokens of finished choices.")?,
            uncached_tokens: of_choices(
                "uncached_tokens",
                "Prompt tokens of finished choices that no cache held.",
            )?,
            prefill_us: of_choices("prefill_microseconds", "Time on the prompts of finished choices.")?,
            overlap_us: of_choices(
                "prefill_overlap_microseconds",
                "Time on the prompts of finished choices while others were decoding.",
            )?,
            waited: of_choices("waited", "Finished choices that had waited for a slot.")?,
            reuse_eligible: of_choices(
                "reuse_eligible",
                "Finished choices that went on from a prompt served a short while before.",
            )?,
            reuse_hits: of_choices("reuse_hits", "Those of them that found that prompt in the cache.")?,
            decode_steps: of_choices(
                "decode_steps",
                "Calls of the engine from the first to the last token of finished choices.",
            )?,
            decoded_tokens: of_choices("decoded_tokens", "Tokens of finished choices after the first.")?,
            first_attempts: of_choices("first_attempts", "Choices at their first attempt.")?,
            first_attempt_errors: of_choices(
                "first_attempt_errors",
                "Choices that failed at their first attempt, also when they were begun anew.",
            )?,
            recent: Mutex::default(),
        })
    }

    /// A generation gave its first token.
    pub fn has_begun(&self, attempt: u8) {
        if attempt == 1 {
            self.first_attempts.inc();
        }
    }

    /// A generation came to its end.
    pub fn has_finished(&self, course: &Course, usage: &Usage, now: Instant) {
        let row = finished(course, usage);
        self.finished.inc();
        self.prompt_tokens.inc_by(row.prompt_tokens.into());
        self.uncached_tokens.inc_by(row.uncached_tokens.into());
        self.prefill_us.inc_by(row.prefill_micros);
        self.overlap_us.inc_by(usage.overlap_us);
        self.waited.inc_by(row.has_waited.into());
        self.reuse_eligible.inc_by(row.is_reuse_eligible.into());
        self.reuse_hits.inc_by(row.is_reuse_hit.into());
        self.decode_steps.inc_by(row.decode_steps.into());
        self.decoded_tokens.inc_by(usage.decoded_tokens.into());
        self.recent().push(row, now);
    }

    /// A generation failed, and not by its client's fault.
    pub fn has_failed(&self, course: &Course, now: Instant) {
        if course.first_token.is_none() {
            self.has_begun(course.attempt);
        }
        if course.attempt == 1 {
            self.first_attempt_errors.inc();
        }
        self.recent().push(failed(course), now);
    }

    /// The rows of what ended within the last seconds, oldest first.
    pub fn rows(&self, now: Instant) -> Vec<RequestWork> {
        self.recent().rows(now)
    }

    /// A panic in another holder leaves whole rows.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finished(course: &Course, usage: &Usage) -> RequestWork {
    let overlap_permille = (usage.overlap_us * 1_000).checked_div(usage.prefill_us).unwrap_or(0).min(1_000);
    RequestWork {
        uncached_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        prefill_micros: usage.prefill_us,
        overlap_permille: u16::try_from(overlap_permille).unwrap_or(u16::MAX),
        output_tokens: usage.decoded_tokens.saturating_add(1),
        decode_steps: usage.decode_steps,
        is_unqueued: usage.is_unqueued && course.slot_wait < WAITED_MIN && !course.has_restarted,
        is_reuse_eligible: usage.reuse != Reuse::NotDue,
        is_reuse_hit: usage.reuse == Reuse::Hit,
        has_failed: false,
        ..failed(course)
    }
}

fn failed(course: &Course) -> RequestWork {
    let ttft = course.first_token.unwrap_or_default();
    RequestWork {
        prompt_tokens: course.prompt_tokens,
        ttft_micros: u64::try_from(ttft.as_micros()).unwrap_or(u64::MAX),
        output_tokens: course.output_tokens,
        has_waited: course.slot_wait >= WAITED_MIN,
        attempt: course.attempt,
        has_failed: true,
        ..RequestWork::default()
    }
}

/// The latest rows, with when each ended.
#[derive(Debug, Default)]
struct Recent {
    rows: VecDeque<(Instant, RequestWork)>,
    ordinal: u64,
}

impl Recent {
    fn push(&mut self, row: RequestWork, now: Instant) {
        self.ordinal += 1;
        if self.rows.len() == RECENT_MAX {
            self.rows.pop_front();
        }
        self.rows.push_back((now, RequestWork { ordinal: self.ordinal, ..row }));
    }

    fn rows(&self, now: Instant) -> Vec<RequestWork> {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < RECENT;
        self.rows.iter().filter(|(at, _)| is_recent(*at)).map(|(_, row)| *row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use proptest::prelude::*;

    const COURSE: Course = Course {
        attempt: 1,
        has_restarted: false,
        prompt_tokens: 100,
        slot_wait: Duration::ZERO,
        first_token: Some(Duration::from_millis(40)),
        output_tokens: 7,
    };

    fn usage() -> Usage {
        Usage {
            prompt_tokens: 100,
            cached_tokens: 60,
            prefill_us: 8_000,
            overlap_us: 2_000,
            decoded_tokens: 9,
            decode_steps: 12,
            is_unqueued: true,
            reuse: Reuse::Hit,
            ..Usage::default()
        }
    }

    #[test]
    fn a_row_and_the_sums_say_what_one_generation_cost() {
        let metrics = Metrics::new("tiny").unwrap();
        let now = Instant::now();
        metrics.work.has_begun(1);
        metrics.work.has_finished(&COURSE, &usage(), now);
        let expected = RequestWork {
            ordinal: 1,
            uncached_tokens: 40,
            prompt_tokens: 100,
            prefill_micros: 8_000,
            overlap_permille: 250,
            ttft_micros: 40_000,
            output_tokens: 10,
            decode_steps: 12,
            is_unqueued: true,
            is_reuse_eligible: true,
            is_reuse_hit: true,
            attempt: 1,
            ..RequestWork::default()
        };
        assert_eq!(metrics.work.rows(now), [expected]);
        let work = &metrics.work;
        let sums = [
            &work.overlap_us,
            &work.decode_steps,
            &work.decoded_tokens,
            &work.reuse_eligible,
            &work.reuse_hits,
        ];
        assert_eq!(sums.map(IntCounter::get), [2_000, 12, 9, 1, 1]);
        let attempts = [&work.first_attempts, &work.first_attempt_errors, &work.waited];
        assert_eq!(attempts.map(IntCounter::get), [1, 0, 0]);
    }

    #[test]
    fn who_waited_or_was_begun_anew_did_not_go_straight_through() {
        let check = |course: &Course| finished(course, &usage()).is_unqueued;
        assert!(check(&COURSE));
        assert!(!check(&Course { slot_wait: WAITED_MIN, ..COURSE }));
        assert!(!check(&Course { has_restarted: true, ..COURSE }));
    }

    #[test]
    fn each_first_attempt_is_counted_once_whether_it_fails_before_or_after_its_first_token() {
        let work = Metrics::new("tiny").unwrap().work;
        let now = Instant::now();
        work.has_begun(1);
        work.has_failed(&COURSE, now);
        work.has_failed(&Course { first_token: None, output_tokens: 0, ..COURSE }, now);
        work.has_failed(&Course { attempt: 2, ..COURSE }, now);
        assert_eq!(
            (work.first_attempts.get(), work.first_attempt_errors.get(), work.finished.get()),
            (2, 2, 0)
        );
        let rows = work.rows(now);
        assert!(rows.iter().all(|row| row.has_failed && row.prefill_micros == 0));
        let facts: Vec<_> =
            rows.iter().map(|row| (row.attempt, row.output_tokens, row.ttft_micros)).collect();
        assert_eq!(facts, [(1, 7, 40_000), (1, 0, 0), (2, 7, 40_000)]);
    }

    proptest! {
        #[test]
        fn rows_are_the_newest_of_the_last_seconds_numbered_without_a_gap(
            pauses_ms in proptest::collection::vec(0u64..200, 1..700),
            later_ms in 0u64..12_000,
        ) {
            let mut recent = Recent::default();
            let mut now = Instant::now();
            let mut ends = Vec::new();
            for pause_ms in pauses_ms {
                now += Duration::from_millis(pause_ms);
                recent.push(failed(&COURSE), now);
                ends.push(now);
            }
            let now = now + Duration::from_millis(later_ms);
            let kept = ends.iter().filter(|end| now - **end < RECENT).count().min(RECENT_MAX);
            let ordinals: Vec<_> = recent.rows(now).iter().map(|row| row.ordinal).collect();
            let last = ends.len() as u64;
            prop_assert_eq!(ordinals, (last + 1 - kept as u64..=last).collect::<Vec<_>>());
            prop_assert!(recent.rows.len() <= RECENT_MAX);
        }
    }
}
