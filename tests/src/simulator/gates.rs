//! Gates: a claim, the figure that was found, the threshold, and whether it was met. The binary prints them all and
//! fails when one falls short.

use judgement::explain::table::Table;

/// Which judgement a gate is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Judgement {
    /// How many replicas.
    Autoscale,
    /// Is the canary well.
    Canary,
}

/// How much is run: everything, or what continuous integration can afford.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// All seeds.
    Full,
    /// Few seeds; tolerances are widened where a figure is a mean over seeds.
    Reduced,
}

/// One gate.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Gate {
    /// Whose claim it is and what is claimed, in a few words.
    pub name: String,
    /// What was found, with its unit.
    pub figure: String,
    /// What is asked for, with its unit.
    pub threshold: String,
    /// Whether it is met.
    pub is_met: bool,
}

impl Gate {
    /// A gate whose figure must not exceed `limit`; both are shown with `unit`.
    pub fn at_most(name: impl Into<String>, figure: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            figure: format!("{figure:.2}{unit}"),
            threshold: format!("≤ {limit:.2}{unit}"),
            is_met: figure <= limit,
        }
    }

    /// A gate whose figure must reach `limit`; both are shown with `unit`.
    pub fn at_least(name: impl Into<String>, figure: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            figure: format!("{figure:.2}{unit}"),
            threshold: format!("≥ {limit:.2}{unit}"),
            is_met: figure >= limit,
        }
    }

    /// A gate that counts what must never happen.
    pub fn never(name: impl Into<String>, found: usize, of: usize) -> Self {
        Self {
            name: name.into(),
            figure: format!("{found} of {of}"),
            threshold: "0, of at least 1".to_owned(),
            is_met: found == 0 && of > 0,
        }
    }
}

/// All gates as a table.
pub fn table(gates: &[Gate]) -> Table {
    let mut table = Table::new(["gate", "found", "asked", "met"]);
    for gate in gates {
        let met = if gate.is_met { "yes" } else { "NO" };
        table.row([gate.name.as_str(), &gate.figure, &gate.threshold, met]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_met_at_its_limit_and_not_beyond() {
        assert!(Gate::at_most("cost", 2.0, 2.0, " h").is_met);
        assert!(!Gate::at_most("cost", 2.1, 2.0, " h").is_met);
        assert!(Gate::at_least("attainment", 94.0, 94.0, " %").is_met);
        assert!(!Gate::at_least("attainment", f64::NAN, 94.0, " %").is_met);
        assert!(!Gate::never("early scale-downs", 0, 0).is_met, "nothing was looked at");
        assert!(!Gate::never("early scale-downs", 1, 9).is_met);
    }
}
