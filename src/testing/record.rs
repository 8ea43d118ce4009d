//! The requests that a server saw.

use std::collections::VecDeque;

use super::Recorded;

/// All requests so far, or the last of them.
pub(super) struct Record {
    kept: VecDeque<Recorded>,
    /// How many arrived, those that are not kept any more among them.
    count: usize,
    limit: usize,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            kept: VecDeque::new(),
            count: 0,
            limit: usize::MAX,
        }
    }

    /// From now on only the last `limit` are kept.
    pub(super) fn keep(&mut self, limit: usize) {
        self.limit = limit;
        self.trim();
    }

    /// The number of the request: how many came before it.
    pub(super) fn push(&mut self, recorded: Recorded) -> usize {
        let number = self.count;
        self.count += 1;
        self.kept.push_back(recorded);
        self.trim();
        number
    }

    /// None if it is not kept any more.
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Recorded> {
        let forgotten = self.count - self.kept.len();
        self.kept.get_mut(number.checked_sub(forgotten)?)
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.kept.iter().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn trim(&mut self) {
        let surplus = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..surplus);
    }
}
