//! When requests come: synthetic shapes. Times are seconds from the start, in ascending order. Sizes are drawn apart, by
//! resampling pairs of a trace ([`super::trace::Sizes`]), because no fitted law has their two humps.

use rand::RngExt;
use rand_distr::{Distribution, Exp1, Gamma, StandardNormal};

use super::random::Random;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// When it comes, seconds from the start.
    pub at_s: f64,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Tokens that it generates.
    pub output_tokens: u32,
}

/// Poisson arrivals at `rate(t)` requests per second, which must never exceed `rate_max`, until `until_s`.
pub fn poisson(rate: impl Fn(f64) -> f64, rate_max: f64, until_s: f64, random: &mut Random) -> Vec<f64> {
    let mut times = Vec::new();
    let mut now = 0.0;
    loop {
        let gap: f64 = Exp1.sample(random);
        now += gap / rate_max;
        if now >= until_s {
            return times;
        }
        // Thinning: a candidate at the highest rate is kept with probability rate/rate_max.
        if random.random::<f64>() * rate_max < rate(now) {
            times.push(now);
        }
    }
}

/// Renewal arrivals with Gamma gaps: mean rate `rate` per second, coefficient of variation `cv` of the gaps
/// (1 is Poisson, 3 is bursty).
pub fn gamma(rate: f64, cv: f64, until_s: f64, random: &mut Random) -> Vec<f64> {
    let shape = 1.0 / (cv * cv);
    let gaps = Gamma::new(shape, 1.0 / (rate * shape)).expect("rate and cv are positive");
    let mut times = Vec::new();
    let mut now = gaps.sample(random);
    while now < until_s {
        times.push(now);
        now += gaps.sample(random);
    }
    times
}

/// A Poisson process that switches between states of (rate per second, mean stay in seconds), in turn, with
/// exponential stays (a Markov-modulated Poisson process). Starts in the first state.
pub fn switching(states: &[(f64, f64)], until_s: f64, random: &mut Random) -> Vec<f64> {
    let mut times = Vec::new();
    let mut start = 0.0;
    for &(rate, mean_stay_s) in states.iter().cycle() {
        let stay: f64 = Exp1.sample(random);
        let end = until_s.min(start + stay * mean_stay_s);
        if rate > 0.0 {
            times.extend(poisson(|_| rate, rate, end - start, random).into_iter().map(|at| start + at));
        }
        start = end;
        if start >= until_s {
            break;
        }
    }
    times
}

/// Poisson arrivals whose log rate is a stationary AR(1) process in steps of `step_s`: mean rate `rate`, standard
/// deviation `sigma` of the log rate, correlation `rho` from step to step.
pub fn autoregressive(
    rate: f64,
    sigma: f64,
    rho: f64,
    step_s: f64,
    until_s: f64,
    random: &mut Random,
) -> Vec<f64> {
    let mut times = Vec::new();
    let mut start = 0.0;
    let normal: f64 = StandardNormal.sample(random);
    let mut log_rate = sigma * normal;
    while start < until_s {
        let end = until_s.min(start + step_s);
        // The mean of exp(N(0,σ²)) is exp(σ²/2): taken out, so that `rate` stays the mean.
        let here = rate * (log_rate - 0.5 * sigma * sigma).exp();
        times.extend(poisson(|_| here, here, end - start, random).into_iter().map(|at| start + at));
        let normal: f64 = StandardNormal.sample(random);
        log_rate = rho * log_rate + sigma * (1.0 - rho * rho).sqrt() * normal;
        start = end;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::super::random::stream;
    use super::*;

    fn check(times: &[f64], until_s: f64, expected: f64, tolerance: f64) {
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "not in order");
        assert!(times.iter().all(|at| (0.0..until_s).contains(at)), "outside the time asked for");
        let found = times.len() as f64;
        assert!((found - expected).abs() < tolerance, "{found} arrivals instead of about {expected}");
    }

    #[test]
    fn shapes_keep_their_mean_rate() {
        let random = &mut stream(1, "shapes");
        // Tolerances are four standard deviations of the count, times its index of dispersion.
        check(&poisson(|_| 6.0, 6.0, 3_600.0, random), 3_600.0, 21_600.0, 600.0);
        check(
            &poisson(|at| if at < 1_800.0 { 1.0 } else { 3.0 }, 3.0, 3_600.0, random),
            3_600.0,
            7_200.0,
            350.0,
        );
        check(&gamma(6.0, 3.0, 3_600.0, random), 3_600.0, 21_600.0, 1_800.0);
        check(&switching(&[(2.0, 60.0), (10.0, 30.0)], 36_000.0, random), 36_000.0, 168_000.0, 20_000.0);
        check(&autoregressive(6.0, 0.3, 0.63, 60.0, 36_000.0, random), 36_000.0, 216_000.0, 25_000.0);
    }

    #[test]
    fn gamma_gaps_have_the_variation_asked_for() {
        let times = gamma(6.0, 3.0, 36_000.0, &mut stream(1, "gaps"));
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 3.0).abs() < 0.2, "cv {}", variance.sqrt() / mean);
    }
}
