//! What is reported of a step: sums over its rows, and means at the end.

use crate::data::PackedRow;

/// Sums over rows. Add those of a step's rows, or of several steps, and take means.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sums {
    /// The loss. Of one row: its part in the loss of its step, so that the sum over the rows of a
    /// step is the step's loss.
    pub loss: f64,
    /// −log p of the learned tokens, in nats.
    pub nats: f64,
    /// How many they are.
    pub num_tokens: usize,
    /// Preference pairs.
    pub num_pairs: usize,
    /// Pairs in which the chosen answer has the higher reward.
    pub num_correct: usize,
    /// Answers that were liked.
    pub num_desirable: usize,
    /// Answers that were not.
    pub num_undesirable: usize,
    /// Rewards of chosen or liked answers.
    pub reward_chosen: f64,
    /// Rewards of rejected or disliked answers.
    pub reward_rejected: f64,
    /// z₀ of KTO; the last one, not a sum.
    pub reference_point: f64,
}

impl Sums {
    pub(super) fn count_tokens(&mut self, row: &PackedRow, log_probs: &[f32]) {
        let learned = row.learn.iter().zip(log_probs).filter(|&(&learn, _)| learn);
        for (_, &log_prob) in learned {
            self.nats -= f64::from(log_prob);
            self.num_tokens += 1;
        }
    }

    /// Mean −log p of the learned tokens, in nats.
    pub fn nats_per_token(&self) -> Option<f64> {
        mean(self.nats, self.num_tokens)
    }

    /// −log2 p of the learned tokens, for each of the bytes that they stand for.
    pub fn bits_per_byte(&self, num_bytes: u64) -> f64 {
        self.nats / std::f64::consts::LN_2 / num_bytes.max(1) as f64
    }

    /// The share of pairs in which the chosen answer has the higher reward.
    pub fn accuracy(&self) -> Option<f64> {
        mean(self.num_correct as f64, self.num_pairs)
    }

    /// Mean reward of the chosen or liked answers.
    pub fn mean_reward_chosen(&self) -> Option<f64> {
        mean(self.reward_chosen, self.num_pairs + self.num_desirable)
    }

    /// Mean reward of the rejected or disliked answers.
    pub fn mean_reward_rejected(&self) -> Option<f64> {
        mean(self.reward_rejected, self.num_pairs + self.num_undesirable)
    }
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        self.loss += other.loss;
        self.nats += other.nats;
        self.num_tokens += other.num_tokens;
        self.num_pairs += other.num_pairs;
        self.num_correct += other.num_correct;
        self.num_desirable += other.num_desirable;
        self.num_undesirable += other.num_undesirable;
        self.reward_chosen += other.reward_chosen;
        self.reward_rejected += other.reward_rejected;
        self.reference_point = other.reference_point;
    }
}

/// A mean of nothing is nothing.
pub fn mean(sum: f64, count: usize) -> Option<f64> {
    (count > 0).then(|| sum / count as f64)
}
