//! Whether a prompt goes on from one that this worker has served, whether the cache may be expected to still hold
//! that one, and whether it did. Pure: must not know llama.cpp, nor how a slot is chosen (`prefix`).
//!
//! A cache that forgets what it should hold makes every turn of a conversation dearer, and no time per token shows
//! it. Hits alone do not show it either: how many there are depends on who asks. Hence hits among those that were due.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
};

use crate::{
    prefix::Place,
    request::{Reuse, Token},
};

/// Prompts that are remembered: four turns in each of 256 slots, in some 40 KiB.
const REMEMBERED_MAX: usize = 1_024;

/// Nothing is due once so much of the capacity has been written since. Far from the whole, so that it is no question
/// of which slot happened to be free: with four slots, one of them may have gone to another prompt.
const WRITTEN_PERCENT_MAX: u64 = 40;

/// So much of the earlier prompt must come from the cache. A hit is nearly all of it and a miss a common beginning.
const HIT_PERCENT_MIN: usize = 50;

/// The prompts served so far, and what runs now.
#[derive(Debug)]
pub struct Continuations {
    /// Served prompts, with what had been written when each ended.
    remembered: BTreeMap<Trace, u64>,
    running: Vec<Option<Run>>,
    slot_tokens: u64,
    /// Tokens written so far. A slot that is taken over counts as written from end to end, because what it held is
    /// lost, however short the new prompt is.
    written: u64,
}

/// All that is kept of a prompt. The hash covers its tokens and its cache key, so tenants cannot meet in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Trace {
    /// First, so that the prompts that may be another one's beginning come in order.
    length: usize,
    hash: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    trace: Trace,
    reused: usize,
    goes_on: bool,
}

impl Continuations {
    /// Nothing served yet, with so many slots of so many tokens.
    pub fn new(slots: usize, slot_tokens: u32) -> Continuations {
        Continuations {
            remembered: BTreeMap::new(),
            running: vec![None; slots],
            slot_tokens: slot_tokens.into(),
            written: 0,
        }
    }

    /// A prompt was placed. `place.reused` is what really came from the cache. A served prompt is continued once: of
    /// two that branch off, the second may find its memory in use, and that is nobody's fault.
    pub fn begin(&mut self, place: Place, prompt: &[Token], cache_key: u64) -> Reuse {
        let (trace, earlier) = self.follow(prompt, cache_key);
        let due = earlier.and_then(|earlier| self.due(earlier, prompt.len()));
        if let Some(earlier) = earlier {
            self.remembered.remove(&earlier);
        }
        let reuse = match due {
            None => Reuse::NotDue,
            Some(due) if place.reused * 100 >= due * HIT_PERCENT_MIN => Reuse::Hit,
            Some(_) => Reuse::Missed,
        };
        let goes_on = reuse == Reuse::Hit;
        if !goes_on {
            self.written += self.slot_tokens;
        }
        self.running[place.slot] = Some(Run { trace, reused: place.reused, goes_on });
        reuse
    }

    /// The generation in the slot is over, and the slot's memory holds `fed` tokens. A prompt that was not fed to its
    /// end was not served.
    pub fn end(&mut self, slot: usize, fed: usize) {
        let Some(run) = self.running[slot].take() else { return };
        if run.goes_on {
            self.written += fed.saturating_sub(run.reused) as u64;
        }
        if fed < run.trace.length {
            return;
        }
        self.remembered.insert(run.trace, self.written);
        if self.remembered.len() > REMEMBERED_MAX {
            let oldest = self.remembered.iter().min_by_key(|(_, written)| **written).map(|(trace, _)| *trace);
            oldest.and_then(|oldest| self.remembered.remove(&oldest));
        }
    }

