//! Rare events of two arms: e-processes, which may be read at any time, and a likelihood ratio for non-inferiority.
//!
//! Given that an event happened, it happened in the canary with probability s, the canary's share of the trials, if
//! both arms are alike. Betting at odds ρ on the canary multiplies the stake by q/s or (1−q)/(1−s), with
//! q = ρs/(ρs+1−s). Under "alike" the expected stake stays 1, whatever the share does and even if the control never
//! has an event, so the chance that it ever reaches 1/alpha is at most alpha.

use serde::{Deserialize, Serialize};

/// Bets against a canary that has more errors: from 1.25 times to 30 times as many.
pub const ODDS_WORSE: [f64; 7] = [1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];
/// Bets against a canary with at least twice as many: for events that other things than the revision shift a little.
pub const ODDS_TWICE: [f64; 5] = [2.0, 3.0, 5.0, 10.0, 30.0];
/// Bets against a canary that has what stable hardly ever has. Five sixths of the stake are on the highest odds, so
/// that three events at a share of up to 0.15 are enough for an alpha of ½ % (⅚·6.3³ = 208), where an even grid up to
/// 30 needs four or five.
pub const ODDS_UNHEARD_OF: [f64; 6] = [2.0, 100.0, 100.0, 100.0, 100.0, 100.0];
/// Bets against a split that gives the canary too few or too many.
pub const ODDS_EITHER_WAY: [f64; 6] = [0.4, 0.6, 0.8, 1.25, 1.6, 2.5];

/// The average of one running product per odds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EProcess {
    /// The odds that are bet on.
    odds: Vec<f64>,
    /// Logarithm of the stake of each.
    log_stakes: Vec<f64>,
}

impl EProcess {
    /// Stake 1 on each of `odds`.
    pub fn new(odds: &[f64]) -> Self {
        Self { odds: odds.to_vec(), log_stakes: vec![0.0; odds.len()] }
    }

    /// Takes in `canary` and `control` events while the canary had the share `share` of the trials. A share of 0 or
    /// 1 leaves nothing to compare and is passed over.
    pub fn observe(&mut self, canary: u64, control: u64, share: f64) {
        if share <= 0.0 || share >= 1.0 || canary + control == 0 {
            return;
        }
        for (odds, log_stake) in self.odds.iter().zip(&mut self.log_stakes) {
            let total = odds * share + 1.0 - share;
            // q/s = ρ/total and (1−q)/(1−s) = 1/total.
            *log_stake += canary as f64 * odds.ln() - (canary + control) as f64 * total.ln();
        }
    }

    /// Logarithm of the e-value.
    pub fn log_e(&self) -> f64 {
        let largest = self.log_stakes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self.log_stakes.iter().map(|stake| (stake - largest).exp()).sum();
        largest + (sum / self.log_stakes.len() as f64).ln()
    }

    /// The e-value, at most 10¹²; its expectation is at most 1 when the arms are alike.
    pub fn e(&self) -> f64 {
        self.log_e().min(27.6).exp()
    }
}

/// Logarithm of the likelihood of `events` in `trials` at share `base` over that at `base + margin`. At least ln 20
/// rejects "worse by `margin` or more" at 5 %, at any time one looks. Shares in (0, 1).
pub fn log_non_inferiority(events: u64, trials: u64, base: f64, margin: f64) -> f64 {
    let worse = (base + margin).min(1.0 - f64::EPSILON);
    let others = trials.saturating_sub(events) as f64;
    events as f64 * (base / worse).ln() + others * ((1.0 - base) / (1.0 - worse)).ln()
}
