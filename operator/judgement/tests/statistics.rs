//! Every statistic against values that others computed: `reference/make.py` uses SciPy, statsmodels and mpmath.
#![expect(
    clippy::unwrap_used,
    clippy::needless_for_each,
    reason = "a test that cannot go on says so by panicking"
)]

use judgement::statistics::boundary::{half_width, student_factor};
use judgement::statistics::counts::{EProcess, log_non_inferiority};
use judgement::statistics::digest::Digest;
use judgement::statistics::distribution::{
    binomial_lower, binomial_upper, normal_quantile_upper, normal_upper, student_quantile_upper,
};
use judgement::statistics::equations::Equations;
use judgement::statistics::moments::{Moments, pooled_variance};
use judgement::statistics::robust::{mean_of_lower, median, robust_sd};
use judgement::statistics::sizes::{fixed_horizon, smallest_seen};
use judgement::statistics::spending::{boundaries, obrien_fleming};
use judgement::statistics::welch::welch;
use serde_json::Value;

/// The rows of one kind in the reference file.
fn reference(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("reference/statistics.json")).unwrap();
    match &all[kind] {
        Value::Array(rows) => rows.clone(),
        row => vec![row.clone()],
    }
}

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field} in {row}"))
}

fn whole(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or_else(|| panic!("{field} in {row}"))
}

fn numbers(row: &Value, field: &str) -> Vec<f64> {
    row[field].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    let distance = (ours - theirs).abs() / theirs.abs().max(1.0);
    assert!(distance <= tolerance, "{what}: ours {ours}, theirs {theirs}");
}

#[test]
fn welch_agrees_with_scipy_and_statsmodels() {
    for row in reference("welch") {
        let canary: Moments = numbers(&row, "canary").into_iter().collect();
        let control: Moments = numbers(&row, "control").into_iter().collect();
        let ours = welch(&canary, &control).unwrap();
        check("t", ours.t, number(&row, "t"), 1e-10);
        check("degrees of freedom", ours.degrees_of_freedom, number(&row, "dof"), 1e-10);
        check("p", ours.p_greater, number(&row, "p"), 1e-10);
        check("low", ours.interval.0, number(&row, "low"), 1e-8);
        check("high", ours.interval.1, number(&row, "high"), 1e-8);
        check("d", ours.cohens_d, number(&row, "d"), 1e-10);
    }
}

#[test]
fn welch_is_silent_without_two_values_or_any_variance() {
    let sample = |values: &[f64]| values.iter().copied().collect::<Moments>();
    assert_eq!(welch(&sample(&[1.0]), &sample(&[1.0, 2.0])), None);
    assert_eq!(welch(&sample(&[1.0, 1.0]), &sample(&[2.0, 2.0])), None);
}

#[test]
fn quantiles_agree_with_scipy() {
    for row in reference("normal") {
        check("z", normal_quantile_upper(number(&row, "alpha")), number(&row, "z"), 1e-9);
        check("alpha", normal_upper(number(&row, "z")).ln(), number(&row, "alpha").ln(), 1e-9);
    }
    for row in reference("student") {
        let ours = student_quantile_upper(number(&row, "alpha"), number(&row, "dof"));
        check("t", ours, number(&row, "t"), 1e-7);
    }
}

#[test]
fn binomial_bounds_agree_with_scipy() {
    for row in reference("binomial") {
        let (hits, trials, alpha) = (whole(&row, "hits"), whole(&row, "trials"), number(&row, "alpha"));
        check("upper", binomial_upper(hits, trials, alpha), number(&row, "upper"), 1e-9);
        check("lower", binomial_lower(hits, trials, alpha), number(&row, "lower"), 1e-9);
    }
}

#[test]
fn the_boundary_agrees_with_forty_digits() {
    for row in reference("boundary") {
        let ours = half_width(number(&row, "variance"), number(&row, "alpha"), number(&row, "effect"));
        check("half", ours, number(&row, "half"), 1e-12);
    }
}

