//! What generations cost, for the load report: sums that only grow, and beside them rows of the generations that began
//! to answer or ended a moment ago, so that whoever compares revisions sees requests and not only their mean. A
//! generation has a row when its first token comes, since its answer may take a minute more, and one at its end. Knows
//! no engine.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::report::{Part, RECENT_MAX, RequestWork};
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
    /// Those that are in the queue or in a slot now.
    in_flight: AtomicU32,
    recent: Mutex<Recent>,
}

/// A generation on its way through the pod, from its place in the queue to its end. If it is dropped before it told its
/// end, nobody wanted that any more.
pub struct Stay {
    ledger: Arc<Ledger>,
    /// What is known so far.
    row: RequestWork,
    queued_at: Instant,
    /// The engine was lost under an earlier run, so the time to the first token holds that too.
    has_restarted: bool,
    has_slot: bool,
    /// When its first and its latest token came.
    tokens_at: Option<(Instant, Instant)>,
    /// Its row of its end is written.
    is_told: bool,
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
            in_flight: AtomicU32::new(0),
            recent: Mutex::default(),
        })
    }

    /// A generation is in the queue from now on; `attempt` 1 is the client's first.
    pub fn enter(self: &Arc<Self>, attempt: u8, prompt_tokens: u32, now: Instant) -> Stay {
        let in_flight_before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let row = RequestWork {
            prompt_tokens,
            inter_token_micros: Some(0),
            in_flight_before: Some(u16::try_from(in_flight_before).unwrap_or(u16::MAX)),
            attempt,
            ..RequestWork::default()
        };
        Stay {
            ledger: self.clone(),
            row,
            queued_at: now,
            has_restarted: false,
            has_slot: false,
            tokens_at: None,
            is_told: false,
        }
    }

    fn count_attempt(&self, attempt: u8) {
        if attempt == 1 {
            self.first_attempts.inc();
        }
    }

    fn count_finished(&self, row: &RequestWork, usage: &Usage) {
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
    }

    /// The rows of the last seconds, oldest first.
    pub fn rows(&self, now: Instant) -> Vec<RequestWork> {
        self.recent().rows(now)
    }

    /// A panic in another holder leaves whole rows.
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stay ===

impl Stay {
    /// It has a slot.
    pub fn has_slot(&mut self, now: Instant) {
        self.has_slot = true;
        self.row.has_waited = now.saturating_duration_since(self.queued_at) >= WAITED_MIN;
    }

    /// It gave its first token, so long after its request arrived; `usage` says what the prompt cost.
    pub fn has_begun(&mut self, usage: &Usage, ttft: Duration, now: Instant) {
        self.ledger.count_attempt(self.row.attempt);
        self.tokens_at = Some((now, now));
        let went_straight_through = !self.row.has_waited && !self.has_restarted;
        let overlap = (usage.overlap_us * 1_000).checked_div(usage.prefill_us).unwrap_or(0).min(1_000);
        self.row = RequestWork {
            part: Part::Answer,
            uncached_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            prefill_micros: usage.prefill_us,
            overlap_permille: u16::try_from(overlap).unwrap_or(u16::MAX),
            ttft_micros: micros(ttft),
            is_unqueued: usage.is_unqueued && went_straight_through,
            is_reuse_eligible: usage.reuse != Reuse::NotDue,
            is_reuse_hit: usage.reuse == Reuse::Hit,
            ..self.row
        };
        self.push(RequestWork { part: Part::Prompt, ..self.row }, now);
    }

