//! Medians and spreads: what is said of figures that wander from run to run.

use serde::Serialize;

/// Where a series of figures lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the figures are above; the mean of the two in the middle where they are even.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these figures; `None` if there are none.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[upper - 1], sorted[upper])
        } else {
            sorted[upper]
        };
        Some(Self { median, min, max })
    }
}

/// A count as a number that can be divided.
pub(crate) fn to_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let number = count as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        for (figures, median) in [
            (&[3.0][..], 3.0),
            (&[3.0, 1.0], 2.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 100.0, 1.0, 2.0], 3.0),
        ] {
            let spread = Spread::of(figures.iter().copied()).expect("figures");
            assert!((spread.median - median).abs() < 1e-12, "{figures:?}: {spread:?}");
        }
        let spread = Spread::of([0.9, 1.1, 0.95]).expect("figures");
        assert_eq!((spread.min, spread.max), (0.9, 1.1));
        assert_eq!(Spread::of([]), None);
    }
}
