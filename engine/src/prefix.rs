//! Which slot serves a prompt, and how much of what the slot still remembers can be kept. Pure: must not know
//! llama.cpp; the worker tells it what became of the memory.

use std::cmp::Reverse;

use crate::request::Token;

/// What every slot remembers, and who uses it.
#[derive(Debug)]
pub struct Prefixes {
    slots: Vec<Slot>,
    /// Whether the model's memory can be cut at any position. Recurrent models can only go on from the end.
    can_cut: bool,
    uses: u64,
}

#[derive(Debug, Default, Clone)]
struct Slot {
    is_busy: bool,
    cache_key: u64,
    tokens: Vec<Token>,
    used_at: u64,
}

/// Where a prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot, now busy.
    pub slot: usize,
    /// So many tokens of the prompt are in the slot's memory already; always fewer than the prompt has, because
    /// the last one must be computed to know what follows it. The worker removes everything behind them.
    pub reused: usize,
}

impl Prefixes {
    /// Nothing remembered.
    pub fn new(slots: usize, can_cut: bool) -> Prefixes {
        Prefixes { slots: vec![Slot::default(); slots], can_cut, uses: 0 }
    }

    /// Chooses an idle slot: the one that saves most of the prompt while at least half of its memory stays, else the
    /// one unused for longest. All prompts begin alike (a template's first tokens, a system prompt): without that
    /// half, every new conversation would push out the one before it, beside slots that nobody needs. Only what was
    /// remembered under the same key is ever reused. `None` when all are busy.
    pub fn take(&mut self, prompt: &[Token], cache_key: u64) -> Option<Place> {
        let idle = self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_busy);
        let (_, Reverse((_, index))) = idle
            .map(|(index, slot)| {
                let reusable = self.reusable(slot, prompt, cache_key);
                let is_worth = 2 * reusable >= slot.tokens.len();
                (if is_worth { reusable } else { 0 }, Reverse((slot.used_at, index)))
            })
            .max()?;
        let reused = self.reusable(&self.slots[index], prompt, cache_key);
        self.uses += 1;
        let slot = &mut self.slots[index];
        *slot = Slot { is_busy: true, cache_key, tokens: Vec::new(), used_at: self.uses };
        Some(Place { slot: index, reused })
    }

    /// The slot's generation is over; `tokens` are what its memory holds.
    pub fn give_back(&mut self, slot: usize, tokens: Vec<Token>) {
        let slot = &mut self.slots[slot];
        debug_assert!(slot.is_busy, "a slot is given back once");
        slot.is_busy = false;
        slot.tokens = tokens;
    }

    /// Tokens remembered by idle slots.
    pub fn idle_tokens(&self) -> u64 {
        self.slots.iter().map(|slot| slot.tokens.len() as u64).sum()
    }

    fn reusable(&self, slot: &Slot, prompt: &[Token], cache_key: u64) -> usize {
        if slot.cache_key != cache_key {
            return 0;
        }
        let common = slot.tokens.iter().zip(prompt).take_while(|(ours, theirs)| ours == theirs).count();
        let reusable = common.min(prompt.len().saturating_sub(1));
        if self.can_cut || reusable == slot.tokens.len() { reusable } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_conversation_returns_to_the_slot_that_remembers_it() {
        let mut prefixes = Prefixes::new(3, true);
        assert_eq!(prefixes.take(&[1, 2, 3], 7), Some(Place { slot: 0, reused: 0 }));
        assert_eq!(prefixes.take(&[9, 9], 7), Some(Place { slot: 1, reused: 0 }));
        prefixes.give_back(0, vec![1, 2, 3, 4, 5]);
        prefixes.give_back(1, vec![9, 9, 9]);
        assert_eq!(prefixes.take(&[1, 2, 3, 4, 5, 6], 7), Some(Place { slot: 0, reused: 5 }));
    }

    #[test]
    fn a_new_conversation_does_not_push_out_another_one_while_there_is_room() {
        let template = [1, 2, 3];
        let mut prefixes = Prefixes::new(2, true);
        let one = [template.as_slice(), &[10, 11, 12, 13]].concat();
        let other = [template.as_slice(), &[20, 21, 22, 23]].concat();
        assert_eq!(prefixes.take(&one, 7), Some(Place { slot: 0, reused: 0 }));
        prefixes.give_back(0, one.clone());
        assert_eq!(prefixes.take(&other, 7), Some(Place { slot: 1, reused: 0 }));
        prefixes.give_back(1, other.clone());
        assert_eq!(prefixes.take(&one, 7), Some(Place { slot: 0, reused: 6 }));
        assert_eq!(
            prefixes.take(&[1, 2, 3, 30, 31], 7),
            Some(Place { slot: 1, reused: 3 }),
            "nothing else is idle"
        );
    }

    #[test]
    fn nothing_is_shared_between_keys() {
        let mut prefixes = Prefixes::new(1, true);
        prefixes.take(&[1, 2, 3], 7).unwrap();
        prefixes.give_back(0, vec![1, 2, 3]);
        assert_eq!(prefixes.take(&[1, 2, 3], 8), Some(Place { slot: 0, reused: 0 }));
    }

    #[test]
    fn the_last_prompt_token_is_always_computed() {
        let mut prefixes = Prefixes::new(1, true);
        prefixes.take(&[1, 2, 3], 7).unwrap();
        prefixes.give_back(0, vec![1, 2, 3, 4]);
        assert_eq!(prefixes.take(&[1, 2, 3], 7), Some(Place { slot: 0, reused: 2 }));
    }

    #[test]
    fn a_recurrent_memory_is_used_whole_or_not_at_all() {
        let mut prefixes = Prefixes::new(1, false);
        prefixes.take(&[1, 2], 7).unwrap();
        prefixes.give_back(0, vec![1, 2, 3]);
        assert_eq!(prefixes.take(&[1, 2, 4], 7), Some(Place { slot: 0, reused: 0 }));
        prefixes.give_back(0, vec![1, 2, 4]);
        assert_eq!(prefixes.take(&[1, 2, 4, 5], 7), Some(Place { slot: 0, reused: 3 }));
    }

    #[test]
    fn without_anything_to_reuse_the_slot_unused_for_longest_is_taken() {
        let mut prefixes = Prefixes::new(2, true);
        prefixes.take(&[1], 1).unwrap();
        prefixes.take(&[2], 1).unwrap();
        prefixes.give_back(1, vec![2]);
        prefixes.give_back(0, vec![1]);
        assert_eq!(prefixes.take(&[5, 5], 1).unwrap().slot, 0);
        assert_eq!(prefixes.take(&[5, 5], 1).unwrap().slot, 1);
        assert_eq!(prefixes.take(&[5, 5], 1), None);
    }

    proptest! {
        #[test]
        fn what_is_reused_was_remembered_under_the_same_key_and_saves_most_of_what_is_worth_it(
            can_cut: bool,
            rounds in proptest::collection::vec((proptest::collection::vec(0..3i32, 1..8), 0..2u64, any::<bool>()), 1..60),
        ) {
            let mut prefixes = Prefixes::new(3, can_cut);
            // Our own record of each slot: `None` while busy.
            let mut record: Vec<Option<(u64, Vec<Token>)>> = vec![Some((0, Vec::new())); 3];
            let mut running: Vec<(usize, u64, Vec<Token>)> = Vec::new();
            for (prompt, key, ends) in rounds {
                if let Some(place) = prefixes.take(&prompt, key) {
                    let (old_key, old) = record[place.slot].take().expect("never a busy slot");
                    prop_assert!(place.reused < prompt.len());
                    prop_assert!(place.reused == 0 || old_key == key);
                    prop_assert_eq!(&old[..place.reused], &prompt[..place.reused]);
                    prop_assert!(can_cut || place.reused == 0 || place.reused == old.len());
                    for (other_key, tokens) in record.iter().flatten().filter(|_| can_cut) {
                        let common = tokens.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
                        let common = common.min(prompt.len() - 1);
                        let is_worth = *other_key == key && 2 * common >= tokens.len();
                        prop_assert!(!is_worth || common <= place.reused);
                    }
                    running.push((place.slot, key, prompt));
                } else {
                    prop_assert_eq!(running.len(), 3);
                }
                if ends && !running.is_empty() {
                    let (slot, key, tokens) = running.remove(0);
                    prefixes.give_back(slot, tokens.clone());
                    record[slot] = Some((key, tokens));
                }
            }
        }
    }
}
