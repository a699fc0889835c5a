//! The texts read again, as a careful person would, without the little worlds they were made from:
//! is the answer that the suite calls right the right one, and the only one?

use regex::Regex;

use super::*;

fn of(skill: Skill, kind: usize) -> Vec<Question> {
    let options = CapabilityOptions { seed: 11, per_skill: 60, ..CapabilityOptions::default() };
    let mut questions = questions(&options);
    questions.retain(|question| {
        question.skill == skill && balance::kind_of(question.number, skill.kinds().len()) == kind
    });
    assert!(questions.len() >= 20);
    questions
}

/// The answer is the one choice that `holds`.
#[track_caller]
fn check(question: &Question, holds: impl Fn(&str) -> bool) {
    let right: Vec<usize> =
        (0..NUM_CHOICES).filter(|&index| holds(&question.choices[index])).collect();
    assert_eq!(right, [question.answer], "{question:#?}");
}

/// All matches of a pattern in a text, each with its groups; empty where a group took no part.
fn all(pattern: &str, text: &str) -> Vec<Vec<String>> {
    let regex = Regex::new(pattern).unwrap();
    let groups = |captures: regex::Captures<'_>| {
        let texts = captures.iter().skip(1).map(|group| group.map_or("", |group| group.as_str()));
        texts.map(str::to_owned).collect()
    };
    regex.captures_iter(text).map(groups).collect()
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

#[test]
fn sums_and_products() {
    for question in of(Skill::Arithmetic, 0) {
        let found = all(r"(\d+) ([+×-]) (\d+)(?: ([+-]) (\d+))?", &question.prompt);
        let [found] = found.as_slice() else { panic!("{question:?}") };
        let (a, b) = (number(&found[0]), number(&found[2]));
        let first = match found[1].as_str() {
            "+" => a + b,
            "-" => a - b,
            _ => a * b,
        };
        let value = match found[3].as_str() {
            "+" => first + number(&found[4]),
            "-" => first - number(&found[4]),
            _ => first,
        };
        check(&question, |choice| number(choice) == value);
    }
}

#[test]
fn stories_with_numbers() {
    for question in of(Skill::Arithmetic, 1) {
        let text = &question.prompt;
        let boxes = all(
            r"has (\d+) boxes with (\d+) \w+ each and (\d+)|有(\d+)个盒子，每个盒子里有(\d+)个.*?有(\d+)个",
            text,
        );
        let mut value = match boxes.first() {
            Some(found) => {
                let found: Vec<i64> =
                    found.iter().filter(|text| !text.is_empty()).map(|text| number(text)).collect();
                found[0] * found[1] + found[2]
            }
            None => {
                let found = all(r"has (\d+)|有(\d+)个", text);
                number(&found[0].concat())
            }
        };
        for found in all(
            r"(gets|finds|得到|找到) ?(\d+)|(?:(gives|送出去|丢了) ?(\d+))|Then (\d+) (get lost)",
            text,
        ) {
            let amount = number(&[&*found[1], &*found[3], &*found[4]].concat());
            value += if found[0].is_empty() { -amount } else { amount };
        }
        check(&question, |choice| number(choice) == value);
    }
}

#[test]
fn orders_of_errands() {
    for question in of(Skill::Planning, 0) {
        let text = &question.prompt;
        let mut constraints = Vec::new();
        let later_first = r#""([^"]+)" (?:must wait for|can only be done after) "([^"]+)"|“([^”]+)”要等“([^”]+)”做完"#;
        for found in all(later_first, text) {
            constraints
                .push([[&*found[1], &*found[3]].concat(), [&*found[0], &*found[2]].concat()]);
        }
        for found in all("“([^”]+)”完成了，才能“([^”]+)”", text) {
            constraints.push([found[0].clone(), found[1].clone()]);
        }
        assert!(!constraints.is_empty());
        check(&question, |choice| {
            constraints.iter().all(|[first, second]| {
                choice.find(first.as_str()).unwrap() < choice.find(second.as_str()).unwrap()
            })
        });
    }
}

