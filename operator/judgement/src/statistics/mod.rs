//! The statistics that the judgement of a canary stands on. Plain functions of numbers; logarithms are natural.
//!
//! None is tested against itself: `tests/reference/make.py` computes the same values with SciPy, statsmodels and
//! mpmath, and `tests/statistics.rs` compares.

pub mod boundary;
pub mod counts;
pub mod digest;
pub mod distribution;
pub mod equations;
pub mod moments;
pub mod robust;
pub mod sizes;
pub mod spending;
pub mod welch;
