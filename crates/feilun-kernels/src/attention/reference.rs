//! Attention as the formula says it, in f64, one row and head at a time: for the tests.

use super::{AttentionSegment, AttentionShape};

/// The result of one row at `position` and one head, from keys and values as the cache has them.
pub(super) fn attend_row(
    shape: &AttentionShape,
    cache: &[u8],
    segment: &AttentionSegment<'_>,
    position: usize,
    head: usize,
    q: &[f32],
) -> Vec<f64> {
    let layout = &shape.layout;
    let kv_head = head / (shape.num_heads / layout.num_kv_heads());
    let first = shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let mut scores = Vec::new();
    let mut values = Vec::new();
    let (mut key, mut value) = (vec![0.0; layout.head_dim()], vec![0.0; layout.head_dim()]);
    for at in first..=position {
        let slot = layout.slot(segment.blocks, at).unwrap();
        layout.read(cache, slot, kv_head, &mut key, &mut value);
        let dot: f64 = q.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
        scores.push(dot * f64::from(shape.scale));
        values.push(value.clone());
    }
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
    let mut out = vec![0.0; layout.head_dim()];
    for (score, value) in scores.iter().zip(&values) {
        let p = (score - max).exp() / sum;
        for (out, value) in out.iter_mut().zip(value) {
            *out += p * f64::from(*value);
        }
    }
    out
}
