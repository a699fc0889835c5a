//! Following changed conditions: something is said, then changed; what holds when?

use super::draft::{Draft, NUM_CHOICES, ask};
use super::draws::Draws;
use super::words::{ACTIONS, COLOURS, NAMES, ROOMS, THINGS};
use super::{Kind, Language};

pub(super) const KINDS: &[Kind] = &[moves, rules, renamed];

/// Things are carried from room to room; where is one now, or where was it at first?
fn moves(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let rooms: Vec<&str> =
        draws.sample(ROOMS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    let things: Vec<&str> =
        draws.sample(THINGS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    // Each room is mentioned at least once: one thing stands in each.
    let at_first: Vec<usize> = draws.sample(&[0, 1, 2, 3], NUM_CHOICES);
    let mut events: Vec<(usize, usize)> = Vec::new();
    let mut sentences: Vec<String> = things
        .iter()
        .zip(&at_first)
        .map(|(thing, &room)| {
            let room = rooms[room];
            language.say(format!("The {thing} is in the {room}."), format!("{thing}在{room}。"))
        })
        .collect();
    for _ in 0..[1, 2, 3, 4, 6][level] {
        let (thing, room) = (draws.below(NUM_CHOICES), draws.below(NUM_CHOICES));
        if location(&at_first, &events, thing) == room {
            return None;
        }
        events.push((thing, room));
        let name = language.word(draws.pick(NAMES));
        let (thing, room) = (things[thing], rooms[room]);
        sentences.push(match draws.below(2) {
            0 => language.say(
                format!("Then {name} carries the {thing} to the {room}."),
                format!("然后{name}把{thing}搬到{room}。"),
            ),
            _ => language.say(
                format!("{name} puts the {thing} in the {room}."),
                format!("接着{name}把{thing}放进{room}。"),
            ),
        });
    }
    let asked = draws.below(NUM_CHOICES);
    let thing = things[asked];
    let is_now = !draws.one_in(3);
    let question = if is_now {
        language.say(format!("Where is the {thing} now?"), format!("{thing}现在在哪里？"))
    } else {
        language.say(format!("Where was the {thing} at first?"), format!("{thing}最初在哪里？"))
    };
    let events = if is_now { events.as_slice() } else { &[] };
    let place = location(&at_first, events, asked);
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    Draft::new(
        prompt,
        rooms.iter().enumerate().map(|(room, name)| ((*name).to_owned(), room == place)),
    )
}

/// Where a thing is after some events.
fn location(at_first: &[usize], events: &[(usize, usize)], thing: usize) -> usize {
    events.iter().fold(at_first[thing], |at, &(moved, room)| if moved == thing { room } else { at })
}

/// Signals with meanings, of which some are exchanged.
fn rules(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let signals: Vec<&str> =
        draws.sample(COLOURS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    let actions: Vec<&str> =
        draws.sample(ACTIONS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    let mut meaning: Vec<usize> = vec![0, 1, 2, 3];
    let before = meaning.clone();
    let mut sentences: Vec<String> = signals
        .iter()
        .zip(&actions)
        .map(|(signal, action)| {
            language.say(
                format!("A {signal} light means \"{action}\"."),
                format!("{signal}的灯表示“{action}”。"),
            )
        })
        .collect();
    sentences.push(
        language.say("Since today this is changed.".to_owned(), "今天起规则有变。".to_owned()),
    );
    for _ in 0..[1, 1, 1, 2, 3][level] {
        let changed = draws.sample(&[0, 1, 2, 3], 2);
        meaning.swap(changed[0], changed[1]);
        let (first, second) = (signals[changed[0]], signals[changed[1]]);
        sentences.push(language.say(
            format!("The meanings of {first} and {second} are exchanged."),
            format!("{first}和{second}的意思互换。"),
        ));
    }
    let asked = draws.below(NUM_CHOICES);
    let signal = signals[asked];
    let is_now = !draws.one_in(3);
    let question = if is_now {
        language.say(
            format!("What does a {signal} light mean now?"),
            format!("{signal}的灯现在表示什么？"),
        )
    } else {
        language.say(
            format!("What did a {signal} light mean before today?"),
            format!("今天以前，{signal}的灯表示什么？"),
        )
    };
    let table = if is_now { &meaning } else { &before };
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = actions
        .iter()
        .enumerate()
        .map(|(action, name)| ((*name).to_owned(), table[asked] == action));
    Draft::new(prompt, choices)
}

/// Two names change their meaning; what is said afterwards uses the new ones.
fn renamed(language: Language, level: usize, draws: &mut Draws) -> Option<Draft> {
    let things: Vec<&str> =
        draws.sample(THINGS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    let colours: Vec<&str> =
        draws.sample(COLOURS, NUM_CHOICES).into_iter().map(|word| language.word(word)).collect();
    let mut sentences: Vec<String> = things
        .iter()
        .zip(&colours)
        .map(|(thing, colour)| {
            language.say(format!("The {thing} is {colour}."), format!("{thing}是{colour}的。"))
        })
        .collect();
    draws.shuffle(&mut sentences);
    // By name, the thing that is meant.
    let mut meant: Vec<usize> = vec![0, 1, 2, 3];
    let changed = draws.sample(&[0, 1, 2, 3], if level >= 3 { 4 } else { 2 });
    for pair in changed.chunks_exact(2) {
        meant.swap(pair[0], pair[1]);
        let (first, second) = (things[pair[0]], things[pair[1]]);
        sentences.push(language.say(
            format!(
                "From here on, \"{first}\" means the {second} and \"{second}\" means the {first}."
            ),
            format!("从现在起，“{first}”指{second}，“{second}”指{first}。"),
        ));
    }
    let asked = draws.below(NUM_CHOICES);
    let thing = things[asked];
    let question = language.say(
        format!("In the new way of speaking, what colour is the \"{thing}\"?"),
        format!("按新的叫法，“{thing}”是什么颜色的？"),
    );
    let prompt = ask(language, draws, &language.text(&sentences), &question);
    let choices = colours
        .iter()
        .enumerate()
        .map(|(thing, colour)| ((*colour).to_owned(), meant[asked] == thing));
    Draft::new(prompt, choices)
}
