//! What a comparison will be able to see, before it is run.
//!
//! The power of a paired comparison of n items is the probability that a true difference δ is
//! found, with a chance of α to find one where there is none (one-sided):
//! `P(T > t(1−α, n−1))`, where T is noncentral t with n − 1 degrees of freedom and noncentrality
//! `δ √n / σ`, and σ is the standard deviation of an item's difference (Cohen, "Statistical power
//! analysis for the behavioral sciences", 2nd edition 1988, chapter 2). Since our intervals of
//! scores are √(n / (n − 1)) wider than those of a t test, so is the quantile here.
//!
//! For right and wrong answers `σ² = π − δ²`, where π is the share of items on which exactly one
//! of the two is right (Connor, "Sample size for testing differences in proportions for the
//! paired-sample design", Biometrics 43, 1987).

use serde::{Deserialize, Serialize};

use super::distribution::{noncentral_t_above, normal_quantile, t_quantile};
use super::error::{StatsError, check_positive, check_share};

/// Nobody evaluates more items than this.
const MAX_ITEMS: u64 = 1_000_000_000;
/// Halvings of an interval: below any digit that is shown.
const HALVINGS: usize = 60;

/// How much an item's difference varies between items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Spread {
    /// Items are right or wrong, and on this share of them exactly one of the models is right.
    Discordant {
        /// Between 0 and 1.
        share: f64,
    },
    /// Any scores, with this standard deviation of an item's difference.
    Deviation {
        /// In units of the metric.
        deviation: f64,
    },
}

/// The rates that a comparison promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The chance to find a difference where there is none, one-sided: 0.025.
    pub alpha: f64,
    /// The chance to find the difference that is there: 0.8.
    pub power: f64,
    /// How an item's difference varies.
    pub spread: Spread,
    /// How many items of a cluster are worth one independent item: 1 without clusters.
    pub design_effect: f64,
}

impl Plan {
    fn check(&self) -> Result<(), StatsError> {
        check_share("alpha", self.alpha)?;
        check_share("power", self.power)?;
        if !(self.design_effect >= 1.0 && self.design_effect.is_finite()) {
            let (name, found) = ("design effect", self.design_effect);
            return Err(StatsError::Setting {
                name,
                found,
                expected: "a finite number, 1 or more",
            });
        }
        match self.spread {
            Spread::Discordant { share } if share != 1.0 => check_share("discordant share", share),
            Spread::Discordant { .. } => Ok(()),
            Spread::Deviation { deviation } => check_positive("standard deviation", deviation),
        }
    }

    /// The largest difference that the spread allows.
    fn largest(&self) -> f64 {
        match self.spread {
            // All that differ are won.
            Spread::Discordant { share } => share,
            // With this the two of the smallest comparison suffice.
            Spread::Deviation { deviation } => deviation * 1e6,
        }
    }

    /// The probability that `num_items` items show a true difference of `difference`.
    pub fn power(&self, difference: f64, num_items: u64) -> Result<f64, StatsError> {
        self.check()?;
        check_positive("difference", difference)?;
        Ok(self.chance(difference, num_items))
    }

    fn chance(&self, difference: f64, num_items: u64) -> f64 {
        let num = num_items as f64 / self.design_effect;
        if num < 2.0 {
            return 0.0;
        }
        let (deviation, wider) = match self.spread {
            Spread::Discordant { share } => {
                ((share - difference * difference).max(0.0).sqrt(), 1.0)
            }
            Spread::Deviation { deviation } => (deviation, (num / (num - 1.0)).sqrt()),
        };
        let freedom = num - 1.0;
        let shift = difference * num.sqrt() / deviation.max(f64::MIN_POSITIVE);
        let limit = wider * t_quantile(1.0 - self.alpha, freedom);
        noncentral_t_above(limit, freedom, shift.min(1e6))
    }

