//! Abstraction: a rule found from examples and used on something new.

use super::draft::{Draft, NUM_CHOICES, ask, numbers, progression};
use super::draws::Draws;
use super::words::{GROUPS, SYLLABLES};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[belongs, cycle, rearrange, function];

/// A rearrangement: which of the old places each new place takes.
type Places = Vec<usize>;

fn rearranged<T: Copy>(list: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|&place| list[place]).collect()
}

/// Syllables change places in the same way in every line.
fn rearrange(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let count = if level >= 2 { 4 } else { 3 };
    let identity: Places = (0..count).collect();
    let mut rules: Vec<Places> = Vec::new();
    while rules.len() < NUM_CHOICES {
        let rule = draws.sample(&identity, count);
        if rule != identity && !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let rule = draws.pick(&[0, 1, 2, 3]);
    let words = |draws: &mut Draws| -> Vec<&'static str> {
        draws.sample(SYLLABLES, count).into_iter().map(|word| language.word(word)).collect()
    };
    let mut examples = Vec::new();
    for _ in 0..(if level >= 3 { 2 } else { 3 }) {
        let before = words(draws);
        let after = rearranged(&before, &rules[rule]);
        examples.push((before, after));
    }
    let asked = words(draws);
    let lines: Vec<String> = examples
        .iter()
        .map(|(before, after)| format!("{} → {}", before.join(" "), after.join(" ")))
        .collect();
    let asked_text = asked.join(" ");
    let question = language.say(
        format!("By the same rule, what does {asked_text} become?"),
        format!("按照同样的规律，{asked_text} 会变成什么？"),
    );
    let prompt = ask(language, draws, &lines.join("\n"), &question);
    let choices = rules.iter().map(|rule| {
        let explains = examples.iter().all(|(before, after)| rearranged(before, rule) == *after);
        (rearranged(&asked, rule).join(" "), explains)
    });
    Draft::new(prompt, choices)
}

/// A sequence that repeats: what comes next?
fn cycle(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let symbols: Vec<&str> =
        draws.sample(SYLLABLES, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    // Each of the four at least once, then any.
    let mut period = symbols.clone();
    for _ in 0..[1, 1, 2, 2, 3][level] {
        period.push(draws.pick(&symbols));
    }
    draws.shuffle(&mut period);
    let len = 2 * period.len() + draws.below(period.len());
    let sequence: Vec<&str> = period.iter().copied().cycle().take(len).collect();
    // The shortest period that explains what is seen, found anew.
    let shortest = (1..=len / 2)
        .find(|&period| (period..len).all(|index| sequence[index] == sequence[index - period]))?;
    let next = sequence[len - shortest];
    let question = language.say("Which one comes next?".to_owned(), "接下来是哪一个？".to_owned());
    let prompt = ask(language, draws, &sequence.join(" "), &question);
    Draft::new(prompt, symbols.into_iter().map(|symbol| (symbol.to_owned(), symbol == next)))
}

/// `x -> a x + b` from three examples.
fn function(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let firsts = (6 + 2 * level as i64, 14 + 6 * level as i64);
    let (choices, value) = progression(draws, firsts, &[1, 2]);
    let factor = if level == 0 { 1 } else { draws.between(1, 1 + level as i64) };
    let asked = draws.between(1, (value / factor).min(9));
    let offset = value - factor * asked;
    let others: Vec<i64> = (1..=9 + level as i64).filter(|&x| x != asked).collect();
    let examples: Vec<(i64, i64)> =
        draws.sample(&others, 3).into_iter().map(|x| (x, factor * x + offset)).collect();
    // Solved from two examples, checked with the third.
    let [(x0, y0), (x1, y1), (x2, y2)] = <[_; 3]>::try_from(examples.clone()).ok()?;
    let slope = (y1 - y0) / (x1 - x0);
    let constant = y0 - slope * x0;
    if y2 != slope * x2 + constant {
        return None;
    }
    let lines: Vec<String> = examples.iter().map(|(x, y)| format!("{x} → {y}")).collect();
    let question = language.say(
        format!("By the same rule, what does {asked} become?"),
        format!("按照同样的规律，{asked} 会变成多少？"),
    );
    let prompt = ask(language, draws, &lines.join("\n"), &question);
    numbers(prompt, choices, slope * asked + constant)
}

/// Things of one kind: which of four, each of another kind, goes with them?
fn belongs(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let kinds = draws.sample(GROUPS, NUM_CHOICES);
    let kind = draws.pick(&[0, 1, 2, 3]);
    let num_shown = if level >= 3 { 2 } else { 3 };
    let shown: Vec<_> = draws.sample(kinds[kind], num_shown + 1);
    let words: Vec<&str> = shown[1..].iter().map(|&word| language.word(word)).collect();
    let question = language.say(
        "Which word belongs to the same kind?".to_owned(),
        "哪个词和它们是同一类？".to_owned(),
    );
    let prompt = ask(language, draws, &language.list(&words), &question);
    let choices: Vec<_> = kinds
        .iter()
        .enumerate()
        .map(|(index, &others)| if index == kind { shown[0] } else { draws.pick(others) })
        .collect();
    Draft::new(
        prompt,
        choices.into_iter().map(|word| {
            // By the table, not by which index was drawn.
            let home = GROUPS.iter().find(|others| others.contains(&word));
            let holds = home.is_some_and(|home| home.contains(&shown[1]));
            (language.word(word).to_owned(), holds)
        }),
    )
}
