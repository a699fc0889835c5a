//! Quantiles and tails of the few distributions that tests need.
//!
//! `statrs` computes them; its functions panic on what no distribution allows, so this is the one
//! place that calls it, and callers have checked their numbers.

use statrs::distribution::{Binomial, Normal, StudentsT};
use statrs::distribution::{ContinuousCDF as _, DiscreteCDF as _};
use statrs::function::gamma::ln_gamma;

/// P(Z ≤ z) of a standard normal Z.
pub(crate) fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// The z with P(Z ≤ z) = p, for 0 < p < 1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    if p > 0.0 && p < 1.0 { Normal::standard().inverse_cdf(p) } else { f64::NAN }
}

/// Above so many degrees of freedom Student's t is the normal distribution to five digits.
const NORMAL_FROM: f64 = 1e6;

/// P(T ≤ t) of Student's t with so many degrees of freedom.
pub(crate) fn t_cdf(t: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |student| student.cdf(t))
}

/// The t with P(T ≤ t) = p, for 0 < p < 1.
pub(crate) fn t_quantile(p: f64, freedom: f64) -> f64 {
    if !(p > 0.0 && p < 1.0) {
        return f64::NAN;
    }
    if freedom >= NORMAL_FROM {
        return normal_quantile(p);
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |student| student.inverse_cdf(p))
}

/// P(X ≤ k) of a fair coin's heads in n throws.
pub(crate) fn fair_coin_cdf(k: u64, n: u64) -> f64 {
    Binomial::new(0.5, n).map_or(f64::NAN, |coin| coin.cdf(k))
}

/// P(X = k) of a fair coin's heads in n throws.
pub(crate) fn fair_coin_mass(k: u64, n: u64) -> f64 {
    let (k, n) = (k as f64, n as f64);
    let ln_choices = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
    (ln_choices - n * std::f64::consts::LN_2).exp()
}

/// P(T > t) of a noncentral t: (Z + shift) / S with S² = χ²/freedom.
///
/// Given S = s, this is Φ(shift − t·s); Simpson's rule averages it over the density of S,
/// `2 (ν/2)^(ν/2) / Γ(ν/2) · s^(ν−1) · exp(−ν s²/2)`, which has its mass within ten of its
/// standard deviations (about 1/√(2ν)) around 1.
pub(crate) fn noncentral_t_above(t: f64, freedom: f64, shift: f64) -> f64 {
    const STEPS: usize = 1000;
    let reach = 10.0 / (2.0 * freedom).sqrt();
    let (from, to) = ((1.0 - reach).max(0.0), 1.0 + reach);
    let half = 0.5 * freedom;
    let ln_constant = std::f64::consts::LN_2 + half * half.ln() - ln_gamma(half);
    let at = |s: f64| {
        // At s = 0 the density is zero but for one degree of freedom; ln 0 would be NaN there.
        let ln_power = if freedom == 1.0 { 0.0 } else { (freedom - 1.0) * s.ln() };
        let density = (ln_constant + ln_power - half * s * s).exp();
        density * normal_cdf(shift - t * s)
    };
    let step = (to - from) / STEPS as f64;
    let sum: f64 = (0..=STEPS)
        .map(|index| {
            let weight = match index {
                0 | STEPS => 1.0,
                odd if odd % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * at(from + step * index as f64)
        })
        .sum();
    (sum * step / 3.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // All expected values are those of scipy 1.16, `stats.norm`, `stats.t`, `stats.nct` and
    // `stats.binom`.

    #[track_caller]
    fn check(found: f64, expected: f64, digits: f64) {
        let close = (found - expected).abs() <= digits * expected.abs().max(1e-6);
        assert!(close, "{found}, expected {expected}");
    }

    #[test]
    fn normal_quantiles_are_scipys() {
        check(normal_quantile(1e-6), -4.753424308822899, 1e-11);
        check(normal_quantile(0.025), -1.9599639845400545, 1e-11);
        check(normal_quantile(0.3), -0.5244005127080409, 1e-11);
        check(normal_quantile(0.999), 3.090232306167813, 1e-11);
        assert!(normal_quantile(0.0).is_nan() && normal_quantile(1.5).is_nan());
    }

    #[test]
    fn students_t_is_scipys() {
        let quantiles = [
            (0.6, 1.0, 0.32491969623290634),
            (0.6, 19.0, 0.25692281979615467),
            (0.95, 4.5, 2.065575888878524),
            (0.975, 1.0, 12.706204736174694),
            (0.975, 2.0, 4.302652729749462),
            (0.975, 19.0, 2.0930240544083087),
            (0.975, 1e4, 1.960201239890626),
            (0.995, 100.0, 2.6258905214380173),
        ];
        for (p, freedom, expected) in quantiles {
            check(t_quantile(p, freedom), expected, 1e-9);
            check(t_quantile(1.0 - p, freedom), -expected, 1e-9);
        }
        check(t_quantile(0.975, 2e6), 1.959965171, 1e-6);
        check(t_cdf(-2.5, 1.0), 0.12111894159084341, 1e-10);
        check(t_cdf(-0.3, 5.5), 0.3875944427881393, 1e-10);
        check(t_cdf(1.7, 60.0), 0.9528450904657132, 1e-10);
        assert!(t_quantile(1.0, 3.0).is_nan());
    }

    #[test]
    fn noncentral_t_is_scipys() {
        let tails = [
            (2.093, 19.0, 1.0, 0.15629585476988583),
            (2.093, 19.0, 3.0, 0.8120709950775173),
            (12.7062, 1.0, 5.0, 0.30516020674441924),
            (1.96, 500.0, 2.8, 0.7993692030042204),
            (3.182, 3.0, 0.2, 0.035026119669240595),
            (2.0, 60.0, 0.0, 0.025016521825728735),
            (4.3027, 2.0, 8.0, 0.9580480495979943),
        ];
        for (t, freedom, shift, expected) in tails {
            check(noncentral_t_above(t, freedom, shift), expected, 1e-6);
        }
    }

    #[test]
    fn a_fair_coin_is_scipys() {
        check(fair_coin_cdf(0, 1), 0.5, 1e-12);
        check(fair_coin_cdf(3, 10), 0.171875, 1e-12);
        check(fair_coin_cdf(40, 100), 0.028443966820490444, 1e-10);
        check(fair_coin_cdf(480, 1000), 0.10872414660207075, 1e-10);
        check(fair_coin_mass(3, 10), 0.1171875, 1e-10);
        check(fair_coin_mass(480, 1000), 0.011340982371187717, 1e-9);
    }
}
