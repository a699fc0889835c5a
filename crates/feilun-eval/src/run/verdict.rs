//! A model as judge: what it is asked, and what its reply means.
//!
//! It is asked twice, with the answers in both orders, because judges prefer a place (Zheng et
//! al. 2023, "Judging LLM-as-a-judge", section 3.4). A reply without exactly one verdict is
//! counted, never guessed.

use crate::suite::Verdict;

/// A verdict is a few tokens; some models say a word before it.
pub(super) const MAX_TOKENS: u32 = 64;

const MARKS: [(&str, Verdict); 3] =
    [("[[a]]", Verdict::First), ("[[b]]", Verdict::Second), ("[[tie]]", Verdict::Tie)];

/// What the judge reads.
pub(super) fn question(prompt: &str, first: &str, second: &str) -> String {
    format!(
        "Two assistants were asked the same. Judge which of them answered better: more correct, \
         more helpful, closer to what was asked. Neither length nor order counts.\n\n\
         <question>\n{prompt}\n</question>\n\n\
         <answer_A>\n{first}\n</answer_A>\n\n\
         <answer_B>\n{second}\n</answer_B>\n\n\
         Reply with one of these and nothing else: [[A]] if A is better, [[B]] if B is better, \
         [[TIE]] if neither is."
    )
}

/// The verdict of a reply, if it holds exactly one.
pub(super) fn parse(reply: &str) -> Option<Verdict> {
    let reply = reply.to_lowercase();
    let mut found =
        MARKS.iter().filter(|(mark, _)| reply.contains(mark)).map(|(_, verdict)| *verdict);
    if let Some(verdict) = found.next() {
        return found.next().is_none().then_some(verdict);
    }
    // Nothing but the letter, with whatever stands around it.
    match reply.trim_matches(|c: char| !c.is_alphanumeric()) {
        "a" => Some(Verdict::First),
        "b" => Some(Verdict::Second),
        "tie" => Some(Verdict::Tie),
        _ => None,
    }
}

/// What both orders say together, both in the order of the item: a judge that follows the place
/// has no preference.
pub(super) fn together(verdict: Verdict, of_swapped: Verdict) -> Verdict {
    if verdict == of_swapped { verdict } else { Verdict::Tie }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        for (reply, expected) in [
            ("[[A]]", Some(Verdict::First)),
            ("I think [[b]] is better.", Some(Verdict::Second)),
            ("[[TIE]]", Some(Verdict::Tie)),
            (" A. ", Some(Verdict::First)),
            ("**B**", Some(Verdict::Second)),
            ("[[A]] or [[B]]", None),
            ("A is better than B", None),
            ("", None),
            ("妈妈", None),
            ("banana", None),
        ] {
            assert_eq!(parse(reply), expected, "{reply:?}");
        }
        assert_eq!(parse(&"x".repeat(10 << 20)), None);
    }

    #[test]
    fn a_judge_that_follows_the_place_says_nothing() {
        use Verdict::*;
        assert_eq!(together(First, First), First);
        assert_eq!(together(First, Second), Tie);
        assert_eq!(together(Tie, Tie), Tie);
        assert_eq!(together(Second, Tie), Tie);
    }
}
