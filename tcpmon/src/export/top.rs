//! Keeping the number of series bounded without a counter that ever goes back.

use std::{cmp::Ordering, collections::HashMap, hash::Hash};

/// Puts the first `top` of all in their order before the rest, which is in none.
pub(super) fn first<T>(all: &mut [T], top: usize, mut order: impl FnMut(&T, &T) -> Ordering) {
    if top < all.len() {
        all.select_nth_unstable_by(top, &mut order);
    }
    let top = top.min(all.len());
    all[..top].sort_unstable_by(order);
}

/// The series that have a line of their own; all the others are added up under one name.
///
/// Whoever has a line keeps it, and whoever was added to the others stays with them once there is
/// no room: a count that moved between the two would make one of them fall, and a falling counter
/// is read as a restart.
#[derive(Debug)]
pub struct Top<K> {
    /// Lines that are not taken yet.
    room: usize,
    /// Whether a name has a line; a name that is not here has not been seen.
    own: HashMap<K, bool>,
}

/// Series of their own, and the rest.
pub type Split<K, V> = (Vec<(K, V)>, Vec<(K, V)>);

impl<K: Clone + Eq + Hash> Top<K> {
    /// Room for `room` series.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { room, own: HashMap::new() }
    }

    /// Splits `counts` into the series of their own and the rest.
    ///
    /// New names get a line while there is room, the busiest of them first.
    pub fn split<V>(&mut self, mut counts: Vec<(K, V)>, weight: impl Fn(&V) -> u64) -> Split<K, V> {
        counts.sort_by_key(|(_, value)| std::cmp::Reverse(weight(value)));
        let (mut own, mut rest) = (Vec::new(), Vec::new());
        for (key, value) in counts {
            let room = &mut self.room;
            let has_line = *self.own.entry(key.clone()).or_insert_with(|| {
                let free = *room > 0;
                *room -= usize::from(free);
                free
            });
            if has_line {
                own.push((key, value));
            } else {
                rest.push((key, value));
            }
        }
        (own, rest)
    }

    /// Forgets the series that `is_gone` says are gone for good; their lines are free for others.
    pub fn forget(&mut self, mut is_gone: impl FnMut(&K) -> bool) {
        let room = &mut self.room;
        self.own.retain(|key, has_line| {
            let gone = is_gone(key);
            *room += usize::from(gone && *has_line);
            !gone
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(
        top: &mut Top<&'static str>,
        counts: &[(&'static str, u64)],
    ) -> (Vec<&'static str>, u64) {
        let (own, rest) = top.split(counts.to_vec(), |count| *count);
        let rest = rest.into_iter().map(|(_, count)| count).sum();
        (own.into_iter().map(|(name, _)| name).collect(), rest)
    }

    #[test]
    fn the_first_are_in_order_and_the_rest_is_there() {
        for top in 0..8 {
            let mut all = [5, 1, 4, 2, 3, 0];
            first(&mut all, top, Ord::cmp);
            let top = top.min(all.len());
            assert_eq!(all[..top], [0, 1, 2, 3, 4, 5][..top]);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn the_busiest_get_a_line_and_keep_it() {
        let mut top = Top::new(2);
        assert_eq!(split(&mut top, &[("a", 1), ("b", 5), ("c", 3)]), (vec!["b", "c"], 1));
        assert_eq!(split(&mut top, &[("a", 100), ("b", 5), ("c", 3)]), (vec!["b", "c"], 100));
        assert_eq!(split(&mut top, &[("d", 9), ("c", 3)]), (vec!["c"], 9));
    }

    #[test]
    fn who_has_gone_makes_room() {
        let mut top = Top::new(1);
        assert_eq!(split(&mut top, &[("a", 2), ("b", 1)]), (vec!["a"], 1));
        top.forget(|key| *key == "a");
        assert_eq!(split(&mut top, &[("b", 1), ("c", 3)]), (vec!["c"], 1));
    }

    #[test]
    fn late_comers_get_a_line_while_there_is_room() {
        let mut top = Top::new(3);
        assert_eq!(split(&mut top, &[("a", 1)]), (vec!["a"], 0));
        assert_eq!(
            split(&mut top, &[("a", 1), ("b", 1), ("c", 7), ("d", 2)]),
            (vec!["c", "d", "a"], 1)
        );
    }
}
