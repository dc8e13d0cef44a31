//! How much a report weighs: the operator refuses one that is too long, and then knows nothing of the pod.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use crds::report::{
    DecodeWork, LATENCY_BOUNDS_MS, Load, OpenedModel, Part, Phase, RECENT_MAX, REPORT_BYTES_MAX, Report,
    RequestWork, Work,
};
use serde_json::json;

fn report(name: &str, load: Load) -> Report {
    let opened = OpenedModel {
        architecture: "llama".into(),
        quantization: "Q4_K - Medium".into(),
        size_bytes: 5_733_089_280,
        trained_context_length: 131_072,
        context_length: 8_192,
        sha256: None,
        layers_total: 32,
        layers_offloaded: 32,
        load_seconds: 90,
    };
    Report {
        namespace: name.into(),
        pod: name.into(),
        pod_uid: name.into(),
        model: name.into(),
        revision: name.into(),
        sequence: 43_200,
        uptime_ms: 86_400_000,
        phase: Phase::Serving,
        opened: Some(opened),
        load: Some(load),
    }
}

/// The load of a pod of eight slots after a day, that has ended four requests per second of late. Figures grow with
/// `number` as they do from request to request.
fn busy() -> Load {
    let day = |number: u64| number * 24 * 3_600;
    let row = |number: u64| RequestWork {
        ordinal: day(4) + number,
        part: Part::Answer,
        uncached_tokens: 80 + u32::try_from(number).unwrap(),
        prompt_tokens: 1_500 + 31 * u32::try_from(number).unwrap(),
        prefill_micros: 190_000 + 1_731 * number,
        overlap_permille: if number.is_multiple_of(4) { 0 } else { 870 },
        ttft_micros: 240_000 + 2_917 * number,
        inter_token_micros: Some(21_000 + 97 * number),
        output_tokens: 180 + u32::try_from(number).unwrap(),
        decode_steps: 179 + u32::try_from(number).unwrap(),
        in_flight_before: Some(u16::try_from(number % 9).unwrap()),
        is_unqueued: number.is_multiple_of(3),
        has_waited: number.is_multiple_of(5),
        is_reuse_eligible: number.is_multiple_of(2),
        is_reuse_hit: number.is_multiple_of(2),
        attempt: if number.is_multiple_of(20) { 2 } else { 1 },
        has_failed: false,
        was_cancelled: number.is_multiple_of(13),
    };
    let prompt = |row: RequestWork| RequestWork {
        part: Part::Prompt,
        inter_token_micros: Some(0),
        output_tokens: 0,
        decode_steps: 0,
        was_cancelled: false,
        ..row
    };
    let cell = |batch: u32| DecodeWork { batch, calls: day(3), micros: day(90_000), kv_tokens: day(30_000) };
    Load {
        arrivals_total: day(4),
        prompt_tokens_total: day(600),
        cached_tokens_total: day(5_000),
        output_tokens_total: day(800),
        completed_total: day(4),
        slots_busy: 7,
        slots: 8,
        kv_tokens_used: 51_000,
        kv_tokens_total: 65_536,
        ttft_ms_buckets_total: vec![9_000; LATENCY_BOUNDS_MS.len() + 1],
        inter_token_ms_buckets_total: vec![1_900_000; LATENCY_BOUNDS_MS.len() + 1],
        work: Work {
            decode: (1..=8).map(cell).collect(),
            requests: day(4),
            prompt_tokens: day(6_000),
            uncached_tokens: day(600),
            prefill_us: day(900_000),
            waited: day(1),
            first_attempts: day(4),
            reuse_eligible: day(2),
            reuse_hits: day(2),
            decode_steps: day(800),
            decoded_tokens: day(800),
            overlap_micros: day(700_000),
            recent: (1..=40).flat_map(|number| [prompt(row(number)), row(number + 1)]).collect(),
            ..Work::default()
        },
        ..Load::default()
    }
}

