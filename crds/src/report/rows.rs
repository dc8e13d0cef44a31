//! How rows travel: as columns, each under its field's name, so that names are written once and not once per row. A
//! column in which every row has its default value is left out; one that the receiver does not know is ignored.

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer};
use serde::ser::Serializer;

use super::{Part, RequestWork};

/// One field of all rows.
struct Column {
    name: &'static str,
    default: u64,
    read: fn(&RequestWork) -> u64,
    write: fn(&mut RequestWork, u64),
}

const fn column(
    name: &'static str,
    read: fn(&RequestWork) -> u64,
    write: fn(&mut RequestWork, u64),
) -> Column {
    Column { name, default: 0, read, write }
}

/// A column that older pods do not have; what it holds for them is not known.
const fn newer(
    name: &'static str,
    read: fn(&RequestWork) -> u64,
    write: fn(&mut RequestWork, u64),
) -> Column {
    Column { name, default: UNKNOWN, read, write }
}

const ORDINAL: &str = "ordinal";

/// No figure of ours comes near.
const UNKNOWN: u64 = u64::MAX;

const COLUMNS: [Column; 18] = [
    column(ORDINAL, |row| row.ordinal, |row, value| row.ordinal = value),
    column("part", |row| row.part as u64, |row, value| row.part = part(value)),
    column(
        "uncachedTokens",
        |row| row.uncached_tokens.into(),
        |row, value| row.uncached_tokens = saturated(value),
    ),
    column("promptTokens", |row| row.prompt_tokens.into(), |row, value| row.prompt_tokens = saturated(value)),
    column("prefillMicros", |row| row.prefill_micros, |row, value| row.prefill_micros = value),
    column(
        "overlapPermille",
        |row| row.overlap_permille.into(),
        |row, value| row.overlap_permille = u16::try_from(value.min(1_000)).unwrap_or_default(),
    ),
    column("ttftMicros", |row| row.ttft_micros, |row, value| row.ttft_micros = value),
    newer(
        "interTokenMicros",
        |row| row.inter_token_micros.unwrap_or(UNKNOWN),
        |row, value| row.inter_token_micros = known(value),
    ),
    column("outputTokens", |row| row.output_tokens.into(), |row, value| row.output_tokens = saturated(value)),
    column("decodeSteps", |row| row.decode_steps.into(), |row, value| row.decode_steps = saturated(value)),
    newer(
        "inFlightBefore",
        |row| row.in_flight_before.map_or(UNKNOWN, u64::from),
        |row, value| {
            row.in_flight_before = known(value).map(|value| u16::try_from(value).unwrap_or(u16::MAX));
        },
    ),
    column("isUnqueued", |row| row.is_unqueued.into(), |row, value| row.is_unqueued = value != 0),
    column("hasWaited", |row| row.has_waited.into(), |row, value| row.has_waited = value != 0),
    column(
        "isReuseEligible",
        |row| row.is_reuse_eligible.into(),
        |row, value| row.is_reuse_eligible = value != 0,
    ),
    column("isReuseHit", |row| row.is_reuse_hit.into(), |row, value| row.is_reuse_hit = value != 0),
    Column {
        name: "attempt",
        default: 1,
        read: |row| row.attempt.into(),
        write: |row, value| row.attempt = u8::try_from(value).unwrap_or(u8::MAX),
    },
    column("hasFailed", |row| row.has_failed.into(), |row, value| row.has_failed = value != 0),
    column("wasCancelled", |row| row.was_cancelled.into(), |row, value| row.was_cancelled = value != 0),
];

fn known(value: u64) -> Option<u64> {
    Some(value).filter(|value| *value != UNKNOWN)
}

fn part(value: u64) -> Part {
    match value {
        1 => Part::Prompt,
        2 => Part::Answer,
        _ => Part::Whole,
    }
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

pub(super) fn serialize<S: Serializer>(rows: &[RequestWork], serializer: S) -> Result<S::Ok, S::Error> {
    let columns = COLUMNS.iter().filter_map(|column| {
        let values: Vec<u64> = rows.iter().map(column.read).collect();
        values.iter().any(|value| *value != column.default).then_some((column.name, values))
    });
    serializer.collect_map(columns)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RequestWork>, D::Error> {
    let columns = BTreeMap::<String, Vec<u64>>::deserialize(deserializer)?;
    let count = columns.get(ORDINAL).map_or(0, Vec::len);
    let mut rows = vec![RequestWork::default(); count];
    for column in &COLUMNS {
        let values = columns.get(column.name);
        for (at, row) in rows.iter_mut().enumerate() {
            (column.write)(row, values.and_then(|values| values.get(at)).copied().unwrap_or(column.default));
        }
    }
    Ok(rows)
}
