//! A bounded cache that keeps what was used lately.

use std::hash::Hash;

use crate::model::fast::FastMap;

/// A map that forgets what has not been asked for while it took in many other things.
///
/// Two generations stand in for an exact order of use, which would cost more than the lookups
/// that the cache saves: what is used moves to the young one; when that is full, it becomes the
/// old one, and what was left in the old one is forgotten.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: FastMap<K, V>,
    old: FastMap<K, V>,
    generation: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// A cache of at most `capacity` entries (rounded up to an even number, at least 2).
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: FastMap::default(),
            old: FastMap::default(),
            generation: capacity.div_ceil(2).max(1),
        }
    }

    /// What is kept under `key`.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Keeps `value` under `key`, in place of what was there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// How many entries are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut cache = Recent::new(8);
        for number in 0..1_000 {
            cache.insert(number, number);
            assert_eq!(cache.get(&0), Some(0), "after {number}");
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(&999), Some(999));
        assert_eq!(cache.get(&500), None);
    }

    #[test]
    fn the_last_value_counts_whichever_generation_the_first_is_in() {
        let mut cache = Recent::new(2);
        cache.insert("a", 1);
        cache.insert("b", 2);
        cache.insert("a", 3);
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.len()), (Some(3), Some(2), 2));
    }
}