#[test]
fn the_boundary_is_2_76_standard_errors_where_it_is_tightest() {
    let effect = 1.05_f64.ln();
    let variance = (effect / (1.645 + 0.842)).powi(2);
    check("in standard errors", half_width(variance, 0.05, effect) / variance.sqrt(), 2.764, 1e-3);
}

/// The reference file has the share of 40 000 simulated paths, each looked at 400 times, that ever crossed.
#[test]
fn paths_without_a_change_cross_the_boundary_at_most_as_often_as_promised() {
    let row = &reference("mixture")[0];
    assert!(number(row, "crossed") <= number(row, "alpha"), "{row}");
    assert!(
        number(row, "crossed") >= 0.2 * number(row, "alpha"),
        "a boundary that is never met proves nothing"
    );
}

#[test]
fn the_factor_for_few_degrees_of_freedom_is_near_students_quantile() {
    for dof in [6.0_f64, 17.0, 60.0] {
        let z = normal_quantile_upper(0.01);
        let exact = student_quantile_upper(0.01, dof) / z;
        // What is left out is the expansion's next term, and a little.
        let next = (5.0 * z.powi(4) + 16.0 * z.powi(2) + 3.0) / (96.0 * dof.powi(2));
        check("factor", student_factor(0.01, dof), exact, 1.3 * next);
    }
}

#[test]
fn e_processes_agree_with_exact_arithmetic() {
    for row in reference("eProcess") {
        let mut process = EProcess::new(&numbers(&row, "odds"));
        for block in row["blocks"].as_array().unwrap() {
            process.observe(
                block[0].as_u64().unwrap(),
                block[1].as_u64().unwrap(),
                block[2].as_f64().unwrap(),
            );
        }
        check("ln e", process.log_e(), number(&row, "log_e"), 1e-10);
    }
}

/// E[e after one event] = s·(q/s) + (1−s)·(1−q)/(1−s) = 1: the fair game on which everything rests.
#[test]
fn a_bet_on_equal_arms_is_fair() {
    for share in [0.01, 0.1, 0.5, 0.9] {
        let after = |canary, control| {
            let mut process = EProcess::new(&[1.25, 2.0, 30.0]);
            process.observe(canary, control, share);
            process.e()
        };
        check("expected stake", share * after(1, 0) + (1.0 - share) * after(0, 1), 1.0, 1e-12);
    }
}

#[test]
fn a_share_of_nothing_or_all_is_passed_over() {
    let mut process = EProcess::new(&[2.0]);
    process.observe(5, 0, 1.0);
    process.observe(0, 5, 0.0);
    check("e", process.e(), 1.0, 0.0);
}

#[test]
fn non_inferiority_agrees_with_scipy() {
    for row in reference("nonInferiority") {
        let ours =
            log_non_inferiority(whole(&row, "events"), whole(&row, "trials"), number(&row, "base"), 0.01);
        check("ln ratio", ours, number(&row, "log_ratio"), 1e-9);
    }
}

#[test]
fn sample_sizes_agree_with_statsmodels() {
    for row in reference("sizes") {
        let of = |field| number(&row, field);
        let ours = fixed_horizon(of("effect"), of("sd"), of("alpha"), of("power"), of("ratio"));
        // statsmodels' solver stops at 10⁻⁶ or so, and counts the far tail of the wrong side too.
        check("size", ours, of("size"), 1e-4);
    }
}

/// By hand: at τ = 1 % about 2 canary pods among 4, at 2 % 5 among 14, at 3 % 12 among 28.
#[test]
fn pods_needed_are_those_of_the_hand_calculation() {
    let needed = |sd, control| {
        let effect = 1.05_f64.ln();
        (1..=100).find(|&pods| smallest_seen(sd, (pods, control), effect, 0.01) <= effect)
    };
    assert!(matches!(needed(0.01, 4), Some(2..=3)), "{:?}", needed(0.01, 4));
    assert!(matches!(needed(0.02, 14), Some(4..=7)), "{:?}", needed(0.02, 14));
    assert!(matches!(needed(0.03, 28), Some(10..=16)), "{:?}", needed(0.03, 28));
    assert_eq!(needed(0.10, 4), None);
}

