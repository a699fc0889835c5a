//! Arithmetic: bare sums and products, and small stories. The choices are neighbours in a
//! progression, with the right number at any place of it.

use super::draft::{Draft, NUM_CHOICES, ask, numbers, progression};
use super::draws::Draws;
use super::words::{NAMES, THINGS};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[bare, story];

fn choices(level: usize, draws: &mut Draws) -> ([i64; NUM_CHOICES], i64) {
    let steps: &[i64] = if level == 0 { &[1, 2] } else { &[1, 2, 10] };
    progression(draws, [(2, 10), (10, 60), (15, 90), (100, 800), (120, 500)][level], steps)
}

/// A sum, a difference, or a product and something.
fn bare(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let (choices, value) = choices(level, draws);
    let is_more = draws.one_in(2);
    let (text, found) = match level {
        0 | 1 | 3 if is_more => {
            let a = draws.between(1, value - 1);
            let b = value - a;
            (format!("{a} + {b}"), a + b)
        }
        0 | 1 | 3 => {
            let b = draws.between(1, [9, 30, 0, 180][level]);
            let a = value + b;
            (format!("{a} - {b}"), a - b)
        }
        _ => {
            let a = draws.between(3, 9);
            let far = if level == 4 { draws.between(1, 5) } else { 0 };
            if is_more {
                let b = value / a - far;
                let c = value - a * b;
                let plus = if c == 0 { String::new() } else { format!(" + {c}") };
                (format!("{a} × {b}{plus}"), a * b + c)
            } else {
                let b = value / a + 1 + far;
                let c = a * b - value;
                (format!("{a} × {b} - {c}"), a * b - c)
            }
        }
    };
    let question = match draws.below(3) {
        0 => language.say(format!("What is {text}?"), format!("{text} 等于多少？")),
        1 => language.say(format!("Compute {text}."), format!("计算 {text}。")),
        _ => language.say(format!("How much is {text}?"), format!("{text} 是多少？")),
    };
    numbers(ask(language, draws, "", &question), choices, found)
}

/// Someone gets and gives things. Told forwards, made backwards from what is left in the end.
fn story(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let (choices, value) = choices(level, draws);
    let name = language.word(draws.pick(NAMES));
    let thing = language.word(draws.pick(THINGS));
    let most = [6, 20, 40, 150, 300][level];
    let mut changes = Vec::new();
    let mut before = value;
    for _ in 0..[1, 1, 1, 2, 3][level] {
        let change = if before >= 4 && draws.one_in(2) {
            draws.between(2, most.min(before - 2))
        } else {
            -draws.between(2, most)
        };
        before -= change;
        changes.push(change);
    }
    changes.reverse();

    let mut sentences = Vec::new();
    let each = draws.between(3, if level == 4 { 15 } else { 9 });
    let (boxes, rest) = (before / each, before % each);
    if level >= 2 && (2..=20).contains(&boxes) {
        sentences.push(language.say(
            format!("{name} has {boxes} boxes with {each} {thing}s each and {rest} single ones."),
            format!("{name}有{boxes}个盒子，每个盒子里有{each}个{thing}，另外还有{rest}个。"),
        ));
    } else {
        sentences.push(
            language.say(
                format!("{name} has {before} {thing}s."),
                format!("{name}有{before}个{thing}。"),
            ),
        );
    }
    for change in &changes {
        let amount = change.abs();
        let (english, chinese) = match (change > &0, draws.below(2)) {
            (true, 0) => {
                (format!("Then {name} gets {amount} more."), format!("又得到{amount}个。"))
            }
            (true, _) => {
                (format!("{name} finds {amount} others."), format!("后来找到{amount}个。"))
            }
            (false, 0) => (format!("{name} gives {amount} away."), format!("送出去{amount}个。")),
            (false, _) => (format!("Then {amount} get lost."), format!("丢了{amount}个。")),
        };
        sentences.push(language.say(english, chinese));
    }
    let question = match draws.below(2) {
        0 => language.say(
            format!("How many {thing}s does {name} have now?"),
            format!("{name}现在有多少个{thing}？"),
        ),
        _ => language.say(
            format!("How many {thing}s does {name} have in the end?"),
            format!("最后{name}手里有几个{thing}？"),
        ),
    };
    let found = changes.iter().fold(before, |left, change| left + change);
    numbers(ask(language, draws, &language.text(&sentences), &question), choices, found)
}
