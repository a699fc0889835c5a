//! Embeddings: the mean of a model's final hidden states over the tokens of a text.

/// Adds up rows. In f64 and in the order of positions, so that the result does not depend on how
/// the prompt was cut into chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeanPooling {
    sums_h: Vec<f64>,
    num_rows: usize,
    row_h: Vec<f32>,
}

impl MeanPooling {
    /// Rows so far.
    pub(crate) fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Adds a row of `width` values, which `read` writes.
    pub(crate) fn add(&mut self, width: usize, read: impl FnOnce(&mut [f32])) {
        self.row_h.resize(width, 0.0);
        self.sums_h.resize(width, 0.0);
        read(&mut self.row_h);
        for (sum, &value) in self.sums_h.iter_mut().zip(&self.row_h) {
            *sum += f64::from(value);
        }
        self.num_rows += 1;
    }

    /// The direction of the sum, a vector of length 1. (The mean differs from the sum by a factor
    /// alone, and that goes.) Where there is no direction, zeros.
    pub(crate) fn finish(self) -> Vec<f32> {
        let norm = self.sums_h.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
        let scale = if norm > 0.0 && norm.is_finite() { 1.0 / norm } else { 0.0 };
        self.sums_h.iter().map(|sum| (sum * scale) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_scaled_to_length_one() {
        let mut pooling = MeanPooling::default();
        for row in [[1.0f32, 0.0], [5.0, 8.0]] {
            pooling.add(2, |out| out.copy_from_slice(&row));
        }
        assert_eq!(pooling.num_rows(), 2);
        // (3, 4) / 5
        assert_eq!(pooling.finish(), [0.6, 0.8]);
        assert_eq!(MeanPooling::default().finish(), [0.0; 0]);
    }
}
