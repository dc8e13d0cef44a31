//! Who is served by which revision: a stable, sticky split of traffic. Pure; the gateway and the operator share it.
//!
//! `bucket = XXH64(salt ‖ 0x00 ‖ key, seed 0) mod 10 000`. XXH64 because it mixes well on short keys, is fixed by a
//! published specification, and has an implementation in every language a gateway or a client may be written in;
//! nothing here defends against keys chosen by an attacker, who could only choose his own revision. The zero byte
//! keeps ("a", "bc") apart from ("ab", "c"). `crds/tests/data/split.json` has vectors made by another implementation.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

/// Buckets, so that a weight in basis points is a number of buckets. 2⁶⁴ mod 10 000 favours no bucket by more than
/// one part in 10¹⁵.
pub const BUCKETS: u16 = 10_000;

/// A revision with a share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    /// Name of the revision.
    pub revision: String,
    /// Its share, in 1/10 000 of the keys.
    pub weight_basis_points: u16,
}

/// How the traffic of one model is split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Differs for each rollout, flag and experiment, so that the same users are not always first. Without a zero
    /// byte.
    pub salt: String,
    /// Whoever belongs to no other arm.
    pub stable: String,
    /// The other arms, in the order of their ranges: the first has the buckets from 0 to its weight, the next those
    /// after it. Raising the weight of the last (or only) arm moves nobody out of any other arm than stable; raising
    /// an earlier one shifts those behind it. What exceeds 10 000 in sum is cut off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Arm>,
}

/// The bucket of `key` under `salt`, from 0 to 9 999.
pub fn bucket(salt: &str, key: &[u8]) -> u16 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(salt.as_bytes());
    hasher.write(&[0]);
    hasher.write(key);
    u16::try_from(hasher.finish() % u64::from(BUCKETS)).expect("a remainder below 10 000 fits 16 bits")
}

/// Which revision serves `key`.
///
/// ```
/// use crds::split::{Arm, Table, arm};
///
/// let canary = Arm { revision: "b".to_owned(), weight_basis_points: 2_500 };
/// let table = Table { salt: "rollout-1".to_owned(), stable: "a".to_owned(), others: vec![canary] };
/// assert_eq!(arm(b"conversation-0", &table), "a"); // bucket 3 015
/// assert_eq!(arm(b"conversation-2", &table), "b"); // bucket 514
/// ```
pub fn arm<'table>(key: &[u8], table: &'table Table) -> &'table str {
    if table.others.is_empty() {
        return &table.stable;
    }
    let bucket = u32::from(bucket(&table.salt, key));
    let mut end = 0;
    for other in &table.others {
        end += u32::from(other.weight_basis_points);
        if bucket < end {
            return &other.revision;
        }
    }
    &table.stable
}
