//! The frequencies of rotary position embeddings, for every kind of scaling.

use crate::config::{RopeConfig, RopeScaling};

/// Angular frequency of each pair of dimensions, and the factor on cos and sin.
///
/// Plain: `theta^(-2 i / head_dim)`. The scaled variants follow transformers'
/// `modeling_rope_utils`: Llama 3 (Dubey et al. 2024), YaRN (Peng et al. 2023, section 3.2).
///
/// ```
/// use feilun_model::config::{RopeConfig, RopeScaling};
/// use feilun_model::rope_frequencies::frequencies;
/// let rope = RopeConfig { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 2.0 } };
/// assert_eq!(frequencies(&rope, 4), (vec![0.5, 0.005], 1.0));
/// ```
pub fn frequencies(rope: &RopeConfig, head_dim: usize) -> (Vec<f64>, f64) {
    let theta = f64::from(rope.theta);
    let plain = |pair: usize| theta.powf(-2.0 * pair as f64 / head_dim as f64);
    let pairs = 0..head_dim / 2;
    let mut attention_factor = 1.0;
    let frequencies = match &rope.scaling {
        RopeScaling::Plain => pairs.map(plain).collect(),
        RopeScaling::Linear { factor } => {
            pairs.map(|pair| plain(pair) / f64::from(*factor)).collect()
        }
        RopeScaling::Divisors(divisors) => pairs
            .map(|pair| plain(pair) / divisors.get(pair).map_or(1.0, |&d| f64::from(d)))
            .collect(),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let [factor, low, high, context] =
                [factor, low_freq_factor, high_freq_factor, original_context]
                    .map(|&x| f64::from(x));
            let stretch = |frequency: f64| {
                let rotations = context * frequency / std::f64::consts::TAU;
                let smooth = ((rotations - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            };
            pairs.map(|pair| stretch(plain(pair))).collect()
        }
        RopeScaling::Yarn {
            factor,
            original_context,
            beta_slow,
            beta_fast,
            attention_factor: on_cos_and_sin,
        } => {
            attention_factor = f64::from(*on_cos_and_sin);
            // The (fractional) pair that turns `rotations` times over the original context.
            let pair_of = |rotations: f32| {
                let context = f64::from(*original_context);
                head_dim as f64 * (context / (f64::from(rotations) * std::f64::consts::TAU)).ln()
                    / (2.0 * theta.ln())
            };
            let low = pair_of(*beta_fast).floor().max(0.0);
            let mut high = pair_of(*beta_slow).ceil().min(head_dim as f64 - 1.0);
            if low == high {
                high += 0.001;
            }
            let stretch = |pair: usize| {
                let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
                plain(pair) * ((1.0 - ramp) + ramp / f64::from(*factor))
            };
            pairs.map(stretch).collect()
        }
    };
    (frequencies, attention_factor)
}
