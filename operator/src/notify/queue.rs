//! What waits for one receiver. Pure.

use std::collections::VecDeque;

/// A hundred news at most: whoever could not take more for minutes wants the newest ones.
pub(super) const WAITING_MAX: usize = 100;

/// What waits for one receiver, and whether somebody works on it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: VecDeque<T>,
    is_worked: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), is_worked: false }
    }
}

/// What follows from a new item.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    /// A worker has to be started.
    pub(super) needs_worker: bool,
    /// The oldest had to go.
    pub(super) has_dropped: bool,
}

impl<T> Queue<T> {
    /// Adds an item at the end; the oldest goes when there are too many.
    pub(super) fn push(&mut self, item: T) -> Pushed {
        let has_dropped = self.waiting.len() >= WAITING_MAX && self.waiting.pop_front().is_some();
        self.waiting.push_back(item);
        Pushed { needs_worker: !std::mem::replace(&mut self.is_worked, true), has_dropped }
    }

    /// The oldest, for the worker. Without one its work is done.
    pub(super) fn next(&mut self) -> Option<T> {
        let next = self.waiting.pop_front();
        self.is_worked = next.is_some();
        next
    }

    /// Takes everything that waits.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.waiting).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut queue = Queue::default();
        let dropped = (0..=WAITING_MAX).filter(|number| queue.push(*number).has_dropped).count();
        assert_eq!((dropped, queue.next(), queue.clear()), (1, Some(1), WAITING_MAX - 1));
    }

    #[test]
    fn there_is_one_worker_at_a_time() {
        let mut queue = Queue::default();
        assert!(queue.push(1).needs_worker);
        assert!(!queue.push(2).needs_worker);
        assert_eq!((queue.next(), queue.next(), queue.next()), (Some(1), Some(2), None));
        assert!(queue.push(3).needs_worker);
    }
}
