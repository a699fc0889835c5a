//! Schedules: the learning rate of a step, as a pure function of it.

use serde::{Deserialize, Serialize};

/// How the rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// Stays at the peak.
    Constant {},
    /// A straight line to `final_fraction` of the peak.
    Linear {
        /// Between 0 and 1.
        final_fraction: f64,
    },
    /// Half a cosine to `final_fraction` of the peak.
    Cosine {
        /// Between 0 and 1.
        final_fraction: f64,
    },
    /// At the peak, and a straight line to `final_fraction` of it over the last `decay_steps`.
    WarmupStableDecay {
        /// At most as many as there are after the warm-up.
        decay_steps: u64,
        /// Between 0 and 1.
        final_fraction: f64,
    },
}

/// The learning rate of a whole run.
///
/// ```
/// use feilun_train::schedule::{Schedule, Shape};
///
/// let shape = Shape::Linear { final_fraction: 0.0 };
/// let schedule = Schedule { peak: 1.0, warmup_steps: 2, num_steps: 6, shape };
/// let rates: Vec<f64> = (0..=6).map(|step| schedule.rate(step)).collect();
/// assert_eq!(rates, [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps of a straight line up to the peak. The first step is not zero: it would learn
    /// nothing.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub num_steps: u64,
    /// What follows the warm-up.
    pub shape: Shape,
}

/// Why a schedule makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ScheduleError {
    #[error("a run of {found} steps, expected at least 1")]
    NumSteps { found: u64 },
    #[error("warm-up of {found} steps, the run has {num_steps}")]
    Warmup { found: u64, num_steps: u64 },
    #[error("decay over {found} steps, the run has {expected} after the warm-up")]
    Decay { found: u64, expected: u64 },
    #[error("final_fraction is {found}, expected 0 to 1")]
    FinalFraction { found: f64 },
    #[error("the learning rate is {found}, expected a positive number")]
    Peak { found: f64 },
}

impl Schedule {
    /// Checks that the rate is never negative and the parts fit into the run.
    ///
    /// # Errors
    /// Naming what does not fit.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let num_steps = self.num_steps;
        if num_steps == 0 {
            return Err(ScheduleError::NumSteps { found: 0 });
        }
        if !(self.peak.is_finite() && self.peak > 0.0) {
            return Err(ScheduleError::Peak { found: self.peak });
        }
        if self.warmup_steps > num_steps {
            return Err(ScheduleError::Warmup { found: self.warmup_steps, num_steps });
        }
        if let Shape::WarmupStableDecay { decay_steps: found, .. } = self.shape {
            let expected = num_steps - self.warmup_steps;
            if found > expected {
                return Err(ScheduleError::Decay { found, expected });
            }
        }
        let found = self.final_fraction();
        if !(0.0..=1.0).contains(&found) {
            return Err(ScheduleError::FinalFraction { found });
        }
        Ok(())
    }

    /// The rate of a step, counted from 0. A decaying rate would reach its stated end at step
    /// `num_steps`, one after the last, as in other trainers: a last step at rate 0 is wasted.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * ((step + 1) as f64 / self.warmup_steps as f64);
        }
        let fraction = match self.shape {
            Shape::Constant {} => 1.0,
            Shape::Linear { final_fraction } => {
                between(1.0, final_fraction, self.progress(step, self.warmup_steps))
            }
            Shape::Cosine { final_fraction } => {
                let progress = self.progress(step, self.warmup_steps);
                let cosine = (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0;
                between(final_fraction, 1.0, cosine)
            }
            Shape::WarmupStableDecay { decay_steps, final_fraction } => {
                let start = self.num_steps.saturating_sub(decay_steps);
                between(1.0, final_fraction, self.progress(step, start))
            }
        };
        self.peak * fraction
    }

    /// 0 until `start`, 1 from `num_steps` on.
    fn progress(&self, step: u64, start: u64) -> f64 {
        if step >= self.num_steps {
            return 1.0;
        }
        let (done, all) = (step.saturating_sub(start), self.num_steps.saturating_sub(start));
        done as f64 / all.max(1) as f64
    }

    fn final_fraction(&self) -> f64 {
        match self.shape {
            Shape::Constant {} => 1.0,
            Shape::Linear { final_fraction }
            | Shape::Cosine { final_fraction }
            | Shape::WarmupStableDecay { final_fraction, .. } => final_fraction,
        }
    }
}