#[test]
fn routes_through_doors() {
    for question in of(Skill::Planning, 1) {
        let text = &question.prompt;
        let doors: Vec<[String; 2]> =
            all(r"connects the (\w+) and the (\w+)\.|(\w+)和(\w+)之间有门", text)
                .into_iter()
                .map(|found| [[&*found[0], &*found[2]].concat(), [&*found[1], &*found[3]].concat()])
                .collect();
        let ends = all(r"from the (\w+) to the (\w+)\?|从(\w+)到(\w+)，", text);
        let [from, to] =
            [[&*ends[0][0], &*ends[0][2]].concat(), [&*ends[0][1], &*ends[0][3]].concat()];
        check(&question, |choice| {
            let rooms: Vec<&str> = choice.split(" - ").collect();
            let is_door = |step: &[&str]| {
                doors
                    .iter()
                    .any(|[a, b]| (a == step[0] && b == step[1]) || (a == step[1] && b == step[0]))
            };
            rooms.windows(2).all(is_door) && rooms[0] == from && rooms[rooms.len() - 1] == to
        });
    }
}

#[test]
fn lamps_and_buttons() {
    for question in of(Skill::Planning, 2) {
        let text = &question.prompt;
        let digits = |text: &str| -> Vec<i64> {
            all(r"(\d+)", text).iter().map(|found| number(&found[0])).collect()
        };
        let count = number(&all(r"There are (\d+) lamps|有(\d+)盏灯", text)[0].concat());
        let on = all(r"Only lamp ([\d and]+) is on|只有([\d和]+)号亮着", text);
        let on = on.first().map_or_else(Vec::new, |found| digits(&found.concat()));
        let buttons: Vec<(String, Vec<i64>)> =
            all(r"(?:Button |按钮)(\w)(?: switches lamp |切换)([\d and和]+)", text)
                .into_iter()
                .map(|found| (found[0].clone(), digits(&found[1])))
                .collect();
        assert_eq!(buttons.len(), 4);
        check(&question, |choice| {
            (1..=count).all(|lamp| {
                let pressed = buttons.iter().filter(|(label, _)| choice.contains(label.as_str()));
                let times = pressed.filter(|(_, lamps)| lamps.contains(&lamp)).count();
                on.contains(&lamp) != (times % 2 == 1)
            })
        });
    }
}

#[test]
fn things_that_are_moved() {
    for question in of(Skill::ChangedConditions, 0) {
        let text = &question.prompt;
        let asked = all(r"Where (is|was) the (\w+) (?:now|at first)", text);
        let (thing, is_now) = match asked.first() {
            Some(found) => (found[1].clone(), found[0] == "is"),
            None => {
                let found = &all(r"：(\w+?)(现在|最初)在哪里", text)[0];
                (found[0].clone(), found[1] == "现在")
            }
        };
        let first = format!(r"The {thing} is in the (\w+)\.|(?:^|。){thing}在(\w+)");
        let moved = format!(r"the {thing} (?:to|in) the (\w+)\.|把{thing}(?:搬到|放进)(\w+)");
        let places =
            [all(&first, text), if is_now { all(&moved, text) } else { Vec::new() }].concat();
        let place = places.last().unwrap().concat();
        check(&question, |choice| choice == place);
    }
}

#[test]
fn facts_of_a_text() {
    for question in [of(Skill::Recall, 0), of(Skill::Recall, 1)].concat() {
        let (text, asked) = question.prompt.split_once('\n').unwrap();
        // The sentence with the answer has what the question names, and is of the same relation.
        let relations = [["order", "点了"], ["travel", "要去"], ["coat", "外套"], ["carr", "带着"]];
        let relation = relations
            .into_iter()
            .find(|words| words.iter().any(|word| asked.contains(word)))
            .unwrap();
        let sentences: Vec<&str> = text
            .split_inclusive(['.', '。'])
            .filter(|sentence| relation.iter().any(|word| sentence.contains(word)))
            .collect();
        let key = |sentence: &str| {
            let of_sentence = all(
                r"(\w+)(?:'s| ordered| travels| carries)|(\w+?)(?:的外套|点了|要去|带着)",
                sentence,
            );
            let value =
                all(r"(?:ordered|to|is|a) (\w+)\.|(?:点了|要去|带着|外套是)(\w+?)的?。", sentence);
            [of_sentence[0].concat(), value[0].concat()]
        };
        check(&question, |choice| {
            sentences.iter().any(|sentence| {
                let [name, value] = key(sentence);
                let (name_asked, value_asked) = (asked.contains(&name), asked.contains(&value));
                (choice == value && name_asked) || (choice == name && value_asked)
            })
        });
    }
}
