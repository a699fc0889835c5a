//! Paraphrase: the same meaning in other words, where the words alone do not tell.

use super::draft::{Draft, NUM_CHOICES, ask};
use super::draws::Draws;
use super::words::{COLOURS, NAMES, THINGS};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[clock, transfer, quantity, ranking];

/// Two things change hands, one after the other; who sold is said as who bought.
///
/// With the events A→B and B→C the choices are one of them, its reverse, and A→C and C→A: seen
/// without the text, any of the four may be the right one.
fn transfer(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let people = draws.sample(NAMES, 3);
    let [a, b, c] = [people[0], people[1], people[2]].map(|name| language.word(name));
    let thing = language.word(draws.pick(THINGS));
    let is_trade = draws.one_in(2);
    let say = |form: usize, from: &str, to: &str| match (is_trade, form) {
        (true, 0) => language.say(
            format!("{from} sold the {thing} to {to}."),
            format!("{from}把{thing}卖给了{to}。"),
        ),
        (true, 1) => language.say(
            format!("{to} bought the {thing} from {from}."),
            format!("{to}从{from}那里买了{thing}。"),
        ),
        (true, _) => language.say(
            format!("The buyer of the {thing} was {to} and the seller {from}."),
            format!("{thing}的买家是{to}，卖家是{from}。"),
        ),
        (false, 0) => language.say(
            format!("{from} sent the {thing} to {to}."),
            format!("{from}把{thing}寄给了{to}。"),
        ),
        (false, 1) => language.say(
            format!("{to} received the {thing} from {from}."),
            format!("{to}收到了{from}寄来的{thing}。"),
        ),
        (false, _) => language.say(
            format!("The {thing} went to {to}, and it came from {from}."),
            format!("{thing}到了{to}手里，是{from}寄的。"),
        ),
    };
    let events = [(a, b), (b, c)];
    let forms = draws.sample(&[0, 1, 2], 3);
    // Later levels tell the two events in different words.
    let second_form = if level >= 3 { forms[1] } else { forms[0] };
    let text = language.text(&[
        language.word(("First:", "起初，")).to_owned(),
        say(forms[0], a, b),
        language.word(("Later:", "后来，")).to_owned(),
        say(second_form, b, c),
    ]);
    let (from, to) = draws.pick(&events);
    let choices = [(from, to), (to, from), (a, c), (c, a)];
    let question = language.say(
        "Which sentence tells a part of this in other words?".to_owned(),
        "下面哪句话换个说法讲了其中一件事？".to_owned(),
    );
    let prompt = ask(language, draws, &text, &question);
    Draft::new(
        prompt,
        choices.map(|event| (say(forms[2], event.0, event.1), events.contains(&event))),
    )
}

/// People by height (age, ...): said pair by pair, repeated as a list.
fn ranking(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let count = if level >= 3 { 4 } else { 3 };
    let order: Vec<&str> =
        draws.sample(NAMES, count).into_iter().map(|name| language.word(name)).collect();
    let (more, less, list) = draws.pick(&[
        (("taller", "高"), ("shorter", "矮"), ("From tallest to shortest", "从高到矮")),
        (("older", "年长"), ("younger", "年轻"), ("From oldest to youngest", "从年长到年轻")),
        (("faster", "快"), ("slower", "慢"), ("From fastest to slowest", "从快到慢")),
    ]);
    let mut sentences = Vec::new();
    for pair in order.windows(2) {
        let (first, second, word) =
            if draws.one_in(2) { (pair[0], pair[1], more) } else { (pair[1], pair[0], less) };
        let word = language.word(word);
        sentences.push(language.say(
            format!("{first} is {word} than {second}."),
            format!("{first}比{second}{word}。"),
        ));
    }
    draws.shuffle(&mut sentences);
    let mut orders = vec![order.clone()];
    while orders.len() < NUM_CHOICES {
        let other = draws.sample(&order, count);
        if !orders.contains(&other) {
            orders.push(other);
        }
    }
    let place = |name: &str, order: &[&str]| order.iter().position(|other| *other == name);
    // An order agrees with the text when each neighbour of the text is above the next one.
    let holds = |candidate: &[&str]| {
        order.windows(2).all(|pair| place(pair[0], candidate) < place(pair[1], candidate))
    };
    let question = language
        .say("Which list says the same?".to_owned(), "哪个排列说的是同样的意思？".to_owned());
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let list = language.word(list);
    let choices = orders.iter().map(|candidate| {
        let names = language.list(candidate);
        (language.say(format!("{list}: {names}"), format!("{list}：{names}")), holds(candidate))
    });
    Draft::new(prompt, choices)
}

/// How many of some things are of a colour. All four meanings are always among the choices.
#[derive(Clone, Copy, PartialEq)]
enum Quantity {
    All,
    None,
    Some,
    NotAll,
}

const QUANTITIES: [Quantity; NUM_CHOICES] =
    [Quantity::All, Quantity::None, Quantity::Some, Quantity::NotAll];