fn between(from: f64, to: f64, progress: f64) -> f64 {
    from * (1.0 - progress) + to * progress
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Constant {}),
            (0.0..=1.0).prop_map(|final_fraction| Shape::Linear { final_fraction }),
            (0.0..=1.0).prop_map(|final_fraction| Shape::Cosine { final_fraction }),
            (0_u64..500, 0.0..=1.0).prop_map(|(decay_steps, final_fraction)| {
                Shape::WarmupStableDecay { decay_steps, final_fraction }
            }),
        ]
    }

    proptest! {
        #[test]
        fn rates_stay_between_zero_and_the_peak_and_end_where_stated(
            peak in 1e-7..10.0, warmup_steps in 0_u64..400, num_steps in 1_u64..1000,
            shape in shapes(),
        ) {
            let schedule = Schedule { peak, warmup_steps, num_steps, shape };
            prop_assume!(schedule.check().is_ok());
            let mut before = 0.0;
            for step in 0..num_steps + 3 {
                let rate = schedule.rate(step);
                prop_assert!((0.0..=peak * (1.0 + 1e-12)).contains(&rate), "{rate} at {step}");
                if step < warmup_steps {
                    prop_assert!(rate > before, "warm-up rises");
                } else if step > warmup_steps {
                    prop_assert!(rate <= before * (1.0 + 1e-12), "and then it never does");
                }
                before = rate;
            }
            if warmup_steps > 0 {
                prop_assert_eq!(schedule.rate(warmup_steps - 1), peak);
            }
            let end = peak * schedule.final_fraction();
            prop_assert!((schedule.rate(num_steps) - end).abs() <= 1e-12 * peak);
        }
    }

    #[test]
    fn known_rates() {
        let rate = |shape, step| {
            Schedule { peak: 2.0, warmup_steps: 10, num_steps: 110, shape }.rate(step)
        };
        let cosine = Shape::Cosine { final_fraction: 0.1 };
        assert!((rate(cosine, 60) - 2.0 * 0.55).abs() < 1e-12);
        assert!((rate(cosine, 35) - 2.0 * (0.1 + 0.9 * 0.853_553_390_593_273_8)).abs() < 1e-12);
        let stable = Shape::WarmupStableDecay { decay_steps: 20, final_fraction: 0.0 };
        assert_eq!([rate(stable, 4), rate(stable, 50), rate(stable, 90)], [1.0, 2.0, 2.0]);
        assert!((rate(stable, 100) - 1.0).abs() < 1e-12);
        assert_eq!(rate(Shape::Constant {}, 1_000), 2.0);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let good = Schedule {
            peak: 1e-3,
            warmup_steps: 5,
            num_steps: 10,
            shape: Shape::Linear { final_fraction: 0.0 },
        };
        assert_eq!(good.check(), Ok(()));
        let check = |schedule: Schedule, expected: &str| {
            assert_eq!(schedule.check().unwrap_err().to_string(), expected);
        };
        check(Schedule { num_steps: 0, ..good }, "a run of 0 steps, expected at least 1");
        check(Schedule { warmup_steps: 11, ..good }, "warm-up of 11 steps, the run has 10");
        check(
            Schedule { peak: -1e-3, ..good },
            "the learning rate is -0.001, expected a positive number",
        );
        let shape = Shape::Cosine { final_fraction: -0.5 };
        check(Schedule { shape, ..good }, "final_fraction is -0.5, expected 0 to 1");
        let shape = Shape::WarmupStableDecay { decay_steps: 6, final_fraction: 0.0 };
        check(Schedule { shape, ..good }, "decay over 6 steps, the run has 5 after the warm-up");
    }
}
