//! Random numbers of the shapes that scores have.

use feilun_infer::sampling::rng;

pub(crate) struct Draws {
    seed: u64,
    position: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64) -> Draws {
        Draws { seed, position: 0 }
    }

    /// Above 0 and below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.position += 1;
        rng::uniform(self.seed, self.position).max(f64::MIN_POSITIVE)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        (self.uniform() * len as f64) as usize
    }

    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    pub(crate) fn right(&mut self, probability: f64) -> f64 {
        if self.happens(probability) { 1.0 } else { 0.0 }
    }

    /// Box and Muller's.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Mean 1, skewness 2.
    pub(crate) fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// exp of a normal with this deviation.
    pub(crate) fn log_normal(&mut self, deviation: f64) -> f64 {
        (deviation * self.normal()).exp()
    }
}
