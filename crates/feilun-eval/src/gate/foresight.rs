//! What a gate will be able to see, said before anything is generated.

use serde::{Deserialize, Serialize};

use crate::stats::{Plan, StatsError};

use super::Unit;

/// The smallest difference that so many items can show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Foresight {
    /// How many items both models will answer.
    pub num_items: u64,
    /// A true difference of this size is found with probability `power`; nothing is, where there
    /// are too few items to find any.
    pub smallest: Option<f64>,
    /// See [`Plan::power`].
    pub power: f64,
    /// How the difference is shown.
    pub unit: Unit,
}

/// Looks ahead.
///
/// ```
/// use feilun_eval::gate::{Unit, foresee};
/// use feilun_eval::report::Language;
/// use feilun_eval::stats::{Plan, Spread};
///
/// let spread = Spread::Discordant { share: 0.22 };
/// let plan = Plan { alpha: 0.025, power: 0.8, spread, design_effect: 1.0 };
/// let foresight = foresee(&plan, 140, Unit::Share)?;
/// assert_eq!(
///     foresight.sentence(Language::English),
///     "With 140 items only differences of at least 11 points can be seen."
/// );
/// # Ok::<(), feilun_eval::stats::StatsError>(())
/// ```
pub fn foresee(plan: &Plan, num_items: u64, unit: Unit) -> Result<Foresight, StatsError> {
    let smallest = match plan.detectable_difference(num_items) {
        Ok(smallest) => Some(smallest),
        Err(StatsError::OutOfReach { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Foresight { num_items, smallest, power: plan.power, unit })
}
