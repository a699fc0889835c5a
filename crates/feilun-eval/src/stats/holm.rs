//! Several tests at once.

/// Holm's adjusted p-values: whoever calls significant what is at most α here makes one or more
/// false claims among all of them with probability at most α, however the tests depend on each
/// other.
///
/// With the p-values in rising order, `adjusted(i) = max over j ≤ i of (m − j + 1) · p(j)`, at
/// most 1 (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
/// of Statistics 6, 1979). A NaN stays one, and counts as a test.
///
/// ```
/// use feilun_eval::stats::holm;
///
/// assert_eq!(holm(&[0.25, 0.0625, 0.125]), [0.25, 0.1875, 0.25]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut largest: f64 = 0.0;
    for (rank, &index) in order.iter().enumerate() {
        if p_values[index].is_nan() {
            continue;
        }
        let factor = (p_values.len() - rank) as f64;
        largest = largest.max(factor * p_values[index]).min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_equals_statsmodels() {
        // `statsmodels.stats.multitest.multipletests(p, method="holm")`.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005, 0.5]);
        for (found, expected) in adjusted.iter().zip([0.04, 0.09, 0.09, 0.025, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{adjusted:?}");
        }
    }

    #[test]
    fn none_one_and_nan_are_no_trouble() {
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.03]), [0.03]);
        let adjusted = holm(&[f64::NAN, 0.9, 0.01]);
        assert!(adjusted[0].is_nan());
        assert_eq!(adjusted[1..], [1.0, 0.03]);
    }
}
