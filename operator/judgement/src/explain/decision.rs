//! What a decision on the number of pods was reckoned from, for people.

use std::fmt;

use super::table::Table;
use crate::autoscale::Decision;

/// A decision that was made again and is the same.
pub(super) struct Told<'a>(pub(super) &'a Decision);

impl fmt::Display for Told<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { current, desired, winner, sentence, figures, limits, .. } = self.0;
        writeln!(out, "{current} → {desired} pods ({winner:?}). {sentence}")?;
        writeln!(out, "Replayed from its stored inputs: the same, bit for bit.\n")?;
        writeln!(
            out,
            "demand {:.2} pods, proven {:.2}, growing {:.4} per s",
            figures.demand, figures.proven, figures.slope
        )?;
        writeln!(out, "97 % of the past at most {:.2}, dispersion {:.2}", figures.high, figures.dispersion)?;
        writeln!(
            out,
            "a pod does {:.2} of its model; {:.1} pod-seconds wait",
            figures.calibration, figures.queue
        )?;
        writeln!(out, "loading takes {:.0} s, looked ahead {:.0} s", figures.load_s, figures.horizon_s)?;
        writeln!(
            out,
            "{} moments were like now; after {} of them the last pod would have paid",
            figures.like_moments, figures.bursts
        )?;
        writeln!(out, "limits met: {limits:?}\n")?;
        let mut prices = Table::new(["pods", "late pod-seconds", "late and price"]);
        for price in &figures.prices {
            let figures = [format!("{:.1}", price.late), format!("{:.1}", price.total)];
            prices.row(std::iter::once(price.replicas.to_string()).chain(figures));
        }
        write!(out, "{prices}")
    }
}
