//! A cache that forgets its oldest entries once it holds more than its budget.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// Values by key, together never above a budget (bytes, or whatever `cost` counts).
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    entries: HashMap<K, (V, usize)>,
    order: VecDeque<K>,
    held: usize,
    budget: usize,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub fn new(budget: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), held: 0, budget }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Puts a value in. One that costs more than the whole budget is not kept.
    pub fn insert(&mut self, key: K, value: V, cost: usize) {
        if cost > self.budget {
            return;
        }
        match self.entries.insert(key.clone(), (value, cost)) {
            Some((_, old)) => self.held -= old,
            None => self.order.push_back(key),
        }
        self.held += cost;
        while self.held > self.budget {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, cost)) = self.entries.remove(&oldest) {
                self.held -= cost;
            }
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.held = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Bounded;

    proptest! {
        /// A cache above its budget would grow with the data set until the machine is out of memory.
        #[test]
        fn never_holds_more_than_its_budget(puts in prop::collection::vec((0u8..20, 0usize..40), 0..200)) {
            let mut cache = Bounded::new(100);
            for (key, cost) in puts {
                cache.insert(key, cost, cost);
                let held: usize = cache.entries.values().map(|(_, cost)| cost).sum();
                prop_assert!(held <= 100);
                prop_assert_eq!(held, cache.held);
                prop_assert_eq!(cache.order.len(), cache.entries.len());
            }
        }
    }
}
