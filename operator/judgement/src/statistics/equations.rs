//! Least squares by normal equations: the sums can be kept, updated and sent, the rows need not.

use serde::{Deserialize, Serialize};

/// Sums of a regression with `N` terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equations<const N: usize> {
    /// Rows taken in.
    count: u64,
    /// Σ xxᵀ; only the part on and above the diagonal is kept up.
    products: [[f64; N]; N],
    /// Σ xy.
    targets: [f64; N],
}

impl<const N: usize> Default for Equations<N> {
    fn default() -> Self {
        Self { count: 0, products: [[0.0; N]; N], targets: [0.0; N] }
    }
}

impl<const N: usize> Equations<N> {
    /// Rows taken in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds the row `terms · coefficients ≈ target`.
    pub fn push(&mut self, terms: &[f64; N], target: f64) {
        self.count += 1;
        for row in 0..N {
            for column in row..N {
                self.products[row][column] += terms[row] * terms[column];
            }
            self.targets[row] += terms[row] * target;
        }
    }

    /// The coefficients with the least squared error; `None` with fewer rows than terms. A trace of ridge (10⁻⁹ of
    /// each diagonal) keeps a term that never varied, such as an overlap that never happened, at nothing instead of
    /// at anything.
    pub fn solve(&self) -> Option<[f64; N]> {
        if self.count < N as u64 {
            return None;
        }
        let mut lower = [[0.0; N]; N];
        for row in 0..N {
            for column in 0..=row {
                let mut sum = self.products[column][row];
                if row == column {
                    sum += sum * 1e-9 + 1e-12;
                }
                sum -= (0..column).map(|at| lower[row][at] * lower[column][at]).sum::<f64>();
                lower[row][column] =
                    if row == column { sum.max(1e-18).sqrt() } else { sum / lower[column][column] };
            }
        }
        let mut solution = self.targets;
        for row in 0..N {
            let known: f64 = (0..row).map(|at| lower[row][at] * solution[at]).sum();
            solution[row] = (solution[row] - known) / lower[row][row];
        }
        for row in (0..N).rev() {
            let known: f64 = (row + 1..N).map(|at| lower[at][row] * solution[at]).sum();
            solution[row] = (solution[row] - known) / lower[row][row];
        }
        Some(solution)
    }
}

/// The sums as they are written down: serde knows arrays of fixed lengths only.
#[derive(Serialize, Deserialize)]
struct Written {
    count: u64,
    products: Vec<Vec<f64>>,
    targets: Vec<f64>,
}

impl<const N: usize> Serialize for Equations<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let products = self.products.iter().map(|row| row.to_vec()).collect();
        Written { count: self.count, products, targets: self.targets.to_vec() }.serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Equations<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format!("expected sums of a regression with {N} terms"));
        let rows: Option<Vec<[f64; N]>> =
            written.products.into_iter().map(|row| row.try_into().ok()).collect();
        Ok(Self {
            count: written.count,
            products: rows.and_then(|rows| rows.try_into().ok()).ok_or_else(wrong)?,
            targets: written.targets.try_into().map_err(|_| wrong())?,
        })
    }
}
