//! From what single items contribute to the metric of all of them.
//!
//! Accuracy is a mean over items, but corpus chrF, BLEU and bits per byte are not: they are
//! functions of sums over items. So each item contributes a few numbers, the numbers are added
//! up, and an [`Aggregate`] makes the metric of the sums. Whatever resamples items or leaves some
//! out adds up other items and asks again.

/// A metric as a function of sums over items.
///
/// The function should be smooth where the sums are those of many items: intervals are made from
/// how it changes when an item is left out or taken twice.
pub trait Aggregate: Send + Sync {
    /// The metric. `sums` has [`width`](Aggregate::width) numbers, each summed over items. Where
    /// there is no answer (no items, say), NaN: whoever asked makes an error of it.
    fn value(&self, sums: &[f64]) -> f64;

    /// How many numbers each item contributes.
    fn width(&self) -> usize;

    /// Whether this is [`Mean`], for which there are better intervals where values are 0 and 1.
    fn is_mean(&self) -> bool {
        false
    }
}

/// The mean of one value per item: an item contributes `[value, 1.0]`, or `[value, weight]`.
///
/// ```
/// use feilun_eval::stats::{Aggregate, Mean};
///
/// let items = [[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]];
/// let mut sums = [0.0; 2];
/// for item in items {
///     sums[0] += item[0];
///     sums[1] += item[1];
/// }
/// assert_eq!(Mean.value(&sums), 0.75);
/// assert!(Mean.value(&[0.0, 0.0]).is_nan());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean;

impl Aggregate for Mean {
    fn value(&self, sums: &[f64]) -> f64 {
        match sums {
            [sum, weight] => sum / weight,
            _ => f64::NAN,
        }
    }

    fn width(&self) -> usize {
        2
    }

    fn is_mean(&self) -> bool {
        true
    }
}