    /// The prompt's trace, and that of the longest remembered prompt that it begins with.
    fn follow(&self, prompt: &[Token], cache_key: u64) -> (Trace, Option<Trace>) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(cache_key);
        let mut covered = 0;
        let mut longest = None;
        for earlier in self.remembered.keys().take_while(|trace| trace.length <= prompt.len()) {
            prompt[covered..earlier.length].iter().for_each(|token| hasher.write_i32(*token));
            covered = earlier.length;
            if hasher.finish() == earlier.hash {
                longest = Some(*earlier);
            }
        }
        prompt[covered..].iter().for_each(|token| hasher.write_i32(*token));
        (Trace { length: prompt.len(), hash: hasher.finish() }, longest)
    }

    /// How many tokens a prompt of this length may expect from the cache. A prompt's last token is always computed.
    fn due(&self, earlier: Trace, length: usize) -> Option<usize> {
        let written_before = *self.remembered.get(&earlier)?;
        let written = self.written - written_before;
        let capacity = self.slot_tokens * self.running.len() as u64;
        let due = earlier.length.min(length.saturating_sub(1));
        (written * 100 < capacity * WRITTEN_PERCENT_MAX && due > 0).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SLOT: u32 = 100;

    fn prompt(seed: Token, length: usize) -> Vec<Token> {
        (0..).map(|at| seed + at).take(length).collect()
    }

    /// One generation from begin to end in slot 0, with `reused` tokens from the cache and `said` generated ones.
    fn serve(all: &mut Continuations, prompt: &[Token], key: u64, reused: usize, said: usize) -> Reuse {
        let reuse = all.begin(Place { slot: 0, reused }, prompt, key);
        all.end(0, prompt.len() + said);
        reuse
    }

    #[test]
    fn the_next_turn_is_due_and_half_of_the_last_prompt_is_a_hit() {
        for (reused, expected) in [(10, Reuse::Hit), (5, Reuse::Hit), (4, Reuse::Missed), (0, Reuse::Missed)]
        {
            let mut all = Continuations::new(4, SLOT);
            assert_eq!(serve(&mut all, &prompt(0, 10), 7, 0, 5), Reuse::NotDue);
            assert_eq!(serve(&mut all, &prompt(0, 25), 7, reused, 5), expected);
        }
    }

    #[test]
    fn tenants_owe_each_other_nothing() {
        let mut all = Continuations::new(4, SLOT);
        serve(&mut all, &prompt(0, 10), 7, 0, 5);
        assert_eq!(serve(&mut all, &prompt(0, 25), 8, 10, 5), Reuse::NotDue);
    }

    #[test]
    fn what_two_of_four_slots_were_lost_to_is_no_longer_due() {
        for (others, expected) in [(1, Reuse::Missed), (2, Reuse::NotDue)] {
            let mut all = Continuations::new(4, SLOT);
            serve(&mut all, &prompt(0, 10), 7, 0, 5);
            for other in 1..=others {
                serve(&mut all, &prompt(1_000 * other, 3), 7, 0, 1);
            }
            assert_eq!(serve(&mut all, &prompt(0, 25), 7, 0, 5), expected);
        }
    }

    #[test]
    fn a_long_conversation_beside_it_writes_too() {
        for (said, expected) in [(130, Reuse::Missed), (170, Reuse::NotDue)] {
            let mut all = Continuations::new(4, SLOT);
            serve(&mut all, &prompt(500, 10), 7, 0, 0);
            serve(&mut all, &prompt(0, 10), 7, 0, 0);
            assert_eq!(serve(&mut all, &prompt(500, 20), 7, 10, said), Reuse::Hit);
            assert_eq!(serve(&mut all, &prompt(0, 20), 7, 0, 0), expected);
        }
    }

    #[test]
    fn a_prompt_is_continued_once() {
        let mut all = Continuations::new(4, SLOT);
        serve(&mut all, &prompt(0, 10), 7, 0, 5);
        let branch = all.begin(Place { slot: 0, reused: 10 }, &prompt(0, 20), 7);
        let other = all.begin(Place { slot: 1, reused: 0 }, &prompt(0, 21), 7);
        assert_eq!((branch, other), (Reuse::Hit, Reuse::NotDue));
    }

    #[test]
    fn a_prompt_given_up_half_way_was_not_served() {
        let mut all = Continuations::new(4, SLOT);
        all.begin(Place { slot: 0, reused: 0 }, &prompt(0, 10), 7);
        all.end(0, 9);
        assert_eq!(serve(&mut all, &prompt(0, 20), 7, 9, 0), Reuse::NotDue);
    }

    #[test]
    fn the_same_prompt_again_is_due_but_for_its_last_token() {
        let mut all = Continuations::new(4, SLOT);
        assert_eq!(serve(&mut all, &prompt(0, 2), 7, 0, 5), Reuse::NotDue);
        assert_eq!(serve(&mut all, &prompt(0, 2), 7, 1, 5), Reuse::Hit);
        assert_eq!(serve(&mut all, &prompt(9, 1), 7, 0, 5), Reuse::NotDue);
        assert_eq!(serve(&mut all, &prompt(9, 1), 7, 0, 5), Reuse::NotDue);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        // So many slots that nothing is ever too long ago.
        let mut all = Continuations::new(10_000, SLOT);
        let count = Token::try_from(REMEMBERED_MAX).unwrap();
        for number in 0..=count {
            serve(&mut all, &prompt(number * 10, 3), 7, 0, 0);
        }
        assert_eq!(all.remembered.len(), REMEMBERED_MAX);
        assert_eq!(serve(&mut all, &prompt(0, 5), 7, 3, 0), Reuse::NotDue);
        assert_eq!(serve(&mut all, &prompt(20, 5), 7, 3, 0), Reuse::Hit);
    }

    /// The same rule over whole prompts, without traces.
    #[derive(Default)]
    struct Plain {
        served: Vec<(u64, Vec<Token>, u64)>,
        written: u64,
    }

    impl Plain {
        fn serve(&mut self, capacity: u64, key: u64, prompt: &[Token], reused: usize, said: usize) -> Reuse {
            let is_earlier =
                |(of, earlier, _): &(u64, Vec<Token>, u64)| *of == key && prompt.starts_with(earlier);
            let places = (0..self.served.len()).filter(|place| is_earlier(&self.served[*place]));
            let earlier = places.max_by_key(|place| self.served[*place].1.len());
            let earlier = earlier.map(|place| self.served.remove(place));
            let mut reuse = Reuse::NotDue;
            if let Some((_, earlier, at)) = earlier {
                let due = earlier.len().min(prompt.len() - 1);
                if due > 0 && (self.written - at) * 10 < capacity * 4 {
                    reuse = if reused * 2 >= due { Reuse::Hit } else { Reuse::Missed };
                }
            }
            self.written +=
                if reuse == Reuse::Hit { (prompt.len() + said - reused) as u64 } else { SLOT.into() };
            self.served.retain(|(of, served, _)| (*of, served.as_slice()) != (key, prompt));
            self.served.push((key, prompt.to_vec(), self.written));
            reuse
        }
    }

    proptest! {
        #[test]
        fn it_decides_as_if_it_kept_the_prompts_themselves(
            slots in 1usize..12,
            rounds in proptest::collection::vec(
                (proptest::collection::vec(0..2i32, 1..8), 0..2u64, 0..8usize, 0..90usize), 1..80),
        ) {
            let mut all = Continuations::new(slots, SLOT);
            let mut plain = Plain::default();
            for (prompt, key, reused, said) in rounds {
                let reused = reused.min(prompt.len() - 1);
                let expected = plain.serve(slots as u64 * u64::from(SLOT), key, &prompt, reused, said);
                prop_assert_eq!(serve(&mut all, &prompt, key, reused, said), expected);
            }
        }
    }
}
