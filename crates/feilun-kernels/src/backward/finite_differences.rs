//! The reference of all gradients: how much a formula in f64 changes.

/// The derivative of `f` at `x` with respect to each element, by central differences. With a
/// step of 1e-4 and curvatures near 1 it is right to about 1e-8.
pub(super) fn gradient(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-4;
    let mut x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    (0..x.len())
        .map(|index| {
            let value = x[index];
            x[index] = value + STEP;
            let above = f(&x);
            x[index] = value - STEP;
            let below = f(&x);
            x[index] = value;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}
