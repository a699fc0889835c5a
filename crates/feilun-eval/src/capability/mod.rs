//! A capability suite: is a model general, on a small scale?
//!
//! Seven [skills](Skill) in two languages, every item made from a seed, so that none can have
//! been learned by heart; a new seed is a new suite of the same difficulty. All are multiple
//! choice with four choices, so chance is exactly one in four. Five levels take turns, from what a
//! model of 100 million parameters may know to what takes a few steps of thought.
//!
//! What keeps the score honest:
//!
//! - The right choice is found by executing the choices in the little world that the text tells
//!   of (`draft.rs`): plans are walked, sums computed, facts looked up. Exactly one must hold.
//! - The choices alone tell nothing: they are permutations of each other, neighbours in a
//!   progression, or the same four for whatever the text says.
//! - No trick gains anything: places are dealt out evenly, and of several candidates for each item
//!   the one is taken that keeps length, mentions, overlap and such at chance (`balance.rs`).
//!
//! The same options give the same bytes on every machine.

mod abstraction;
mod arithmetic;
mod balance;
mod changes;
mod draft;
mod draws;
mod paraphrase;
mod planning;
mod premises;
mod recall;
mod tricks;
mod words;

use draft::{Draft, NUM_CHOICES};
use draws::Draws;

use crate::suite::{Header, Item, Prompt, Task};

/// Makes an item of a level, 0 to 4. `None` where the dice gave no question with one right choice.
type Kind = fn(Language, usize, &mut Draws) -> Option<Draft>;

const NUM_LEVELS: usize = 5;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityOptions {
    /// Another seed, other items.
    pub seed: u64,
    /// Items of each skill in each language, at most [`PER_SKILL_MAX`].
    pub per_skill: usize,
    /// The languages, in order.
    pub languages: Vec<Language>,
}

/// Most items of a skill in a language: beyond, items become alike.
pub const PER_SKILL_MAX: usize = 200;

impl Default for CapabilityOptions {
    /// 7 skills, 2 languages, 30 items of each: 420.
    fn default() -> CapabilityOptions {
        CapabilityOptions {
            seed: 0,
            per_skill: 30,
            languages: vec![Language::English, Language::Chinese],
        }
    }
}

/// A language of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// Its code in item ids.
    pub fn code(self) -> &'static str {
        self.word(("en", "zh"))
    }
}

/// What an item asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skill {
    /// Finding a fact of the text again.
    Recall,
    /// The same meaning in other words.
    Paraphrase,
    /// A rule found from examples and used on something new.
    Abstraction,
    /// Sums, products, small stories with numbers.
    Arithmetic,
    /// A plan that leads to the goal.
    Planning,
    /// Conditions that change on the way.
    ChangedConditions,
    /// Claims and questions that may be wrong.
    FalsePremises,
}

impl Skill {
    /// All of them, in the order of the suite.
    pub const ALL: [Skill; 7] = [
        Skill::Recall,
        Skill::Paraphrase,
        Skill::Abstraction,
        Skill::Arithmetic,
        Skill::Planning,
        Skill::ChangedConditions,
        Skill::FalsePremises,
    ];

    /// Its name in items.
    pub fn name(self) -> &'static str {
        match self {
            Skill::Recall => "recall",
            Skill::Paraphrase => "paraphrase",
            Skill::Abstraction => "abstraction",
            Skill::Arithmetic => "arithmetic",
            Skill::Planning => "planning",
            Skill::ChangedConditions => "changed_conditions",
            Skill::FalsePremises => "false_premises",
        }
    }

    fn kinds(self) -> &'static [Kind] {
        match self {
            Skill::Recall => recall::KINDS,
            Skill::Paraphrase => paraphrase::KINDS,
            Skill::Abstraction => abstraction::KINDS,
            Skill::Arithmetic => arithmetic::KINDS,
            Skill::Planning => planning::KINDS,
            Skill::ChangedConditions => changes::KINDS,
            Skill::FalsePremises => premises::KINDS,
        }
    }
}

/// An item with its choices in their order.
#[derive(Clone, Debug, PartialEq)]
struct Question {
    skill: Skill,
    language: Language,
    /// 0 to 4.
    level: usize,
    /// Within skill and language.
    number: usize,
    prompt: String,
    choices: Vec<String>,
    answer: usize,
}

/// The suite: all items, skill by skill, language by language. [`Item::skill`] is the skill's
/// name; ids say language, level (1 to 5) and number as well: `recall/en/1/000`.
///
/// English choices begin with a space, since nothing stands between prompt and choice
/// ([`capability_header`]): Chinese has none.
pub fn capability_suite(options: &CapabilityOptions) -> Vec<Item> {
    questions(options).into_iter().map(item).collect()
}

/// What the items' suite has to say in its header: the name, and that a choice follows its prompt
/// at once.
pub fn capability_header(options: &CapabilityOptions) -> Header {
    Header {
        suite: format!("capability-{}", options.seed),
        description: Some(
            "seven skills in short questions with four choices; chance is 25 %".to_owned(),
        ),
        delimiter: Some(String::new()),
        ..Header::default()
    }
}

fn item(question: Question) -> Item {
    let Question { skill, language, level, number, prompt, choices, answer } = question;
    let id = format!("{}/{}/{}/{number:03}", skill.name(), language.code(), level + 1);
    let gap = language.word((" ", ""));
    let choices = choices.into_iter().map(|choice| format!("{gap}{choice}")).collect();
    let task = Task::MultipleChoice { prompt: Prompt::Text(prompt), choices, answer };
    Item { id, cluster: None, skill: Some(skill.name().to_owned()), task }
}

/// All questions, skill by skill, language by language.
fn questions(options: &CapabilityOptions) -> Vec<Question> {
    let mut questions = Vec::new();
    for (skill_index, &skill) in Skill::ALL.iter().enumerate() {
        for &language in &options.languages {
            let path = [skill_index, language as usize];
            let mut draws = Draws::new(options.seed, &path);
            let count = options.per_skill.min(PER_SKILL_MAX);
            let chosen = balance::choose(language, skill.kinds(), count, &draws);
            let places = places(chosen.len(), &mut draws);
            for (number, (chosen, answer)) in chosen.into_iter().zip(places).enumerate() {
                let mut choices = chosen.draft.wrong.to_vec();
                draws.shuffle(&mut choices);
                choices.insert(answer, chosen.draft.right);
                let (level, prompt) = (chosen.level, chosen.draft.prompt);
                questions.push(Question {
                    skill,
                    language,
                    level,
                    number,
                    prompt,
                    choices,
                    answer,
                });
            }
        }
    }
    questions
}

/// A place for each right choice: every four items have each place once, in random order.
fn places(count: usize, draws: &mut Draws) -> Vec<usize> {
    let mut places = Vec::new();
    while places.len() < count {
        places.extend(draws.sample(&[0, 1, 2, 3], NUM_CHOICES));
    }
    places.truncate(count);
    places
}

#[cfg(test)]
mod learned;
#[cfg(test)]
mod read_again;
#[cfg(test)]
mod tests;
