//! What a gate card says, sentence by sentence.

use crate::gate::{Decision, Finding, Foresight, Outcome, Verdict};

use super::Language;
use super::numbers::{count, percent};

impl Foresight {
    /// What so many items can show, for people: "With 140 items only differences of at least
    /// 11 points can be seen."
    pub fn sentence(&self, language: Language) -> String {
        let items = count(self.num_items);
        let Some(smallest) = self.smallest else {
            return language.pick(
                format!("With {items} items no difference can be seen, however large."),
                format!("只有 {items} 道题，多大的差距都看不出来。"),
            );
        };
        let size = self.unit.size(smallest, language);
        language.pick(
            format!("With {items} items only differences of at least {size} can be seen."),
            format!("只有 {items} 道题，至少相差 {size}才看得出来。"),
        )
    }
}

/// The headline.
pub(super) fn title(decision: Decision, language: Language) -> &'static str {
    match decision {
        Decision::Promote => language.pick("Gate: promote", "评测关卡：可以上线"),
        Decision::Reject => language.pick("Gate: reject", "评测关卡：不予上线"),
        Decision::NotEnough { .. } => {
            language.pick("Gate: not enough evidence", "评测关卡：证据不足")
        }
    }
}

/// Why, in one sentence or two. `name` makes the name of a metric safe to show.
pub(super) fn verdict(
    verdict: &Verdict,
    language: Language,
    name: &dyn Fn(&str) -> String,
) -> String {
    let with = |wanted: fn(&Outcome) -> bool| {
        let findings = std::iter::once(&verdict.target).chain(&verdict.guardrails);
        let names: Vec<String> = findings
            .filter(|finding| wanted(&finding.outcome))
            .map(|finding| name(&finding.name))
            .collect();
        names.join(language.pick(", ", "、"))
    };
    let target = name(&verdict.target.name);
    match verdict.decision {
        Decision::Promote if verdict.guardrails.is_empty() => language.pick(
            format!("The candidate is better in {target}."),
            format!("候选模型在 {target} 上更好。"),
        ),
        Decision::Promote => language.pick(
            format!(
                "The candidate is better in {target}, and nothing that is guarded got worse by \
                 more than was allowed."
            ),
            format!("候选模型在 {target} 上更好，各项护栏指标的退步都没有超过允许范围。"),
        ),
        Decision::Reject => {
            let broken = with(|outcome| *outcome == Outcome::Broken);
            if !broken.is_empty() {
                return language.pick(
                    format!("The candidate got worse by more than was allowed in: {broken}."),
                    format!("候选模型在以下指标上的退步超过了允许范围：{broken}。"),
                );
            }
            finding_sentence(&verdict.target, language)
        }
        Decision::NotEnough { further_items } => {
            let open = with(|outcome| matches!(outcome, Outcome::Open { .. }));
            let further = count(further_items);
            language.pick(
                format!(
                    "These items cannot tell. Undecided: {open}. About {further} further items of \
                     the same kind would do."
                ),
                format!(
                    "现有题目不足以下结论。尚无定论：{open}。再增加约 {further} 道同类题目即可。"
                ),
            )
        }
    }
}

/// What one comparison came to.
pub(super) fn finding_sentence(finding: &Finding, language: Language) -> String {
    let mark = finding.unit.size(finding.mark, language);
    match finding.outcome {
        Outcome::Better => language.pick(
            "Better: the whole bar is to the right of zero.".to_owned(),
            "更好：整条横线都在零的右边。".to_owned(),
        ),
        Outcome::Worse => language.pick(
            "Worse: the whole bar is to the left of zero.".to_owned(),
            "更差：整条横线都在零的左边。".to_owned(),
        ),
        Outcome::TooSmall => language.pick(
            format!(
                "Not enough better: the whole bar is to the left of the {mark} that a promotion \
                 is worth."
            ),
            format!("提升不够：整条横线都在值得上线的 {mark}的左边。"),
        ),
        Outcome::Held => language.pick(
            format!("Holds: the whole bar is to the right of the {mark} that may be lost."),
            format!("守住了：整条横线都在允许退步的 {mark}的右边。"),
        ),
        Outcome::Broken => language.pick(
            format!("Broken: it is shown to have lost more than the {mark} that may be lost."),
            format!("被突破：退步已确定超过允许的 {mark}。"),
        ),
        Outcome::Open { further_items } => {
            let further = count(further_items);
            language.pick(
                format!(
                    "Undecided: the bar is not clear of the marks. About {further} further items."
                ),
                format!("未定：横线还压着标记线。还需约 {further} 道题。"),
            )
        }
    }
}

/// The outcome in a word, for tables.
pub(super) fn outcome(outcome: Outcome, language: Language) -> &'static str {
    match outcome {
        Outcome::Better => language.pick("better", "更好"),
        Outcome::Worse => language.pick("worse", "更差"),
        Outcome::TooSmall => language.pick("too little", "提升不够"),
        Outcome::Held => language.pick("holds", "守住"),
        Outcome::Broken => language.pick("broken", "突破"),
        Outcome::Open { .. } => language.pick("undecided", "未定"),
    }
}

/// The words below the mark lines: at zero, and at the target's or the guardrail's mark.
pub(super) fn marks(finding: &Finding, language: Language) -> [&'static str; 2] {
    let mark = if finding.mark > 0.0 {
        language.pick("worth a promotion", "值得上线")
    } else {
        language.pick("may be lost", "允许退步")
    };
    [language.pick("no difference", "没有差别"), mark]
}

/// How to read the card, and what it promises.
pub(super) fn how_to_read(verdict: &Verdict, language: Language) -> [String; 3] {
    let confidence = 100.0 * (1.0 - 2.0 * verdict.options.alpha);
    let alpha = percent(verdict.options.alpha);
    [
        language.pick(
            "Both models answered the same items. The dot is the difference that was seen, the \
             bar around it is where the true difference lies; more to the right is better for the \
             candidate. More items make the bar shorter."
                .to_owned(),
            "两个模型回答了同样的题目。圆点是观察到的差距，横线是真实差距可能所在的范围；越靠右，\
             对候选模型越有利。题目越多，横线越短。"
                .to_owned(),
        ),
        language.pick(
            format!("Of 100 such bars about {confidence:.0} contain the true difference."),
            format!("每 100 条这样的横线，约有 {confidence:.0} 条包含真实差距。"),
        ),
        language.pick(
            format!(
                "Were the candidate the very same model as the incumbent, at most {alpha} of such \
                 gates would promote it."
            ),
            format!("假如候选模型与现任模型完全相同，这样的关卡最多有 {alpha} 会让它上线。"),
        ),
    ]
}