#[test]
fn least_squares_agrees_with_numpy() {
    let row = &reference("regression")[0];
    let mut equations = Equations::<4>::default();
    for (terms, target) in row["terms"].as_array().unwrap().iter().zip(numbers(row, "target")) {
        let terms: Vec<f64> = terms.as_array().unwrap().iter().map(|term| term.as_f64().unwrap()).collect();
        equations.push(&terms.try_into().unwrap(), target);
    }
    for (ours, theirs) in equations.solve().unwrap().into_iter().zip(numbers(row, "coefficients")) {
        check("coefficient", ours, theirs, 1e-5);
    }
}

#[test]
fn least_squares_survives_a_term_that_never_varied() {
    let mut equations = Equations::<3>::default();
    for at in 0..20 {
        equations.push(&[1.0, f64::from(at), 0.0], 3.0 + 2.0 * f64::from(at));
    }
    let [constant, slope, idle] = equations.solve().unwrap();
    check("constant", constant, 3.0, 1e-5);
    check("slope", slope, 2.0, 1e-5);
    check("idle", idle, 0.0, 1e-9);
}

#[test]
fn robust_measures_agree_with_scipy() {
    for row in reference("robust") {
        let values = numbers(&row, "values");
        check("mean of lower", mean_of_lower(&values, 0.25).unwrap(), number(&row, "mean_of_lower"), 1e-12);
        check("median", median(&values).unwrap(), number(&row, "median"), 1e-15);
        check("sd", robust_sd(&values).unwrap(), number(&row, "sd"), 1e-12);
    }
    assert_eq!(mean_of_lower(&[], 0.25), None);
}

#[test]
fn pooled_variance_is_that_inside_the_groups() {
    let group = |values: &[f64]| values.iter().copied().collect::<Moments>();
    let groups = [group(&[1.0, 3.0]), group(&[10.0, 11.0, 12.0]), group(&[99.0])];
    // Squares 2 and 2 over 1 + 2 degrees of freedom; the group of one says nothing.
    check("variance", pooled_variance(&groups).unwrap(), 4.0 / 3.0, 1e-12);
    assert_eq!(pooled_variance(&[group(&[99.0])]), None);
}

#[test]
fn group_sequential_boundaries_agree_with_published_ones() {
    for row in reference("spending") {
        let ours = boundaries(number(&row, "alpha"), &numbers(&row, "looks"));
        for (ours, theirs) in ours.into_iter().zip(numbers(&row, "boundaries")) {
            check("boundary", ours, theirs, 2e-4);
        }
    }
    check("all spent at the end", obrien_fleming(0.01, 1.0), 0.01, 1e-12);
}

/// The same stream sorted tells the truth. A centroid of compression 100 covers 2π/100·√(q(1−q)) of the ranks; a
/// quantile is right to a quarter of that.
#[test]
fn the_digest_stays_close_in_rank_to_the_sorted_sample() {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut digest = Digest::default();
    let mut values: Vec<f64> =
        (0..30_000).map(|_| -next().ln() * if next() < 0.03 { 5.0 } else { 1.0 }).collect();
    values.iter().for_each(|&value| digest.push(value));
    values.sort_by(f64::total_cmp);
    for quantile in [0.0_f64, 0.5, 0.95, 0.99, 1.0] {
        let tolerance = 0.25 * 0.0628 * (quantile * (1.0 - quantile)).sqrt() + 1e-4;
        let ours = digest.quantile(quantile).unwrap();
        let rank = values.partition_point(|&value| value < ours) as f64 / values.len() as f64;
        assert!((rank - quantile).abs() <= tolerance, "P{}: rank {rank}", 100.0 * quantile);
    }
    assert!(serde_json::to_string(&digest).unwrap().len() < 30_000, "the sketch stays small");
}

#[test]
fn a_digest_of_nothing_has_no_quantile() {
    assert_eq!(Digest::default().quantile(0.5), None);
    let mut one = Digest::default();
    one.push(3.0);
    one.push(f64::NAN);
    assert_eq!(one.quantile(0.99), Some(3.0));
}
