//! Curves of the last minutes, in as many columns as there are.

use std::collections::VecDeque;

/// Points that are kept: five minutes where a report comes each second.
pub(super) const POINTS: usize = 300;

/// The latest values of something.
#[derive(Debug, Default)]
pub(super) struct Curve {
    points: VecDeque<u64>,
    /// How many there have ever been: what shares a column must not change as points leave.
    pushed: usize,
}

impl Curve {
    /// Adds a value.
    pub(super) fn push(&mut self, value: u64) {
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(value);
        self.pushed = self.pushed.wrapping_add(1);
    }

    /// The latest value.
    pub(super) fn latest(&self) -> u64 {
        self.points.back().copied().unwrap_or(0)
    }

    /// The highest of those that are kept.
    pub(super) fn peak(&self) -> u64 {
        self.points.iter().copied().max().unwrap_or(0)
    }

    /// All that are kept in at most `width` columns, the latest last. Where several share a column
    /// it has the highest: a peak is what one looks for.
    pub(super) fn columns(&self, width: usize) -> Vec<u64> {
        if width == 0 {
            return Vec::new();
        }
        let share = POINTS.div_ceil(width);
        let oldest = self.pushed.wrapping_sub(self.points.len());
        let mut columns: Vec<u64> = Vec::with_capacity(width + 1);
        let mut present = None;
        for (place, &value) in self.points.iter().enumerate() {
            let column = oldest.wrapping_add(place) / share;
            match columns.last_mut() {
                Some(last) if present == Some(column) => *last = value.max(*last),
                _ => columns.push(value),
            }
            present = Some(column);
        }
        // The oldest points may fill but a part of a column.
        columns.drain(..columns.len().saturating_sub(width));
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_fit_into_few_columns_and_peaks_stay() {
        let mut curve = Curve::default();
        assert_eq!((curve.latest(), curve.peak(), curve.columns(10)), (0, 0, vec![]));
        for value in 0..1_000 {
            curve.push(if value == 900 { 5_000 } else { value });
        }
        assert_eq!((curve.latest(), curve.peak()), (999, 5_000));
        for width in [1, 7, 39, 300, 500] {
            let columns = curve.columns(width);
            assert!(columns.len() <= width && columns.contains(&5_000), "{width}: {columns:?}");
            assert!(columns.len() + 1 >= width.min(POINTS) / 2, "{width}: {columns:?}");
        }
        // A new point changes the last column only, or moves all by one.
        let before = curve.columns(39);
        curve.push(1);
        let after = curve.columns(39);
        assert!(
            after[..37] == before[..37] || after[..36] == before[1..37],
            "{before:?} {after:?}"
        );
        assert!(curve.columns(0).is_empty());
    }
}