/// As much as there can be of everything, and every number as long as it can be.
fn heaviest() -> Load {
    let row = RequestWork {
        ordinal: u64::MAX,
        part: Part::Answer,
        uncached_tokens: u32::MAX,
        prompt_tokens: u32::MAX,
        prefill_micros: u64::MAX,
        overlap_permille: 1_000,
        ttft_micros: u64::MAX,
        inter_token_micros: Some(u64::MAX - 1),
        output_tokens: u32::MAX,
        decode_steps: u32::MAX,
        in_flight_before: Some(u16::MAX),
        is_unqueued: true,
        has_waited: true,
        is_reuse_eligible: true,
        is_reuse_hit: true,
        attempt: u8::MAX,
        has_failed: true,
        was_cancelled: true,
    };
    let cell = DecodeWork { batch: 256, calls: u64::MAX, micros: u64::MAX, kv_tokens: u64::MAX };
    let most = u64::MAX;
    Load {
        arrivals_total: most,
        prompt_tokens_total: most,
        cached_tokens_total: most,
        output_tokens_total: most,
        completed_total: most,
        errors_total: most,
        cancelled_total: most,
        slots_busy: u32::MAX,
        slots: u32::MAX,
        queued: [u32::MAX; 4],
        queued_prompt_tokens: most,
        oldest_ms: most,
        no_queue_ms_total: most,
        kv_tokens_used: most,
        kv_tokens_total: most,
        ttft_ms_buckets_total: vec![most; LATENCY_BOUNDS_MS.len() + 1],
        inter_token_ms_buckets_total: vec![most; LATENCY_BOUNDS_MS.len() + 1],
        work: Work {
            decode: vec![cell; 256],
            requests: most,
            prompt_tokens: most,
            uncached_tokens: most,
            prefill_us: most,
            waited: most,
            errors: most,
            first_attempts: most,
            first_attempt_errors: most,
            reuse_eligible: most,
            reuse_hits: most,
            decode_steps: most,
            decoded_tokens: most,
            overlap_micros: most,
            recent: vec![row; RECENT_MAX],
        },
    }
}

#[test]
fn a_busy_pods_report_is_small() {
    let text = serde_json::to_string(&report("a-model-of-the-house-7d9c5b6f4-x2x9k", busy())).unwrap();
    assert!(text.len() < 12 * 1_024, "{} bytes: {text}", text.len());
}

#[test]
fn no_report_is_longer_than_the_operator_takes() {
    let text = serde_json::to_string(&report(&"n".repeat(253), heaviest())).unwrap();
    assert!(text.len() < REPORT_BYTES_MAX, "{} bytes", text.len());
}

#[test]
fn what_is_left_out_comes_back_as_it_was() {
    for load in [busy(), heaviest(), Load::default()] {
        let report = report("a", load);
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}

#[test]
fn rows_travel_as_columns_of_what_is_not_the_default() {
    let plain =
        |ordinal, prompt_tokens| RequestWork { ordinal, prompt_tokens, attempt: 1, ..RequestWork::default() };
    let failed = RequestWork { attempt: 2, has_failed: true, ..plain(8, 30) };
    let work = Work { recent: vec![plain(7, 12), failed], ..Work::default() };
    let value = serde_json::to_value(&work).unwrap();
    let columns =
        json!({"ordinal": [7, 8], "promptTokens": [12, 30], "attempt": [1, 2], "hasFailed": [0, 1]});
    assert_eq!(value["recent"], columns);
}

#[test]
fn a_column_of_a_later_version_is_ignored_and_a_missing_one_is_the_default() {
    let mut value = serde_json::to_value(Work::default()).unwrap();
    assert!(value.get("recent").is_none(), "nothing ended, nothing is said");
    value["recent"] = json!({"ordinal": [7, 8], "outputTokens": [5], "newcomer": [1, 2]});
    let rows = serde_json::from_value::<Work>(value).unwrap().recent;
    let facts: Vec<_> = rows.iter().map(|row| (row.ordinal, row.output_tokens, row.attempt)).collect();
    assert_eq!(facts, [(7, 5, 1), (8, 0, 1)]);
}

#[test]
fn what_an_older_pod_does_not_tell_is_not_known_rather_than_zero() {
    let older = json!({"ordinal": [7], "ttftMicros": [5]});
    let mut value = serde_json::to_value(Work::default()).unwrap();
    value["recent"] = older.clone();
    let work = serde_json::from_value::<Work>(value).unwrap();
    let [row] = work.recent[..] else { panic!("{work:?}") };
    assert_eq!((row.part, row.in_flight_before, row.inter_token_micros), (Part::Whole, None, None));
    assert_eq!(serde_json::to_value(work).unwrap()["recent"], older);
    let now = RequestWork { in_flight_before: Some(0), inter_token_micros: Some(0), ..row };
    let value = serde_json::to_value(Work { recent: vec![now], ..Work::default() }).unwrap();
    assert_eq!(
        (&value["recent"]["inFlightBefore"], &value["recent"]["interTokenMicros"]),
        (&json!([0]), &json!([0]))
    );
}