    /// The smallest true difference that `num_items` items show with the promised power.
    ///
    /// ```
    /// use feilun_eval::stats::{Plan, Spread};
    ///
    /// let spread = Spread::Discordant { share: 0.2 };
    /// let plan = Plan { alpha: 0.025, power: 0.8, spread, design_effect: 1.0 };
    /// let points = 100.0 * plan.detectable_difference(140)?;
    /// assert_eq!(format!("{points:.0}"), "10");
    /// # Ok::<(), feilun_eval::stats::StatsError>(())
    /// ```
    pub fn detectable_difference(&self, num_items: u64) -> Result<f64, StatsError> {
        self.check()?;
        let (mut low, mut high) = (0.0, self.largest());
        if self.chance(high, num_items) < self.power {
            return Err(StatsError::OutOfReach { limit: num_items });
        }
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.chance(middle, num_items) < self.power {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(high)
    }

    /// How many items it takes to show a true difference of `difference` with the promised power.
    pub fn items_needed(&self, difference: f64) -> Result<u64, StatsError> {
        self.check()?;
        check_positive("difference", difference)?;
        let out_of_reach = StatsError::OutOfReach { limit: MAX_ITEMS };
        if difference > self.largest() || self.chance(difference, MAX_ITEMS) < self.power {
            return Err(out_of_reach);
        }
        Ok(smallest(|num_items| self.chance(difference, num_items) >= self.power))
    }
}

/// How many answers each of two models must give, to different users, until a true difference of
/// two shares shows: the plan of a live comparison.
///
/// `n = (z(1−α) √(2 p̄ (1−p̄)) + z(power) √(p₁(1−p₁) + p₂(1−p₂)))² / (p₁ − p₂)²` with p̄ their
/// mean (Fleiss, Levin and Paik, "Statistical methods for rates and proportions", 3rd edition
/// 2003, chapter 4).
///
/// ```
/// use feilun_eval::stats::answers_per_model;
///
/// assert_eq!(answers_per_model(0.8, 0.85, 0.025, 0.8)?, 906);
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
pub fn answers_per_model(
    share: f64,
    other_share: f64,
    alpha: f64,
    power: f64,
) -> Result<u64, StatsError> {
    check_share("share", share)?;
    check_share("other share", other_share)?;
    check_share("alpha", alpha)?;
    check_share("power", power)?;
    check_positive("difference of the shares", (share - other_share).abs())?;
    let mean = 0.5 * (share + other_share);
    let variance = |share: f64| share * (1.0 - share);
    let null = normal_quantile(1.0 - alpha) * (2.0 * variance(mean)).sqrt();
    let truth = normal_quantile(power) * (variance(share) + variance(other_share)).sqrt();
    let num = ((null + truth) / (share - other_share)).powi(2).ceil();
    if num > MAX_ITEMS as f64 {
        return Err(StatsError::OutOfReach { limit: MAX_ITEMS });
    }
    Ok(num as u64)
}

/// The smallest number up to the limit for which `is_enough`, which stays true once it is.
fn smallest(is_enough: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, 2);
    while high < MAX_ITEMS && !is_enough(high) {
        low = high;
        high = (high * 2).min(MAX_ITEMS);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_enough(middle) { high = middle } else { low = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(spread: Spread) -> Plan {
        Plan { alpha: 0.025, power: 0.8, spread, design_effect: 1.0 }
    }

    #[test]
    fn it_equals_scipy() {
        // `nct.sf(t.ppf(0.975, n - 1) * sqrt(n / (n - 1)), n - 1, effect * sqrt(n))`. Without the
        // factor that is statsmodels' `TTestPower`, as was tried by hand.
        let plan = plan(Spread::Deviation { deviation: 2.0 });
        for (effect, num_items, expected) in [
            (0.5, 20, 0.5443015704686556),
            (0.2, 200, 0.8022955412752719),
            (1.0, 10, 0.7702189155350894),
            (0.24, 140, 0.8031711153974344),
        ] {
            let power = plan.power(2.0 * effect, num_items).unwrap();
            assert!((power - expected).abs() < 1e-6, "{effect}, {num_items}: {power}");
        }
        for (effect, expected) in [(0.5, 35), (0.2, 199), (0.05, 3143)] {
            assert_eq!(plan.items_needed(2.0 * effect), Ok(expected));
        }
        for (num_items, expected) in
            [(20, 0.6729701778379379), (140, 0.23903128192873394), (1000, 0.08871025269772605)]
        {
            let found = plan.detectable_difference(num_items).unwrap();
            assert!((found - 2.0 * expected).abs() < 1e-5, "{num_items}: {found}");
        }
    }

    #[test]
    fn needing_and_detecting_are_inverse() {
        for share in [0.2, 0.5, 1.0] {
            let plan = plan(Spread::Discordant { share });
            for num_items in [50, 140, 3000] {
                // A little more than what can be seen needs that many items, or a few fewer.
                let Ok(difference) = plan.detectable_difference(num_items) else {
                    panic!("{share}, {num_items}: nothing can be seen")
                };
                assert_eq!(plan.items_needed(difference * (1.0 + 1e-9)), Ok(num_items));
            }
        }
    }

    #[test]
    fn clusters_cost_items() {
        let spread = Spread::Deviation { deviation: 1.0 };
        let clustered = Plan { design_effect: 3.0, ..plan(spread) };
        let alone = plan(spread).items_needed(0.2).unwrap();
        let needed = clustered.items_needed(0.2).unwrap();
        assert!(needed.abs_diff(3 * alone) <= 3, "{needed}, {alone}");
    }

    #[test]
    fn what_no_comparison_can_see_is_said() {
        let plan = plan(Spread::Discordant { share: 0.1 });
        // Three items cannot, however different the models are.
        assert_eq!(plan.detectable_difference(2), Err(StatsError::OutOfReach { limit: 2 }));
        // More than the items on which the models differ.
        assert!(matches!(plan.items_needed(0.2), Err(StatsError::OutOfReach { .. })));
        assert!(matches!(plan.items_needed(1e-9), Err(StatsError::OutOfReach { .. })));
        assert!(matches!(
            Plan { power: 1.0, ..plan }.power(0.05, 10),
            Err(StatsError::Setting { name: "power", .. })
        ));
        assert!(matches!(
            Plan { design_effect: 0.5, ..plan }.power(0.05, 10),
            Err(StatsError::Setting { name: "design effect", .. })
        ));
        assert!(answers_per_model(0.5, 0.5, 0.025, 0.8).is_err());
    }
}
