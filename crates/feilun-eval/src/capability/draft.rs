//! A question with four choices, of which exactly one is right.

use super::Language;
use super::draws::Draws;

/// Choices of every item, so chance is one in four.
pub(super) const NUM_CHOICES: usize = 4;

/// A question before its choices have an order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) prompt: String,
    pub(super) right: String,
    pub(super) wrong: [String; NUM_CHOICES - 1],
}

impl Draft {
    /// Four choices, each with whether it holds in the world that the prompt tells of. That comes
    /// from executing the choice in that world, not from how the question was made; `None` where
    /// not exactly one holds, or where two choices read the same.
    pub(super) fn new(
        prompt: String,
        choices: impl IntoIterator<Item = (String, bool)>,
    ) -> Option<Draft> {
        let (right, wrong): (Vec<_>, Vec<_>) = choices.into_iter().partition(|(_, holds)| *holds);
        let [(right, _)] = <[_; 1]>::try_from(right).ok()?;
        let wrong: Vec<String> = wrong.into_iter().map(|(text, _)| text).collect();
        let wrong: [String; NUM_CHOICES - 1] = wrong.try_into().ok()?;
        let [a, b, c] = &wrong;
        let is_distinct = a != b && a != c && b != c && !wrong.contains(&right);
        is_distinct.then_some(Draft { prompt, right, wrong })
    }

    /// The right choice first.
    pub(super) fn choices(&self) -> [&str; NUM_CHOICES] {
        let [a, b, c] = &self.wrong;
        [&self.right, a, b, c]
    }
}

/// How a question is put.
const FRAMES: [[(&str, &str); 2]; 3] = [
    [("Question:", "Answer:"), ("问题：", "答案：")],
    [("Q:", "A:"), ("问：", "答：")],
    [("Now the question.", "The answer is:"), ("请回答：", "正确答案是：")],
];

/// A text, a question about it, and the beginning of an answer.
pub(super) fn ask(language: Language, draws: &mut Draws, text: &str, question: &str) -> String {
    let [english, chinese] = draws.pick(&FRAMES);
    let (gap, (before, after)) = match language {
        Language::English => (" ", english),
        Language::Chinese => ("", chinese),
    };
    let text = if text.is_empty() { String::new() } else { format!("{text}\n") };
    format!("{text}{before}{gap}{question}\n{after}")
}

/// Four neighbouring numbers of a progression, and one of them, which is to be the right one.
///
/// The numbers come first and the sum that leads to one of them is made afterwards: if the sum came
/// first, numbers that are sums more often would give themselves away.
pub(super) fn progression(
    draws: &mut Draws,
    (first_min, first_max): (i64, i64),
    steps: &[i64],
) -> ([i64; NUM_CHOICES], i64) {
    let (first, step) = (draws.between(first_min, first_max), draws.pick(steps));
    let numbers = [0, 1, 2, 3].map(|index| first + index * step);
    (numbers, draws.pick(&numbers))
}

/// The choices of a number, each compared with the number that was found anew from the text's
/// world.
pub(super) fn numbers(prompt: String, choices: [i64; NUM_CHOICES], found: i64) -> Option<Draft> {
    Draft::new(prompt, choices.map(|choice| (choice.to_string(), choice == found)))
}
