//! The split: even, sticky, monotone in the weight, independent between salts, and the same in other languages.

use crds::split::{Arm, BUCKETS, Table, arm, bucket};
use serde::Deserialize;

const KEYS: u32 = 1_000_000;

fn key(number: u32) -> String {
    format!("conversation-{number}")
}

fn table(salt: &str, weights: &[(&str, u16)]) -> Table {
    let others = weights
        .iter()
        .map(|&(revision, weight_basis_points)| Arm { revision: revision.to_owned(), weight_basis_points })
        .collect();
    Table { salt: salt.to_owned(), stable: "stable".to_owned(), others }
}

#[derive(Deserialize)]
struct Vector {
    salt: String,
    key_hex: String,
    bucket: u16,
}

/// The vectors come from `crds/tests/data/split.py`, which uses the reference C library through Python.
#[test]
fn agrees_with_another_implementation() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("data/split.json")).unwrap();
    assert!(vectors.len() >= 100);
    for Vector { salt, key_hex, bucket: expected } in vectors {
        let key: Vec<u8> = (0..key_hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&key_hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(bucket(&salt, &key), expected, "salt {salt:?}, key {key_hex}");
    }
}

#[test]
fn fills_its_buckets_evenly() {
    for salt in ["", "7d9f1b0e-4c0a-4f0e-9a51-0c6a55b6a001", "flag/beta"] {
        let mut counts = vec![0_u32; usize::from(BUCKETS)];
        for number in 0..KEYS {
            counts[usize::from(bucket(salt, key(number).as_bytes()))] += 1;
        }
        let expected = f64::from(KEYS) / f64::from(BUCKETS);
        let chi_squared: f64 =
            counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        // 9 999 degrees of freedom: mean 9 999, standard deviation 141; six of them on either side.
        assert!((chi_squared - 9_999.0).abs() < 6.0 * 141.4, "χ² = {chi_squared} with salt {salt:?}");
    }
}

#[test]
fn raising_the_weight_moves_nobody_out_of_the_canary() {
    let weights = [0, 1, 100, 1_000, 2_500, 5_000, 9_999, 10_000];
    let tables: Vec<Table> = weights.iter().map(|&weight| table("rollout", &[("canary", weight)])).collect();
    for number in 0..KEYS {
        let key = key(number);
        let first = bucket("rollout", key.as_bytes());
        for (table, weight) in tables.iter().zip(weights) {
            let expected = if first < weight { "canary" } else { "stable" };
            assert_eq!(arm(key.as_bytes(), table), expected, "{key} at {weight}");
        }
    }
}

#[test]
fn two_salts_have_nothing_in_common() {
    let is_in = |salt: &str, number| f64::from(bucket(salt, key(number).as_bytes()) < 1_000);
    for (one, other) in [("rollout-1", "rollout-2"), ("a", "b"), ("rollout", "rollout/flag")] {
        let both: f64 = (0..KEYS).map(|number| is_in(one, number) * is_in(other, number)).sum();
        // Both shares are 0.1, so the correlation is (P(both) − 0.01)/0.09, with a standard deviation of 0.001.
        let correlation = (both / f64::from(KEYS) - 0.01) / 0.09;
        assert!(correlation.abs() < 0.01, "ρ = {correlation} between {one:?} and {other:?}");
    }
}

#[test]
fn several_arms_have_ranges_one_after_the_other() {
    let table = table("experiment", &[("a", 1_000), ("nobody", 0), ("b", 2_000)]);
    let mut counts = [0_u32; 3];
    for number in 0..100_000 {
        let key = key(number);
        let (place, range) = match arm(key.as_bytes(), &table) {
            "a" => (0, 0..1_000),
            "b" => (1, 1_000..3_000),
            "stable" => (2, 3_000..10_000),
            other => panic!("{other} has no range"),
        };
        assert!(range.contains(&bucket("experiment", key.as_bytes())));
        counts[place] += 1;
    }
    assert!(counts.iter().all(|&count| count > 9_000), "{counts:?}");
}

#[test]
fn weights_beyond_the_whole_are_cut_off() {
    let table = table("salt", &[("a", 9_000), ("b", 9_000)]);
    for number in 0..10_000 {
        assert_ne!(arm(key(number).as_bytes(), &table), "stable");
    }
}

#[test]
fn salt_and_key_do_not_run_into_each_other() {
    assert_ne!(bucket("a", b"bc"), bucket("ab", b"c"));
}
