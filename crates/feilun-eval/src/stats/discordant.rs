//! Tests of two models on the same items where only wins and losses count.

use serde::{Deserialize, Serialize};

use super::distribution::{fair_coin_cdf, fair_coin_mass};

/// p-values of the question "are wins and losses equally likely?".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignTest {
    /// Items on which the candidate is better.
    pub wins: u64,
    /// Items on which the incumbent is better.
    pub losses: u64,
    /// Exact, two-sided: of equal models, at most a share α gets a value of at most α. With few
    /// items it is far fewer than α, since the counts are whole numbers.
    pub p_exact: f64,
    /// Two-sided, with half of the probability of what was seen: nearer to α on average, and in
    /// exchange sometimes a little above it (Fagerland, Lydersen and Laake, "The McNemar test for
    /// binary matched-pairs data: mid-p and asymptotic are better than exact conditional", BMC
    /// Medical Research Methodology 13:91, 2013).
    pub p_mid: f64,
    /// Exact, one-sided: small where wins are more than chance makes them.
    pub p_better: f64,
}

/// The sign test: ties are left out, and of the others a fair coin decides who wins if the models
/// are equally good (Dixon and Mood, "The statistical sign test", Journal of the American
/// Statistical Association 41, 1946).
///
/// With n = wins + losses, k the smaller of them, and X binomial(n, ½):
/// `p_exact = min(1, 2 P(X ≤ k))`, `p_mid = p_exact − P(X = k)` (1 where wins = losses),
/// `p_better = P(X ≥ wins)`.
///
/// Items must be independent: where several come from one conversation, count conversations.
///
/// ```
/// use feilun_eval::stats::sign_test;
///
/// let test = sign_test(9, 1);
/// assert!((test.p_exact - 22.0 / 1024.0).abs() < 1e-12);
/// assert!((test.p_mid - 12.0 / 1024.0).abs() < 1e-12);
/// assert!((test.p_better - 11.0 / 1024.0).abs() < 1e-12);
/// ```
pub fn sign_test(wins: u64, losses: u64) -> SignTest {
    let (n, k) = (wins.saturating_add(losses), wins.min(losses));
    let p_exact = (2.0 * fair_coin_cdf(k, n)).min(1.0);
    let p_mid = if wins == losses { 1.0 } else { p_exact - fair_coin_mass(k, n) };
    // P(X ≥ wins) = P(X ≤ losses), for a fair coin has two equal sides.
    SignTest { wins, losses, p_exact, p_mid, p_better: fair_coin_cdf(losses, n) }
}

/// McNemar's test of two models' right and wrong answers to the same items: the sign test of the
/// items that exactly one of them got right (McNemar, "Note on the sampling error of the
/// difference between correlated proportions or percentages", Psychometrika 12, 1947).
///
/// The pairs are (candidate right, incumbent right).
///
/// ```
/// use feilun_eval::stats::mcnemar;
///
/// let test = mcnemar([(true, true), (true, false), (false, false), (true, false)]);
/// assert_eq!((test.wins, test.losses), (2, 0));
/// assert!((test.p_exact - 0.5).abs() < 1e-12);
/// ```
pub fn mcnemar(answers: impl IntoIterator<Item = (bool, bool)>) -> SignTest {
    let (mut wins, mut losses) = (0, 0);
    for answer in answers {
        match answer {
            (true, false) => wins += 1,
            (false, true) => losses += 1,
            _ => {}
        }
    }
    sign_test(wins, losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_equals_statsmodels() {
        // `statsmodels.stats.contingency_tables.mcnemar(exact=True)`, and with scipy's binomial
        // minus its mass for mid-p.
        let tests = [
            (15, 6, 0.0783538818359375, 0.0524787902832031, 0.03917694091796875),
            (0, 5, 0.0625, 0.03125, 1.0),
            (120, 90, 0.045114087864840696, 0.0386433487822089, 0.022557043932420348),
            (3, 3, 1.0, 1.0, 0.65625),
            (0, 0, 1.0, 1.0, 1.0),
        ];
        for (wins, losses, p_exact, p_mid, p_better) in tests {
            let test = sign_test(wins, losses);
            let found = [test.p_exact, test.p_mid, test.p_better];
            for (found, expected) in found.into_iter().zip([p_exact, p_mid, p_better]) {
                assert!((found - expected).abs() < 1e-10, "{wins}, {losses}: {test:?}");
            }
        }
    }

    #[test]
    fn only_items_that_one_model_got_right_count() {
        let mut answers = vec![(true, true); 50];
        answers.extend([(false, false); 50]);
        answers.extend([(true, false); 9]);
        answers.push((false, true));
        assert_eq!(mcnemar(answers), sign_test(9, 1));
    }
}