fn quantity(language: Language, _level: usize, draws: &mut Draws) -> Option<Draft> {
    let thing = language.word(draws.pick(THINGS));
    let colour = language.word(draws.pick(COLOURS));
    let say = |quantity: Quantity, form: usize| match (quantity, form) {
        (Quantity::All, 0) => language
            .say(format!("Every {thing} is {colour}."), format!("每个{thing}都是{colour}的。")),
        (Quantity::All, 1) => language.say(
            format!("There is no {thing} that is not {colour}."),
            format!("没有一个{thing}不是{colour}的。"),
        ),
        (Quantity::All, _) => language.say(
            format!("All the {thing}s without exception are {colour}."),
            format!("所有的{thing}无一例外都是{colour}的。"),
        ),
        (Quantity::None, 0) => language
            .say(format!("No {thing} is {colour}."), format!("没有一个{thing}是{colour}的。")),
        (Quantity::None, 1) => language.say(
            format!("Every {thing} is of a colour that is not {colour}."),
            format!("每个{thing}都不是{colour}的。"),
        ),
        (Quantity::None, _) => language.say(
            format!("All the {thing}s without exception are not {colour}."),
            format!("所有的{thing}无一例外都不是{colour}的。"),
        ),
        (Quantity::Some, 0) => language.say(
            format!("At least one {thing} is {colour}."),
            format!("至少有一个{thing}是{colour}的。"),
        ),
        (Quantity::Some, 1) => language.say(
            format!("It is false that no {thing} is {colour}."),
            format!("说没有一个{thing}是{colour}的，这不对。"),
        ),
        (Quantity::Some, _) => language.say(
            format!("There is a {thing} that is {colour}."),
            format!("存在是{colour}的{thing}。"),
        ),
        (Quantity::NotAll, 0) => language.say(
            format!("At least one {thing} is not {colour}."),
            format!("至少有一个{thing}不是{colour}的。"),
        ),
        (Quantity::NotAll, 1) => language.say(
            format!("It is false that every {thing} is {colour}."),
            format!("说每个{thing}都是{colour}的，这不对。"),
        ),
        (Quantity::NotAll, _) => language.say(
            format!("There is a {thing} that is not {colour}."),
            format!("存在不是{colour}的{thing}。"),
        ),
    };
    let said = draws.pick(&QUANTITIES);
    let said_form = draws.below(3);
    let question = language.say(
        "Which sentence means exactly the same?".to_owned(),
        "哪句话的意思完全相同？".to_owned(),
    );
    let prompt = ask(language, draws, &say(said, said_form), &question);
    // One form for all, so that how long a choice is tells little; not the form of the text.
    let form = (said_form + 1 + draws.below(2)) % 3;
    Draft::new(prompt, QUANTITIES.map(|quantity| (say(quantity, form), quantity == said)))
}

const HOURS: [(&str, &str); 12] = [
    ("one", "一"),
    ("two", "两"),
    ("three", "三"),
    ("four", "四"),
    ("five", "五"),
    ("six", "六"),
    ("seven", "七"),
    ("eight", "八"),
    ("nine", "九"),
    ("ten", "十"),
    ("eleven", "十一"),
    ("twelve", "十二"),
];
const MINUTES: [(i64, (&str, &str)); 4] = [
    (5, ("five", "五分")),
    (10, ("ten", "十分")),
    (15, ("a quarter", "一刻")),
    (20, ("twenty", "二十分")),
];

/// The time of day in words, repeated in digits. Two hours and two minutes make four choices.
fn clock(language: Language, _level: usize, draws: &mut Draws) -> Option<Draft> {
    let hour = draws.between(1, 10);
    let (minutes, words) = draws.pick(&MINUTES);
    let words = language.word(words);
    let times =
        [(hour, minutes), (hour, 60 - minutes), (hour + 1, minutes), (hour + 1, 60 - minutes)];
    let (true_hour, true_minutes) = draws.pick(&times);
    let is_past = true_minutes < 30;
    let named = HOURS[(true_hour + i64::from(!is_past) - 1) as usize];
    let named = language.word(named);
    let time = match (is_past, language) {
        (true, Language::English) => format!("{words} past {named}"),
        (false, Language::English) => format!("{words} to {named}"),
        (true, Language::Chinese) => format!("{named}点过{words}"),
        (false, Language::Chinese) => format!("差{words}{named}点"),
    };
    let name = language.word(draws.pick(NAMES));
    let text = match draws.below(3) {
        0 => language.say(format!("{name} arrives at {time}."), format!("{name}{time}到。")),
        1 => language.say(format!("{name} has lunch at {time}."), format!("{name}{time}吃饭。")),
        _ => language.say(
            format!("The lesson of {name} begins at {time}."),
            format!("{name}的课{time}开始。"),
        ),
    };
    let question =
        language.say("Which time is that on a clock?".to_owned(), "这是几点几分？".to_owned());
    let prompt = ask(language, draws, &text, &question);
    // Both in minutes since midnight: once from the words, once from the digits.
    let said = true_hour * 60 + true_minutes;
    let choices =
        times.map(|(hour, minutes)| (format!("{hour}:{minutes:02}"), hour * 60 + minutes == said));
    Draft::new(prompt, choices)
}
