//! How large a part of the traffic a prompt's beginning has: decaying counts in a fixed table, by chance shared between
//! keys. Lock-free; no clock: the past fades with the number of requests.

use std::sync::atomic::{AtomicU32, Ordering};

/// Cells. Keys that share one look more popular than they are; with a thousand cells that adds a part per thousand.
const CELLS: usize = 1_024;

/// All counts are halved when so many have been counted: a few minutes of a busy pool, long enough that a share of one
/// percent is counted to within a fifth of itself.
const HALVE_AT: u32 = 8_192;

/// Fewer requests than this are no evidence.
const COUNT_MIN: u32 = 16;

/// A key is popular from this part of an endpoint's fair share on. Larger lumps than an eighth cannot be laid evenly on
/// endpoints: at a half, every ninth turn of a conversation was pushed from its pod by the bound. Smaller ones have so
/// few conversations that prefilling their prompt on every pod would not pay.
const PARTS: u64 = 8;

/// The counts.
#[derive(Debug)]
pub struct Popularity {
    cells: Box<[AtomicU32]>,
    total: AtomicU32,
}

impl Default for Popularity {
    fn default() -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU32::new(0)).collect(), total: AtomicU32::new(0) }
    }
}

impl Popularity {
    /// Counts a request, and says whether those of its key are more than an eighth of what one of `endpoints` equal ones
    /// should have.
    pub fn note(&self, key: u64, endpoints: usize) -> bool {
        let cell = usize::try_from(key % CELLS as u64).expect("a cell's index fits");
        let count = self.cells[cell].fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        if total == HALVE_AT {
            self.halve();
        }
        count >= COUNT_MIN && u64::from(count) * PARTS * endpoints as u64 > u64::from(total)
    }

    /// Only the request that reaches the mark does this; what others count meanwhile is kept.
    fn halve(&self) {
        for cell in &self.cells {
            cell.fetch_sub(cell.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
        }
        self.total.fetch_sub(HALVE_AT / 2, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popular_is_more_than_an_eighth_of_an_endpoint_s_share() {
        let popularity = Popularity::default();
        let mut last = [false; 2];
        // Key 1 has one request in 16, key 2 one in 64; the rest are all different.
        for request in 0..20_000_u64 {
            match request % 64 {
                0 | 4 | 8 | 12 => last[0] = popularity.note(1, 4),
                1 => last[1] = popularity.note(2, 4),
                _ => {
                    popularity.note(request * 7_919 + 3, 4);
                }
            }
        }
        assert_eq!(last, [true, false]);
    }

    #[test]
    fn a_few_requests_are_no_evidence_and_the_past_fades() {
        let popularity = Popularity::default();
        assert_eq!((0..20).filter(|_| popularity.note(1, 8)).count(), 5);
        for request in 0..200_000_u64 {
            popularity.note(2 + request, 8);
        }
        assert!(!popularity.note(1, 8));
        let total = popularity.total.load(Ordering::Relaxed);
        assert!((HALVE_AT / 2..HALVE_AT).contains(&total), "{total}");
    }
}
