//! Recall: finding a fact of a text again.
//!
//! Each person has one value of one or two relations; the question is about one person and one
//! relation, or goes back from the value to the person. All choices are mentioned equally.

use super::draft::{Draft, NUM_CHOICES, ask};
use super::draws::Draws;
use super::words::{CITIES, COLOURS, DRINKS, NAMES, THINGS, Word};
use super::{Kind, Language};

/// What is said of a person: values, statement, question, and the question from the value back.
struct Relation {
    values: &'static [Word],
    statement: fn(Language, &str, &str) -> String,
    question: fn(Language, &str) -> String,
    reverse: fn(Language, &str) -> String,
}

const RELATIONS: [Relation; 4] = [
    Relation {
        values: DRINKS,
        statement: |language, name, value| {
            language.say(format!("{name} ordered {value}."), format!("{name}点了{value}。"))
        },
        question: |language, name| {
            language.say(format!("What did {name} order?"), format!("{name}点了什么？"))
        },
        reverse: |language, value| {
            language.say(format!("Who ordered {value}?"), format!("谁点了{value}？"))
        },
    },
    Relation {
        values: CITIES,
        statement: |language, name, value| {
            language.say(format!("{name} travels to {value}."), format!("{name}要去{value}。"))
        },
        question: |language, name| {
            language.say(format!("Where does {name} travel?"), format!("{name}要去哪里？"))
        },
        reverse: |language, value| {
            language.say(format!("Who travels to {value}?"), format!("谁要去{value}？"))
        },
    },
    Relation {
        values: COLOURS,
        statement: |language, name, value| {
            language.say(format!("{name}'s coat is {value}."), format!("{name}的外套是{value}的。"))
        },
        question: |language, name| {
            language.say(
                format!("What colour is {name}'s coat?"),
                format!("{name}的外套是什么颜色的？"),
            )
        },
        reverse: |language, value| {
            language.say(format!("Whose coat is {value}?"), format!("谁的外套是{value}的？"))
        },
    },
    Relation {
        values: THINGS,
        statement: |language, name, value| {
            language.say(format!("{name} carries a {value}."), format!("{name}带着{value}。"))
        },
        question: |language, name| {
            language.say(format!("What does {name} carry?"), format!("{name}带着什么？"))
        },
        reverse: |language, value| {
            language.say(format!("Who carries the {value}?"), format!("谁带着{value}？"))
        },
    },
];

/// People in the text, by level.
const NUM_PEOPLE: [usize; 5] = [4, 5, 6, 8, 11];

pub(super) const KINDS: &[Kind] = &[fact, fact_back];

fn fact(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    find(language, level, draws, false)
}

fn fact_back(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    find(language, level, draws, true)
}

/// One fact among others; with `is_reverse` from the value back to the person.
fn find(language: Language, level: usize, draws: &mut Draws, is_reverse: bool) -> Option<Draft> {
    let people = draws.sample(NAMES, NUM_PEOPLE[level]);
    let relations = draws.sample(&[0, 1, 2, 3], if level >= 3 { 2 } else { 1 });
    // Facts: (person, relation, value).
    let mut facts = Vec::new();
    for &relation in &relations {
        let values = draws.sample(RELATIONS[relation].values, people.len());
        for (&person, value) in people.iter().zip(values) {
            facts.push((language.word(person), relation, language.word(value)));
        }
    }
    draws.shuffle(&mut facts);
    let sentences: Vec<String> = facts
        .iter()
        .map(|&(name, relation, value)| (RELATIONS[relation].statement)(language, name, value))
        .collect();

    let asked = relations[0];
    let facts: Vec<_> = facts.into_iter().filter(|(_, relation, _)| *relation == asked).collect();
    let chosen = draws.sample(&facts, NUM_CHOICES);
    let (name, _, value) = draws.pick(&chosen);
    let question = if is_reverse {
        (RELATIONS[asked].reverse)(language, value)
    } else {
        (RELATIONS[asked].question)(language, name)
    };
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = chosen.iter().map(|&(other, _, other_value)| {
        let (choice, key) = if is_reverse { (other, value) } else { (other_value, name) };
        // Looked up in the facts, by what the question asks.
        let holds = facts.iter().any(|&(fact_name, _, fact_value)| {
            let pair = if is_reverse { (fact_name, fact_value) } else { (fact_value, fact_name) };
            pair == (choice, key)
        });
        (choice.to_owned(), holds)
    });
    Draft::new(prompt, choices)
}
