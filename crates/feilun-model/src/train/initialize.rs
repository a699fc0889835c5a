//! First values: of an adapter, or of a whole model that is to be pretrained.
//!
//! A tensor's values are a function of the seed and of its name alone.

use super::parameters::ParameterKind;
use super::trainee::Trainee;

/// Standard deviation of matrices (Radford et al. 2019, GPT-2).
const DEVIATION: f32 = 0.02;

impl Trainee {
    /// LoRA's beginning (Hu et al. 2021, as PEFT does it): A uniform in ±1/√inputs, B zero, so
    /// that the adapter changes nothing yet.
    pub fn initialize_adapter(&mut self, seed: u64) {
        for (info, values) in self.parameters_mut() {
            if info.name.contains("lora_B") {
                values.fill(0.0);
                continue;
            }
            let bound = 1.0 / (info.shape[1] as f32).sqrt();
            let mut draws = Draws::new(seed, &info.name);
            values.iter_mut().for_each(|value| *value = (2.0 * draws.uniform() - 1.0) * bound);
        }
    }

    /// GPT-2's beginning: matrices and embeddings normal with deviation 0.02, those that write to
    /// the residual stream divided by the root of their number; norms 1, biases 0.
    pub fn initialize(&mut self, seed: u64) {
        let num_writers = 2.0 * self.config().layers.len() as f32;
        for (info, values) in self.parameters_mut() {
            if info.kind == ParameterKind::Vector {
                values.fill(if info.name.ends_with(".bias") { 0.0 } else { 1.0 });
                continue;
            }
            let writes = ["o_proj", "down_proj"].iter().any(|part| info.name.contains(part));
            let deviation = if writes { DEVIATION / num_writers.sqrt() } else { DEVIATION };
            let mut draws = Draws::new(seed, &info.name);
            values.iter_mut().for_each(|value| *value = draws.normal() * deviation);
        }
    }
}

/// Random numbers: the output of BLAKE3 for a key made of seed and name.
struct Draws {
    reader: blake3::OutputReader,
    block: [u8; 1024],
    used: usize,
}

impl Draws {
    fn new(seed: u64, name: &str) -> Draws {
        let mut hasher = blake3::Hasher::new_derive_key("feilun 2026 initial values");
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        Draws { reader: hasher.finalize_xof(), block: [0; 1024], used: 1024 }
    }

    /// In 0..1, of 24 bits.
    fn uniform(&mut self) -> f32 {
        if self.used == self.block.len() {
            self.reader.fill(&mut self.block);
            self.used = 0;
        }
        let bytes = &self.block[self.used..][..4];
        self.used += 4;
        let bits = bytes.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        (bits >> 8) as f32 / (1 << 24) as f32
    }

    /// Standard normal (Box and Muller 1958; one of the pair).
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.uniform())).cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut draws = Draws::new(1, "a");
        let count = 100_000;
        let uniform: Vec<f64> = (0..count).map(|_| f64::from(draws.uniform())).collect();
        let normal: Vec<f64> = (0..count).map(|_| f64::from(draws.normal())).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>() / count as f64;
        assert!((mean(&uniform) - 0.5).abs() < 0.005);
        assert!((squares(&uniform) - 1.0 / 3.0).abs() < 0.005);
        assert!(mean(&normal).abs() < 0.015 && (squares(&normal) - 1.0).abs() < 0.02);
        assert!(uniform.iter().all(|&v| (0.0..1.0).contains(&v)));
    }

    #[test]
    fn names_and_seeds_have_numbers_of_their_own() {
        let first = |seed, name| Draws::new(seed, name).uniform();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert!(first(1, "a") != first(1, "b") && first(1, "a") != first(2, "a"));
    }
}
