//! Ways to choose without understanding: the longest choice, the one that the text mentions most,
//! the largest number, the one that is most like the others. None may do better than chance, so
//! items are chosen such that none does ([`super::balance`]).

use std::collections::HashMap;

use super::draft::NUM_CHOICES;

/// What a trick looks at: a number for each choice.
type Feature = fn(&str, &[&str; NUM_CHOICES]) -> [i64; NUM_CHOICES];

const FEATURES: [(&str, Feature); 9] = [
    ("length", |_, choices| choices.map(|choice| choice.chars().count() as i64)),
    ("mentions", |prompt, choices| choices.map(|choice| prompt.matches(choice).count() as i64)),
    ("first mention", |prompt, choices| choices.map(|choice| place(prompt.find(choice)))),
    ("last mention", |prompt, choices| choices.map(|choice| place(prompt.rfind(choice)))),
    ("overlap", |prompt, choices| shared(prompt, choices, 1)),
    ("overlap of pairs", |prompt, choices| shared(prompt, choices, 2)),
    ("overlap with the question", |prompt, choices| shared(question(prompt), choices, 1)),
    ("number", |_, choices| numbers(choices)),
    ("likeness", |_, choices| likeness(choices)),
];

/// Each feature is one trick by its largest and one by its smallest value.
pub(super) const NUM_TRICKS: usize = 2 * FEATURES.len();

/// What a right guess is worth, so that one of up to four equal guesses is a whole number.
pub(super) const FULL_CREDIT: i64 = 12;

/// Names the tricks, for messages.
#[cfg(test)]
pub(super) fn name(trick: usize) -> String {
    format!("{} {}", ["largest", "smallest"][trick % 2], FEATURES[trick / 2].0)
}

/// How often each trick finds the first choice, in twelfths: where several look the same to it, it
/// takes any of them.
pub(super) fn credits(prompt: &str, choices: &[&str; NUM_CHOICES]) -> [i64; NUM_TRICKS] {
    let mut credits = [0; NUM_TRICKS];
    for (index, (_, feature)) in FEATURES.iter().enumerate() {
        let values = feature(prompt, choices);
        credits[2 * index] = credit(values);
        credits[2 * index + 1] = credit(values.map(|value| -value));
    }
    credits
}

fn credit(values: [i64; NUM_CHOICES]) -> i64 {
    if values.iter().any(|&value| value > values[0]) {
        return 0;
    }
    FULL_CREDIT / values.iter().filter(|&&value| value == values[0]).count() as i64
}

fn place(found: Option<usize>) -> i64 {
    found.map_or(-1, |at| at as i64)
}

/// The last line but one.
fn question(prompt: &str) -> &str {
    prompt.lines().rev().nth(1).unwrap_or_default()
}

fn numbers(choices: &[&str; NUM_CHOICES]) -> [i64; NUM_CHOICES] {
    let numbers = choices.map(|choice| {
        let digits: String = choice.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok()
    });
    if numbers.contains(&None) { [0; NUM_CHOICES] } else { numbers.map(Option::unwrap_or_default) }
}

/// Words of Western text, characters of Chinese.
fn units(text: &str) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    let mut in_word = false;
    for character in text.chars().flat_map(char::to_lowercase) {
        let is_letter = character.is_alphanumeric();
        // Ideographs; what is below has spaces between words.
        let is_word = is_letter && character < '\u{2e80}';
        match units.last_mut() {
            Some(word) if is_word && in_word => word.push(character),
            _ if is_letter => units.push(character.to_string()),
            _ => {}
        }
        in_word = is_word;
    }
    units
}

fn ngrams(text: &str, n: usize) -> HashMap<Vec<String>, i64> {
    let mut counts = HashMap::new();
    for ngram in units(text).windows(n) {
        *counts.entry(ngram.to_vec()).or_insert(0) += 1;
    }
    counts
}

/// Of a thousand n-grams of a choice, how many the text has.
fn shared(text: &str, choices: &[&str; NUM_CHOICES], n: usize) -> [i64; NUM_CHOICES] {
    let text = ngrams(text, n);
    choices.map(|choice| {
        let choice = ngrams(choice, n);
        let in_text: i64 = choice
            .iter()
            .filter(|(ngram, _)| text.contains_key(*ngram))
            .map(|(_, count)| count)
            .sum();
        1000 * in_text / choice.values().sum::<i64>().max(1)
    })
}

/// How many characters and pairs of them a choice shares with the other choices.
fn likeness(choices: &[&str; NUM_CHOICES]) -> [i64; NUM_CHOICES] {
    let pairs = choices.map(|choice| {
        let characters: Vec<char> = choice.chars().collect();
        let mut counts: HashMap<Vec<char>, i64> = HashMap::new();
        for n in 1..=2 {
            characters.windows(n).for_each(|pair| *counts.entry(pair.to_vec()).or_default() += 1);
        }
        counts
    });
    std::array::from_fn(|index| {
        let others = pairs.iter().enumerate().filter(|(other, _)| *other != index);
        others
            .flat_map(|(_, other)| {
                pairs[index].iter().map(move |(pair, count)| (other, pair, count))
            })
            .map(|(other, pair, count)| other.get(pair).map_or(0, |&theirs| theirs.min(*count)))
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(trick: &str, prompt: &str, choices: [&str; NUM_CHOICES], credit: i64) {
        let index = (0..NUM_TRICKS).find(|&index| name(index) == trick).unwrap();
        assert_eq!(credits(prompt, &choices)[index], credit, "{trick}");
    }

    #[test]
    fn tricks_choose_what_they_say() {
        check("largest length", "", ["abc", "a", "b", "c"], 12);
        check("smallest length", "", ["abc", "a", "b", "c"], 0);
        check("smallest length", "", ["a", "abc", "b", "c"], 4);
        check("largest mentions", "a b b\nq\nA:", ["b", "a", "c", "d"], 12);
        check("largest last mention", "x y z\nq\nA:", ["z", "y", "x", "w"], 12);
        check("smallest first mention", "x y z\nq\nA:", ["x", "y", "z", "z"], 12);
        check("largest overlap", "the red cup\nq\nA:", ["a cup", "a b", "c d", "e f"], 12);
        check(
            "largest overlap of pairs",
            "red cup\nq\nA:",
            ["red cup", "cup red", "a b", "c d"],
            12,
        );
        check("largest overlap with the question", "a\nb?\nA:", ["b", "a", "c", "d"], 12);
        check("largest number", "", ["12", "9", "10", "11"], 12);
        check("largest number", "", ["12", "9", "10", "x"], 3);
        check("largest likeness", "", ["ab", "abc", "b", "x"], 6);
        check("smallest likeness", "", ["x", "abc", "ab", "b"], 12);
    }
}
