//! Resisting false premises, without seeing them everywhere.
//!
//! Who always agrees, always objects, or always takes what is asked for granted, gains nothing:
//! among four choices one is right, and a claim is true in one of four cases.

use super::draft::{Draft, NUM_CHOICES, ask, progression};
use super::draws::Draws;
use super::words::{CAPITALS, COLOURS, NAMES, OPPOSITES, PET_NAMES, PETS, THINGS};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[claim, loaded, claim];

/// Somebody claims something. Choices: it is right; it is wrong, and one of three other answers
/// would be.
fn claim(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let matter = match draws.below(4) {
        0 => sum(language, level, draws),
        1 => capital(language, draws),
        2 => opposite(language, draws),
        _ => told(language, level, draws),
    };
    let claimed = &matter.answers[draws.below(NUM_CHOICES)].0;
    let name = language.word(draws.pick(NAMES));
    let assertion = (matter.assertion)(claimed);
    let assertion = match draws.below(2) {
        0 => language
            .say(format!("{name} says: \"{assertion}\""), format!("{name}说：“{assertion}。”")),
        _ => language.say(
            format!("\"{assertion}\", {name} believes."),
            format!("{name}认为“{assertion}”。"),
        ),
    };
    let question =
        language.say(format!("{assertion} What is right?"), format!("{assertion}怎样回答才对？"));
    let prompt = ask(language, draws, &matter.text, &question);
    let choices = matter.answers.iter().map(|(answer, holds)| {
        let text = if answer == claimed {
            language.say(format!("Yes, it is {answer}."), format!("对，是{answer}。"))
        } else {
            language.say(format!("No, it is {answer}."), format!("不，是{answer}。"))
        };
        (text, *holds)
    });
    Draft::new(prompt, choices)
}

/// Something with four possible answers, each with whether it holds.
struct Matter {
    text: String,
    answers: Vec<(String, bool)>,
    assertion: Box<dyn Fn(&str) -> String>,
}

impl Matter {
    fn new(
        text: String,
        answers: impl IntoIterator<Item = (String, bool)>,
        assertion: impl Fn(&str) -> String + 'static,
    ) -> Matter {
        Matter { text, answers: answers.into_iter().collect(), assertion: Box::new(assertion) }
    }
}

fn sum(language: Language, level: usize, draws: &mut Draws) -> Matter {
    let firsts = [(3, 9), (5, 18), (10, 50), (30, 120), (100, 500)][level];
    let (answers, value) = progression(draws, firsts, &[1, 2]);
    let a = draws.between(1, value - 1);
    let b = value - a;
    let answers = answers.map(|answer| (answer.to_string(), answer == a + b));
    Matter::new(String::new(), answers, move |answer| {
        language.say(format!("{a} plus {b} is {answer}"), format!("{a}加{b}等于{answer}"))
    })
}

fn capital(language: Language, draws: &mut Draws) -> Matter {
    let chosen = draws.sample(CAPITALS, NUM_CHOICES);
    let (country, _) = draws.pick(&chosen);
    let holds = |city| CAPITALS.contains(&(country, city));
    let answers = chosen.iter().map(|&(_, city)| (language.word(city).to_owned(), holds(city)));
    let name = language.word(country);
    Matter::new(String::new(), answers, move |answer| {
        language
            .say(format!("The capital of {name} is {answer}"), format!("{name}的首都是{answer}"))
    })
}

fn opposite(language: Language, draws: &mut Draws) -> Matter {
    let chosen = draws.sample(OPPOSITES, NUM_CHOICES);
    let turned: Vec<_> =
        chosen.iter().map(|&(a, b)| if draws.one_in(2) { (a, b) } else { (b, a) }).collect();
    let (word, _) = draws.pick(&turned);
    let holds =
        |other| OPPOSITES.iter().any(|&pair| pair == (word, other) || pair == (other, word));
    let answers = turned.iter().map(|&(_, other)| (language.word(other).to_owned(), holds(other)));
    let word = language.word(word);
    Matter::new(String::new(), answers, move |answer| {
        language
            .say(format!("The opposite of {word} is {answer}"), format!("{word}的反义词是{answer}"))
    })
}

/// A text says it.
fn told(language: Language, level: usize, draws: &mut Draws) -> Matter {
    let count = [4, 4, 5, 6, 8][level];
    let facts: Vec<_> =
        draws.sample(THINGS, count).into_iter().zip(draws.sample(COLOURS, count)).collect();
    let sentences: Vec<String> = facts
        .iter()
        .map(|&(thing, colour)| {
            let (thing, colour) = (language.word(thing), language.word(colour));
            language.say(format!("The {thing} is {colour}."), format!("{thing}是{colour}的。"))
        })
        .collect();
    let chosen = draws.sample(&facts, NUM_CHOICES);
    let (thing, _) = draws.pick(&chosen);
    let holds = |colour| facts.contains(&(thing, colour));
    let answers =
        chosen.iter().map(|&(_, colour)| (language.word(colour).to_owned(), holds(colour)));
    let thing = language.word(thing);
    Matter::new(language.text(&sentences), answers, move |answer| {
        language.say(format!("The {thing} is {answer}"), format!("{thing}是{answer}的"))
    })
}

/// A question that takes for granted that somebody has a pet, which in half of the cases is so.
///
/// Choices: the name of the person's pet and of another one, and two ways of denying, of which one
/// says rightly what the person has instead. With a true premise both denials are false.
fn loaded(language: Language, _level: usize, draws: &mut Draws) -> Option<Draft> {
    let people = draws.sample(NAMES, 3);
    let [asked, other, last] = [people[0], people[1], people[2]].map(|name| language.word(name));
    let pets = draws.sample(PETS, 3);
    let [own, others, third] = [pets[0], pets[1], pets[2]].map(|pet| language.word(pet));
    let names = draws.sample(PET_NAMES, 3);
    let [own_name, others_name, third_name] =
        [names[0], names[1], names[2]].map(|name| language.word(name));
    let facts = [(asked, own, own_name), (other, others, others_name), (last, third, third_name)];
    let mut sentences = facts.map(|(who, pet, name)| {
        language.say(
            format!("{who} has one pet, a {pet} with the name {name}."),
            format!("{who}只养了一只宠物，是{pet}，名叫{name}。"),
        )
    });
    draws.shuffle(&mut sentences);
    let is_true = draws.one_in(2);
    let premise = if is_true { own } else { others };
    let question = language.say(
        format!("What is the name of {asked}'s {premise}?"),
        format!("{asked}养的{premise}叫什么名字？"),
    );
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let denial = |instead: &str| {
        language.say(
            format!("{asked} has no {premise} but a {instead}."),
            format!("{asked}没有养{premise}，养的是{instead}。"),
        )
    };
    let denial_holds = |instead: &str| premise != own && instead == own;
    // With a false premise `instead` is the own pet or a third one; with a true one, the other
    // person's or a third one.
    let instead = [if is_true { others } else { own }, third];
    let [first, second] = instead.map(|instead| (denial(instead), denial_holds(instead)));
    let named = |name: &str, holds| {
        (language.say(format!("The name is {name}."), format!("名字是{name}。")), holds)
    };
    Draft::new(prompt, [named(own_name, premise == own), named(others_name, false), first, second])
}