    /// It said so many tokens.
    pub fn has_said(&mut self, tokens: usize, now: Instant) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.row.output_tokens = self.row.output_tokens.saturating_add(tokens);
        if let Some((_, latest)) = &mut self.tokens_at {
            *latest = now;
        }
    }

    /// It came to its end.
    pub fn has_finished(&mut self, usage: &Usage, now: Instant) {
        // By the engine's clock: a client that reads slowly does not make the model slow.
        let between = usage.decode_us.checked_div(usage.decoded_tokens.into()).unwrap_or(0);
        self.row.inter_token_micros = Some(between);
        self.row.decode_steps = usage.decode_steps;
        self.row.output_tokens = usage.decoded_tokens.saturating_add(1);
        self.ledger.count_finished(&self.row, usage);
        self.end(self.row, now);
    }

    /// It failed, and not by its client's fault.
    pub fn has_failed(&mut self, now: Instant) {
        if self.tokens_at.is_none() {
            self.ledger.count_attempt(self.row.attempt);
        }
        if self.row.attempt == 1 {
            self.ledger.first_attempt_errors.inc();
        }
        self.end(RequestWork { has_failed: true, ..self.row }, now);
    }

    /// It is in the queue again after a failure; an attempt of its own, that began with the request.
    pub fn begins_anew(&mut self, now: Instant) {
        let RequestWork { attempt, prompt_tokens, in_flight_before, .. } = self.row;
        self.row = RequestWork {
            attempt: attempt.saturating_add(1),
            prompt_tokens,
            in_flight_before,
            inter_token_micros: Some(0),
            ..RequestWork::default()
        };
        (self.queued_at, self.tokens_at) = (now, None);
        (self.has_restarted, self.has_slot, self.is_told) = (true, false, false);
    }

    fn end(&mut self, row: RequestWork, now: Instant) {
        self.is_told = true;
        self.push(row, now);
    }

    fn push(&self, row: RequestWork, now: Instant) {
        self.ledger.recent().push(row, now);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.ledger.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_told {
            return;
        }
        let now = Instant::now();
        if !self.has_slot {
            self.has_slot(now);
        }
        let spoke =
            self.tokens_at.map_or(Duration::ZERO, |(first, latest)| latest.saturating_duration_since(first));
        let between = micros(spoke).checked_div(self.row.output_tokens.saturating_sub(1).into());
        let row =
            RequestWork { inter_token_micros: Some(between.unwrap_or(0)), was_cancelled: true, ..self.row };
        self.push(row, now);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The latest rows, with when each was written.
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

    const TTFT: Duration = Duration::from_millis(40);

    /// What the engine says with the first token, and at the end.
    fn usages() -> (Usage, Usage) {
        let prompt = Usage {
            prompt_tokens: 100,
            cached_tokens: 60,
            prefill_us: 8_000,
            overlap_us: 2_000,
            is_unqueued: true,
            reuse: Reuse::Hit,
            ..Usage::default()
        };
        (prompt, Usage { decoded_tokens: 9, decode_steps: 12, decode_us: 90_000, ..prompt })
    }

    fn ledger() -> Arc<Ledger> {
        Metrics::new("tiny").unwrap().work
    }

    /// A generation whose slot came after so long.
    fn admitted(ledger: &Arc<Ledger>, attempt: u8, slot_wait: Duration, now: Instant) -> Stay {
        let mut stay = ledger.enter(attempt, 100, now);
        stay.has_slot(now + slot_wait);
        stay
    }

    #[test]
    fn the_rows_and_the_sums_say_what_one_generation_cost() {
        let (ledger, now) = (ledger(), Instant::now());
        let (prompt, whole) = usages();
        let mut stay = admitted(&ledger, 1, Duration::ZERO, now);
        stay.has_begun(&prompt, TTFT, now);
        let of_prompt = RequestWork {
            ordinal: 1,
            part: Part::Prompt,
            uncached_tokens: 40,
            prompt_tokens: 100,
            prefill_micros: 8_000,
            overlap_permille: 250,
            ttft_micros: 40_000,
            inter_token_micros: Some(0),
            in_flight_before: Some(0),
            is_unqueued: true,
            is_reuse_eligible: true,
            is_reuse_hit: true,
            attempt: 1,
            ..RequestWork::default()
        };
        assert_eq!(ledger.rows(now), [of_prompt]);
        stay.has_said(3, now);
        stay.has_finished(&whole, now);
        drop(stay);
        let of_answer = RequestWork {
            ordinal: 2,
            part: Part::Answer,
            inter_token_micros: Some(10_000),
            output_tokens: 10,
            decode_steps: 12,
            ..of_prompt
        };
        assert_eq!(ledger.rows(now), [of_prompt, of_answer], "the end is told once");
        let sums = [
            &ledger.overlap_us,
            &ledger.decode_steps,
            &ledger.decoded_tokens,
            &ledger.reuse_eligible,
            &ledger.reuse_hits,
        ];
        assert_eq!(sums.map(IntCounter::get), [2_000, 12, 9, 1, 1]);
        let attempts = [&ledger.first_attempts, &ledger.first_attempt_errors, &ledger.waited];
        assert_eq!(attempts.map(IntCounter::get), [1, 0, 0]);
    }

    #[test]
    fn who_waited_or_was_begun_anew_did_not_go_straight_through() {
        let is_unqueued = |slot_wait, has_restarted| {
            let (ledger, now) = (ledger(), Instant::now());
            let mut stay = admitted(&ledger, 1, slot_wait, now);
            if has_restarted {
                stay.has_failed(now);
                stay.begins_anew(now);
                stay.has_slot(now);
            }
            stay.has_begun(&usages().0, TTFT, now);
            let row = ledger.rows(now).pop().unwrap();
            (row.is_unqueued, row.has_waited)
        };
        assert_eq!(is_unqueued(Duration::ZERO, false), (true, false));
        assert_eq!(is_unqueued(WAITED_MIN, false), (false, true));
        assert_eq!(is_unqueued(Duration::ZERO, true), (false, false));
    }

    #[test]
    fn who_comes_finds_those_in_flight_who_have_not_left() {
        let (ledger, now) = (ledger(), Instant::now());
        let found = |stay: &Stay| stay.row.in_flight_before;
        let (first, second) = (ledger.enter(1, 5, now), admitted(&ledger, 1, Duration::ZERO, now));
        assert_eq!((found(&first), found(&second)), (Some(0), Some(1)));
        drop(first);
        let mut third = ledger.enter(1, 5, now);
        assert_eq!(found(&third), Some(1));
        third.has_failed(now);
        third.begins_anew(now);
        assert_eq!(found(&third), Some(1), "as it found the pod when it came");
        drop((second, third));
        assert_eq!(found(&ledger.enter(1, 5, now)), Some(0));
    }

    #[test]
    fn who_left_is_told_with_what_was_known_of_it() {
        let (ledger, now) = (ledger(), Instant::now());
        drop(ledger.enter(1, 7, now.checked_sub(WAITED_MIN).unwrap()));
        let mut stay = admitted(&ledger, 1, Duration::ZERO, now);
        stay.has_begun(&usages().0, TTFT, now);
        stay.has_said(1, now + Duration::from_millis(10));
        stay.has_said(2, now + Duration::from_millis(50));
        drop(stay);
        let rows = ledger.rows(now);
        let [waiting, _, speaking] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(waiting.was_cancelled && waiting.has_waited && !waiting.has_failed, "{waiting:?}");
        assert_eq!((waiting.part, waiting.prompt_tokens, waiting.ttft_micros), (Part::Whole, 7, 0));
        assert!(speaking.was_cancelled && !speaking.has_waited, "{speaking:?}");
        assert_eq!((speaking.part, speaking.ttft_micros), (Part::Answer, 40_000));
        assert_eq!((speaking.output_tokens, speaking.inter_token_micros), (3, Some(25_000)));
        assert_eq!(ledger.first_attempts.get(), 1, "one had a first token");
    }

    #[test]
    fn each_first_attempt_is_counted_once_whether_it_fails_before_or_after_its_first_token() {
        let (ledger, now) = (ledger(), Instant::now());
        let mut late = admitted(&ledger, 1, Duration::ZERO, now);
        late.has_begun(&usages().0, TTFT, now);
        late.has_said(7, now);
        late.has_failed(now);
        admitted(&ledger, 1, Duration::ZERO, now).has_failed(now);
        admitted(&ledger, 2, Duration::ZERO, now).has_failed(now);
        assert_eq!(
            (ledger.first_attempts.get(), ledger.first_attempt_errors.get(), ledger.finished.get()),
            (2, 2, 0)
        );
        let rows = ledger.rows(now);
        let facts: Vec<_> =
            rows.iter().map(|row| (row.part, row.attempt, row.output_tokens, row.has_failed)).collect();
        let expected = [
            (Part::Prompt, 1, 0, false),
            (Part::Answer, 1, 7, true),
            (Part::Whole, 1, 0, true),
            (Part::Whole, 2, 0, true),
        ];
        assert_eq!(facts, expected);
    }

    proptest! {
        #[test]
        fn rows_are_the_newest_of_the_last_seconds_numbered_without_a_gap(
            pauses_ms in proptest::collection::vec(0u64..200, 1..1_200),
            later_ms in 0u64..12_000,
        ) {
            let mut recent = Recent::default();
            let mut now = Instant::now();
            let mut written = Vec::new();
            for pause_ms in pauses_ms {
                now += Duration::from_millis(pause_ms / 8);
                recent.push(RequestWork::default(), now);
                written.push(now);
            }
            let now = now + Duration::from_millis(later_ms);
            let kept = written.iter().filter(|at| now - **at < RECENT).count().min(RECENT_MAX);
            let ordinals: Vec<_> = recent.rows(now).iter().map(|row| row.ordinal).collect();
            let last = written.len() as u64;
            prop_assert_eq!(ordinals, (last + 1 - kept as u64..=last).collect::<Vec<_>>());
            prop_assert!(recent.rows.len() <= RECENT_MAX);
        }
    }
}
