//! Group-sequential boundaries by Lan and DeMets: a few looks, planned by how much of the expected information is in.
//!
//! The O'Brien-Fleming-like function spends almost nothing early, so the last look is nearly as sharp as a single
//! test. The boundary of each look follows by carrying the density of "not stopped yet" from look to look
//! (Armitage, McPherson and Rowe).

use super::distribution::{bisect, normal_density, normal_quantile_upper, normal_upper};

/// Points per look at which the carried density is known. 400 intervals of Simpson's rule agree with published
/// boundaries to 10⁻⁴.
const POINTS: usize = 401;
/// How far into the harmless side the density is followed, in standard deviations: beyond lies 10⁻¹⁵.
const REACH: f64 = 8.0;

/// How much of a one-sided `alpha` may be spent until the share `information` (0 to 1) of the planned information is
/// in.
pub fn obrien_fleming(alpha: f64, information: f64) -> f64 {
    if information <= 0.0 {
        return 0.0;
    }
    2.0 * normal_upper(normal_quantile_upper(0.5 * alpha) / information.min(1.0).sqrt())
}

/// The boundary of each look in standard errors, for looks at the shares `looks` (rising, in (0, 1]) of the planned
/// information: stop when the standardised difference exceeds it.
pub fn boundaries(alpha: f64, looks: &[f64]) -> Vec<f64> {
    let mut spent = 0.0;
    let mut carried: Option<Carried> = None;
    let mut found = Vec::with_capacity(looks.len());
    for &look in looks {
        let target = obrien_fleming(alpha, look) - spent;
        // A look that may spend less than 10⁻¹² can never stop; eight standard errors say so.
        let boundary = match &carried {
            _ if target < 1e-12 => REACH,
            None => normal_quantile_upper(target),
            Some(carried) => bisect(-REACH, REACH, |z| carried.beyond(look, z) > target),
        };
        spent += target.max(0.0);
        carried = Some(Carried::on(carried.as_ref(), look, boundary));
        found.push(boundary);
    }
    found
}

/// Density of the score (standardised difference times √information) among those not stopped at a look.
struct Carried {
    look: f64,
    from: f64,
    step: f64,
    density: Vec<f64>,
}

impl Carried {
    fn on(before: Option<&Self>, look: f64, boundary: f64) -> Self {
        let (from, to) = (-REACH * look.sqrt(), boundary * look.sqrt());
        let step = (to - from) / (POINTS - 1) as f64;
        let density = (0..POINTS)
            .map(|at| {
                let score = from + at as f64 * step;
                before.map_or_else(
                    || normal_density(score / look.sqrt()) / look.sqrt(),
                    |before| {
                        let spread = (look - before.look).max(1e-12).sqrt();
                        before.integrate(|from| normal_density((score - from) / spread) / spread)
                    },
                )
            })
            .collect();
        Self { look, from, step, density }
    }

    /// Probability of getting this far and then beyond `z` standard errors at `look`.
    fn beyond(&self, look: f64, z: f64) -> f64 {
        let spread = (look - self.look).max(1e-12).sqrt();
        self.integrate(|score| normal_upper((z * look.sqrt() - score) / spread))
    }

    /// ∫ density · `weight` by Simpson's rule.
    fn integrate(&self, weight: impl Fn(f64) -> f64) -> f64 {
        let sum: f64 = self
            .density
            .iter()
            .enumerate()
            .map(|(at, density)| {
                let share = if at == 0 || at == POINTS - 1 {
                    1.0
                } else if at % 2 == 1 {
                    4.0
                } else {
                    2.0
                };
                share * density * weight(self.from + at as f64 * self.step)
            })
            .sum();
        sum * self.step / 3.0
    }
}
